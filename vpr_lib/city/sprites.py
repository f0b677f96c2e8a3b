"""Trees, people and rain: small flat pictures, and pasting them upright into the photo."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vpr_lib.city.canvas import Canvas
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.textures import hsv_color, make_pyramid


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
        angle, length = rng.normal(0, 0.75), rng.uniform(40, 128)
        tip = 120 + length * math.sin(angle), 165 - length * math.cos(angle)
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


def paste_sprite(
    canvas: Canvas, levels: list[Image.Image], position: tuple[float, float], depth: float, height: float
) -> tuple[int, int]:
    """Paste a picture (RGBA pyramid) that stands upright on the ground and faces the camera.

    Its position, its `depth` ahead of the camera and its height are in metres. Returns the first and last column
    (exclusive) that it covers.
    """
    camera = canvas.camera
    scale = camera.focal / depth  # pixels a metre
    column, base = camera.to_pixels(camera.to_view(np.array(position)), 0.0)
    level = round(math.log2(max(1.0, levels[0].height / (height * scale))))
    sprite = levels[min(level, len(levels) - 1)]
    tall, wide = height * scale, height * scale * sprite.width / sprite.height
    left, top = column - wide / 2, base - tall
    x0, x1 = max(0, math.floor(left)), min(camera.size, math.ceil(left + wide))
    y0, y1 = max(0, math.floor(top)), min(camera.size, math.ceil(base))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return 0, 0
    box = np.array([x0 - left, y0 - top, x1 - left, y1 - top]) * (sprite.width / wide)
    box = box.clip(0, [sprite.width, sprite.height] * 2)
    piece = sprite.resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST, box=tuple(box))
    light = canvas.lighting.ground * (1.0 if canvas.lighting.glow < 1 else 1.3)
    canvas.image.paste(canvas.shade_picture(piece.convert("RGB"), light, depth), (x0, y0), piece)
    return x0, x1
