"""Locating: the database photos most similar to a single photo, and the position they indicate."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vpr_lib.descriptors import extract_from_images, prepare_for_inference
from vpr_lib.devices import choose_device, choose_dtype
from vpr_lib.file_names import parse_name
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.models import VPRModel
from vpr_lib.photos import decode, open_photo
from vpr_lib.prepare.phone_photos import parse_exif, project_to_zone
from vpr_lib.search import search_database
from vpr_lib.settings import Settings

MAX_BYTES = 50_000_000  # far more than a phone's photo
MAX_PIXELS = 80_000_000
FORMATS = ("JPEG", "MPO", "PNG", "WEBP")  # MPO: a JPEG with several pictures, as some phones write
CLUSTER_M = 25.0  # photos within this distance support one position
SOFTNESS = 0.05  # chosen, as CLUSTER_M, on sf_val of four rendered cities with ConvAP and MixVPR


@dataclass(frozen=True)
class Location:
    """Estimated position of a photo."""

    indices: np.ndarray  # (k,) int64, database rows, best first
    distances: np.ndarray  # (k,) float32, between descriptors
    utm: np.ndarray  # (2,) float64, metres, estimated position
    spread_m: float  # weighted mean distance of the k photos from the estimate
    exif_utm: np.ndarray | None  # (2,) float64, metres, position in the photo's EXIF data
    descriptor: np.ndarray  # (D,) float32
    exif_note: str = ""  # why `exif_utm` is None


def locate_photo(
    model: VPRModel,
    settings: Settings,
    database: ImageTable,
    descriptors: np.ndarray,
    photo: bytes,
    k: int = 10,
    machine: Machine | None = None,
) -> Location:
    """Search a photo in a database and estimate its position.

    Args:
        model: trained model.
        settings: settings of its run; image size and precision are used.
        database: photos with known positions.
        descriptors: (N, D), descriptors of the database from `descriptors.extract_descriptors`.
        photo: content of a JPEG, PNG or WebP file; rotated as its EXIF data say.
        k: number of database photos to return.
        machine: selects the device.

    Raises:
        ValueError: the bytes are not a photo, or a very large one; the number of descriptors differs from the
            database's; or k exceeds it.
    """
    if len(descriptors) != len(database):
        raise ValueError(f"{len(descriptors)} descriptors for a database of {len(database)} photos; extract them again")
    exif = _read_exif(photo)
    try:
        image = decode(photo, settings.image_size)  # (3, H, W)
    except ValueError as error:
        raise ValueError(f"the photo {error}") from None
    device = choose_device((machine or Machine()).device)
    prepared = prepare_for_inference(model, device)
    dtype = choose_dtype(settings.precision, device)
    descriptor = extract_from_images(prepared, torch.from_numpy(image)[None], device, dtype)  # (1, D)
    all_distances, all_indices = search_database(descriptors, descriptor, k, str(device))  # (1, k) each
    distances, indices = all_distances[0], all_indices[0]
    position, spread_m = _estimate_position(database.utm[indices], distances)
    exif_utm, exif_note = _find_exif_utm(exif, database)
    return Location(indices, distances, position, spread_m, exif_utm, descriptor[0], exif_note)


def _read_exif(photo: bytes) -> Image.Exif:
    """EXIF data of a photo; format and size are checked before pixels are decoded."""
    if len(photo) > MAX_BYTES:
        raise ValueError(f"the file has {len(photo) / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read")
    limit = f"at most {MAX_PIXELS / 1e6:.0f} million pixels are decoded"
    with warnings.catch_warnings():
        # Pillow warns from a smaller number of pixels on than is allowed here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with open_photo(photo) as opened:
                width, height = opened.size
                accepted = opened.format in FORMATS and width * height <= MAX_PIXELS
                exif = opened.getexif() if accepted else None  # decodes the pixels of a PNG
                file_format = opened.format
        except ValueError:
            raise ValueError(
                f"the file is not readable as JPEG, PNG or WebP, or it is too large ({limit}); "
                "copy it again, or export a HEIC photo as JPEG"
            ) from None
    if file_format not in FORMATS:
        raise ValueError(f"the file is a {file_format}; expected JPEG, PNG or WebP, export it as one of them")
    if exif is None:
        raise ValueError(f"the photo has {width} x {height} pixels; {limit}")
    return exif


def _estimate_position(positions: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Weighted mean of the best supported cluster of positions.

    The weight of a photo falls with the distance of its descriptor from the best one. The cluster is the photos within
    `CLUSTER_M` of the photo whose neighborhood has the largest sum of weights; photos elsewhere have no influence.

    Args:
        positions: (k, 2) float64, metres.
        distances: (k,) between descriptors, ascending.

    Returns:
        (2,) float64, metres, the estimate; and the weighted mean distance of all k photos from it, metres.
    """
    weights = np.exp((distances[0] - distances.astype(np.float64)) / SOFTNESS)
    near = np.linalg.norm(positions[:, None] - positions[None], axis=2) <= CLUSTER_M  # (k, k)
    members = near[(near * weights).sum(1).argmax()]
    estimate = np.average(positions[members], axis=0, weights=weights[members])
    spread = np.average(np.linalg.norm(positions - estimate, axis=1), weights=weights)
    return estimate, float(spread)


def _find_exif_utm(exif: Image.Exif, database: ImageTable) -> tuple[np.ndarray | None, str]:
    """Position in a photo's EXIF data, (2,) float64 in the UTM zone of the database, and ""; or None and the reason."""
    try:
        east_north = project_to_zone(parse_exif(exif), parse_name(database.names[0]).zone)
    except ValueError as error:
        return None, str(error)
    return np.array(east_north, dtype=np.float64), ""
