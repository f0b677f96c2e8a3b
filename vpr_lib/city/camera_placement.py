"""Where cameras stand and what they see: spots on the streets, other visits and viewpoints, dates."""

import math
from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.buildings import REPETITIVE
from vpr_lib.city.camera import Camera, turn_between
from vpr_lib.city.layout import City, Street
from vpr_lib.city.light import Moment
from vpr_lib.city.walls import find_visible_walls

WATERFRONT_STEP_M = 45.0  # between spots along the waterfront
DAYLIGHT = {"day": 0.7, "overcast": 0.3}  # light: probability
DIM = {"night": 0.3, "sunset": 0.25, "backlight": 0.2, "rain": 0.25}


@dataclass(frozen=True)
class Spot:
    """A position on a street."""

    street: Street
    along: float
    waterfront: bool = False

    def place_camera(self, heading: float, size: int, shift: float = 0.0, side: float = 0.0) -> Camera:
        """A camera here, `shift` metres along the street and `side` across it."""
        x, y = self.street.point(self.along + shift, side)
        return Camera(float(x), float(y), heading % 360, size=size)


def count_blocks(spots: int, step_m: float) -> int:
    """Blocks on a side of a city that has room for so many spots."""
    return max(5, math.ceil(math.sqrt(spots * step_m / 140)) + 2)


def list_spots(city: City, step_m: float) -> list[Spot]:
    """Spots on the inner streets, `step_m` apart along each."""
    east, north = city.extent  # nearly equal; a street is compared with its own length
    inner = [street for street in city.streets if 40 < street.center < (east if street.horizontal else north) - 40]
    return [Spot(street, float(at)) for street in inner for at in np.arange(street.start + 45, street.end - 45, step_m)]


def list_waterfront_spots(city: City) -> list[Spot]:
    """Spots along the waterfront."""
    street = city.streets[0]
    positions = np.arange(street.start + 20, street.end - 20, WATERFRONT_STEP_M)
    return [Spot(street, float(at), waterfront=True) for at in positions]


def list_central_spots(city: City, number: int, step_m: float) -> list[Spot]:
    """The spots nearest to the repetitive block that is nearest to the middle of the city, in the order of streets."""
    spots = list_spots(city, step_m)
    blocks = city.repetitive_blocks.reshape(-1, 2, 2).mean(1)
    center = blocks[((blocks - np.array(city.extent) / 2) ** 2).sum(1).argmin()]
    distances = [np.abs(spot.street.point(spot.along) - center).max() for spot in spots]
    return [spots[i] for i in sorted(np.argsort(distances, kind="stable")[:number])]


def pick_spots(rng: np.random.Generator, spots: list[Spot], number: int) -> list[Spot]:
    """A random sample of the spots, in their order.

    Raises:
        ValueError: there are too few.
    """
    if len(spots) < number:
        raise ValueError(f"the city has room for {len(spots)} spots, {number} are required; ask for fewer photos")
    return [spots[i] for i in sorted(rng.permutation(len(spots))[:number])]


def pick_moment(rng: np.random.Generator, lights: dict[str, float], years: tuple[int, int], heading: float) -> Moment:
    """A random date and light (weights in `lights`); in a backlit photo the sun shines into the camera."""
    total = sum(lights.values())
    light = str(rng.choice(list(lights), p=[weight / total for weight in lights.values()]))
    sun = heading + rng.uniform(-18, 18) if light == "backlight" else rng.uniform(0, 360)
    return Moment(int(rng.integers(*years)), int(rng.integers(1, 13)), light, sun % 360, int(rng.integers(2**31)))


def pick_turn(rng: np.random.Generator) -> float:
    """Random degrees from the street's direction: along it, oblique, or toward the houses."""
    turn = rng.choice((0, 45, 90), p=(0.25, 0.45, 0.3)) + rng.normal(0, 10)
    return float(rng.choice((-1, 1)) * turn + rng.choice((0, 180)))


def vary_camera(rng: np.random.Generator, spot: Spot, camera: Camera, metres: float, degrees: float) -> Camera:
    """The camera of another visit: on the road, with a slightly different position, heading, height and tilt."""
    shift, side = rng.normal(0, metres), rng.uniform(-0.6, 0.6) * spot.street.road
    moved = spot.place_camera(camera.heading + rng.normal(0, degrees), camera.size, shift, side)
    return replace(moved, height=float(rng.uniform(2.0, 2.7)), horizon=float(0.58 + rng.normal(0, 0.02)))


def find_other_viewpoint(rng: np.random.Generator, city: City, spot: Spot, camera: Camera) -> Camera | None:
    """A camera 5 to 20 m away that sees the same houses, turned by 20 to 60 degrees; None where there is none."""
    nearest = find_visible_walls(city, camera).nearest[camera.size // 2]
    if nearest == 0:
        return None
    target = np.array([camera.x, camera.y]) + camera.forward / nearest
    for _ in range(12):
        shift, side = rng.choice((-1, 1)) * rng.uniform(5, 19), rng.uniform(-0.6, 0.6) * spot.street.road
        moved = spot.place_camera(0.0, camera.size, shift, side)
        east, north = target - (moved.x, moved.y)
        heading = math.degrees(math.atan2(east, north)) % 360
        turn = abs(turn_between(heading, camera.heading))
        distance = math.hypot(moved.x - camera.x, moved.y - camera.y)
        if 20 <= turn <= 60 and 5 <= distance <= 20 and math.hypot(east, north) > 5:
            return replace(moved, heading=heading)
    return None


def are_close(camera: Camera, other: Camera) -> bool:
    """Whether two cameras are less than 5 m and 20 degrees apart."""
    turn = abs(turn_between(camera.heading, other.heading))
    return turn < 20 and math.hypot(camera.x - other.x, camera.y - other.y) < 5


def show_same_building(city: City, camera: Camera, other: Camera) -> bool:
    """Whether the same house, or none, is in the middle of two photos."""
    middle = np.array([camera.size / 2])
    return bool((_find_buildings(city, camera, middle) == _find_buildings(city, other, middle)).all())


def measure_repetitive_share(city: City, camera: Camera) -> float:
    """Share of the photo's columns, 0 to 1, whose nearest house belongs to a repetitive block."""
    nearest = _find_buildings(city, replace(camera, size=64), np.arange(64) + 0.5)
    return sum(city.buildings[i].style == REPETITIVE for i in nearest if i >= 0) / 64


def _find_buildings(city: City, camera: Camera, columns: np.ndarray) -> np.ndarray:
    """(N,) index of the nearest house at each column of the photo; -1 where there is none."""
    visible = find_visible_walls(city, camera)
    inside = (visible.columns[:, :1] <= columns) & (columns <= visible.columns[:, 1:])  # (V, N)
    first = np.vstack([inside, np.ones((1, len(columns)), bool)]).argmax(0)  # V where no wall is
    return np.append(visible.index // 4, -1)[first]
