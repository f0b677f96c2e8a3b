"""Houses: the styles of the districts, and rows of houses around a block.

Positions are in metres east (x) and north (y) of the city's corner.
"""

from dataclasses import dataclass

import numpy as np

FACES = ("south", "east", "north", "west")


@dataclass(frozen=True)
class Style:
    """How the houses of a district are built; pairs are lower and upper bounds, in metres."""

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


@dataclass(frozen=True)
class Building:
    """A house on a rectangle; `look` seeds its appearance (houses may share it), `seed` its own details."""

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
    street_faces: tuple[str, ...]  # those of `FACES` that stand on a street

    @property
    def height(self) -> float:
        """Metres from the ground to the eaves."""
        return self.floors * STYLES[self.style].floor_height + 0.6

    @property
    def roof_height(self) -> float:
        """Metres from the eaves to the top."""
        return {"gable": 2.6, "mansard": 2.2, "hip": 2.0, "stepped": 2.0, "cornice": 0.8, "flat": 0.4}[self.roof]


def fill_block(rng: np.random.Generator, block: np.ndarray, style_name: str, look: int) -> list[Building]:
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
            street_faces = [side]
            if side in ("south", "north"):  # corner houses stand on two streets
                if low == start:
                    street_faces.append("west")
                if high == end:
                    street_faces.append("east")
            floors, roof, wall = design
            seed = int(rng.integers(2**31))
            corners = map(float, rectangle)
            buildings.append(Building(*corners, floors, style_name, roof, wall, look, seed, tuple(street_faces)))
    return buildings


def _pick_design(rng: np.random.Generator, style: Style) -> tuple[int, str, str]:
    """Floors, roof and wall material of a house."""
    floors = int(rng.integers(style.floors[0], style.floors[1] + 1))
    return floors, str(rng.choice(style.roofs)), str(rng.choice(style.walls))


def _divide_side(rng: np.random.Generator, start: float, end: float, style: Style) -> list[tuple[float, float]]:
    """Cut the side of a block into houses, with gaps between some of them."""
    houses = []
    at = start
    while end - at > style.width[0]:
        width = min(rng.uniform(*style.width), end - at)
        if end - at - width < style.width[0]:
            width = end - at if end - at < 1.4 * style.width[1] else (end - at) / 2
        houses.append((at, at + width))
        at += width + (rng.uniform(2.5, 6) if rng.random() < style.gap else 0)
    return houses
