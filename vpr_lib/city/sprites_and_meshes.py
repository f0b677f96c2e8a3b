"""Objects: trees, people and rain as flat pictures; vehicles, boxes and scaffolds made of flat faces."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from vpr_lib.city.canvas import NEAR_M, Canvas
from vpr_lib.city.textures import hsv_color, make_pyramid, make_rng

# Side views, metres ahead of the middle and above the road, counterclockwise from the rear bottom corner.
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
    """Paste an upright picture (RGBA pyramid; position, depth, height in metres); first and last column covered."""
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


class Face(NamedTuple):
    """A flat face; its corners run clockwise as seen from outside, so that a face turned away is recognized."""

    corners: np.ndarray  # (N, 3) metres
    color: np.ndarray  # (3,) 0 to 255
    glow: float = 0.0  # light of its own, 0 to 1


@dataclass(frozen=True)
class Pose:
    """Where something stands: metres east and north, degrees clockwise from north."""

    x: float
    y: float
    heading: float

    def transform(self, ahead: ArrayLike, across: ArrayLike, up: ArrayLike) -> np.ndarray:
        """Metres ahead (N), to the right and up (N, or one number) -> (N, 3) metres in the city."""
        sine, cosine = np.sin(np.radians(self.heading)), np.cos(np.radians(self.heading))
        ahead, across = np.asarray(ahead, float), np.asarray(across)
        east = self.x + ahead * sine + across * cosine
        north = self.y + ahead * cosine - across * sine
        return np.stack([east, north, 0 * ahead + up], 1)


ORIGIN = Pose(0, 0, 0)


class Mesh:
    """Faces of one object, each drawn over those before it."""

    def __init__(self, faces: Iterable[Face]) -> None:
        corners, colors, glow = zip(*faces, strict=True)
        self.points = np.concatenate(corners)  # (V, 3) metres, the faces' corners one after the other
        self.starts = np.cumsum([0] + [len(points) for points in corners[:-1]])  # (F,) row of each face's first corner
        self.colors, self.glow = np.array(colors), np.array(glow)  # (F, 3), (F,)
        normals = np.array([np.cross(points[1] - points[0], points[2] - points[0]) for points in corners])
        # (F,) share of the light that a face catches; tops catch more of the sky
        self.lift = 0.8 + 0.2 * np.abs(normals[:, 2]) / (np.linalg.norm(normals, axis=1) + 1e-9)

    def place(self, pose: Pose) -> np.ndarray:
        """(V, 3) metres in the city, if the object was made at the origin, heading north."""
        across, ahead, up = self.points.T
        return pose.transform(ahead, across, up)


def draw_mesh(canvas: Canvas, mesh: Mesh, points: np.ndarray, depth: float, two_sided: bool = False) -> tuple[int, int]:
    """Draw the faces turned to the camera (or all, if `two_sided`), in their order.

    `points` (V, 3) are their corners in the city; `depth` in metres gives the haze. Returns the first and last column
    (exclusive) that they cover.
    """
    camera = canvas.camera
    lights = np.maximum(canvas.lighting.ground * mesh.lift[:, None], mesh.glow[:, None])
    fills = canvas.shade_colors(mesh.colors, lights, depth).tolist()
    view = camera.to_view(points)
    if view[:, 1].min() > NEAR_M:
        polygons = np.split(camera.to_pixels(view, points[:, 2]), mesh.starts[1:])
    else:
        polygons = [camera.project_polygon(corners) for corners in np.split(points, mesh.starts[1:])]
    left, right = float(camera.size), 0.0
    for pixels, fill in zip(polygons, fills, strict=True):
        corners = [] if pixels is None else pixels.tolist()
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
        wheel = np.c_[axle + radius * np.cos(angles), radius + radius * np.sin(angles)]
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
    """Four sides and the top of a box; metres, `low` and `high` above the ground."""
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
    net = np.array(hsv_color(rng.choice((0.3, 0.58, 0.1)), 0.45, 0.6), float)

    def make_plate(start: float, end: float, low: float, high: float, color: np.ndarray) -> Face:
        return Face(pose.transform([start, end, end, start], 0.0, [low, low, high, high]), color)

    bays, floors = max(2, round(length / 2.2)), int(rng.integers(4, 7))
    pitch, left = length / bays, -length / 2
    for bay in range(bays):
        for floor in range(floors):
            if rng.random() < 0.62:
                start, color = left + bay * pitch, net * rng.uniform(0.85, 1.1)
                yield make_plate(start, start + pitch, floor * 2 + 0.3, floor * 2 + 2, color)
    for floor in range(1, floors + 1):
        yield make_plate(left, -left, floor * 2 - 0.09, floor * 2 + 0.09, wood)
        yield make_plate(left, -left, floor * 2 + 0.95, floor * 2 + 1.01, steel)
    for pole in range(bays + 1):
        start = left + pole * pitch
        yield make_plate(start - 0.05, start + 0.05, 0, floors * 2 + 1, steel)
