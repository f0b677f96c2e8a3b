"""Locating: the database photos most similar to a single photo, and the position they indicate."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vpr_lib.analysis.confidence import spread_confidence
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
CLUSTER_M = 25.0  # photos within this distance support one position
SOFTNESS = 0.05  # chosen, as CLUSTER_M, on sf_val of four rendered cities with ConvAP and MixVPR


@dataclass(frozen=True)
class Location:
    """Estimated position of a photo."""

    indices: np.ndarray  # (k,) int64, database rows, best first
    distances: np.ndarray  # (k,) float32, between descriptors
    utm: np.ndarray  # (2,) float64, meters, estimated position
    spread_m: float  # how far apart the first ten photos lie, see `spread_confidence`
    exif_utm: np.ndarray | None  # (2,) float64, meters, position in the photo's EXIF data
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
        settings: of the model's run; image size and precision are used.
        descriptors: (N, D), of the database, from `extract_descriptors`.
        photo: content of a JPEG, PNG or WebP file; rotated as its EXIF data say.
        k: number of database photos to return.
        machine: selects the device.

    Raises:
        ValueError: the bytes are not a photo, or a very large one; descriptors and database differ; or k is too large.
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
    (distances,), (indices,) = search_database(descriptors, descriptor, k, str(device))  # (k,) each
    position = _estimate_position(database.utm[indices], distances)
    spread_m = -float(spread_confidence(distances[None], database.utm[indices][None])[0])
    exif_utm, exif_note = None, ""
    try:
        exif_utm = np.array(project_to_zone(parse_exif(exif), parse_name(database.names[0]).zone), dtype=np.float64)
    except ValueError as error:
        exif_note = str(error)
    return Location(indices, distances, position, spread_m, exif_utm, descriptor[0], exif_note)


def _read_exif(photo: bytes) -> Image.Exif:
    """EXIF data of a photo; format and size are checked before pixels are decoded."""
    if len(photo) > MAX_BYTES:
        raise ValueError(f"the file has {len(photo) / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read")
    expected = f"JPEG, PNG or WebP of at most {MAX_PIXELS / 1e6:.0f} million pixels"
    with warnings.catch_warnings():
        # Pillow warns from a smaller number of pixels on than is allowed here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with open_photo(photo) as opened:
                width, height = opened.size
                if width * height <= MAX_PIXELS:
                    return opened.getexif()  # decodes the pixels of a PNG
        except ValueError:
            raise ValueError(f"not readable as {expected}; copy it again, or export a HEIC photo as JPEG") from None
    raise ValueError(f"the photo has {width} x {height} pixels; export it as {expected}")


def _estimate_position(positions: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Weighted mean of the best supported cluster of positions.

    The weight of a photo falls with the distance of its descriptor from the best one. The cluster is the photos within
    `CLUSTER_M` of the photo whose neighborhood has the largest sum of weights; photos elsewhere have no influence.
    """
    weights = np.exp((distances[0] - distances.astype(np.float64)) / SOFTNESS)
    near = np.linalg.norm(positions[:, None] - positions[None], axis=2) <= CLUSTER_M  # (k, k)
    members = near[(near * weights).sum(1).argmax()]
    return np.average(positions[members], axis=0, weights=weights[members])
