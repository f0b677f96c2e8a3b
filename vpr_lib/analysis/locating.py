"""A photo of one's own -> the database photos it looks like, and where it was taken by their testimony."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import utm as utm_grid
from PIL import Image

from vpr_lib.descriptors import describe_images, prepare_for_inference
from vpr_lib.devices import choose_device, choose_dtype
from vpr_lib.file_names import parse_name
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.models import VPRModel
from vpr_lib.photos import decode
from vpr_lib.prepare.phone_photos import parse_exif
from vpr_lib.search import search_database
from vpr_lib.settings import Settings

MAX_BYTES, MAX_PIXELS = 50_000_000, 80_000_000  # far beyond a phone's photo; a larger one would fill the memory
FORMATS = ("JPEG", "PNG", "WEBP")
CLUSTER_M, SOFTNESS = 25.0, 0.05  # chosen on four rendered cities (sf_val), ConvAP and MixVPR


@dataclass(frozen=True)
class Location:
    """Where a photo was taken, as far as a database tells."""

    indices: np.ndarray  # (k,) int64, database rows, best first
    distances: np.ndarray  # (k,) float32, between descriptors
    utm: np.ndarray  # (2,) float64, metres, the estimate
    spread_m: float  # mean distance of the k photos from the estimate, the more similar ones counting more
    exif_utm: np.ndarray | None  # (2,) float64, metres, where the photo itself says it was taken
    descriptor: np.ndarray  # (D,) float32
    exif_note: str = ""  # why there is no `exif_utm`


def locate_photo(
    model: VPRModel,
    settings: Settings,
    database: ImageTable,
    descriptors: np.ndarray,
    photo: bytes,
    k: int = 10,
    machine: Machine | None = None,
) -> Location:
    """Find a photo in a database.

    Args:
        model: trained.
        settings: of its run: the size of the photos, and the precision.
        database: photos whose position is known.
        descriptors: (N, D), theirs, of `descriptors.extract`.
        photo: the file's bytes, JPEG, PNG or WebP; it is turned upright as its EXIF data say.
        k: database photos to find.
        machine: says the device.

    Returns:
        The k photos, and the position they speak for.

    Raises:
        ValueError: the bytes are no photo, or a huge one; the descriptors aren't the database's; k exceeds it.
    """
    if len(descriptors) != len(database):
        raise ValueError(f"{len(descriptors)} descriptors for a database of {len(database)} photos; extract them again")
    exif = check_photo(photo)
    try:
        image = decode(photo, settings.image_size)  # (3, H, W)
    except ValueError as error:
        raise ValueError(f"the photo {error}") from None
    device = choose_device((machine or Machine()).device)
    prepared = prepare_for_inference(model, device)
    dtype = choose_dtype(settings.precision, device)
    descriptor = describe_images(prepared, torch.from_numpy(image)[None], device, dtype)  # (1, D)
    distances, indices = (found[0] for found in search_database(descriptors, descriptor, k, str(device)))
    position, spread_m = estimate_position(database.utm[indices], distances)
    exif_utm, note = find_exif_utm(exif, database)
    return Location(indices, distances, position, spread_m, exif_utm, descriptor[0], note)


def check_photo(photo: bytes) -> Image.Exif:
    """Look at a photo's header, before anything is decoded.

    Returns:
        Its EXIF data.

    Raises:
        ValueError: it is no photo, or larger than `MAX_BYTES` or `MAX_PIXELS`.
    """
    if len(photo) > MAX_BYTES:
        raise ValueError(f"the file has {len(photo) / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read")
    too_large = f"at most {MAX_PIXELS / 1e6:.0f} million pixels are decoded"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it comes between our limit and Pillow's
            with Image.open(io.BytesIO(photo), formats=FORMATS) as opened:
                width, height = opened.size
                exif = opened.getexif() if width * height <= MAX_PIXELS else None  # which decodes a PNG
    except Image.DecompressionBombError as error:
        raise ValueError(f"the photo is huge ({error}); {too_large}") from None
    except Image.UnidentifiedImageError:
        raise ValueError("the file is no photo as JPEG, PNG or WebP; a phone's HEIC must be exported as JPEG") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the photo is not readable ({error}); copy it again") from None
    if exif is None:
        raise ValueError(f"the photo has {width} x {height} pixels; {too_large}")
    return exif


def estimate_position(positions: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, float]:
    """The position that most of the found photos speak for.

    Each photo has a weight that falls with its distance from the best one, and stands for those within `CLUSTER_M`
    of it. The estimate is the weighted mean around the photo that has most weight about it: photos elsewhere don't
    pull it, as they would a mean of all.

    Args:
        positions: (k, 2) float64, metres.
        distances: (k,) between descriptors, least first.

    Returns:
        (2,) float64, metres; and the weighted mean distance of all k photos from there, metres.
    """
    weights = np.exp((distances[0] - distances.astype(np.float64)) / SOFTNESS)
    near = np.linalg.norm(positions[:, None] - positions[None], axis=2) <= CLUSTER_M  # (k, k)
    members = near[(near * weights).sum(1).argmax()]
    estimate = np.average(positions[members], axis=0, weights=weights[members])
    spread = np.average(np.linalg.norm(positions - estimate, axis=1), weights=weights)
    return estimate, float(spread)


def find_exif_utm(exif: Image.Exif, database: ImageTable) -> tuple[np.ndarray | None, str]:
    """Where a photo's EXIF data say it was taken, in the UTM zone of the database.

    Returns:
        (2,) float64, metres, and ""; or None and why.
    """
    try:
        position = parse_exif(exif)
    except ValueError as error:
        return None, str(error)
    zone = parse_name(database.names[0]).zone
    if not zone[:-1].isdigit():
        return None, "the names of the database's photos don't say their UTM zone"
    *_, number, letter = utm_grid.from_latlon(position.latitude, position.longitude)
    if (int(zone[:-1]) - number + 1) % 60 > 2:  # farther than the next zone, coordinates mean nothing
        return None, f"the photo was taken in UTM zone {number}{letter}, the database in {zone}"
    east, north, *_ = utm_grid.from_latlon(position.latitude, position.longitude, int(zone[:-1]), zone[-1])
    return np.array([east, north], dtype=np.float64), ""
