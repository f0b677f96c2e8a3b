"""The plan of a city: streets in a grid, blocks of houses in several districts, trees, lamps, a waterfront.

Everything is in meters east (x) and north (y) of the city's corner, and follows from the seed alone.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from vpr_lib.city.exact_math import Generator, round_off
from vpr_lib.city.pictures import make_rng

FACES = ("south", "east", "north", "west")


@dataclass(frozen=True)
class Style:
    """How the houses of a district are built; pairs are lower and upper bounds, in meters."""

    width: tuple[float, float]
    floors: tuple[int, int]
    floor_height: float
    gap: float  # chance of a gap beside a house
    shops: float  # chance of a shop on the ground floor
    trees: float  # chance of a tree at each possible place
    roofs: tuple[str, ...]
    walls: tuple[str, ...]  # materials
    hues: tuple[float, ...]  # of the walls, 0 to 1


REPETITIVE = "repetitive"  # the style whose blocks consist of houses that look the same

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
    REPETITIVE: Style((10, 10), (3, 3), 3.0, 0.0, 0.0, 0.3, ("flat", "hip"), ("stucco", "concrete", "brick"),
                    (0.05, 0.1, 0.13, 0.6)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)  # compared by identity, so that caches of its pictures find it fast
class Building:
    """A house on a rectangle; `look` seeds its appearance (houses may share it), `seed` its own details."""

    x0: float
    y0: float
    x1: float
    y1: float
    floors: int
    roof: str
    wall: str  # material
    style: str  # key of `STYLES`
    look: int
    seed: int
    street_faces: tuple[str, ...]  # those of `FACES` that stand on a street

    @property
    def height(self) -> float:
        """Meters from the ground to the eaves."""
        return self.floors * STYLES[self.style].floor_height + 0.6

    @property
    def roof_height(self) -> float:
        """Meters from the eaves to the top."""
        return {"gable": 2.6, "mansard": 2.2, "hip": 2.0, "stepped": 2.0, "cornice": 0.8, "flat": 0.4}[self.roof]


def _fill_block(rng: Generator, block: np.ndarray, style_name: str, look: int) -> list[Building]:
    """Houses around a block (x0, y0, x1, y1); those of the repetitive style share one look."""
    x0, y0, x1, y1 = block
    style = STYLES[style_name]
    depth = min(12.0, (y1 - y0) / 2.5, (x1 - x0) / 2.5)
    design = _pick_design(rng, style)
    buildings = []
    sides = (("south", x0, x1), ("north", x0, x1), ("west", y0 + depth, y1 - depth), ("east", y0 + depth, y1 - depth))
    for side, start, end in sides:
        for low, high in _divide_side(rng, start, end, style):
            if style_name != REPETITIVE:
                design = _pick_design(rng, style)
                look = int(rng.integers(2**31))
            rectangle = {
                "south": (low, y0, high, y0 + depth),
                "north": (low, y1 - depth, high, y1),
                "west": (x0, low, x0 + depth, high),
                "east": (x1 - depth, low, x1, high),
            }[side]
            corners = (("west", low == start), ("east", high == end)) if side in ("south", "north") else ()
            street_faces = (side, *(other for other, at_corner in corners if at_corner))  # two for a corner house
            seed = int(rng.integers(2**31))
            buildings.append(Building(*map(float, rectangle), *design, style_name, look, seed, street_faces))
    return buildings


def _pick_design(rng: Generator, style: Style) -> tuple[int, str, str]:
    """Floors, roof and wall material of a house."""
    floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
    return floors, rng.pick(style.roofs), rng.pick(style.walls)


def _divide_side(rng: Generator, start: float, end: float, style: Style) -> list[tuple[float, float]]:
    """Cut the side of a block into houses, with gaps between some of them."""
    houses, at = [], start
    while end - at > style.width[0]:
        width = min(rng.uniform(*style.width), end - at)
        if end - at - width < style.width[0]:
            width = end - at if end - at < 1.4 * style.width[1] else (end - at) / 2
        houses.append((at, at + width))
        at += width + (rng.uniform(2.5, 6) if rng.random() < style.gap else 0)
    return houses


@dataclass(frozen=True)
class Street:
    """A straight street; along x if `horizontal`, else along y."""

    horizontal: bool
    center: float
    start: float
    end: float
    road: float  # half width of the road
    walk: float  # width of the sidewalk on each side

    def point(self, along: float, across: float = 0.0) -> np.ndarray:
        """(2,) meters east and north of a point `along` the street, and `across` it to the north or east."""
        return np.array([along, self.center + across] if self.horizontal else [self.center + across, along])

    @property
    def direction(self) -> float:
        """Heading of the street in degrees: 90 (east) or 0 (north)."""
        return 90.0 if self.horizontal else 0.0


@dataclass(frozen=True, eq=False)
class City:
    """A city; arrays have one row for each object."""

    seed: int  # of `make_city`
    streets: list[Street]  # those along x, from the waterfront to the north; those along y
    buildings: list[Building]  # four walls each
    trees: np.ndarray  # (T, 4) x, y, height, variant
    lamps: np.ndarray  # (L, 3) x, y, heading of the arm
    parking: np.ndarray  # (P, 4) x, y, heading, chance that a car stands there
    towers: np.ndarray  # (D, 4) x, y, width, height, across the water
    hills: np.ndarray  # (H, 3) x, y, height of a ridge line around the city
    woods: np.ndarray  # (G, 3) the same, of the trees at its edge
    piers: np.ndarray  # (Q, 3) x, length, width, in the water
    repetitive_blocks: np.ndarray  # (E, 4) x0, y0, x1, y1 of the blocks whose houses look the same

    @cached_property
    def walls(self) -> np.ndarray:
        """(4 B, 4) x, y of the left and right foot seen from outside; wall i is `FACES[i % 4]` of building i // 4."""
        x0, y0, x1, y1 = np.array([[house.x0, house.y0, house.x1, house.y1] for house in self.buildings]).T
        south, east = np.c_[x0, y0, x1, y0], np.c_[x1, y0, x1, y1]
        north, west = np.c_[x1, y1, x0, y1], np.c_[x0, y1, x0, y0]
        return np.stack([south, east, north, west], 1).reshape(-1, 4)

    @cached_property
    def heights(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,) meters to the eaves and to the roof's top of each building."""
        eaves = np.array([building.height for building in self.buildings])
        return eaves, eaves + [building.roof_height for building in self.buildings]

    @property
    def shore(self) -> float:
        """Meters north of the waterfront's edge; the water lies south of it."""
        return -self.streets[0].road - self.streets[0].walk

    @property
    def extent(self) -> tuple[float, float]:
        """Meters east and north of the far corner."""
        return self.streets[0].end, self.streets[-1].end


@lru_cache(maxsize=128)  # all cities of a data root
def make_city(seed: int, blocks: int = 7) -> City:
    """Make a city of `blocks` x `blocks` blocks, with water along its south side."""
    rng = make_rng("city", seed)
    streets = _make_streets(rng, blocks)
    rows, columns = streets[: blocks + 1], streets[blocks + 1 :]
    districts = rng.uniform(0, blocks, (2 * len(STYLES), 2))
    buildings, repetitive_blocks = [], []
    for i, (west, east) in enumerate(pairwise(columns)):
        for k, (south, north) in enumerate(pairwise(rows)):
            style = _pick_style(districts, (i + 0.5, k + 0.5))
            edges = [west.road + west.walk, south.road + south.walk, -east.road - east.walk, -north.road - north.walk]
            block = np.array([west.center, south.center, east.center, north.center]) + edges
            buildings += _fill_block(rng, block, style, int(rng.integers(2**31)))
            if style == REPETITIVE:
                repetitive_blocks.append(block)
    width = columns[-1].center
    trees, lamps, parking = _furnish_streets(rng, streets, districts, width / blocks)
    towers, hills, woods, piers = _make_surroundings(rng, width)
    repetitive = np.array(repetitive_blocks).reshape(-1, 4)
    return City(seed, streets, buildings, trees, lamps, parking, towers, hills, woods, piers, repetitive)


def _pick_style(districts: np.ndarray, spot: tuple[float, float]) -> str:
    """The style of the nearest district center (rows of `districts`: each style twice), in blocks."""
    return (list(STYLES) * 2)[np.argmin(((districts - spot) ** 2).sum(1))]


def _make_streets(rng: Generator, blocks: int) -> list[Street]:
    """Streets in a grid of uneven blocks; some are avenues."""
    spans = [np.r_[0, np.cumsum(rng.uniform(68, 105, blocks))] for _ in range(2)]
    streets = []
    for horizontal, centers, length in ((True, spans[1], spans[0][-1]), (False, spans[0], spans[1][-1])):
        for number, center in enumerate(centers):
            avenue = rng.random() < 0.3 or (horizontal and number == 0)
            road, walk = (7.5, 4.5) if avenue else (rng.uniform(4, 5.5), rng.uniform(2.5, 3.5))
            streets.append(Street(horizontal, float(center), -8.0, float(length) + 8.0, road, walk))
    return streets


def _furnish_streets(
    rng: Generator, streets: list[Street], districts: np.ndarray, block_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trees, lamps and parking along every street; see `City`."""
    trees, lamps, parking = [], [], []
    for street in streets:
        crossings = np.array([other.center for other in streets if other.horizontal != street.horizontal])
        for side in (-1, 1):
            reverse = (side < 0) != street.horizontal
            curb = side * (street.road + 0.7)
            at = street.start + rng.uniform(5, 20)
            while at < street.end:
                lamps.append([*street.point(at, curb), street.direction + (90 if reverse else -90)])
                at += rng.uniform(22, 34)
            at = street.start + rng.uniform(2, 9)
            while at < street.end:
                if np.abs(crossings - at).min() > 13:  # no street crosses here
                    style = STYLES[_pick_style(districts, street.point(at, curb) / block_m)]
                    if rng.random() < style.trees:
                        x, y = street.point(at, side * (street.road + 1.2))
                        trees.append([x, y, rng.uniform(4, 9), rng.integers(6)])
                    x, y = street.point(at + 3, side * (street.road - 1.1))
                    parking.append([x, y, street.direction + 180 * reverse, rng.uniform(0.1, 0.8)])
                at += rng.uniform(6.5, 9)
    return np.array(trees), np.array(lamps), np.array(parking)


def _make_surroundings(rng: Generator, width: float) -> tuple[np.ndarray, ...]:
    """Towers across the water, hills and woods around the city, piers; see `City`."""
    east, north = rng.uniform(-900, width + 900, 90), -rng.uniform(350, 1100, 90)
    towers = np.c_[east, north, rng.uniform(14, 46, 90), round_off(rng.gamma(2.0, 22, 90)) + 8]
    angles = np.linspace(0, 2 * np.pi, 181)[:-1]
    heights = np.zeros(180)
    for k in (1, 2, 3, 5, 9, 17):
        heights += rng.uniform(0.1, 0.7) * 120 / (k + 1) * (1 + round_off(np.sin(k * angles + rng.uniform(0, 6.3))))
    east, north = (width / 2 + 2600 * round_off(wave(angles)) for wave in (np.cos, np.sin))
    hills = np.c_[east, north, heights]
    edge = np.linspace(-0.5, 1.5, 81) * width  # west, north and east of the city, not across the water
    low, high = np.full(81, -250.0), np.full(81, width + 250)
    rim = np.concatenate([np.c_[low, edge[::-1]], np.c_[edge, high], np.c_[high, edge]])
    rim = rim[rim[:, 1] > -40]
    woods = np.c_[rim, 11 + 5 * round_off(np.sin(np.arange(len(rim)) * 1.7)) + rng.uniform(0, 7, len(rim))]
    piers = np.c_[np.cumsum(rng.uniform(60, 190, 8)) - 60, rng.uniform(20, 60, 8), rng.uniform(4, 10, 8)]
    return towers[np.argsort(towers[:, 1], kind="stable")], hills, woods, piers[piers[:, 0] < width]
