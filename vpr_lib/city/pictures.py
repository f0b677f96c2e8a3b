"""Random numbers that follow from seeds, colors, and small pictures to draw with: noise, clouds, trees, people."""

import colorsys
import math
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vpr_lib.city.exact_math import Generator, cosine, sine

Color = tuple[int, int, int]  # RGB, 0 to 255
PYRAMID_LEVELS = 5  # at most


def make_rng(*keys: int | str) -> Generator:
    """A generator that depends on all keys and on nothing else."""
    seeds = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return Generator(np.random.PCG64(seeds))


def hsv_color(hue: float, saturation: float, value: float) -> Color:
    """HSV, each 0 to 1 (the hue wraps around), to RGB."""
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))


@lru_cache(maxsize=4096)
def scale_color(color: Color, factor: float) -> Color:
    """A darker or lighter color."""
    return tuple(min(255, max(0, int(part * factor))) for part in color)


def tint(gray: Image.Image, box: tuple[int, int, int, int], color: Color) -> Image.Image:
    """A part of a gray picture ("L") times a color, RGB: as from `ImageChops.multiply`, but faster."""
    shades = np.arange(256)[:, None] * color // 255
    tinted = gray.crop(box)
    tinted.putpalette(shades.astype(np.uint8).tobytes())
    return tinted.convert("RGB")


def make_pyramid(picture: Image.Image) -> list[Image.Image]:
    """The picture and its halvings, down to a few pixels."""
    levels = [picture]
    while len(levels) < PYRAMID_LEVELS and min(levels[-1].size) >= 8:
        levels.append(levels[-1].reduce(2))
    return levels


def count_halvings(ratio: float) -> int:
    """How many halvings come nearest to dividing by a ratio; 0 where it is below 1."""
    mantissa, exponent = math.frexp(max(1.0, ratio))  # ratio = mantissa * 2 ** exponent, mantissa in [0.5, 1)
    return exponent - (mantissa < math.sqrt(0.5))


@lru_cache(maxsize=1)
def make_surface_noise() -> Image.Image:
    """Coarse and fine gray noise for walls and roads, 1280 x 1280 pixels, "L"; it repeats after 512."""
    rng = make_rng("grain")
    total = np.zeros((512, 512))
    for cells, weight in ((512, 10), (128, 12), (32, 12), (8, 10)):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        total += weight * np.asarray(Image.fromarray(noise).resize((512, 512), Image.Resampling.BILINEAR))
    tile = (232 + total).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.tile(tile, (3, 3))[:1280, :1280])


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


@lru_cache(maxsize=32)
def make_glow(size: int, power: int) -> Image.Image:
    """A soft disc that fades from its center, size x size pixels, "L"."""
    return _draw_glow(power).resize((size, size), Image.Resampling.BILINEAR)


@lru_cache(maxsize=4)
def _draw_glow(power: int) -> Image.Image:
    """The glow of 128 x 128 pixels."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    fade = np.maximum(0, 1 - np.sqrt(rows**2 + columns**2))
    return Image.fromarray((255 * np.prod([fade] * power, axis=0)).astype(np.uint8))


@lru_cache(maxsize=24)
def draw_tree(variant: int, season: str) -> list[Image.Image]:
    """Pyramid of a tree, RGBA, at most 240 x 320 pixels: a trunk with branches and the season's leaves."""
    rng = make_rng("tree", variant)
    picture = Image.new("RGBA", (240, 320), (60, 70, 40, 0))
    draw = ImageDraw.Draw(picture)
    bark = hsv_color(0.08, 0.35, rng.uniform(0.2, 0.38))
    draw.polygon((111, 320, 115, 140, 125, 140, 129, 320), fill=bark)
    tips = []
    for _ in range(60):
        angle, length = math.degrees(rng.normal(0, 0.75)), rng.uniform(40, 128)
        tip = 120 + length * sine(angle), 165 - length * cosine(angle)
        draw.line((120, rng.uniform(140, 205), *tip), fill=bark, width=3)
        tips.append(tip)
    if season == "winter" and variant != 0:  # variant 0 is evergreen
        return make_pyramid(picture)
    hue, saturation, value = {
        "spring": (0.24, 0.55, 0.6),
        "summer": (0.29, 0.55, 0.42),
        "autumn": (0.04 + 0.08 * rng.random(), 0.7, 0.6),
        "winter": (0.33, 0.5, 0.3),
    }[season]
    for level in np.linspace(0.55, 1.25, 7):  # dark below and inside, light above
        for tip_column, tip_row in tips:
            column, row = tip_column + rng.normal(0, 13), tip_row + rng.normal(0, 11) - 12 * level
            radius = rng.uniform(4, 12)
            color = hsv_color(hue + rng.normal(0, 0.015), saturation, value * level * rng.uniform(0.85, 1.1))
            draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=color)
    return make_pyramid(picture)


@lru_cache(maxsize=64)
def draw_person(variant: int) -> list[Image.Image]:
    """Pyramid of a person, RGBA, at most 80 x 200 pixels."""
    rng = make_rng("person", variant)
    coat, legs = (hsv_color(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.15, 0.8)) for _ in range(2))
    skin = hsv_color(0.07, rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.9))
    hair = hsv_color(0.08, 0.5, rng.uniform(0.05, 0.5))
    picture = Image.new("RGBA", (80, 200), (*coat, 0))
    draw = ImageDraw.Draw(picture)
    step = rng.uniform(4, 14)
    trousers = ((28, 104), (52, 104), (48 + step, 196), (38 + step, 196), (40, 124), (38 - step, 196), (28 - step, 196))
    draw.polygon(trousers, fill=legs)
    draw.rounded_rectangle((20, 38, 60, 116), 12, fill=coat)
    draw.line((22, 48, 16 - step / 2, 104), fill=coat, width=10)
    draw.line((58, 48, 64 + step / 2, 104), fill=coat, width=10)
    draw.ellipse((28, 6, 52, 36), fill=skin)
    draw.pieslice((26, 2, 54, 34), 180, 360, fill=hair)
    if rng.random() < 0.4:  # a bag
        draw.rectangle((58, 96, 76, 124), fill=hsv_color(rng.random(), 0.6, 0.5))
    return make_pyramid(picture)


@lru_cache(maxsize=8)
def draw_rain(variant: int) -> Image.Image:
    """Streaks of rain, 320 x 320 pixels, "L"."""
    rng = make_rng("rain", variant)
    picture = Image.new("L", (320, 320))
    draw = ImageDraw.Draw(picture)
    for column, row, length in rng.uniform((0, -20, 8), (320, 320, 26), (130, 3)):
        draw.line((column, row, column - length / 6, row + length), fill=int(rng.uniform(40, 110)))
    return picture.filter(ImageFilter.GaussianBlur(0.6))
