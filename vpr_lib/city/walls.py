"""The walls of the houses: which of them a camera sees, their pictures (cached), and drawing them in perspective.

A wall stands upright and the camera is level, so along a column of the photo a wall has one depth, and 1 / depth
changes linearly from column to column. Visibility and drawing rely on that.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vpr_lib.city.canvas import NEAR_M, Camera, Canvas
from vpr_lib.city.house_fronts import SCALE, Front, draw_ground_floor, draw_roof, draw_wall, draw_windows, pick_paint
from vpr_lib.city.layout import FACES, STYLES, Building, City
from vpr_lib.city.pictures import PYRAMID_LEVELS, count_halvings, hsv_color, make_pyramid, make_rng

REACH_M = 260.0  # houses farther away are not drawn
BLANK_SCALE = 4  # pixels a meter of walls without windows
COARSE_LEVEL = 2  # houses drawn at this level or a smaller one are cached without the larger pictures


@dataclass(frozen=True, eq=False)
class Facade:
    """Pictures of one face of a house."""

    levels: list[Image.Image | None]  # RGB pyramid; None for levels that a coarse facade leaves out
    masks: list[Image.Image | None]  # "L", 0 where there is nothing; None where the wall fills its rectangle
    top: float  # meters from the ground to the picture's upper edge
    panes: np.ndarray  # (N, 4) boxes in the largest picture: windows that can be lit
    signs: np.ndarray  # (M, 4) boxes of shop signs


@lru_cache(maxsize=8192)
def _list_openings(building: Building, face: int) -> list[int]:
    """Years in which another shop opens on a face: every 4 to 14. [] where there is none."""
    rng = make_rng("tenant", building.seed, face)
    if FACES[face] not in building.street_faces or rng.random() >= STYLES[building.style].shops:
        return []
    return (1998 + rng.integers(0, 8) + np.cumsum(rng.integers(4, 15, 8))).tolist()


def _number_shop(building: Building, face: int, year: int) -> int:
    """Number of the shop on a face that year; -1 where there is none."""
    openings = _list_openings(building, face)
    return bisect_right(openings, year) if openings else -1


def draw_facade(building: Building, face: int, shop: int) -> Facade:
    """Draw one face of a house (an index into `FACES`, see `_number_shop`); away from streets it is a blank wall."""
    width = building.x1 - building.x0 if FACES[face] in ("south", "north") else building.y1 - building.y0
    rng = make_rng("look", building.look)
    paint = pick_paint(building, rng)
    is_blank = FACES[face] not in building.street_faces
    top, scale = (building.height, BLANK_SCALE) if is_blank else (building.height + building.roof_height, SCALE)
    picture = draw_wall((max(8, round(width * scale)), max(8, round(top * scale))), building, paint, rng)
    if is_blank:
        return Facade([picture], [None], top, np.empty((0, 4), int), np.empty((0, 4), int))
    front = Front(building, paint, picture)
    draw_windows(front, rng, face)
    draw_ground_floor(front, make_rng("own", building.seed, face), shop)
    mask = draw_roof(front, rng)
    levels = make_pyramid(picture)
    masks = make_pyramid(mask) if mask else [None] * len(levels)
    panes, signs = (np.array(boxes, int).reshape(-1, 4) for boxes in (front.panes, front.signs))
    return Facade(levels, masks, top, panes, signs)


_get_fine_facade = lru_cache(maxsize=300)(draw_facade)  # about 80 MB


@lru_cache(maxsize=2500)
def _get_coarse_facade(building: Building, face: int, shop: int) -> Facade:
    """The fine facade, which is often needed for other photos soon, without its larger pictures."""
    fine = _get_fine_facade(building, face, shop)
    dropped = min(COARSE_LEVEL, len(fine.levels) - 1)
    levels, masks = ([None] * dropped + pictures[dropped:] for pictures in (fine.levels, fine.masks))
    return replace(fine, levels=levels, masks=masks)


def get_facade(building: Building, face: int, shop: int, level: int) -> Facade:
    """A cached facade; from `level` `COARSE_LEVEL` on, without the larger pictures."""
    return _get_coarse_facade(building, face, shop) if level >= COARSE_LEVEL else _get_fine_facade(building, face, shop)


@lru_cache(maxsize=600)
def _draw_night_lights(building: Building, face: int, shop: int, evening: int, level: int) -> Image.Image:
    """Lit windows and signs of a face at night, RGBA; `evening` chooses which windows are lit."""
    facade = get_facade(building, face, shop, level)
    rng = make_rng("lit", building.seed, face, evening)
    light, shrink = Image.new("RGBA", facade.levels[level].size), 2**level
    draw = ImageDraw.Draw(light)
    for box in facade.panes[rng.random(len(facade.panes)) < rng.uniform(0.15, 0.6)] // shrink:
        warm, strength = rng.uniform(0.0, 1.0), int(rng.uniform(120, 255))
        draw.rectangle(box.tolist(), fill=(255, int(190 + 50 * warm), int(95 + 125 * warm), strength))
    sign_color = hsv_color(rng.random(), 0.5, 1.0)
    for box in facade.signs // shrink:
        draw.rectangle(box.tolist(), fill=(*sign_color, 130))
    return light


@dataclass(frozen=True, eq=False)
class VisibleWalls:
    """What a camera sees of the walls; one row for each, the nearest first."""

    index: np.ndarray  # (V,) rows of `City.walls`
    columns: np.ndarray  # (V, 2) left and right column in the photo, not cut at its edges
    inverse_depth: np.ndarray  # (V, 2) 1 / meters ahead of the camera, at these columns
    share: np.ndarray  # (V, 2) where on the wall, 0 (left foot) to 1, these columns are
    nearest: np.ndarray  # (S,) largest inverse depth at each column of the photo, 0 where no wall is


def find_visible_walls(city: City, camera: Camera) -> VisibleWalls:
    """The walls that face the camera and are not hidden behind others."""
    feet = camera.to_view(city.walls.reshape(-1, 2, 2))  # (W, 2, 2): left and right foot; right, ahead
    left, right = feet[:, 0], feet[:, 1]
    near = (np.maximum(left[:, 1], right[:, 1]) > NEAR_M) & (np.minimum(left[:, 1], right[:, 1]) < REACH_M)
    facing = left[:, 0] * right[:, 1] < right[:, 0] * left[:, 1]  # seen from outside, left is left
    index = np.flatnonzero(near & facing)
    left, right = left[index], right[index]
    step = right - left
    with np.errstate(divide="ignore", invalid="ignore"):
        at_near = np.where(np.abs(step[:, 1]) > 1e-9, (NEAR_M - left[:, 1]) / step[:, 1], 0.0)
    share = np.stack([np.where(left[:, 1] < NEAR_M, at_near, 0.0), np.where(right[:, 1] < NEAR_M, at_near, 1.0)], 1)
    ends = left[:, None] + share[..., None] * step[:, None]  # (V, 2, 2)
    inverse = 1 / ends[..., 1]
    columns = camera.size / 2 + camera.focal * ends[..., 0] * inverse
    closest = (np.clip(-(left * step).sum(1) / (step**2).sum(1), share[:, 0], share[:, 1])[:, None] * step + left) ** 2
    keep = np.flatnonzero((columns[:, 1] > 0) & (columns[:, 0] < camera.size) & (columns[:, 1] - columns[:, 0] > 0.5))
    keep = keep[np.argsort(closest.sum(1)[keep], kind="stable")]

    middles = np.arange(0, camera.size, 2) + 1.0  # every second column is fine enough
    columns, inverse, share, index = columns[keep], inverse[keep], share[keep], index[keep]
    # A wall covers few of the columns: numbers are computed where it does.
    wall, column = np.nonzero((columns[:, :1] <= middles) & (middles <= columns[:, 1:]))
    slope = (inverse[:, 1] - inverse[:, 0]) / (columns[:, 1] - columns[:, 0])
    depth = inverse[wall, 0] + slope[wall] * (middles[column] - columns[wall, 0])
    eaves, tops = (values[index // 4] - camera.height for values in city.heights)
    before = np.full((len(index) + 1, len(middles)), -1e9)  # tangent of the angle above level up to which it is hidden
    before[wall + 1, column] = eaves[wall] * depth
    np.maximum.accumulate(before, axis=0, out=before)
    seen = np.unique(wall[tops[wall] * depth > before[wall, column]])
    nearest = np.zeros(len(middles))
    np.maximum.at(nearest, column, depth)
    nearest = nearest.repeat(2)[: camera.size]
    return VisibleWalls(index[seen], columns[seen], inverse[seen], share[seen], nearest)


def draw_walls(canvas: Canvas, visible: VisibleWalls) -> None:
    """Draw the visible walls, the farthest first."""
    city, moment = canvas.city, canvas.moment
    feet = city.walls[visible.index]
    normals = np.stack([feet[:, 3] - feet[:, 1], feet[:, 0] - feet[:, 2]], 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    lights = canvas.lighting.shade_walls(moment.sun, normals)
    for row in reversed(range(len(visible.index))):
        house, face = divmod(int(visible.index[row]), 4)
        building = city.buildings[house]
        shop = _number_shop(building, face, moment.year)
        far, near = sorted(visible.inverse_depth[row].tolist())
        pixels_per_meter = canvas.camera.focal * math.sqrt(near * math.sqrt(near * far))  # of the nearer part
        level = min(PYRAMID_LEVELS - 1, count_halvings(SCALE / pixels_per_meter))
        facade = get_facade(building, face, shop, level)
        level = min(level, len(facade.levels) - 1)
        picture = canvas.shade_picture(facade.levels[level], lights[row], 2 / (near + far))
        if moment.dark and len(facade.panes):
            light = _draw_night_lights(building, face, shop, moment.seed % 3, level)
            picture.paste(light, (0, 0), light)
        _paste_wall(canvas, picture, facade.masks[level], facade.top, visible, row)


def _paste_wall(
    canvas: Canvas, picture: Image.Image, mask: Image.Image | None, top: float, visible: VisibleWalls, row: int
) -> None:
    """Warp a flat picture of a wall, from `top` meters to the ground, into the photo.

    1 / depth and (place on the wall) / depth are linear functions of the column; the height above the ground is
    camera height - (row - horizon) / focal * depth. So the map is projective, given to Pillow as eight coefficients.
    """
    camera = canvas.camera
    left, right = visible.columns[row].tolist()
    ends, places = visible.inverse_depth[row].tolist(), (visible.share[row] * visible.inverse_depth[row]).tolist()
    horizon, focal = camera.horizon * camera.size, camera.focal
    x0, x1 = max(0, math.floor(left)), min(camera.size, math.ceil(right))
    nearest = max(ends)
    y0 = max(0, math.floor(horizon - focal * max(0.0, (top - camera.height) * nearest)))
    y1 = min(camera.size, math.ceil(horizon + focal * camera.height * nearest))
    if x1 <= x0 or y1 <= y0:
        return
    inverse_slope, place_slope = ((values[1] - values[0]) / (right - left) for values in (ends, places))
    inverse_left, place_left = ends[0] + inverse_slope * (x0 - left), places[0] + place_slope * (x0 - left)
    width, scale = picture.width, picture.height / top
    rise = (top - camera.height) * scale
    row = (rise * inverse_slope, scale / focal, rise * inverse_left + scale * (y0 - horizon) / focal)
    coefficients = (width * place_slope, 0.0, width * place_left, *row, inverse_slope, 0.0)
    size = (x1 - x0, y1 - y0)
    warp = (Image.Transform.PERSPECTIVE, [value / inverse_left for value in coefficients], Image.Resampling.NEAREST)
    if mask is not None:
        piece_mask = mask.transform(size, *warp)
    else:
        (top_left, top_right), (foot_left, foot_right) = (
            [horizon - y0 - focal * ((up - camera.height) * inverse) for inverse in ends] for up in (top, 0.0)
        )
        left, right = left - x0, right - x0
        outline = (left, top_left, right, top_right, right, foot_right, left, foot_left)
        piece_mask = Image.new("1", size)
        ImageDraw.Draw(piece_mask).polygon(outline, fill=1)
    canvas.image.paste(picture.transform(size, *warp), (x0, y0), piece_mask)
