"""Random numbers that follow from seeds, and what everything is drawn with: colors, noise, soft light, pyramids."""

import colorsys
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image


def make_rng(*keys: int | str) -> np.random.Generator:
    """A generator that depends on all keys and on nothing else."""
    return np.random.default_rng([zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys])


Color = tuple[int, int, int]  # RGB, 0 to 255

PYRAMID_LEVELS = 5  # at most


def hsv_color(hue: float, saturation: float, value: float) -> Color:
    """HSV, each 0 to 1 (the hue wraps around), to RGB."""
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))


def scale_color(color: Color, factor: float) -> Color:
    """A darker or lighter color."""
    return tuple(min(255, max(0, int(part * factor))) for part in color)


def make_pyramid(picture: Image.Image) -> list[Image.Image]:
    """The picture and its halvings, down to a few pixels."""
    levels = [picture]
    while len(levels) < PYRAMID_LEVELS and min(levels[-1].size) >= 8:
        levels.append(levels[-1].reduce(2))
    return levels


@lru_cache(maxsize=1)
def make_surface_noise() -> Image.Image:
    """Coarse and fine gray noise for walls and roads, 1280 x 1280 pixels RGB; it repeats after 512."""
    rng = make_rng("grain")
    total = np.zeros((512, 512))
    for cells, weight in ((512, 10), (128, 12), (32, 12), (8, 10)):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(noise).resize((512, 512), Image.Resampling.BILINEAR))
    tile = (232 + total).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.tile(tile, (3, 3))[:1280, :1280]).convert("RGB")


@lru_cache(maxsize=8)
def make_clouds(variant: int) -> Image.Image:
    """Cloud density, 512 x 128 pixels, "L": all headings from left to right, seamless; the horizon at the bottom."""
    rng = make_rng("clouds", variant)
    total = np.zeros((128, 512))
    for cells, weight in ((4, 1.0), (8, 0.7), (16, 0.45), (32, 0.28), (64, 0.16), (128, 0.1)):
        noise = rng.normal(0, 1, (cells, 2 * cells)).astype(np.float32)
        wide = Image.fromarray(np.concatenate([noise, noise, noise], axis=1))
        smooth = wide.resize((1536, 128), Image.Resampling.BICUBIC).crop((512, 0, 1024, 128))
        total += weight * np.asarray(smooth)
    return Image.fromarray((128 + 60 * total).clip(0, 255).astype(np.uint8))


@lru_cache(maxsize=4)
def make_glow(power: int = 2) -> Image.Image:
    """A soft disc that fades from its center, 128 x 128 pixels, "L"."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    return Image.fromarray((255 * np.maximum(0, 1 - np.hypot(rows, columns)) ** power).astype(np.uint8))
