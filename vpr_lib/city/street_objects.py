"""What stands on the streets: trees, lamps, parked cars, people, piers; and occluders that cover part of a photo."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vpr_lib.city.canvas import NEAR_M, Camera, Canvas, Moment
from vpr_lib.city.exact_math import Generator, tangent
from vpr_lib.city.layout import City
from vpr_lib.city.meshes import Mesh, Pose, draw_mesh, make_box, make_scaffold, make_vehicle
from vpr_lib.city.pictures import draw_person, draw_tree, make_rng
from vpr_lib.city.walls import VisibleWalls, find_visible_walls

KINDS = ("truck", "bus", "crowd", "scaffold")  # of occluders
NEARBY_M = 70.0  # cars and people farther away are not drawn


def draw_street_objects(canvas: Canvas, visible: VisibleWalls) -> list[tuple[float, float, float]]:
    """Draw all objects, the farthest first, hidden by walls; column, row and depth of the lamps' visible heads."""
    camera, city, moment = canvas.camera, canvas.city, canvas.moment
    without_objects = canvas.image.copy()
    rng = make_rng("cars", moment.seed)
    is_parked = rng.random(len(city.parking)) < city.parking[:, 3]
    cars = np.c_[city.parking[:, :3], rng.integers(2**31, size=len(city.parking))][is_parked]
    people = _place_people(canvas)
    piers = np.column_stack([city.piers[:, 0], np.full(len(city.piers), city.shore - 5)])
    objects = _find_in_view(camera, visible, "pier", piers, 250, 40.0)
    objects += _find_in_view(camera, visible, "tree", city.trees, 150, 3.2)
    objects += _find_in_view(camera, visible, "lamp", city.lamps, 130, 1.7)
    objects += _find_in_view(camera, visible, "car", cars, NEARBY_M, 2.7)
    objects += _find_in_view(camera, visible, "person", people, NEARBY_M, 0.5)
    lamp_heads = []
    for depth, kind, row in sorted(objects, reverse=True):
        if kind == "tree":
            x, y, height, variant = city.trees[row]
            columns = canvas.paste_sprite(draw_tree(int(variant), moment.season), np.array([x, y]), depth, height)
        elif kind == "person":
            x, y, variant, height = people[row]
            columns = canvas.paste_sprite(draw_person(int(variant)), np.array([x, y]), depth, height)
        elif kind == "car":
            columns = _draw_car(canvas, Pose(*cars[row, :3]), int(cars[row, 3]), depth)
        elif kind == "lamp":
            columns, (head_column, head_row) = _draw_lamp(canvas, city.lamps[row], depth)
            if 0 <= head_column < camera.size and visible.nearest[int(head_column)] * depth < 1:
                lamp_heads.append((head_column, head_row, depth))
        else:
            columns = _draw_pier(canvas, city.piers[row], depth)
        _restore_walls(canvas, without_objects, visible, depth, columns)
    return lamp_heads


def _find_in_view(
    camera: Camera, visible: VisibleWalls, kind: str, positions: np.ndarray, reach_m: float, radius_m: float
) -> list[tuple[float, str, int]]:
    """Depth, kind and row of the objects at positions (N, >= 2) that are within reach, in view and not behind walls."""
    view = camera.to_view(positions)
    wide = np.abs(view[:, 0]) < view[:, 1] * tangent(camera.fov / 2) + radius_m
    rows = np.flatnonzero((view[:, 1] > 0.8) & (view[:, 1] < reach_m) & wide)
    scale = camera.focal / view[rows, 1]
    middle = camera.size / 2 + view[rows, 0] * scale
    lefts, rights = (middle - radius_m * scale).astype(int), (middle + radius_m * scale).astype(int) + 1
    spans = zip(view[rows, 1].tolist(), rows.tolist(), lefts.clip(0).tolist(), rights.tolist(), strict=True)
    return [
        (depth, kind, row)
        for depth, row, left, right in spans
        if visible.nearest[left:right].min(initial=np.inf) * depth < 1
    ]


def _place_people(canvas: Canvas) -> np.ndarray:
    """(N, 4) x, y, variant, height of the people on the sidewalks near the camera."""
    camera, moment = canvas.camera, canvas.moment
    rng = make_rng("walkers", moment.seed)
    rows = []
    for street in canvas.city.streets:
        along, across = (camera.x, camera.y) if street.horizontal else (camera.y, camera.x)
        if abs(across - street.center) < NEARBY_M:
            for _ in range(rng.poisson(2 if moment.light == "night" else 5)):
                side = rng.pick((-1, 1)) * (street.road + rng.uniform(0.6, street.walk - 0.3))
                at, variant, height = along + rng.uniform(-60, 60), rng.integers(48), rng.uniform(1.55, 1.9)
                if street.start < at < street.end:  # not on the water
                    rows.append([*street.point(at, side), variant, height])
    return np.array(rows).reshape(-1, 4)


def _draw_car(canvas: Canvas, pose: Pose, seed: int, depth: float) -> tuple[int, int]:
    """A car and its shadow; the columns it covers."""
    kind = ("sedan", "hatchback", "van", "sedan", "hatchback")[seed % 5]
    car = make_vehicle(kind, seed % 64, canvas.moment.dark)
    shadow = pose.transform([-2.3, -2.3, 2.4, 2.4], [-1.0, 1.05, 1.05, -1.0], 0.0)
    canvas.draw_polygon(shadow.tolist(), canvas.shade_color((48, 48, 50), canvas.lighting.ground, depth))
    return draw_mesh(canvas, car, car.place(pose), depth)


def _draw_lamp(canvas: Canvas, lamp: np.ndarray, depth: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """A pole with an arm over the road; the columns it covers, and column and row of its head."""
    camera = canvas.camera
    corners = Pose(*lamp).transform([0, 0, 1.5], 0.0, [0, 6.2, 6.5])
    view = camera.to_view(corners)
    if view[:, 1].min() <= NEAR_M:
        return (0, 0), (-1.0, -1.0)
    points = camera.to_pixels(view, corners[:, 2])
    fill = canvas.shade_color((70, 74, 72), canvas.lighting.ground, depth)
    width = max(1, round(0.14 * camera.focal / depth))
    canvas.draw.line(points.clip(-4000, 4000).ravel().tolist(), fill=fill, width=width)
    column, row = points[2]
    size = 0.22 * camera.focal / depth
    glow = (255, 236, 190) if canvas.moment.dark else fill
    canvas.draw.rectangle((column - size, row - size / 3, column + size, row + size / 2), fill=glow)
    left, right = int(points[:, 0].min() - size - 2), int(points[:, 0].max() + size + 3)
    return (max(0, left), min(camera.size, right)), (column, row)


def _draw_pier(canvas: Canvas, pier: np.ndarray, depth: float) -> tuple[int, int]:
    """A wooden pier with a hut, in the water; the columns it covers."""
    x, length, width = pier
    shore = canvas.city.shore
    deck = make_box(Pose(x, shore - length / 2, 180), length, width, 0.1, 0.8, np.array([122.0, 104, 84]))
    color = np.array([[170.0, 80, 70], [210, 205, 190], [90, 120, 150]])[int(x) % 3]
    hut = make_box(Pose(x, shore - length + 6, 180), 8, width * 0.8, 0.8, 3.5 + width / 3, color)
    mesh = Mesh([*deck, *hut])
    return draw_mesh(canvas, mesh, mesh.points, depth)


def _restore_walls(
    canvas: Canvas, without_objects: Image.Image, visible: VisibleWalls, depth: float, columns: tuple[int, int]
) -> None:
    """Draw again the walls in front of an object; objects drawn before are farther away, so they are hidden, too."""
    left, right = columns
    hidden = np.flatnonzero(visible.nearest[left:right] * depth > 1.0)
    if len(hidden):
        for run in np.split(hidden, np.flatnonzero(np.diff(hidden) > 1) + 1):
            box = (left + int(run[0]), 0, left + int(run[-1]) + 1, canvas.camera.size)
            canvas.image.paste(without_objects.crop(box), box[:2])


@dataclass(frozen=True)
class Occluder:
    """An object between the camera and the houses, meters ahead and to the right of the camera."""

    kind: str  # one of `KINDS`
    ahead: float
    right: float
    turn: float  # degrees from the camera's heading
    seed: int


def draw_occluder(canvas: Canvas, occluder: Occluder) -> None:
    """Draw an occluder over all that is in the photo."""
    camera = canvas.camera
    x, y = (camera.x, camera.y) + occluder.ahead * camera.forward + occluder.right * camera.right
    pose = Pose(x, y, camera.heading + occluder.turn)
    if occluder.kind == "crowd":  # 26 people, the farthest first
        rng = make_rng("crowd", occluder.seed)
        spots = rng.uniform((-0.62, 1.4), (0.62, 7.0), (26, 2))  # (tangent of the angle to the right, meters ahead)
        spots[:, 0] = spots[:, 0] * spots[:, 1] + occluder.right
        for right, ahead in spots[np.argsort(-spots[:, 1], kind="stable")]:
            position = (camera.x, camera.y) + ahead * camera.forward + right * camera.right
            canvas.paste_sprite(draw_person(int(rng.integers(48))), position, ahead, rng.uniform(1.9, 2.5))
    elif occluder.kind == "scaffold":
        scaffold = Mesh(make_scaffold(pose, 16.0, occluder.seed))
        draw_mesh(canvas, scaffold, scaffold.points, occluder.ahead, two_sided=True)
    else:
        vehicle = make_vehicle(occluder.kind, occluder.seed % 64, canvas.moment.dark)
        draw_mesh(canvas, vehicle, vehicle.place(pose), occluder.ahead)


def measure_occluder_share(camera: Camera, occluder: Occluder) -> float:
    """Share of the photo, 0 to 1, that an occluder covers."""
    empty = (255, 0, 255)
    canvas = Canvas(None, replace(camera, size=96), Moment(2000, 6, "day", 0.0, 0), fill=empty)
    draw_occluder(canvas, occluder)
    return float((np.asarray(canvas.image) != empty).any(-1).mean())


def find_occluder(rng: Generator, camera: Camera, city: City | None = None) -> Occluder:
    """An occluder that covers a third to two thirds of the photo; with a city, one in front of its walls."""
    nearest = np.zeros(camera.size) if city is None else find_visible_walls(city, camera).nearest
    for _ in range(200):
        kind = rng.pick(KINDS)
        turn = {"truck": 90 + rng.normal(0, 25), "bus": 90 + rng.normal(0, 20), "crowd": 0, "scaffold": 90}[kind]
        ahead = {"truck": rng.uniform(4.5, 8), "bus": rng.uniform(4.5, 9), "crowd": 3, "scaffold": rng.uniform(3, 6)}
        right = {"crowd": rng.uniform(-0.5, 0.5), "scaffold": rng.uniform(-8, 8)}.get(kind, rng.uniform(-4, 4))
        occluder = Occluder(kind, float(ahead[kind]), float(right), float(turn), int(rng.integers(2**31)))
        column = camera.size / 2 + camera.focal * occluder.right / occluder.ahead
        wall = nearest[int(np.clip(column, 0, camera.size - 1))]
        if wall * (occluder.ahead + 1) < 1 and 0.36 <= measure_occluder_share(camera, occluder) <= 0.64:
            return occluder
    raise ValueError(f"no occluder covers a third to two thirds of the photo at {camera.x:.0f}, {camera.y:.0f}")
