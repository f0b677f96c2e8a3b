"""What stands where: streets in a grid, blocks of houses in several districts, trees, lamps, a waterfront.

Everything is in metres east (x) and north (y) of the city's corner, and follows from the seed alone.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

FACES = ("south", "east", "north", "west")


def make_rng(*keys: int | str) -> np.random.Generator:
    """A generator that depends on all keys and on nothing else."""
    return np.random.default_rng([zlib.crc32(k.encode()) if isinstance(k, str) else int(k) for k in keys])


@dataclass(frozen=True)
class Style:
    """How a district builds: lower and upper bounds, metres."""

    width: tuple[float, float]
    floors: tuple[int, int]
    floor_height: float
    gap: float  # chance of a gap beside a house
    shops: float  # chance of a shop on the ground floor
    trees: float  # chance of a tree at each place for one
    roofs: tuple[str, ...]
    walls: tuple[str, ...]  # what they are made of
    hues: tuple[float, ...]  # of the walls, 0 to 1


STYLES = {
    "terrace": Style((5.5, 8.5), (2, 4), 3.3, 0.03, 0.15, 0.4, ("gable", "cornice", "mansard"), ("stucco", "boards"),
                     (0.02, 0.08, 0.13, 0.3, 0.45, 0.55, 0.6, 0.75, 0.95)),
    "brick": Style((9, 16), (3, 5), 3.8, 0.06, 0.5, 0.25, ("flat", "cornice", "stepped"), ("brick",),
                   (0.0, 0.02, 0.04, 0.06, 0.09)),
    "downtown": Style((14, 26), (5, 14), 3.6, 0.05, 0.7, 0.15, ("flat",), ("glass", "concrete", "stone"),
                      (0.08, 0.1, 0.13, 0.55, 0.58, 0.62)),
    "suburb": Style((8, 13), (1, 2), 3.0, 0.55, 0.02, 0.75, ("gable", "hip", "mansard"), ("boards", "stucco", "brick"),
                    (0.05, 0.1, 0.15, 0.35, 0.55, 0.6)),
    "market": Style((6, 12), (2, 4), 3.5, 0.04, 0.95, 0.2, ("cornice", "flat", "mansard"), ("stucco", "stone", "brick"),
                    (0.05, 0.09, 0.12, 0.15, 0.6)),
    "estate": Style((10, 10), (3, 3), 3.0, 0.0, 0.0, 0.3, ("flat", "hip"), ("stucco", "concrete", "brick"),
                    (0.05, 0.1, 0.13, 0.6)),
}  # fmt: skip


@dataclass(frozen=True)
class Building:
    """A house on a rectangle; `look` seeds its appearance, `seed` the small things that are its own."""

    x0: float
    y0: float
    x1: float
    y1: float
    floors: int
    style: str
    roof: str
    wall: str
    look: int
    seed: int
    fronts: tuple[str, ...]  # the faces that stand on a street

    @property
    def height(self) -> float:
        """Metres from the ground to the eaves."""
        return self.floors * STYLES[self.style].floor_height + 0.6

    @property
    def roof_height(self) -> float:
        """Metres from the eaves to the top."""
        return {"gable": 2.6, "mansard": 2.2, "hip": 2.0, "stepped": 2.0, "cornice": 0.8, "flat": 0.4}[self.roof]


@dataclass(frozen=True)
class Street:
    """A straight street; along x if `horizontal`, else along y."""

    horizontal: bool
    centre: float
    start: float
    end: float
    road: float  # half width of the road
    walk: float  # width of the pavement on each side

    def point(self, along: float, across: float = 0.0) -> np.ndarray:
        """(2,) metres: `along` the street, `across` it to the north or east."""
        return np.array([along, self.centre + across] if self.horizontal else [self.centre + across, along])

    @property
    def direction(self) -> float:
        """Heading of the street in degrees: 90 (east) or 0 (north)."""
        return 90.0 if self.horizontal else 0.0


@dataclass(frozen=True, eq=False)
class City:
    """A city; arrays have one row for each thing.

    Attributes:
        seed: what it was made from.
        streets: in no order; the first horizontal one is the waterfront.
        buildings: with the walls below.
        walls: (W, 4) metres, x and y of the left and the right foot, seen from outside.
        wall_of: (W,) index of the building.
        wall_face: (W,) index into `FACES`.
        trees: (T, 4) x, y, height, variant.
        lamps: (L, 3) x, y, heading of the arm.
        parking: (P, 4) x, y, heading, chance that a car stands there.
        towers: (D, 4) x, y, width, height of what is seen across the water.
        hills: (H, 3) x, y, height of a ridge line around the city.
        woods: (G, 3) the same for the trees at its edge.
        piers: (Q, 3) x, length, width, in the water.
        estates: (E, 4) blocks of the repetitive district: x0, y0, x1, y1.
    """

    seed: int
    streets: list[Street]
    buildings: list[Building]
    walls: np.ndarray
    wall_of: np.ndarray
    wall_face: np.ndarray
    trees: np.ndarray
    lamps: np.ndarray
    parking: np.ndarray
    towers: np.ndarray
    hills: np.ndarray
    woods: np.ndarray
    piers: np.ndarray
    estates: np.ndarray

    @cached_property
    def heights(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,) metres to the eaves and to the roof's top of each building."""
        eaves = np.array([b.height for b in self.buildings])
        return eaves, eaves + [b.roof_height for b in self.buildings]

    @property
    def extent(self) -> tuple[float, float]:
        """Metres east and north of the far corner."""
        return max(s.end for s in self.streets if s.horizontal), max(s.end for s in self.streets if not s.horizontal)


@lru_cache(maxsize=4)
def make_city(seed: int, blocks: int = 7) -> City:
    """Build a city of `blocks` x `blocks` blocks, with water along its south side."""
    rng = make_rng("city", seed)
    streets = make_streets(rng, blocks)
    columns, rows = ([s for s in streets if s.horizontal == flag] for flag in (False, True))
    centres = rng.uniform(0, blocks, (2 * len(STYLES), 2))
    names = list(STYLES) * 2
    buildings, estates = [], []
    for i, (west, east) in enumerate(pairwise(columns)):
        for j, (south, north) in enumerate(pairwise(rows)):
            style = names[np.argmin(((centres - (i + 0.5, j + 0.5)) ** 2).sum(1))]
            edges = [west.road + west.walk, south.road + south.walk, -east.road - east.walk, -north.road - north.walk]
            block = np.array([west.centre, south.centre, east.centre, north.centre]) + edges
            buildings += fill_block(rng, block, style, int(rng.integers(2**31)))
            if style == "estate":
                estates.append(block)
    corners = np.array([[b.x0, b.y0, b.x1, b.y1] for b in buildings])
    x0, y0, x1, y1 = corners.T
    walls = np.stack([np.c_[x0, y0, x1, y0], np.c_[x1, y0, x1, y1], np.c_[x1, y1, x0, y1], np.c_[x0, y1, x0, y0]], 1)
    width = max(s.centre for s in columns)
    return City(
        seed=seed,
        streets=streets,
        buildings=buildings,
        walls=walls.reshape(-1, 4),  # a building's faces in the order of FACES
        wall_of=np.repeat(np.arange(len(buildings)), 4),
        wall_face=np.tile(np.arange(4), len(buildings)),
        **place_furniture(rng, streets, names, centres, width / blocks),
        **make_distance(rng, width),
        estates=np.array(estates).reshape(-1, 4),
    )


def make_streets(rng: np.random.Generator, blocks: int) -> list[Street]:
    """Streets in a grid of uneven blocks; some are avenues."""
    spans = [np.r_[0, np.cumsum(rng.uniform(68, 105, blocks))] for _ in range(2)]
    streets = []
    for horizontal, centres, length in ((True, spans[1], spans[0][-1]), (False, spans[0], spans[1][-1])):
        for number, centre in enumerate(centres):
            avenue = rng.random() < 0.3 or (horizontal and number == 0)
            road, walk = (7.5, 4.5) if avenue else (rng.uniform(4, 5.5), rng.uniform(2.5, 3.5))
            streets.append(Street(horizontal, float(centre), -8.0, float(length) + 8.0, road, walk))
    return streets


def fill_block(rng: np.random.Generator, block: np.ndarray, style: str, look: int) -> list[Building]:
    """Houses around a block (x0, y0, x1, y1); those of an estate share one look."""
    x0, y0, x1, y1 = block
    kind, depth = STYLES[style], min(12.0, (y1 - y0) / 2.5, (x1 - x0) / 2.5)
    shared = (int(rng.integers(kind.floors[0], kind.floors[1] + 1)), rng.choice(kind.roofs), rng.choice(kind.walls))
    buildings = []
    sides = (("south", x0, x1), ("north", x0, x1), ("west", y0 + depth, y1 - depth), ("east", y0 + depth, y1 - depth))
    for side, start, end in sides:
        for a, b in divide(rng, start, end, kind):
            floors, roof, wall = shared
            if style != "estate":
                floors = int(rng.integers(kind.floors[0], kind.floors[1] + 1))
                roof, wall = rng.choice(kind.roofs), rng.choice(kind.walls)
                look = int(rng.integers(2**31))
            rectangle = {
                "south": (a, y0, b, y0 + depth),
                "north": (a, y1 - depth, b, y1),
                "west": (x0, a, x0 + depth, b),
                "east": (x1 - depth, a, x1, b),
            }[side]
            fronts = [side]
            if side in ("south", "north"):  # corner houses have two fronts
                fronts += ["west"] * int(a == start) + ["east"] * int(b == end)
            seed = int(rng.integers(2**31))
            values = (*map(float, rectangle), floors, style, str(roof), str(wall), look, seed, tuple(fronts))
            buildings.append(Building(*values))
    return buildings


def divide(rng: np.random.Generator, start: float, end: float, style: Style) -> list[tuple[float, float]]:
    """Cut the side of a block into houses, with gaps between some of them."""
    houses, at = [], start
    while end - at > style.width[0]:
        width = min(rng.uniform(*style.width), end - at)
        if end - at - width < style.width[0]:
            width = end - at if end - at < 1.4 * style.width[1] else (end - at) / 2
        houses.append((at, at + width))
        at += width + (rng.uniform(2.5, 6) if rng.random() < style.gap else 0)
    return houses


def place_furniture(
    rng: np.random.Generator, streets: list[Street], names: list[str], centres: np.ndarray, pitch: float
) -> dict[str, np.ndarray]:
    """Trees, lamps and parking along every street."""
    trees, lamps, parking = [], [], []
    for street in streets:
        crossings = np.array([other.centre for other in streets if other.horizontal != street.horizontal])
        for side in (-1, 1):
            kerb = side * (street.road + 0.7)
            towards_road = street.direction + (90 if (side < 0) != street.horizontal else -90)
            at = street.start + rng.uniform(5, 20)
            while at < street.end:  # lamps
                lamps.append([*street.point(at, kerb), towards_road])
                at += rng.uniform(22, 34)
            at = street.start + rng.uniform(2, 9)
            while at < street.end:  # trees and parked cars where no street crosses
                if np.abs(crossings - at).min() > 13:
                    spot = street.point(at, kerb)
                    style = names[np.argmin(((centres - spot / pitch) ** 2).sum(1))]
                    if rng.random() < STYLES[style].trees:
                        trees.append(
                            [*street.point(at, side * (street.road + 1.2)), rng.uniform(4, 9), rng.integers(6)]
                        )
                    across, turn = side * (street.road - 1.1), 180 * ((side < 0) != street.horizontal)
                    parking.append([*street.point(at + 3, across), street.direction + turn, rng.uniform(0.1, 0.8)])
                at += rng.uniform(6.5, 9)
    return {"trees": np.array(trees), "lamps": np.array(lamps), "parking": np.array(parking)}


def make_distance(rng: np.random.Generator, width: float) -> dict[str, np.ndarray]:
    """What is seen far away: towers across the water, hills all around, piers."""
    number = 90
    across = np.c_[
        rng.uniform(-900, width + 900, number),
        -rng.uniform(350, 1100, number),
        rng.uniform(14, 46, number),
        rng.gamma(2.0, 22, number) + 8,
    ]
    angles = np.linspace(0, 2 * np.pi, 181)[:-1]
    heights = sum(
        rng.uniform(0.1, 0.7) * 120 / (k + 1) * (1 + np.sin(k * angles + rng.uniform(0, 6.3)))
        for k in (1, 2, 3, 5, 9, 17)
    )
    hills = np.c_[width / 2 + 2600 * np.cos(angles), width / 2 + 2600 * np.sin(angles), heights]
    edge = np.linspace(-0.5, 1.5, 81) * width  # west, north and east of the city, not across the water
    rim = np.concatenate(
        [np.c_[0 * edge - 250, edge[::-1]], np.c_[edge, 0 * edge + width + 250], np.c_[0 * edge + width + 250, edge]]
    )
    rim = rim[rim[:, 1] > -40]
    woods = np.c_[rim, 11 + 5 * np.sin(np.arange(len(rim)) * 1.7) + rng.uniform(0, 7, len(rim))]
    piers = np.c_[np.cumsum(rng.uniform(60, 190, 8)) - 60, rng.uniform(20, 60, 8), rng.uniform(4, 10, 8)]
    return {
        "towers": across[np.argsort(across[:, 1])],
        "hills": hills,
        "woods": woods,
        "piers": piers[piers[:, 0] < width],
    }
