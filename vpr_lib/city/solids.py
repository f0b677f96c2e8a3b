"""Cars, trucks, lamps, piers, scaffolds: things made of a few flat faces."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vpr_lib.city.fronts import mix
from vpr_lib.city.scene import make_rng

Face = tuple[np.ndarray, np.ndarray, float]  # corners (N, 3) metres, colour (3,) 0 to 255, light of its own 0 to 1
# Corners run clockwise as seen from outside, so that a face turned away can be told.

# Side views, metres ahead of the middle and above the road, counterclockwise from the rear foot.
CARS = {
    "sedan": ((-2.2, 0.3), (2.2, 0.3), (2.2, 0.8), (1.3, 0.95), (0.6, 1.45), (-1.1, 1.45), (-1.7, 1.0), (-2.2, 0.95)),
    "hatch": ((-1.9, 0.3), (1.9, 0.3), (1.9, 0.85), (1.1, 1.0), (0.4, 1.55), (-1.5, 1.55), (-1.9, 1.0)),
    "van": ((-2.4, 0.3), (2.4, 0.3), (2.4, 1.1), (1.7, 1.3), (1.2, 2.1), (-2.4, 2.1)),
    "truck": ((-4.5, 0.5), (4.5, 0.5), (4.5, 1.6), (4.3, 2.7), (3.2, 2.9), (3.1, 3.7), (-4.5, 3.7)),
    "bus": ((-5.8, 0.4), (5.8, 0.4), (5.8, 3.1), (-5.8, 3.1)),
}
HALF_WIDTHS = {"sedan": 0.88, "hatch": 0.85, "van": 0.98, "truck": 1.25, "bus": 1.27}


@dataclass(frozen=True, eq=False)
class Solid:
    """Faces of one thing, each drawn over those before it.

    Attributes:
        points: (V, 3) metres, the faces' corners one after the other.
        starts: (F,) row of each face's first corner.
        colours: (F, 3), 0 to 255.
        lift: (F,) share of the light it catches; tops catch more of the sky.
        glow: (F,) light of its own.
    """

    points: np.ndarray
    starts: np.ndarray
    colours: np.ndarray
    lift: np.ndarray
    glow: np.ndarray

    @classmethod
    def of(cls, faces: Iterable[Face]) -> "Solid":
        """Gather faces."""
        corners, colours, glow = zip(*faces, strict=True)
        normals = np.array([np.cross(c[1] - c[0], c[2] - c[0]) for c in corners])
        lift = 0.8 + 0.2 * np.abs(normals[:, 2]) / (np.linalg.norm(normals, axis=1) + 1e-9)
        starts = np.cumsum([0] + [len(c) for c in corners[:-1]])
        return cls(np.concatenate(corners), starts, np.array(colours), lift, np.array(glow))

    def placed(self, at: "Placed") -> np.ndarray:
        """(V, 3) metres in the city, if the thing was made at the origin, looking north."""
        across, ahead, up = self.points.T
        return at.corners(ahead, across, up)


@dataclass(frozen=True)
class Placed:
    """Where something stands: metres east and north, degrees clockwise from north."""

    x: float
    y: float
    heading: float

    def corners(self, ahead: np.ndarray, across: np.ndarray | float, z: np.ndarray) -> np.ndarray:
        """Metres ahead, to the right and above (N each) -> (N, 3) metres in the city."""
        sine, cosine = np.sin(np.radians(self.heading)), np.cos(np.radians(self.heading))
        ahead = np.asarray(ahead, float)
        return np.stack(
            [self.x + ahead * sine + across * cosine, self.y + ahead * cosine - across * sine, 0 * ahead + z], 1
        )


@lru_cache(maxsize=512)
def make_vehicle(kind: str, variant: int, dark: bool) -> Solid:
    """A vehicle at the origin, looking north: body, windows, wheels, lights."""
    return Solid.of(make_vehicle_faces(kind, variant, dark))


def make_vehicle_faces(kind: str, variant: int, dark: bool) -> Iterator[Face]:
    """See `make_vehicle`."""
    at = Placed(0, 0, 0)
    rng = make_rng("vehicle", variant)
    profile, half = np.array(CARS[kind]), HALF_WIDTHS[kind]
    grey = rng.random() < 0.55
    body = np.array(mix(rng.random(), 0.05 if grey else 0.65, rng.uniform(0.12, 0.95)), float)
    glass, black = np.array([45.0, 55, 65]), np.array([22.0, 22, 24])
    following = np.roll(profile, -1, axis=0)
    for (a, za), (b, zb) in zip(profile, following, strict=True):  # front, bonnet, roof, rear
        slanted = abs(b - a) > 0.25 and abs(zb - za) > 0.3 and kind not in ("truck", "bus")
        face = at.corners([a, a, b, b], np.array([-half, half, half, -half]), np.array([za, za, zb, zb]))
        yield face, glass if slanted else body * (1.1 if za == zb and za > 1 else 0.92), 0.0
    stripe = np.array(mix(rng.random(), 0.7, 0.8), float)
    for side in (1, -1):

        def panel(points: np.ndarray, side: int = side, out: float = 0.0) -> np.ndarray:
            points = np.asarray(points, float)[::-side]
            return at.corners(points[:, 0], side * (half + out), points[:, 1])

        yield panel(profile), body, 0.0
        for window in make_windows(kind, profile):
            yield panel(window, out=0.01), glass, 0.3 if dark and kind == "bus" else 0.0
        if kind in ("truck", "bus"):
            low, high = (1.1, 1.5) if kind == "bus" else (1.4, 2.6)
            start, end = profile[:, 0].min() + 0.4, 2.8 if kind == "truck" else profile[:, 0].max() - 0.4
            yield panel([(start, low), (end, low), (end, high), (start, high)], out=0.01), stripe, 0.0
        angles = np.linspace(0, 2 * np.pi, 9)[:-1]
        for axle in (profile[:, 0].min() * 0.62, profile[:, 0].max() * 0.62):
            radius = 0.5 if kind in ("truck", "bus") else 0.33
            yield panel(np.c_[axle + radius * np.cos(angles), radius + radius * np.sin(angles)], out=0.02), black, 0.0
    for end, colour in ((profile[:, 0].max() + 0.02, (255, 250, 220)), (profile[:, 0].min() - 0.02, (200, 20, 15))):
        for side in (-0.7, 0.7):
            across = side * half + np.array([-0.15, 0.15, 0.15, -0.15]) * np.sign(-end)
            face = at.corners([end] * 4, across, np.array([0.65, 0.65, 0.85, 0.85]))
            yield face[::-1], np.array(colour, float), 0.9 if dark else 0.2


def make_windows(kind: str, profile: np.ndarray) -> Iterator[list[tuple[float, float]]]:
    """Side windows, as the profile's points."""
    if kind == "bus":
        for start in np.arange(-5.4, 5.0, 1.35):
            yield [(start, 1.6), (start + 1.2, 1.6), (start + 1.2, 2.7), (start, 2.7)]
    elif kind == "truck":
        yield [(3.3, 1.8), (4.2, 1.8), (4.1, 2.6), (3.3, 2.6)]
    else:
        roof = profile[profile[:, 1] == profile[:, 1].max()]
        front, rear = roof[:, 0].max(), roof[:, 0].min()
        low = 1.0 if kind != "van" else 1.25
        top = roof[0, 1] - 0.1
        middle = (front + rear) / 2 if kind != "van" else front - 0.9
        yield [(middle + 0.05, low), (front + 0.4, low), (front - 0.05, top), (middle + 0.05, top)]
        if kind != "van":
            yield [(rear - 0.3, low), (middle - 0.05, low), (middle - 0.05, top), (rear + 0.1, top)]


def make_box(at: Placed, length: float, width: float, z0: float, z1: float, colour: np.ndarray) -> Iterator[Face]:
    """Four sides and the top of a box."""
    a, b = length / 2, width / 2
    ring = [(-a, -b), (a, -b), (a, b), (-a, b)]
    for (ahead, across), (ahead_2, across_2) in zip(ring, ring[1:] + ring[:1], strict=True):
        z = np.array([z0, z0, z1, z1])
        yield (
            at.corners([ahead, ahead_2, ahead_2, ahead], np.array([across, across_2, across_2, across]), z),
            colour,
            0.0,
        )
    yield at.corners([a, a, -a, -a], np.array([-b, b, b, -b]), np.full(4, z1)), colour * 1.1, 0.0


def make_scaffold(at: Placed, length: float, seed: int) -> Iterator[Face]:
    """Poles, planks and nets in front of a facade; `at` looks along it."""
    rng = make_rng("scaffold", seed)
    steel, wood = np.array([150.0, 150, 155]), np.array([170.0, 130, 80])
    net = np.array(mix(rng.choice((0.3, 0.58, 0.1)), 0.45, 0.6), float)

    def plate(a: float, b: float, z0: float, z1: float) -> np.ndarray:
        return at.corners([a, b, b, a], 0.0, np.array([z0, z0, z1, z1]))

    bays, floors = max(2, round(length / 2.2)), int(rng.integers(4, 7))
    pitch = length / bays
    for bay in range(bays):
        for floor in range(floors):
            if rng.random() < 0.62:
                start = -length / 2 + bay * pitch
                yield plate(start, start + pitch, floor * 2 + 0.3, floor * 2 + 2), net * rng.uniform(0.85, 1.1), 0.0
    for floor in range(1, floors + 1):
        yield plate(-length / 2, length / 2, floor * 2 - 0.09, floor * 2 + 0.09), wood, 0.0
        yield plate(-length / 2, length / 2, floor * 2 + 0.95, floor * 2 + 1.01), steel, 0.0
    for pole in range(bays + 1):
        start = -length / 2 + pole * pitch
        yield plate(start - 0.05, start + 0.05, 0, floors * 2 + 1), steel, 0.0
