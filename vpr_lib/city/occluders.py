"""Large objects that cover part of a photo: trucks, buses, crowds, scaffolds."""

from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.camera import Camera
from vpr_lib.city.canvas import Canvas
from vpr_lib.city.layout import City
from vpr_lib.city.light import Moment
from vpr_lib.city.meshes import Mesh, Pose, draw_mesh, make_scaffold, make_vehicle
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.sprites import draw_person, paste_sprite
from vpr_lib.city.walls import find_visible_walls

KINDS = ("truck", "bus", "crowd", "scaffold")


@dataclass(frozen=True)
class Occluder:
    """An object between the camera and the houses, metres ahead and to the right of the camera."""

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
    if occluder.kind == "crowd":
        _draw_crowd(canvas, occluder)
    elif occluder.kind == "scaffold":
        scaffold = Mesh.from_faces(make_scaffold(pose, 16.0, occluder.seed))
        draw_mesh(canvas, scaffold, scaffold.points, occluder.ahead, two_sided=True)
    else:
        vehicle = make_vehicle(occluder.kind, occluder.seed % 64, canvas.moment.dark)
        draw_mesh(canvas, vehicle, vehicle.place(pose), occluder.ahead)


def _draw_crowd(canvas: Canvas, occluder: Occluder) -> None:
    """26 people, the farthest first."""
    camera, rng = canvas.camera, make_rng("crowd", occluder.seed)
    spots = rng.uniform((-0.62, 1.4), (0.62, 7.0), (26, 2))  # (tangent of the angle to the right, metres ahead)
    spots[:, 0] = spots[:, 0] * spots[:, 1] + occluder.right
    for right, ahead in spots[np.argsort(-spots[:, 1])]:
        x, y = (camera.x, camera.y) + ahead * camera.forward + right * camera.right
        paste_sprite(canvas, draw_person(int(rng.integers(48))), (x, y), ahead, rng.uniform(1.9, 2.5))


def measure_occluder_share(camera: Camera, occluder: Occluder) -> float:
    """Share of the photo, 0 to 1, that an occluder covers."""
    empty = (255, 0, 255)
    canvas = Canvas(None, replace(camera, size=96), Moment(2000, 6, "day", 0.0, 0), fill=empty)
    draw_occluder(canvas, occluder)
    return float((np.asarray(canvas.image) != empty).any(-1).mean())


def find_occluder(rng: np.random.Generator, camera: Camera, city: City | None = None) -> Occluder:
    """An occluder that covers a third to two thirds of the photo; with a city, one that stands in front of its walls.

    Raises:
        ValueError: 200 random occluders do not suit.
    """
    nearest = np.zeros(camera.size) if city is None else find_visible_walls(city, camera).nearest
    for _ in range(200):
        kind = str(rng.choice(KINDS))
        turn = {"truck": 90 + rng.normal(0, 25), "bus": 90 + rng.normal(0, 20), "crowd": 0, "scaffold": 90}[kind]
        ahead = {"truck": rng.uniform(4.5, 8), "bus": rng.uniform(4.5, 9), "crowd": 3, "scaffold": rng.uniform(3, 6)}
        right = {"crowd": rng.uniform(-0.5, 0.5), "scaffold": rng.uniform(-8, 8)}.get(kind, rng.uniform(-4, 4))
        occluder = Occluder(kind, float(ahead[kind]), float(right), float(turn), int(rng.integers(2**31)))
        column = camera.size / 2 + camera.focal * occluder.right / occluder.ahead
        wall = nearest[int(np.clip(column, 0, camera.size - 1))]
        if wall * (occluder.ahead + 1) < 1 and 0.36 <= measure_occluder_share(camera, occluder) <= 0.64:
            return occluder
    raise ValueError(f"no occluder covers a third to two thirds of the photo at {camera.x:.0f}, {camera.y:.0f}")
