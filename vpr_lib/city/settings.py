"""Sizes and difficulty of a rendered data root."""

import math
from dataclasses import dataclass

RANGES = {
    "seed": (0, math.inf), "size": (32, math.inf), "quality": (1, 95), "cities": (1, 99), "places": (2, math.inf),
    "photos_per_place": (2, math.inf), "val_database": (32, math.inf), "val_queries": (6, math.inf),
    "test_database": (32, math.inf), "test_queries": (6, math.inf), "tokyo_database": (32, math.inf),
    "tokyo_places": (1, math.inf), "dim_share": (0, 1), "difficulty": (0, 3),
}  # fmt: skip


@dataclass(frozen=True)
class CitySettings:
    """Sizes and difficulty of a rendered data root.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    size: int = 320  # pixels, height and width
    quality: int = 88  # of the JPEGs
    cities: int = 4  # in train; numbered from 1, those of the splits from 101
    places: int = 240  # in train, in all its cities together
    photos_per_place: int = 8
    val_database: int = 320
    val_queries: int = 160
    test_database: int = 400
    test_queries: int = 200
    tokyo_database: int = 320
    tokyo_places: int = 60  # query places, each by day, at sunset and at night
    dim_share: float = 0.15  # share of training photos at sunset, at night, in rain or against the sun
    difficulty: float = 1.0  # scales how much the cameras of queries and training photos differ

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
                raise ValueError(f"{name} is {getattr(self, name)}; a rendered city needs {expected}")
        if self.places < self.cities:
            raise ValueError(f"places is {self.places}; expected at least one for each of {self.cities} cities")
