"""Settings of a rendered data root; one photo to take and its file name, in the real datasets' convention."""

from dataclasses import dataclass

from vpr_lib.city.canvas import Camera, Moment
from vpr_lib.city.exact_math import cosine, find_angle, sine
from vpr_lib.city.street_objects import Occluder
from vpr_lib.file_names import format_name
from vpr_lib.options import CheckedNames, check_fields

# Where the imaginary cities lie: zone, letter, meters east and north of the corner, degrees clockwise they are turned.
SPLIT_SITES = {
    "sf_val": (10, "S", 547_300.0, 4_178_900.0, 9.0),
    "sf_test": (10, "S", 549_800.0, 4_166_200.0, 9.0),
    "tokyo_test": (54, "S", 386_100.0, 3_948_700.0, -17.0),
}
TRAIN_SITES = {
    "Alderport": (31, "U", 448_200.0, 5_411_300.0, 23.0),
    "Brynhaven": (33, "T", 290_400.0, 4_640_800.0, -31.0),
    "Corvale": (18, "T", 583_700.0, 4_507_600.0, 29.0),
    "Dunmere": (56, "H", 334_500.0, 6_251_200.0, -6.0),
}
NEXT_CITY_M = 20_000.0  # from a city to the next one at the same site, north: their places do not overlap
INTERVALS = {  # what each number must lie in
    "seed": "[0, inf)", "size": "[32, 4096]", "quality": "[1, 95]", "cities": "[1, 99]", "places": "[2, 1e6]",
    "photos_per_place": "[2, 1e3]", "val_database": "[32, 1e6]", "val_queries": "[6, 1e6]",
    "test_database": "[32, 1e6]", "test_queries": "[6, 1e6]", "tokyo_database": "[32, 1e6]",
    "tokyo_places": "[1, 1e6]", "dim_share": "[0, 1]", "difficulty": "[0, 3]",
}  # fmt: skip


@dataclass(frozen=True)
class CitySettings(CheckedNames):
    """Sizes and difficulty of a rendered data root.

    Raises:
        ValueError: there is no such field, or a value is out of range, or has another type than its field.
    """

    seed: int = 0  # its cities have the seeds 1000 * seed + 1, ... + 999: no two data roots share one
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
        check_fields(self, INTERVALS)
        if self.places < self.cities:
            raise ValueError(f"places is {self.places}; expected at least one for each of {self.cities} cities")


@dataclass(frozen=True)
class View:
    """One photo to take: where it goes, what it shows."""

    path: str  # in the data root
    city: int  # seed of `make_city`
    blocks: int
    camera: Camera
    moment: Moment
    occluder: Occluder | None = None
    scenario: str = ""  # of a query
    detail: str = ""  # such as the light, or the kind of occluder


def name_photo(site: str, camera: Camera, moment: Moment, pano: str, note: str = "", earlier: int = 0) -> str:
    """A file name in the real datasets' convention.

    `site` is a key of `SPLIT_SITES` or `TRAIN_SITES`, where `earlier` other cities of this data root lie; `pano`
    identifies the photo, `note` place and city of a training photo.
    """
    zone, letter, east, north, angle = (SPLIT_SITES | TRAIN_SITES)[site]
    north += NEXT_CITY_M * earlier
    sin, cos = sine(angle), cosine(angle)
    pitch = find_angle((camera.horizon - 0.5) * camera.size, camera.focal)
    return format_name(
        east=f"{east + camera.x * cos + camera.y * sin:.2f}",
        north=f"{north - camera.x * sin + camera.y * cos:.2f}",
        zone=zone, letter=letter, pano=pano, heading=f"{(camera.heading + angle) % 360:.2f}", pitch=f"{pitch:.2f}",
        roll="0.00", height=f"{camera.height:.2f}", date=f"{moment.year}{moment.month:02}", note=note,
    )  # fmt: skip
