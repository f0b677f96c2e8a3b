"""RandAugment's operations on a CPU with OpenCV, one photo at a time: (H, W, 3) uint8 -> the same.

At 320 px they take 0.36 of the CPU time of torchvision's on Pillow images, bilinear as here (see docs/speed.md).
"""

from collections.abc import Callable

import cv2
import numpy as np

_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13  # Pillow's filter of that name


def warp(photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Bilinear warp by a (2, 3) map of output to input position in pixels from the center; black outside."""
    height, width = photo.shape[:2]
    center = np.array([width - 1, height - 1]) / 2  # OpenCV counts from the middle of the first pixel
    inverse_map = np.column_stack([matrix[:, :2], matrix[:, 2] + center - matrix[:, :2] @ center])
    return cv2.warpAffine(photo, inverse_map, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _look_up(photo: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value by the table's, (256,) for all channels or (256, 3)."""
    return cv2.LUT(photo, table.clip(0, 255).astype(np.uint8).reshape(1, 256, -1))


def _blend(photo: np.ndarray, other: np.ndarray, ratio: float) -> np.ndarray:
    """`ratio` of the photo and the rest of another; fractions are cut off, as Pillow does."""
    return cv2.addWeighted(photo, ratio, other, 1 - ratio, -0.5)


def _color(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    gray = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(photo, gray, 1 + 0.9 * strength * sign)


def _contrast(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    mean = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).mean()
    return _look_up(photo, mean + (1 + 0.9 * strength * sign) * (_LEVELS - mean))


def _sharpness(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    blurred = photo.copy()  # the border stays as it is
    blurred[1:-1, 1:-1] = cv2.filter2D(photo, -1, _SMOOTH)[1:-1, 1:-1]
    return _blend(photo, blurred, 1 + 0.9 * strength * sign)


def _autocontrast(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    low, high = np.array([(plane.min(), plane.max()) for plane in cv2.split(photo)], dtype=float).T
    levels = _LEVELS[:, None]
    return _look_up(photo, np.where(high > low, (levels - low) * 255 / np.maximum(high - low, 1), levels))


def _equalize(photo: np.ndarray, sign: float, strength: float) -> np.ndarray:
    tables = []
    for plane in cv2.split(photo):
        histogram = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (plane.size - histogram[plane.max()]) // 255
        before = histogram.cumsum() - histogram
        tables.append((before + step // 2) // step if step else _LEVELS)
    return _look_up(photo, np.stack(tables, axis=1))


COLORS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "Identity": lambda photo, sign, strength: photo,
    "Brightness": lambda photo, sign, strength: _look_up(photo, _LEVELS * (1 + 0.9 * strength * sign)),
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": lambda photo, sign, strength: _look_up(photo, _LEVELS & (0xFF << round(4 * strength))),
    "Solarize": lambda photo, sign, strength: _look_up(
        photo, np.where(255 * (1 - strength) <= _LEVELS, 255 - _LEVELS, _LEVELS)
    ),
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
