"""Pictures of house faces, cached, as pyramids for houses at different distances; and what shines after dark."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vpr_lib.city.buildings import FACES, STYLES, Building
from vpr_lib.city.facade_parts import SCALE, Front, draw_roof, draw_wall, pick_paint
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.textures import hsv_color, make_pyramid
from vpr_lib.city.windows_and_shops import draw_ground_floor, draw_windows

BLANK_SCALE = 4  # pixels a metre of walls without windows
COARSE_LEVEL = 2  # houses drawn at this level or a smaller one are cached without the larger pictures


@dataclass(frozen=True, eq=False)
class Facade:
    """Pictures of one face of a house."""

    levels: list[Image.Image | None]  # RGB pyramid; None for levels that a coarse facade leaves out
    masks: list[Image.Image | None]  # "L", 0 where there is nothing; None where the wall fills its rectangle
    top: float  # metres from the ground to the picture's upper edge
    panes: np.ndarray  # (N, 4) boxes in the largest picture: windows that can be lit
    signs: np.ndarray  # (M, 4) boxes of shop signs


@lru_cache(maxsize=8192)
def number_shop(building: Building, face: int, year: int) -> int:
    """Number of the shop on a face that year; a new one comes every 4 to 14 years. -1 where there is none."""
    if FACES[face] not in building.street_faces:
        return -1
    rng = make_rng("tenant", building.seed, face)
    if rng.random() >= STYLES[building.style].shops:
        return -1
    changes = 1998 + rng.integers(0, 8) + np.cumsum(rng.integers(4, 15, 8))
    return int((changes <= year).sum())


def get_facade(building: Building, face: int, shop: int, level: int) -> Facade:
    """One face of a house, cached.

    Args:
        building: the house.
        face: index into `FACES`; one that stands on no street is a blank wall.
        shop: see `number_shop`.
        level: of the largest picture that will be used; from `COARSE_LEVEL` on, larger ones are not kept.
    """
    return _get_coarse_facade(building, face, shop) if level >= COARSE_LEVEL else _get_fine_facade(building, face, shop)


@lru_cache(maxsize=160)
def _get_fine_facade(building: Building, face: int, shop: int) -> Facade:
    return draw_facade(building, face, shop)


@lru_cache(maxsize=2500)
def _get_coarse_facade(building: Building, face: int, shop: int) -> Facade:
    fine = draw_facade(building, face, shop)
    dropped = min(COARSE_LEVEL, len(fine.levels) - 1)
    levels, masks = ([None] * dropped + pictures[dropped:] for pictures in (fine.levels, fine.masks))
    return replace(fine, levels=levels, masks=masks)


def draw_facade(building: Building, face: int, shop: int) -> Facade:
    """Draw one face of a house; see `get_facade`."""
    width = building.x1 - building.x0 if FACES[face] in ("south", "north") else building.y1 - building.y0
    rng = make_rng("look", building.look)
    paint = pick_paint(building, rng)
    if FACES[face] not in building.street_faces:
        size = _measure_picture(width, building.height, BLANK_SCALE)
        picture = draw_wall(size, building, paint, rng)
        return Facade([picture], [None], building.height, np.empty((0, 4), int), np.empty((0, 4), int))
    top = building.height + building.roof_height
    picture = draw_wall(_measure_picture(width, top, SCALE), building, paint, rng)
    front = Front(building, paint, picture, eaves=round(building.roof_height * SCALE))
    draw_windows(front, rng, face)
    draw_ground_floor(front, make_rng("own", building.seed, face), shop)
    mask = draw_roof(front, rng)
    levels = make_pyramid(picture)
    masks = [None] * len(levels) if mask is None else make_pyramid(mask)
    panes, signs = (np.array(boxes, int).reshape(-1, 4) for boxes in (front.panes, front.signs))
    return Facade(levels, masks, top, panes, signs)


def _measure_picture(width_m: float, height_m: float, scale: int) -> tuple[int, int]:
    return max(8, round(width_m * scale)), max(8, round(height_m * scale))


@lru_cache(maxsize=600)
def draw_night_lights(
    building: Building, face: int, shop: int, evening: int, level: int
) -> tuple[Image.Image, Image.Image]:
    """What shines from a face after dark: RGB, and its strength ("L"); `evening` chooses which windows are lit."""
    facade = get_facade(building, face, shop, level)
    rng = make_rng("lit", building.seed, face, evening)
    size, shrink = facade.levels[level].size, 2**level
    light, strength = Image.new("RGB", size), Image.new("L", size)
    draw, draw_strength = ImageDraw.Draw(light), ImageDraw.Draw(strength)
    for box in facade.panes[rng.random(len(facade.panes)) < rng.uniform(0.15, 0.6)] // shrink:
        warm = rng.uniform(0.0, 1.0)
        draw.rectangle(box.tolist(), fill=(255, int(190 + 50 * warm), int(95 + 125 * warm)))
        draw_strength.rectangle(box.tolist(), fill=int(rng.uniform(120, 255)))
    sign_color = hsv_color(rng.random(), 0.5, 1.0)
    for box in facade.signs // shrink:
        draw.rectangle(box.tolist(), fill=sign_color)
        draw_strength.rectangle(box.tolist(), fill=130)
    return light, strength
