"""Sizes and difficulty of a rendered data root."""

from dataclasses import dataclass

MINIMA = {
    "seed": 0, "size": 32, "quality": 1, "cities": 1, "places": 2, "photos_per_place": 2, "val_database": 32,
    "val_queries": 6, "test_database": 32, "test_queries": 6, "tokyo_database": 32, "tokyo_places": 1,
}  # fmt: skip
MAX_CITIES = 99  # in train; the cities of the splits are numbered from 101
MAX_QUALITY = 95


@dataclass(frozen=True)
class CitySettings:
    """Sizes and difficulty of a rendered data root.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = 0
    size: int = 320  # pixels, height and width
    quality: int = 88  # of the JPEGs
    cities: int = 4  # in train
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
        for name, minimum in MINIMA.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}; a rendered city needs at least {minimum}")
        for name, low, high in (
            ("quality", MINIMA["quality"], MAX_QUALITY),
            ("cities", MINIMA["cities"], MAX_CITIES),
            ("difficulty", 0, 3),
            ("dim_share", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if self.places < self.cities:
            raise ValueError(f"places is {self.places}; expected at least one for each of {self.cities} cities")
