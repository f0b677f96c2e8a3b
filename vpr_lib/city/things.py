"""What stands on the streets: trees, lamps, cars, people, piers."""

import math

import numpy as np
from PIL import Image

from vpr_lib.city.camera import NEAR_M, Camera
from vpr_lib.city.frame import Frame
from vpr_lib.city.light import season_of, shade_ground
from vpr_lib.city.scene import make_rng
from vpr_lib.city.solids import Placed, Solid, make_box, make_vehicle
from vpr_lib.city.sprites import draw_person, draw_tree
from vpr_lib.city.walls import VisibleWalls, relight

NEARBY_M = 70.0  # cars and people farther away are not drawn


def draw_things(frame: Frame, visible: VisibleWalls) -> list[tuple[float, float, float]]:
    """Trees, lamps, cars, people and piers, the farthest first, hidden by the walls before them.

    Returns:
        Column, row and depth of the lamps' heads that can be seen.
    """
    camera, city = frame.camera, frame.city
    backdrop = frame.image.copy()
    shore = -city.streets[0].road - city.streets[0].walk
    piers = np.column_stack([city.piers[:, 0], np.full(len(city.piers), shore - 5)])
    rng = make_rng("cars", frame.moment.seed)
    taken = rng.random(len(city.parking)) < city.parking[:, 3]
    seeds = rng.integers(2**31, size=len(city.parking))
    walkers = place_walkers(frame)
    things = find_things(camera, visible, "pier", piers, 250, 40.0)
    things += find_things(camera, visible, "tree", city.trees, 150, 3.2)
    things += find_things(camera, visible, "lamp", city.lamps, 130, 1.7)
    things += find_things(camera, visible, "car", city.parking, NEARBY_M, 2.7, taken)
    things += find_things(camera, visible, "person", walkers, NEARBY_M, 0.5)
    lamps = []
    for depth, kind, row in sorted(things, reverse=True):
        if kind == "tree":
            x, y, height, variant = city.trees[row]
            sprite = draw_tree(int(variant), season_of(frame.moment.month))
            columns = paste_sprite(frame, sprite, (x, y), depth, height)
        elif kind == "person":
            x, y, variant, height = walkers[row]
            columns = paste_sprite(frame, draw_person(int(variant)), (x, y), depth, height)
        elif kind == "car":
            x, y, heading, _ = city.parking[row]
            model = ("sedan", "hatch", "van", "sedan", "hatch")[int(seeds[row]) % 5]
            car = make_vehicle(model, int(seeds[row]) % 64, frame.moment.dark)
            draw_shadow(frame, Placed(x, y, heading), depth)
            columns = draw_solid(frame, car, car.placed(Placed(x, y, heading)), depth)
        elif kind == "lamp":
            columns, head = draw_lamp(frame, city.lamps[row], depth)
            inside = 0 <= head[0] < camera.size
            if inside and visible.nearest[int(head[0])] * depth < 1:
                lamps.append((*head, depth))
        else:
            columns = draw_pier(frame, city.piers[row], depth)
        restore_hidden(frame, backdrop, visible, depth, columns)
    return lamps


def find_things(
    camera: Camera,
    visible: VisibleWalls,
    kind: str,
    spots: np.ndarray,
    reach: float,
    radius: float,
    there: np.ndarray | bool = True,
) -> list[tuple[float, str, int]]:
    """Depth, kind and row of the spots (N, >= 2) that are within reach, in the photo, and not behind walls.

    Args:
        camera: of the photo.
        visible: its walls.
        kind: what stands there.
        spots: metres east and north.
        reach: metres ahead.
        radius: metres, how far the things extend to the side.
        there: (N,) whether something stands there at all.
    """
    view = camera.to_view(spots)
    wide = np.abs(view[:, 0]) < view[:, 1] * math.tan(math.radians(camera.fov / 2)) + radius
    rows = np.flatnonzero((view[:, 1] > 0.8) & (view[:, 1] < reach) & wide & there)
    found = []
    scale = camera.focal / view[rows, 1]
    middle = camera.size / 2 + view[rows, 0] * scale
    lefts, rights = (middle - radius * scale).astype(int), (middle + radius * scale).astype(int) + 1
    for row, left, right in zip(rows.tolist(), lefts.tolist(), rights.tolist(), strict=True):
        depth = float(view[row, 1])
        before = visible.nearest[max(0, left) : right]
        if len(before) and before.min() * depth < 1:
            found.append((depth, kind, row))
    return found


def place_walkers(frame: Frame) -> np.ndarray:
    """(N, 4) x, y, variant, height of the people on the pavements near the camera."""
    rng = make_rng("walkers", frame.moment.seed)
    rows = []
    for street in frame.city.streets:
        along, across = (frame.camera.x, frame.camera.y) if street.horizontal else (frame.camera.y, frame.camera.x)
        if abs(across - street.centre) < NEARBY_M:
            for _ in range(rng.poisson(5 if frame.moment.light != "night" else 2)):
                side = rng.choice((-1, 1)) * (street.road + rng.uniform(0.6, street.walk - 0.3))
                at, variant, height = along + rng.uniform(-60, 60), rng.integers(48), rng.uniform(1.55, 1.9)
                if street.start < at < street.end:  # not on the water
                    rows.append([*street.point(at, side), variant, height])
    return np.array(rows).reshape(-1, 4)


def paste_sprite(
    frame: Frame, levels: list[Image.Image], spot: tuple[float, float], depth: float, height: float
) -> tuple[int, int]:
    """A picture (with its halvings) that stands upright on the ground and faces the camera; its columns."""
    camera = frame.camera
    (column, base), scale = camera.to_pixels(camera.to_view(np.array(spot)), 0.0), camera.focal / depth
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
    light = shade_ground(frame.lighting) * (1.0 if frame.lighting.glow < 1 else 1.3)
    frame.image.paste(relight(piece.convert("RGB"), light, frame.lighting, depth), (x0, y0), piece)
    return x0, x1


def draw_solid(
    frame: Frame, solid: Solid, points: np.ndarray, depth: float, two_sided: bool = False
) -> tuple[int, int]:
    """Draw the faces that are turned to the camera, in their order; the columns they cover.

    Args:
        frame: the photo.
        solid: its faces.
        points: (V, 3) their corners in the city, metres.
        depth: metres, for the haze.
        two_sided: draw faces that are turned away, too.
    """
    camera, light = frame.camera, shade_ground(frame.lighting)
    haze = 1 - math.exp(-depth / frame.lighting.haze_m)
    lights = np.maximum(light * solid.lift[:, None], solid.glow[:, None])
    fills = solid.colours * lights * (1 - haze) + 255 * haze * frame.lighting.horizon
    fills = fills.clip(0, 255).astype(int).tolist()
    polygons = np.split(points, solid.starts[1:])
    view = camera.to_view(points)
    if view[:, 1].min() > NEAR_M:
        polygons = np.split(camera.to_pixels(view, points[:, 2]), solid.starts[1:])
    else:
        polygons = [camera.project_polygon(p) for p in polygons]
    left, right = float(camera.size), 0.0
    for pixels, fill in zip(polygons, fills, strict=True):
        if pixels is None:
            continue
        corners = pixels.tolist()
        area = sum(x * corners[i - 1][1] - corners[i - 1][0] * y for i, (x, y) in enumerate(corners))
        if two_sided or area < 0:
            frame.draw.polygon([value for corner in corners for value in corner], fill=tuple(fill))
            columns = [x for x, _ in corners]
            left, right = min(left, *columns), max(right, *columns)
    return max(0, math.floor(left)), min(camera.size, math.ceil(right) + 1)


def draw_shadow(frame: Frame, at: Placed, depth: float) -> None:
    """The dark ground under a car."""
    ring = at.corners(np.array([-2.3, -2.3, 2.4, 2.4]), np.array([-1.0, 1.05, 1.05, -1.0]), np.zeros(4))
    frame.polygon(ring, frame.colour((48, 48, 50), shade_ground(frame.lighting), depth))


def draw_lamp(frame: Frame, lamp: np.ndarray, depth: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """A pole with an arm over the road; its columns, and its head's column and row."""
    x, y, heading = lamp
    arm = np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])
    fill = frame.colour((70, 74, 72), shade_ground(frame.lighting), depth)
    points = frame.camera.project(np.array([[x, y, 0], [x, y, 6.2], [*(np.array([x, y]) + 1.5 * arm), 6.5]]))
    if np.isnan(points).any():
        return (0, 0), (-1.0, -1.0)
    width = max(1, round(0.14 * frame.camera.focal / depth))
    frame.draw.line(points.clip(-4000, 4000).ravel().tolist(), fill=fill, width=width)
    hx, hy = points[2]
    size = 0.22 * frame.camera.focal / depth
    glow = (255, 236, 190) if frame.moment.dark else fill
    frame.draw.rectangle((hx - size, hy - size / 3, hx + size, hy + size / 2), fill=glow)
    columns = points[:, 0]
    return (max(0, int(columns.min() - size - 2)), min(frame.camera.size, int(columns.max() + size + 3))), (hx, hy)


def draw_pier(frame: Frame, pier: np.ndarray, depth: float) -> tuple[int, int]:
    """A wooden pier with a hut, in the water south of the first street."""
    x, length, width = pier
    shore = -frame.city.streets[0].road - frame.city.streets[0].walk
    middle = Placed(x, shore - length / 2, 180)
    wood = np.array([122.0, 104, 84])
    deck = Solid.of(make_box(middle, length, width, 0.1, 0.8, wood))
    columns = draw_solid(frame, deck, deck.points, depth)
    tint = np.array([[170.0, 80, 70], [210, 205, 190], [90, 120, 150]])[int(x) % 3]
    hut = Solid.of(make_box(Placed(x, shore - length + 6, 180), 8, width * 0.8, 0.8, 3.5 + width / 3, tint))
    other = draw_solid(frame, hut, hut.points, depth)
    return min(columns[0], other[0]), max(columns[1], other[1])


def restore_hidden(
    frame: Frame, backdrop: Image.Image, visible: VisibleWalls, depth: float, columns: tuple[int, int]
) -> None:
    """Put the walls back where they stand before a thing just drawn.

    What was drawn there before stood even farther away, so it was hidden, too.
    """
    left, right = columns
    hidden = np.flatnonzero(visible.nearest[left:right] * depth > 1.0)
    if len(hidden):
        for run in np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1):
            box = (left + int(run[0]), 0, left + int(run[-1]) + 1, frame.camera.size)
            frame.image.paste(backdrop.crop(box), box[:2])
