"""RandAugment's operations on a CPU, one photo at a time: (H, W, 3) uint8 in, the same out.

Most of them change each value by itself and are a table of 256 values. `augment` has the same for batches on a GPU.
"""

import cv2
import numpy as np

LEVELS = np.arange(256)
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13  # Pillow's filter of that name


def warp_photo(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear warp; what comes from outside is black.

    Args:
        photo: (H, W, 3) uint8.
        matrix: (2, 3), output to input position in pixels from the centre.
    """
    height, width = photo.shape[:2]
    centre = np.array([width - 1, height - 1]) / 2  # OpenCV counts from the middle of the first pixel
    shift = matrix[:, 2] + centre - matrix[:, :2] @ centre
    inverse_map = np.column_stack([matrix[:, :2], shift])
    return cv2.warpAffine(photo, inverse_map, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _look_up(photo: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value by the table's, (256,) for all channels or (256, 3)."""
    return cv2.LUT(photo, table.clip(0, 255).astype(np.uint8).reshape(1, 256, -1))


def _blend(photo: np.ndarray, other: np.ndarray, ratio: float) -> np.ndarray:
    """`ratio` of the photo and the rest of another; fractions are cut off, as Pillow does."""
    return cv2.addWeighted(photo, ratio, other, 1 - ratio, -0.5)


def _identity(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    return photo


def _brightness(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    return _look_up(photo, LEVELS * (1 + 0.9 * strength * sign))


def _colour(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    ratio = 1 + 0.9 * strength * sign
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(photo, grey, ratio)


def _contrast(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    mean = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).mean()
    return _look_up(photo, mean + (1 + 0.9 * strength * sign) * (LEVELS - mean))


def _sharpness(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    ratio = 1 + 0.9 * strength * sign
    blurred = cv2.filter2D(photo, -1, SMOOTH)
    blurred[[0, -1]], blurred[:, [0, -1]] = photo[[0, -1]], photo[:, [0, -1]]  # the border stays as it is
    return _blend(photo, blurred, ratio)


def _posterize(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    return _look_up(photo, LEVELS & (0xFF << round(4 * strength)))


def _solarize(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    return _look_up(photo, np.where(255 * (1 - strength) <= LEVELS, 255 - LEVELS, LEVELS))


def _autocontrast(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    ends = np.array([(plane.min(), plane.max()) for plane in cv2.split(photo)], dtype=float)
    low, span = ends[:, 0], np.ptp(ends, axis=1)
    return _look_up(photo, np.where(span > 0, (LEVELS[:, None] - low) * 255 / np.maximum(span, 1), LEVELS[:, None]))


def _equalize(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    tables = []
    for plane in cv2.split(photo):
        histogram = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (plane.size - histogram[plane.max()]) // 255
        before = histogram.cumsum() - histogram
        tables.append((before + step // 2) // step if step else LEVELS)
    return _look_up(photo, np.stack(tables, axis=1))


COLOURS = (
    _identity,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
