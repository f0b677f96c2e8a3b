"""Small pictures that are scaled and pasted: trees, people, clouds, the glow of a lamp."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vpr_lib.city.facades import make_levels
from vpr_lib.city.fronts import mix
from vpr_lib.city.scene import make_rng


@lru_cache(maxsize=24)
def draw_tree(variant: int, season: str) -> list[Image.Image]:
    """A tree, 240 x 320 pixels and its halvings, RGBA: a trunk with branches, and what the season leaves on them."""
    rng = make_rng("tree", variant)
    picture = Image.new("RGBA", (240, 320), (60, 70, 40, 0))
    draw = ImageDraw.Draw(picture)
    bark = mix(0.08, 0.35, rng.uniform(0.2, 0.38))
    draw.polygon((111, 320, 115, 140, 125, 140, 129, 320), fill=bark)
    tips = []
    for _ in range(60):
        angle, length = rng.normal(0, 0.75), rng.uniform(40, 128)
        tip = 120 + length * math.sin(angle), 165 - length * math.cos(angle)
        draw.line((120, rng.uniform(140, 205), *tip), fill=bark, width=3)
        tips.append(tip)
    if season == "winter" and variant != 0:  # variant 0 is evergreen
        return make_levels(picture)
    hue, saturation, value = {
        "spring": (0.24, 0.55, 0.6),
        "summer": (0.29, 0.55, 0.42),
        "autumn": (0.04 + 0.08 * rng.random(), 0.7, 0.6),
        "winter": (0.33, 0.5, 0.3),
    }[season]
    for level in np.linspace(0.55, 1.25, 7):  # dark below and inside, light above
        for x, y in tips:
            x, y = x + rng.normal(0, 13), y + rng.normal(0, 11) - 12 * level
            radius = rng.uniform(4, 12)
            colour = mix(hue + rng.normal(0, 0.015), saturation, value * level * rng.uniform(0.85, 1.1))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return make_levels(picture)


@lru_cache(maxsize=64)
def draw_person(variant: int) -> list[Image.Image]:
    """A person, 80 x 200 pixels and its halvings, RGBA."""
    rng = make_rng("person", variant)
    coat, legs = (mix(rng.random(), rng.uniform(0.1, 0.7), rng.uniform(0.15, 0.8)) for _ in range(2))
    skin = mix(0.07, rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.9))
    hair = mix(0.08, 0.5, rng.uniform(0.05, 0.5))
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
    if rng.random() < 0.4:
        draw.rectangle((58, 96, 76, 124), fill=mix(rng.random(), 0.6, 0.5))
    return make_levels(picture)


@lru_cache(maxsize=8)
def make_clouds(variant: int) -> Image.Image:
    """Cloud density, 512 x 128 pixels, "L", seamless from left to right: all headings, horizon at the bottom."""
    rng = make_rng("clouds", variant)
    total = np.zeros((128, 512))
    for cells, weight in ((4, 1.0), (8, 0.7), (16, 0.45), (32, 0.28), (64, 0.16), (128, 0.1)):
        noise = rng.normal(0, 1, (cells, 2 * cells)).astype(np.float32)
        wide = Image.fromarray(np.concatenate([noise, noise, noise], axis=1))
        smooth = wide.resize((1536, 128), Image.Resampling.BICUBIC).crop((512, 0, 1024, 128))
        total += weight * np.asarray(smooth)
    return Image.fromarray((128 + 60 * total).clip(0, 255).astype(np.uint8))


@lru_cache(maxsize=4)
def draw_glow(power: int = 2) -> Image.Image:
    """A soft disc that fades from its middle, 128 x 128 pixels, "L"."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    return Image.fromarray((255 * np.maximum(0, 1 - np.hypot(rows, columns)) ** power).astype(np.uint8))


@lru_cache(maxsize=8)
def draw_rain(variant: int) -> Image.Image:
    """Streaks of rain, 320 x 320 pixels, "L"."""
    rng = make_rng("rain", variant)
    picture = Image.new("L", (320, 320))
    draw = ImageDraw.Draw(picture)
    for x, y, length in rng.uniform((0, -20, 8), (320, 320, 26), (130, 3)):
        draw.line((x, y, x - length / 6, y + length), fill=int(rng.uniform(40, 110)))
    return picture.filter(ImageFilter.GaussianBlur(0.6))
