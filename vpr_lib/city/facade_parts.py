"""A house front drawn flat: its colors, its bare wall and its roof; `windows_and_shops` draws the rest."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from vpr_lib.city.buildings import STYLES, Building
from vpr_lib.city.textures import Color, hsv_color, make_surface_noise, scale_color

SCALE = 16  # pixels a metre

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Paint:
    """Colors of a house."""

    wall: Color
    trim: Color
    glass: Color
    roof: Color


@dataclass(frozen=True, eq=False)
class Front:
    """A house front being drawn."""

    building: Building
    paint: Paint
    picture: Image.Image  # RGB, drawn on
    eaves: int  # row where the roof begins
    panes: list[Box] = field(default_factory=list)  # boxes of the windows drawn so far
    signs: list[Box] = field(default_factory=list)  # boxes of the shop signs drawn so far

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        """For drawing on the picture."""
        return ImageDraw.Draw(self.picture)

    @property
    def floor_height(self) -> float:
        """Pixels from one floor to the next."""
        return STYLES[self.building.style].floor_height * SCALE

    def floor_bases(self) -> list[float]:
        """Row of the floor of each story above the ground floor."""
        ground = self.picture.height - 0.6 * SCALE
        return [ground - level * self.floor_height for level in range(1, self.building.floors)]


def pick_paint(building: Building, rng: np.random.Generator) -> Paint:
    """Colors that suit the district and the material."""
    hue = rng.choice(STYLES[building.style].hues) + rng.normal(0, 0.015)
    saturation, value = {
        "brick": (rng.uniform(0.35, 0.65), rng.uniform(0.38, 0.68)),
        "boards": (rng.uniform(0.06, 0.36), rng.uniform(0.55, 0.95)),
        "stucco": (rng.uniform(0.04, 0.32), rng.uniform(0.6, 0.97)),
        "concrete": (rng.uniform(0.02, 0.08), rng.uniform(0.45, 0.75)),
        "stone": (rng.uniform(0.08, 0.22), rng.uniform(0.55, 0.85)),
        "glass": (rng.uniform(0.1, 0.35), rng.uniform(0.25, 0.6)),
    }[building.wall]
    wall = hsv_color(hue, saturation, value)
    trim = hsv_color(hue, 0.06, 0.93) if rng.random() < 0.65 else scale_color(wall, 0.55)
    glass = hsv_color(0.58 + rng.normal(0, 0.03), rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.42))
    roof = hsv_color(rng.choice((0.02, 0.06, 0.6)), rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.5))
    return Paint(wall, trim, glass, roof)


def draw_wall(size: tuple[int, int], building: Building, paint: Paint, rng: np.random.Generator) -> Image.Image:
    """A bare wall (width, height in pixels) with its material's pattern, RGB."""
    width, height = size
    picture = Image.new("RGB", size, paint.wall)
    draw = ImageDraw.Draw(picture)
    joint = scale_color(paint.wall, 0.84)
    if building.wall in ("brick", "boards"):
        for row in range(0, height, 5 if building.wall == "brick" else 4):
            draw.line((0, row, width, row), fill=joint)
    elif building.wall in ("stone", "concrete"):
        step = round(SCALE * rng.uniform(0.6, 1.4))
        for row in range(0, height, step):
            draw.line((0, row, width, row), fill=joint)
            for column in range((row // step % 2) * step, width, 2 * step):
                draw.line((column, row, column, row + step), fill=joint)
    left, top = (int(offset) for offset in rng.integers(0, 180, 2))
    return ImageChops.multiply(picture, make_surface_noise().crop((left, top, left + width, top + height)))


def draw_roof(front: Front, rng: np.random.Generator) -> Image.Image | None:
    """What stands above the eaves, and their molding.

    Returns:
        "L", 255 where the house or its roof is; None where they fill the picture.
    """
    draw, paint, width, eaves = front.draw, front.paint, front.picture.width, front.eaves
    roof = front.building.roof
    draw.rectangle((0, eaves, width, eaves + 5), fill=paint.trim)
    if roof in ("flat", "cornice"):
        draw.rectangle((0, 0, width, eaves), fill=scale_color(paint.wall, 0.92))
        draw.rectangle((0, 0, width, 3), fill=paint.trim)
        if roof == "cornice":
            for x in range(0, width, 10):
                draw.rectangle((x, eaves - 5, x + 4, eaves), fill=scale_color(paint.trim, 0.75))
        return None
    mask = Image.new("L", front.picture.size, 255)
    draw_mask = ImageDraw.Draw(mask)
    draw_mask.rectangle((0, 0, width, eaves - 1), fill=0)
    if roof == "gable":
        middle = width // 2
        outline = (0, eaves, middle, 0, width, eaves)
        draw.polygon(outline, fill=paint.wall)
        draw.line((0, eaves, middle, 1, width, eaves), fill=paint.roof, width=7)
        draw.ellipse((middle - 8, eaves // 2, middle + 8, eaves // 2 + 16), fill=paint.glass, outline=paint.trim)
    elif roof == "stepped":
        steps = [(i * width // 9, eaves * (4 - i) // 4, eaves * (3 - i) // 4) for i in range(4)]
        left = [point for x, low, high in steps for point in (x, low, x, high)]
        right = [point for x, low, high in reversed(steps) for point in (width - x, high, width - x, low)]
        outline = (*left, *right)
    else:
        outline = _draw_sloping_roof(front)
    draw_mask.polygon(outline, fill=255)
    if rng.random() < 0.6:  # a chimney
        x = int(rng.uniform(0.15, 0.8) * width)
        draw.rectangle((x, 0, x + 12, eaves), fill=scale_color(paint.roof, 0.8))
        draw_mask.rectangle((x, 0, x + 12, eaves), fill=255)
    return mask


def _draw_sloping_roof(front: Front) -> tuple[int, ...]:
    """A hip or mansard roof; its outline."""
    draw, paint, width, eaves = front.draw, front.paint, front.picture.width, front.eaves
    mansard = front.building.roof == "mansard"
    inset = width // 12 if mansard else width // 3
    outline = (0, eaves, inset, 0, width - inset, 0, width, eaves)
    draw.polygon(outline, fill=paint.roof)
    for row in range(3, eaves, 6):
        draw.line((0, row, width, row), fill=scale_color(paint.roof, 0.85))
    if mansard:
        for x in range(width // 6, width - 10, max(28, width // 4)):
            draw.rectangle((x - 8, eaves // 3, x + 8, eaves - 3), fill=paint.trim)
            draw.rectangle((x - 5, eaves // 3 + 3, x + 5, eaves - 5), fill=paint.glass)
    return outline
