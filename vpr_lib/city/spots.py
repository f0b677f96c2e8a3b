"""Where cameras stand and what they look at: spots on the streets, second visits, other viewpoints, occluders."""

import math
from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.camera import Camera
from vpr_lib.city.drawing import Occluder, occluder_share
from vpr_lib.city.light import Moment
from vpr_lib.city.scene import City, Street
from vpr_lib.city.walls import find_visible

WATER_STEP_M = 45.0  # between spots along the waterfront
DAYLIGHT = {"day": 0.7, "overcast": 0.3}
DIM = {"night": 0.3, "sunset": 0.25, "backlight": 0.2, "rain": 0.25}
OCCLUDERS = ("truck", "bus", "crowd", "scaffold")


@dataclass(frozen=True)
class Spot:
    """Somewhere on a street."""

    street: Street
    along: float
    water: bool = False

    def camera(self, heading: float, size: int, shift: float = 0.0, side: float = 0.0) -> Camera:
        """A camera here, `shift` metres along the street and `side` across it."""
        x, y = self.street.point(self.along + shift, side)
        return Camera(float(x), float(y), heading % 360, size=size)


def count_blocks(spots: int, step_m: float) -> int:
    """Blocks on a side of a city that has room for so many spots."""
    return max(5, math.ceil(math.sqrt(spots * step_m / 140)) + 2)


def list_spots(city: City, step_m: float) -> list[Spot]:
    """Spots on the inner streets, `step_m` apart along each."""
    inner = [s for s in city.streets if 40 < s.centre < city.extent[1 - s.horizontal] - 40]
    return [Spot(s, float(at)) for s in inner for at in np.arange(s.start + 45, s.end - 45, step_m)]


def list_seaside(city: City) -> list[Spot]:
    """Spots along the waterfront."""
    shore = city.streets[0]
    return [Spot(shore, float(at), True) for at in np.arange(shore.start + 20, shore.end - 20, WATER_STEP_M)]


def pick_spots(rng: np.random.Generator, spots: list[Spot], number: int) -> list[Spot]:
    """Some of the spots, in their order.

    Raises:
        ValueError: there are too few.
    """
    if len(spots) < number:
        raise ValueError(f"the city has room for {len(spots)} spots, {number} are asked for")
    return [spots[i] for i in sorted(rng.permutation(len(spots))[:number])]


def survey(city: City, number: int, step_m: float) -> list[Spot]:
    """Spots that fill the streets around the estate nearest to the middle of the city."""
    spots = list_spots(city, step_m)
    blocks = city.estates.reshape(-1, 2, 2).mean(1)
    centre = blocks[((blocks - np.array(city.extent) / 2) ** 2).sum(1).argmin()]
    spread = [np.abs(s.street.point(s.along) - centre).max() for s in spots]
    return [spots[i] for i in sorted(np.argsort(spread, kind="stable")[:number])]


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """A key, drawn with its weight."""
    total = sum(weights.values())
    return str(rng.choice(list(weights), p=[w / total for w in weights.values()]))


def make_moment(rng: np.random.Generator, lights: dict[str, float], years: tuple[int, int], heading: float) -> Moment:
    """A date and its light; in a backlit photo the sun shines into the camera."""
    light = choose(rng, lights)
    sun = heading + rng.uniform(-18, 18) if light == "backlight" else rng.uniform(0, 360)
    return Moment(int(rng.integers(*years)), int(rng.integers(1, 13)), light, sun % 360, int(rng.integers(2**31)))


def stray(rng: np.random.Generator, spot: Spot, camera: Camera, metres: float, degrees: float) -> Camera:
    """The camera of another visit: on the road, a little off in place, heading, height and tilt."""
    shift, side = rng.normal(0, metres), rng.uniform(-0.6, 0.6) * spot.street.road
    moved = spot.camera(camera.heading + rng.normal(0, degrees), camera.size, shift, side)
    return replace(moved, height=float(rng.uniform(2.0, 2.7)), horizon=float(0.58 + rng.normal(0, 0.02)))


def look_across(rng: np.random.Generator, city: City, spot: Spot, camera: Camera) -> Camera | None:
    """The same houses from 5 to 20 m along the street, turned by 20 to 60 degrees; None where that can't be."""
    near = find_visible(city, camera).nearest[camera.size // 2]
    if near == 0:
        return None
    target = np.array([camera.x, camera.y]) + camera.forward / near
    for _ in range(12):
        shift, side = rng.choice((-1, 1)) * rng.uniform(5, 19), rng.uniform(-0.6, 0.6) * spot.street.road
        moved = spot.camera(0.0, camera.size, shift, side)
        across, ahead = target - (moved.x, moved.y)
        heading = math.degrees(math.atan2(across, ahead)) % 360
        turn = abs((heading - camera.heading + 180) % 360 - 180)
        distance = math.hypot(moved.x - camera.x, moved.y - camera.y)
        if 20 <= turn <= 60 and 5 <= distance <= 20 and math.hypot(across, ahead) > 5:
            return replace(moved, heading=heading)
    return None


def find_occluder(rng: np.random.Generator, camera: Camera, city: City | None = None) -> Occluder:
    """Something that covers a third to two thirds of the photo, and stands before the walls of the city."""
    nearest = np.zeros(camera.size) if city is None else find_visible(city, camera).nearest
    for _ in range(200):
        kind = str(rng.choice(OCCLUDERS))
        turn = {"truck": 90 + rng.normal(0, 25), "bus": 90 + rng.normal(0, 20), "crowd": 0, "scaffold": 90}[kind]
        ahead = {"truck": rng.uniform(4.5, 8), "bus": rng.uniform(4.5, 9), "crowd": 3, "scaffold": rng.uniform(3, 6)}
        right = {"crowd": rng.uniform(-0.5, 0.5), "scaffold": rng.uniform(-8, 8)}.get(kind, rng.uniform(-4, 4))
        found = Occluder(kind, float(ahead[kind]), float(right), float(turn), int(rng.integers(2**31)))
        column = int(np.clip(camera.size / 2 + camera.focal * right / ahead[kind], 0, camera.size - 1))
        if nearest[column] * (ahead[kind] + 1) < 1 and 0.36 <= occluder_share(camera, found) <= 0.64:
            return found
    raise ValueError(f"nothing covers a third to two thirds of the photo at {camera.x:.0f}, {camera.y:.0f}")


def pick_turn(rng: np.random.Generator) -> float:
    """Degrees from the street's direction: along it, oblique, or at the houses."""
    turn = rng.choice((0, 45, 90), p=(0.25, 0.45, 0.3)) + rng.normal(0, 10)
    return float(rng.choice((-1, 1)) * turn + rng.choice((0, 180)))


def looks_alike(camera: Camera, other: Camera) -> bool:
    """Less than 5 m and 20 degrees apart."""
    turn = abs((camera.heading - other.heading + 180) % 360 - 180)
    return turn < 20 and math.hypot(camera.x - other.x, camera.y - other.y) < 5


def middle_house(city: City, camera: Camera) -> int:
    """The house in the middle of the photo; -1 where there is none."""
    visible = find_visible(city, camera)
    middle = camera.size / 2
    before = np.flatnonzero((visible.columns[:, 0] <= middle) & (middle <= visible.columns[:, 1]))
    return int(city.wall_of[visible.index[before[0]]]) if len(before) else -1


def estate_share(city: City, camera: Camera) -> float:
    """Share of the photo's columns whose nearest wall belongs to the repetitive district."""
    small = replace(camera, size=64)
    visible = find_visible(city, small)
    styles = np.array([city.buildings[b].style == "estate" for b in city.wall_of[visible.index]], bool)
    middles = np.arange(64) + 0.5
    first = np.full(64, -1)
    for row in reversed(range(len(visible.index))):  # the nearest last
        left, right = visible.columns[row]
        first[(left <= middles) & (middles <= right)] = row
    return float(styles[first[first >= 0]].sum() / 64)
