"""Which photos a rendered data root holds: places, splits and scenarios, chosen before anything is drawn."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.camera import Camera
from vpr_lib.city.drawing import Occluder
from vpr_lib.city.light import Moment
from vpr_lib.city.scene import City, make_city, make_rng
from vpr_lib.city.spots import (
    DAYLIGHT,
    DIM,
    WATER_STEP_M,
    Spot,
    count_blocks,
    estate_share,
    find_occluder,
    list_seaside,
    list_spots,
    look_across,
    looks_alike,
    make_moment,
    middle_house,
    pick_spots,
    pick_turn,
    stray,
    survey,
)
from vpr_lib.file_names import format_name

HEADINGS = 4  # photos of a database spot, a quarter turn apart
WATER_SHARE = 0.12  # of the spots
SPOT_STEP_M, PLACE_STEP_M = 20.0, 32.0
QUERIES = {"ordinary": 0.22, "viewpoint": 0.17, "illumination": 0.19, "occlusion": 0.15, "repetitive": 0.14,
           "skyline": 0.13}  # fmt: skip
MOST_CITIES = 99  # in train; the splits' cities are numbered from 101

# Where the imaginary cities lie: zone, letter, metres east and north of the corner, degrees clockwise they are turned.
SITES = {
    "sf_val": (10, "S", 547_300.0, 4_178_900.0, 9.0),
    "sf_test": (10, "S", 549_800.0, 4_166_200.0, 9.0),
    "tokyo_test": (54, "S", 386_100.0, 3_948_700.0, -17.0),
    "Alderport": (31, "U", 448_200.0, 5_411_300.0, 23.0),
    "Brynhaven": (33, "T", 290_400.0, 4_640_800.0, -31.0),
    "Corvale": (18, "T", 583_700.0, 4_507_600.0, 29.0),
    "Dunmere": (56, "H", 334_500.0, 6_251_200.0, -6.0),
}
NEXT_CITY_M = 20_000.0  # north, to the second city of a name: no place lies in two


@dataclass(frozen=True)
class CitySettings:
    """Sizes and difficulty of a rendered data root."""

    seed: int = 0
    size: int = 320  # pixels, height and width
    quality: int = 88  # of the JPEGs
    cities: int = 4  # in train
    places: int = 240  # in train, over all its cities
    photos_per_place: int = 8
    val_database: int = 320
    val_queries: int = 160
    test_database: int = 400
    test_queries: int = 200
    tokyo_database: int = 320
    tokyo_places: int = 60  # query places, each by day, at sunset and at night
    dim_share: float = 0.15  # of the training photos that are taken at sunset, at night, in rain, against the sun
    difficulty: float = 1.0  # scales how far the cameras of queries and training photos stray

    def __post_init__(self) -> None:
        least = {
            "seed": 0,
            "quality": 1,
            "size": 32,
            "cities": 1,
            "places": 2,
            "photos_per_place": 2,
            "tokyo_places": 1,
        }
        least |= {"val_database": 32, "test_database": 32, "tokyo_database": 32, "val_queries": 6, "test_queries": 6}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} is {getattr(self, name)}; a rendered city needs at least {minimum}")
        if self.quality > 95 or self.cities > MOST_CITIES:
            raise ValueError(
                f"quality is {self.quality}, cities is {self.cities}; at most 95 and {MOST_CITIES} are possible"
            )
        if not 0 <= self.difficulty <= 3:
            raise ValueError(f"difficulty is {self.difficulty}; expected 0 to 3, 1 is the default")
        if not 0 <= self.dim_share <= 1:
            raise ValueError(f"dim_share is {self.dim_share}; expected 0 to 1")
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
    detail: str = ""


def make_views(settings: CitySettings) -> list[View]:
    """All photos of a data root, in an order in which neighbours show the same houses."""
    views = []
    for number in range(settings.cities):
        # Places are spread evenly; the first cities take the rest.
        places = settings.places // settings.cities + (number < settings.places % settings.cities)
        views += make_train_views(settings, number, places)
    val = (settings.val_database, settings.val_queries)
    views += make_split_views(settings, "sf_val", 101, *val, make_mixed_queries)
    test = (settings.test_database, settings.test_queries)
    views += make_split_views(settings, "sf_test", 102, *test, make_mixed_queries)
    tokyo = (settings.tokyo_database, settings.tokyo_places)
    views += make_split_views(settings, "tokyo_test", 103, *tokyo, make_daily_queries)
    return views


def city_seed(settings: CitySettings, number: int) -> int:
    """The seed of a data root's city, number 1 to 999: no two data roots share one."""
    return settings.seed * 1000 + number


def name_photo(site: str, camera: Camera, moment: Moment, pano: str, note: str = "", earlier: int = 0) -> str:
    """A file name in the real sets' convention; `earlier` cities of this data root lie at the same site."""
    zone, letter, east, north, angle = SITES[site]
    north += NEXT_CITY_M * earlier
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    utm = east + camera.x * cosine + camera.y * sine, north - camera.x * sine + camera.y * cosine
    heading = (camera.heading + angle) % 360
    tilt = math.degrees(math.atan((camera.horizon - 0.5) * camera.size / camera.focal))
    return format_name(
        east=f"{utm[0]:.2f}",
        north=f"{utm[1]:.2f}",
        zone=zone,
        letter=letter,
        pano=pano,
        heading=f"{heading:.2f}",
        pitch=f"{tilt:.2f}",
        roll="0.00",
        height=f"{camera.height:.2f}",
        date=f"{moment.year}{moment.month:02}",
        note=note,
    )


# Train


def make_train_views(settings: CitySettings, number: int, places: int) -> Iterator[View]:
    """The places of one city: the same spot and heading in other years, weather and traffic."""
    names = [name for name in SITES if name[0].isupper()]  # the others are splits
    name = names[number % len(names)]
    folder = name if number < len(names) else f"{name}{number // len(names) + 1}"
    seed, blocks = city_seed(settings, number + 1), count_blocks(places, PLACE_STEP_M)
    city, rng = make_city(seed, blocks), make_rng("train", seed)
    seaside = min(round(0.06 * places), 6)
    spots = pick_spots(rng, list_spots(city, PLACE_STEP_M), places - seaside)
    spots += pick_spots(rng, list_seaside(city), seaside)
    for place, spot in enumerate(spots):
        heading = 180 + rng.uniform(-50, 50) if spot.water else spot.street.direction + pick_turn(rng)
        base = spot.camera(heading, settings.size)
        for photo in range(settings.photos_per_place):
            camera = stray(rng, spot, base, 1.8 * settings.difficulty, 7 * settings.difficulty)
            if rng.random() < 0.25 * settings.difficulty:
                camera = look_across(rng, city, spot, base) or camera
            lights = DIM if rng.random() < settings.dim_share else DAYLIGHT
            moment = make_moment(rng, lights, (2008, 2022), camera.heading)
            occluder = find_occluder(rng, camera) if rng.random() < 0.06 * settings.difficulty else None
            pano, note = f"{seed}p{place:05}v{photo:02}", f"{place:07}_{folder}"
            file = name_photo(name, camera, moment, pano, note, number // len(names))
            yield View(f"train/{folder.lower()}/{file}", seed, blocks, camera, moment, occluder)


# Evaluation splits


@dataclass(frozen=True)
class Anchor:
    """A database photo that a query is taken near."""

    spot: Spot
    camera: Camera


Queries = Callable[[CitySettings, City, list[Anchor], int, np.random.Generator], list[View]]


def make_split_views(
    settings: CitySettings, split: str, number: int, database: int, queries: int, make_queries: Queries
) -> list[View]:
    """A database that surveys some streets by day, and queries taken near its photos years later."""
    seaside = max(1, round(WATER_SHARE * database / HEADINGS))
    spots = math.ceil(database / HEADINGS) - seaside
    blocks = max(count_blocks(spots, SPOT_STEP_M), math.ceil(seaside * WATER_STEP_M / 75))
    seed = find_city_with_estate(settings, number, blocks)
    city, rng = make_city(seed, blocks), make_rng(split, seed)
    views, anchors = [], []
    for spot in pick_spots(rng, list_seaside(city), seaside) + survey(city, spots, SPOT_STEP_M):
        first = rng.uniform(0, 90)
        turns = [120, 160, 200, 240] if spot.water else [first + 90 * turn for turn in range(HEADINGS)]
        for turn in turns[: database - len(views)]:
            camera = spot.camera(turn + rng.normal(0, 3), settings.size, 0.0, rng.uniform(-0.4, 0.4) * spot.street.road)
            moment = make_moment(rng, DAYLIGHT, (2009, 2015), camera.heading)
            anchors.append(Anchor(spot, camera))
            file = name_photo(split, camera, moment, f"{seed}d{len(views):05}")
            views.append(View(f"{split}/database/{file}", seed, blocks, camera, moment))
    for count, view in enumerate(make_queries(settings, city, anchors, queries, rng)):
        pano = f"{seed}q{count:05}" + (f"-{view.detail}" if split == "tokyo_test" else "")
        file = name_photo(split, view.camera, view.moment, pano)
        views.append(replace(view, path=f"{split}/queries/{file}", city=seed, blocks=blocks))
    return views


def find_city_with_estate(settings: CitySettings, number: int, blocks: int) -> int:
    """The seed of the first city numbered `number`, `number` + 10, ... that has a repetitive district inside."""
    for attempt in range(number, 1000, 10):
        city = make_city(city_seed(settings, attempt), blocks)
        middles = city.estates.reshape(-1, 2, 2).mean(1) / city.extent
        if ((middles > 0.25) & (middles < 0.75)).all(1).any():
            return city.seed
    raise ValueError(f"no city of {blocks} x {blocks} blocks has a repetitive district; try another seed")


def make_mixed_queries(
    settings: CitySettings, city: City, anchors: list[Anchor], number: int, rng: np.random.Generator
) -> list[View]:
    """Queries of every scenario, in the shares of `QUERIES`, at least one of each.

    Raises:
        ValueError: a scenario can't be had so often near this database.
    """
    counts = {name: max(1, int(share * number)) for name, share in QUERIES.items()}
    counts["ordinary"] += number - sum(counts.values())
    inland = [a for a in anchors if not a.spot.water]
    pools = {name: inland for name in QUERIES}
    pools["skyline"] = [a for a in anchors if a.spot.water and abs(a.camera.heading - 180) < 35]
    pools["repetitive"] = [a for a in inland if estate_share(city, a.camera) > 0.5]
    views = []
    for scenario, count in counts.items():
        pool, made = pools[scenario], []
        for _ in range(8 * count):
            if pool and len(made) < count:
                view = make_query(settings, city, pool[int(rng.integers(len(pool)))], anchors, scenario, rng)
                made += [view] if view else []
        if len(made) < count:
            raise ValueError(
                f"only {len(made)} of {count} {scenario} queries found; ask for fewer, or a larger database"
            )
        views += made
    return views


def make_query(
    settings: CitySettings, city: City, anchor: Anchor, others: list[Anchor], scenario: str, rng: np.random.Generator
) -> View | None:
    """A photo of a scenario near a database photo; None where the scenario can't be had there."""
    camera = stray(rng, anchor.spot, anchor.camera, 2.5 * settings.difficulty, 8 * settings.difficulty)
    occluder, detail = None, "day" if scenario == "ordinary" else ""
    if scenario == "viewpoint":
        camera = look_across(rng, city, anchor.spot, anchor.camera)
        if camera is None or middle_house(city, anchor.camera) != middle_house(city, camera):
            return None
        if any(looks_alike(camera, other.camera) for other in others):  # another spot's photo would give it away
            return None
    if scenario == "repetitive" and estate_share(city, camera) < 0.4:
        return None
    if scenario == "occlusion":
        occluder = find_occluder(rng, camera, city)
        detail = occluder.kind
    lights = DIM if scenario == "illumination" else DAYLIGHT
    moment = make_moment(rng, lights, (2016, 2023), camera.heading)
    if scenario == "illumination":
        detail = moment.light
    return View("", 0, 0, camera, moment, occluder, scenario, detail)


def make_daily_queries(
    settings: CitySettings, city: City, anchors: list[Anchor], number: int, rng: np.random.Generator
) -> list[View]:
    """Places photographed three times: by day, at sunset and at night."""
    inland = [a for a in anchors if not a.spot.water]
    views = []
    for pick in np.resize(rng.permutation(len(inland)), number):
        anchor = inland[pick]
        base = stray(rng, anchor.spot, anchor.camera, 2.5 * settings.difficulty, 8 * settings.difficulty)
        for light in ("day", "sunset", "night"):
            camera = replace(base, heading=(base.heading + rng.normal(0, 2)) % 360)
            moment = make_moment(rng, {light: 1.0}, (2016, 2023), camera.heading)
            views.append(View("", 0, 0, camera, moment, None, "ordinary" if light == "day" else "illumination", light))
    return views
