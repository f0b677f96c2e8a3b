"""Vehicles, boxes and scaffolds: objects made of a few flat faces, and drawing them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vpr_lib.city.canvas import NEAR_M, Canvas
from vpr_lib.city.exact_math import cosine, round_off, sine
from vpr_lib.city.pictures import hsv_color, make_rng

# Side views, meters ahead of the middle and above the road, counterclockwise from the rear bottom corner.
PROFILES = {
    "sedan": ((-2.2, 0.3), (2.2, 0.3), (2.2, 0.8), (1.3, 0.95), (0.6, 1.45), (-1.1, 1.45), (-1.7, 1.0), (-2.2, 0.95)),
    "hatchback": ((-1.9, 0.3), (1.9, 0.3), (1.9, 0.85), (1.1, 1.0), (0.4, 1.55), (-1.5, 1.55), (-1.9, 1.0)),
    "van": ((-2.4, 0.3), (2.4, 0.3), (2.4, 1.1), (1.7, 1.3), (1.2, 2.1), (-2.4, 2.1)),
    "truck": ((-4.5, 0.5), (4.5, 0.5), (4.5, 1.6), (4.3, 2.7), (3.2, 2.9), (3.1, 3.7), (-4.5, 3.7)),
    "bus": ((-5.8, 0.4), (5.8, 0.4), (5.8, 3.1), (-5.8, 3.1)),
}
HALF_WIDTHS_M = {"sedan": 0.88, "hatchback": 0.85, "van": 0.98, "truck": 1.25, "bus": 1.27}
LARGE = ("truck", "bus")
GLASS = np.array([45.0, 55, 65])


class Face(NamedTuple):
    """A flat face; its corners run clockwise as seen from outside, so that a face turned away is recognized."""

    corners: np.ndarray  # (N, 3) meters
    color: np.ndarray  # (3,) 0 to 255
    glow: float = 0.0  # light of its own, 0 to 1


@dataclass(frozen=True)
class Pose:
    """Where something stands: meters east and north, degrees clockwise from north."""

    x: float
    y: float
    heading: float

    def transform(self, ahead: ArrayLike, across: ArrayLike, up: ArrayLike) -> np.ndarray:
        """Meters ahead (N), to the right and up (N, or one number) -> (N, 3) meters in the city."""
        sin, cos = sine(self.heading), cosine(self.heading)
        ahead, across = np.asarray(ahead, float), np.asarray(across)
        points = np.empty((len(ahead), 3))
        points[:, 0] = self.x + ahead * sin + across * cos
        points[:, 1] = self.y + ahead * cos - across * sin
        points[:, 2] = up
        return points


ORIGIN = Pose(0, 0, 0)


class Mesh:
    """Faces of one object, each drawn over those before it."""

    def __init__(self, faces: Iterable[Face]) -> None:
        corners, colors, glow = zip(*faces, strict=True)
        self.points = np.concatenate(corners)  # (V, 3) meters, the faces' corners one after the other
        ends = np.cumsum([len(points) for points in corners]).tolist()
        self.spans = [slice(start, end) for start, end in pairwise([0, *ends])]  # F rows of `points`, of each face
        self.colors, self.glow = np.array(colors), np.array(glow)  # (F, 3), (F,)
        first, second, third = np.array([points[:3] for points in corners]).swapaxes(0, 1)
        normals = np.cross(second - first, third - first)
        # (F,) share of the light that a face catches; tops catch more of the sky
        self.lift = 0.8 + 0.2 * np.abs(normals[:, 2]) / (np.linalg.norm(normals, axis=1) + 1e-9)

    def place(self, pose: Pose) -> np.ndarray:
        """(V, 3) meters in the city, if the object was made at the origin, heading north."""
        across, ahead, up = self.points.T
        return pose.transform(ahead, across, up)


def draw_mesh(canvas: Canvas, mesh: Mesh, points: np.ndarray, depth: float, two_sided: bool = False) -> tuple[int, int]:
    """Draw the faces turned to the camera (or all, if `two_sided`), in their order.

    `points` (V, 3) are their corners in the city; `depth` in meters gives the haze. Returns the first and last column
    (exclusive) that they cover.
    """
    camera = canvas.camera
    lights = np.maximum(canvas.lighting.ground * mesh.lift[:, None], mesh.glow[:, None])
    fills = canvas.shade_colors(mesh.colors, lights, depth).tolist()
    view = camera.to_view(points)
    if view[:, 1].min() > NEAR_M:
        pixels = camera.to_pixels(view, points[:, 2]).tolist()
        polygons = [pixels[span] for span in mesh.spans]
    else:
        rows = points.tolist()
        polygons = [camera.project_polygon(rows[span]) for span in mesh.spans]
    left, right = float(camera.size), 0.0
    for corners, fill in zip(polygons, fills, strict=True):
        area = sum(x * corners[i - 1][1] - corners[i - 1][0] * y for i, (x, y) in enumerate(corners))
        if corners and (two_sided or area < 0):
            canvas.draw.polygon([value for corner in corners for value in corner], fill=tuple(fill))
            columns = [corner[0] for corner in corners]
            left, right = min(left, *columns), max(right, *columns)
    return max(0, math.floor(left)), min(camera.size, math.ceil(right) + 1)


@lru_cache(maxsize=512)
def make_vehicle(kind: str, variant: int, dark: bool) -> Mesh:
    """A vehicle (a key of `PROFILES`) at the origin, heading north; its lights are on where it is dark."""
    return Mesh(_make_vehicle_faces(kind, variant, dark))


def _make_vehicle_faces(kind: str, variant: int, dark: bool) -> Iterator[Face]:
    rng = make_rng("vehicle", variant)
    saturation = 0.05 if rng.random() < 0.55 else 0.65
    body = np.array(hsv_color(rng.random(), saturation, rng.uniform(0.12, 0.95)), float)
    stripe = np.array(hsv_color(rng.random(), 0.7, 0.8), float)
    profile, half = np.array(PROFILES[kind]), HALF_WIDTHS_M[kind]
    for (start, low), (end, high) in zip(profile, np.roll(profile, -1, axis=0), strict=True):  # front to rear
        slanted = abs(end - start) > 0.25 and abs(high - low) > 0.3 and kind not in LARGE
        tint = 1.1 if low == high and low > 1 else 0.92
        corners = ORIGIN.transform([start, start, end, end], [-half, half, half, -half], [low, low, high, high])
        yield Face(corners, GLASS if slanted else body * tint)
    for side in (1, -1):
        yield from _make_vehicle_side(kind, side, body, stripe, dark)
    front, rear = profile[:, 0].max() + 0.02, profile[:, 0].min() - 0.02
    for end, color in ((front, (255, 250, 220)), (rear, (200, 20, 15))):  # lights
        for side in (-0.7, 0.7):
            across = side * half + np.array([-0.15, 0.15, 0.15, -0.15]) * np.sign(-end)
            corners = ORIGIN.transform([end] * 4, across, [0.65, 0.65, 0.85, 0.85])
            yield Face(corners[::-1], np.array(color, float), 0.9 if dark else 0.2)


def _make_vehicle_side(kind: str, side: int, body: np.ndarray, stripe: np.ndarray, dark: bool) -> Iterator[Face]:
    """Body, windows, stripe and wheels of the right (1) or left (-1) side."""
    profile, half = np.array(PROFILES[kind]), HALF_WIDTHS_M[kind]
    rear, front = profile[:, 0].min(), profile[:, 0].max()

    def make_panel(outline: ArrayLike, color: np.ndarray, offset: float, glow: float = 0.0) -> Face:
        ahead, up = np.array(outline, float)[::-side].T
        return Face(ORIGIN.transform(ahead, side * (half + offset), up), color, glow)

    yield make_panel(profile, body, 0.0)
    for window in _outline_windows(kind, profile):
        yield make_panel(window, GLASS, 0.01, 0.3 if dark and kind == "bus" else 0.0)
    if kind == "bus":
        yield make_panel(_outline_rectangle(rear + 0.4, front - 0.4, 1.1, 1.5), stripe, 0.01)
    if kind == "truck":
        yield make_panel(_outline_rectangle(rear + 0.4, 2.8, 1.4, 2.6), stripe, 0.01)
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    radius = 0.5 if kind in LARGE else 0.33
    for axle in (rear * 0.62, front * 0.62):
        wheel = np.c_[axle + radius * round_off(np.cos(angles)), radius + radius * round_off(np.sin(angles))]
        yield make_panel(wheel, np.array([22.0, 22, 24]), 0.02)


def _outline_rectangle(start: float, end: float, low: float, high: float) -> list[tuple[float, float]]:
    return [(start, low), (end, low), (end, high), (start, high)]


def _outline_windows(kind: str, profile: np.ndarray) -> Iterator[list[tuple[float, float]]]:
    """Side windows, as points of the profile."""
    if kind == "bus":
        for start in np.arange(-5.4, 5.0, 1.35):
            yield _outline_rectangle(start, start + 1.2, 1.6, 2.7)
    elif kind == "truck":
        yield [(3.3, 1.8), (4.2, 1.8), (4.1, 2.6), (3.3, 2.6)]
    else:
        roof = profile[profile[:, 1] == profile[:, 1].max()]
        front, rear, top = roof[:, 0].max(), roof[:, 0].min(), roof[0, 1] - 0.1
        low = 1.25 if kind == "van" else 1.0
        middle = front - 0.9 if kind == "van" else (front + rear) / 2
        yield [(middle + 0.05, low), (front + 0.4, low), (front - 0.05, top), (middle + 0.05, top)]
        if kind != "van":
            yield [(rear - 0.3, low), (middle - 0.05, low), (middle - 0.05, top), (rear + 0.1, top)]


def make_box(pose: Pose, length: float, width: float, low: float, high: float, color: np.ndarray) -> Iterator[Face]:
    """Four sides and the top of a box; meters, `low` and `high` above the ground."""
    ahead, across = length / 2, width / 2
    ring = [(-ahead, -across), (ahead, -across), (ahead, across), (-ahead, across)]
    for (ahead_1, across_1), (ahead_2, across_2) in zip(ring, ring[1:] + ring[:1], strict=True):
        sides = [across_1, across_2, across_2, across_1]
        yield Face(pose.transform([ahead_1, ahead_2, ahead_2, ahead_1], sides, [low, low, high, high]), color)
    yield Face(pose.transform([ahead, ahead, -ahead, -ahead], [-across, across, across, -across], high), color * 1.1)


def make_scaffold(pose: Pose, length: float, seed: int) -> Iterator[Face]:
    """Poles, planks and nets in front of a facade; the pose's heading runs along it."""
    rng = make_rng("scaffold", seed)
    steel, wood = np.array([150.0, 150, 155]), np.array([170.0, 130, 80])
    net = np.array(hsv_color(rng.pick((0.3, 0.58, 0.1)), 0.45, 0.6), float)

    def make_plate(start: float, end: float, low: float, high: float, color: np.ndarray) -> Face:
        return Face(pose.transform([start, end, end, start], 0.0, [low, low, high, high]), color)

    bays, floors = max(2, round(length / 2.2)), int(rng.integers(4, 7))
    pitch, left = length / bays, -length / 2
    for bay in range(bays):
        for floor in range(floors):
            if rng.random() < 0.62:
                start = left + bay * pitch
                color = net * rng.uniform(0.85, 1.1)
                yield make_plate(start, start + pitch, floor * 2 + 0.3, floor * 2 + 2, color)
    for floor in range(1, floors + 1):
        yield make_plate(left, -left, floor * 2 - 0.09, floor * 2 + 0.09, wood)
        yield make_plate(left, -left, floor * 2 + 0.95, floor * 2 + 1.01, steel)
    for pole in range(bays + 1):
        start = left + pole * pitch
        yield make_plate(start - 0.05, start + 0.05, 0, floors * 2 + 1, steel)
