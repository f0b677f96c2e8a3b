"""A house's face -> its picture with halvings for the distance, cached; what of it shines after dark."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vpr_lib.city.fronts import SCALE, draw_ground_floor, draw_roof, draw_wall, draw_windows, mix, pick_paint
from vpr_lib.city.scene import FACES, STYLES, Building, make_rng

BLANK_SCALE = 4  # pixels a metre of walls without windows
LEVELS = 5  # a picture and its halvings, for distant houses
COARSE = 2  # houses drawn at this level or a smaller one are cached without the larger pictures


@dataclass(frozen=True, eq=False)
class Facade:
    """A picture with its halvings.

    Attributes:
        levels: RGB, each half as large as the one before; None for those that a coarse facade leaves out.
        masks: "L", 0 where there is nothing, as beside a gable; None where the wall fills its rectangle.
        top: metres from the ground to the picture's upper edge.
        panes: (N, 4) pixels of the largest picture: windows that can be lit.
        signs: (M, 4) of shops.
    """

    levels: list[Image.Image | None]
    masks: list[Image.Image | None]
    top: float
    panes: np.ndarray
    signs: np.ndarray


def make_levels(picture: Image.Image) -> list[Image.Image]:
    """The picture and its halvings, down to a few pixels."""
    levels = [picture]
    while len(levels) < LEVELS and min(levels[-1].size) >= 8:
        levels.append(levels[-1].reduce(2))
    return levels


@lru_cache(maxsize=8192)
def tenant(building: Building, face: int, year: int) -> int:
    """Number of the shop on a face that year; it changes every 4 to 14 years. -1 where there is none."""
    if FACES[face] not in building.fronts:
        return -1
    rng = make_rng("tenant", building.seed, face)
    if rng.random() >= STYLES[building.style].shops:
        return -1
    changes = 1998 + rng.integers(0, 8) + np.cumsum(rng.integers(4, 15, 8))
    return int((changes <= year).sum())


def get_facade(building: Building, face: int, shop: int, level: int) -> Facade:
    """One face of a house, cached; a coarse one where only small levels are asked for.

    Args:
        building: the house.
        face: index into `FACES`; one that stands on no street is a blank wall.
        shop: see `tenant`.
        level: the smallest that will be used.
    """
    return _coarse_facade(building, face, shop) if level >= COARSE else _fine_facade(building, face, shop)


@lru_cache(maxsize=160)
def _fine_facade(building: Building, face: int, shop: int) -> Facade:
    return draw_facade(building, face, shop)


@lru_cache(maxsize=2500)
def _coarse_facade(building: Building, face: int, shop: int) -> Facade:
    fine = draw_facade(building, face, shop)
    kept = min(COARSE, len(fine.levels) - 1)
    levels, masks = ([None] * kept + pictures[kept:] for pictures in (fine.levels, fine.masks))
    return replace(fine, levels=levels, masks=masks)


def draw_facade(building: Building, face: int, shop: int) -> Facade:
    """Draw one face of a house; see `get_facade`."""
    width = building.x1 - building.x0 if FACES[face] in ("south", "north") else building.y1 - building.y0
    front = FACES[face] in building.fronts
    rise = building.roof_height if front else 0.0
    top = building.height + rise
    scale = SCALE if front else BLANK_SCALE
    size = max(8, round(width * scale)), max(8, round(top * scale))
    rng = make_rng("look", building.look)
    paint = pick_paint(building, rng)
    picture, mask = draw_wall(size, building, paint, rng), None
    panes, signs = [], []
    if front:
        draw = ImageDraw.Draw(picture)
        eaves = round(rise * SCALE)
        panes = draw_windows(draw, size, eaves, building, paint, rng, face)
        signs = draw_ground_floor(draw, size, building, paint, make_rng("own", building.seed, face), shop, panes)
        mask = draw_roof(draw, size, eaves, building, paint, rng)
    levels = make_levels(picture) if front else [picture]
    masks = [None] * len(levels) if mask is None else make_levels(mask)
    return Facade(levels, masks, top, np.array(panes).reshape(-1, 4), np.array(signs).reshape(-1, 4))


@lru_cache(maxsize=600)
def draw_lit(building: Building, face: int, shop: int, evening: int, level: int) -> tuple[Image.Image, Image.Image]:
    """What shines from a face after dark, RGB and its strength ("L"); `evening` chooses which windows are lit."""
    facade = get_facade(building, face, shop, level)
    rng = make_rng("lit", building.seed, face, evening)
    size, shrink = facade.levels[level].size, 2**level
    light, strength = Image.new("RGB", size), Image.new("L", size)
    draw, draw_strength = ImageDraw.Draw(light), ImageDraw.Draw(strength)
    for box in facade.panes[rng.random(len(facade.panes)) < rng.uniform(0.15, 0.6)] // shrink:
        warm = rng.uniform(0.0, 1.0)
        draw.rectangle(box.tolist(), fill=(255, int(190 + 50 * warm), int(95 + 125 * warm)))
        draw_strength.rectangle(box.tolist(), fill=int(rng.uniform(120, 255)))
    colour = mix(rng.random(), 0.5, 1.0)
    for box in facade.signs // shrink:
        draw.rectangle(box.tolist(), fill=colour)
        draw_strength.rectangle(box.tolist(), fill=130)
    return light, strength
