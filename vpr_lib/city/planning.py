"""Chooses all photos of a data root before any is drawn: training places, databases, queries of every scenario."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.canvas import Camera, Moment, turn_between
from vpr_lib.city.exact_math import Generator, find_angle, measure_length
from vpr_lib.city.layout import REPETITIVE, City, Street, make_city
from vpr_lib.city.pictures import make_rng
from vpr_lib.city.street_objects import Occluder, find_occluder
from vpr_lib.city.views import TRAIN_SITES, CitySettings, View, name_photo
from vpr_lib.city.walls import find_visible_walls

PLACE_STEP_M = 32.0  # between training places along a street
SPOT_STEP_M = 20.0  # between database spots along a street
WATERFRONT_STEP_M = 45.0  # between spots along the waterfront
WATERFRONT_SHARE = 0.12  # of the database spots
HEADINGS = 4  # photos of a database spot, a quarter turn apart
DAYLIGHT = {"day": 0.7, "overcast": 0.3}  # light: probability
DIM = {"night": 0.3, "sunset": 0.25, "backlight": 0.2, "rain": 0.25}
QUERY_YEARS = (2016, 2023)  # the end is exclusive
QUERY_SHARES = {"ordinary": 0.22, "viewpoint": 0.17, "illumination": 0.19, "occlusion": 0.15, "repetitive": 0.14,
                "skyline": 0.13}  # fmt: skip


@dataclass(frozen=True)
class _Spot:
    """A position on a street."""

    street: Street
    along: float
    waterfront: bool = False

    def place_camera(self, heading: float, size: int, shift: float = 0.0, side: float = 0.0) -> Camera:
        """A camera here, `shift` meters along the street and `side` across it."""
        x, y = self.street.point(self.along + shift, side)
        return Camera(float(x), float(y), heading % 360, size=size)


def make_views(settings: CitySettings) -> list[View]:
    """All photos of a data root, in an order in which neighbors show the same houses."""
    views = []
    for number in range(settings.cities):
        # Places are distributed evenly; the first cities take the remainder.
        places = settings.places // settings.cities + (number < settings.places % settings.cities)
        views += _make_train_views(settings, number, places)
    views += _SplitPlanner(settings, "sf_val", 101, settings.val_database).make_mixed_queries(settings.val_queries)
    views += _SplitPlanner(settings, "sf_test", 102, settings.test_database).make_mixed_queries(settings.test_queries)
    tokyo = _SplitPlanner(settings, "tokyo_test", 103, settings.tokyo_database)
    return views + tokyo.make_tokyo_queries(settings.tokyo_places)


def _make_train_views(settings: CitySettings, number: int, places: int) -> Iterator[View]:
    """The places of one city: the same spot and heading in other years, weather and traffic."""
    earlier, site = divmod(number, len(TRAIN_SITES))
    name = list(TRAIN_SITES)[site]
    folder = f"{name}{earlier + 1}" if earlier else name
    seed, blocks = 1000 * settings.seed + number + 1, _count_blocks(places, PLACE_STEP_M)
    city, rng = make_city(seed, blocks), make_rng("train", seed)
    at_water = min(round(0.06 * places), 6)
    spots = _pick_spots(rng, _list_spots(city, PLACE_STEP_M), places - at_water)
    spots += _pick_spots(rng, _list_waterfront_spots(city), at_water)
    for place, spot in enumerate(spots):
        heading = 180 + rng.uniform(-50, 50) if spot.waterfront else spot.street.direction + _pick_turn(rng)
        base = spot.place_camera(heading, settings.size)
        for photo in range(settings.photos_per_place):
            camera = _vary_camera(rng, spot, base, 1.8 * settings.difficulty, 7 * settings.difficulty)
            if rng.random() < 0.25 * settings.difficulty:
                camera = _find_other_viewpoint(rng, city, spot, base) or camera
            lights = DIM if rng.random() < settings.dim_share else DAYLIGHT
            moment = _pick_moment(rng, lights, (2008, 2022), camera.heading)
            occluder = find_occluder(rng, camera) if rng.random() < 0.06 * settings.difficulty else None
            pano, note = f"{seed}p{place:05}v{photo:02}", f"{place:07}_{folder}"
            file_name = name_photo(name, camera, moment, pano, note, earlier)
            yield View(f"train/{folder.lower()}/{file_name}", seed, blocks, camera, moment, occluder)


class _SplitPlanner:
    """Plans one split: a database that covers some streets by day, and queries near its photos years later."""

    def __init__(self, settings: CitySettings, split: str, number: int, database: int) -> None:
        at_water = max(1, round(WATERFRONT_SHARE * database / HEADINGS))
        inland = math.ceil(database / HEADINGS) - at_water
        self.blocks = max(_count_blocks(inland, SPOT_STEP_M), math.ceil(at_water * WATERFRONT_STEP_M / 75))
        self.settings, self.split = settings, split
        self.city = self._find_city(number)
        self.rng = make_rng(split, self.city.seed)
        self.database: list[View] = []
        self.queries: list[View] = []
        self.anchors: list[tuple[_Spot, Camera]] = []  # of the database photos
        spots = _pick_spots(self.rng, _list_waterfront_spots(self.city), at_water)
        for spot in spots + _list_central_spots(self.city, inland, SPOT_STEP_M):
            first = self.rng.uniform(0, 90)
            headings = [120, 160, 200, 240] if spot.waterfront else [first + 90 * turn for turn in range(HEADINGS)]
            for heading in headings[: database - len(self.database)]:
                heading_noise, side = self.rng.normal(0, 3), self.rng.uniform(-0.4, 0.4) * spot.street.road
                camera = spot.place_camera(heading + heading_noise, settings.size, side=side)
                self.anchors.append((spot, camera))
                self._add(camera, _pick_moment(self.rng, DAYLIGHT, (2009, 2015), camera.heading))
        self.inland = [(spot, camera) for spot, camera in self.anchors if not spot.waterfront]

    def _find_city(self, number: int) -> City:
        """The first city numbered `number`, `number` + 10, ... that has a repetitive block inside."""
        for attempt in range(number, 1000, 10):
            city = make_city(1000 * self.settings.seed + attempt, self.blocks)
            middles = city.repetitive_blocks.reshape(-1, 2, 2).mean(1) / city.extent
            if ((middles > 0.25) & (middles < 0.75)).all(1).any():
                return city
        raise ValueError(f"no city of {self.blocks} x {self.blocks} blocks has a repetitive district; try another seed")

    def _add(
        self, camera: Camera, moment: Moment, scenario: str = "", detail: str = "", occluder: Occluder | None = None
    ) -> None:
        """Add a photo to the queries, or to the database if it has no scenario."""
        part, views = ("queries", self.queries) if scenario else ("database", self.database)
        suffix = f"-{detail}" if scenario and self.split == "tokyo_test" else ""
        file_name = name_photo(self.split, camera, moment, f"{self.city.seed}{part[0]}{len(views):05}{suffix}")
        path = f"{self.split}/{part}/{file_name}"
        views.append(View(path, self.city.seed, self.blocks, camera, moment, occluder, scenario, detail))

    def make_mixed_queries(self, number: int) -> list[View]:
        """The database and queries of every scenario, in the shares of `QUERY_SHARES`, at least one of each.

        Raises:
            ValueError: this database does not allow that many queries of a scenario.
        """
        counts = {scenario: max(1, int(share * number)) for scenario, share in QUERY_SHARES.items()}
        counts["ordinary"] += number - sum(counts.values())
        pools = dict.fromkeys(QUERY_SHARES, self.inland)
        pools["skyline"] = [pair for pair in self.anchors if pair[0].waterfront and abs(pair[1].heading - 180) < 35]
        pools["repetitive"] = [pair for pair in self.inland if measure_repetitive_share(self.city, pair[1]) > 0.5]
        for scenario, count in counts.items():
            pool, first = pools[scenario], len(self.queries)
            for _ in range(8 * count):
                if pool and len(self.queries) < first + count:
                    self._try_query(*pool[int(self.rng.integers(len(pool)))], scenario)
            if len(self.queries) < first + count:
                problem = f"only {len(self.queries) - first} of {count} {scenario} queries are possible"
                raise ValueError(f"{problem}; ask for fewer, or a larger database")
        return self.database + self.queries

    def _try_query(self, spot: _Spot, anchor: Camera, scenario: str) -> None:
        """Add a query of a scenario near a database photo, where it is possible."""
        city, rng = self.city, self.rng
        camera = self._revisit(spot, anchor)
        if scenario == "viewpoint":
            camera = _find_other_viewpoint(rng, city, spot, anchor)
            middle = np.array([anchor.size / 2])
            if camera is None or _find_buildings(city, anchor, middle) != _find_buildings(city, camera, middle):
                return
            gaps = [_measure_gap(camera, other) for _, other in self.anchors]
            if any(meters < 5 and degrees < 20 for meters, degrees in gaps):  # a photo of another spot is too easy
                return
        if scenario == "repetitive" and measure_repetitive_share(city, camera) < 0.4:
            return
        occluder = find_occluder(rng, camera, city) if scenario == "occlusion" else None
        moment = _pick_moment(rng, DIM if scenario == "illumination" else DAYLIGHT, QUERY_YEARS, camera.heading)
        details = {"ordinary": "day", "illumination": moment.light, "occlusion": occluder and occluder.kind}
        self._add(camera, moment, scenario, details.get(scenario, ""), occluder)

    def make_tokyo_queries(self, places: int) -> list[View]:
        """The database and places photographed three times: by day, at sunset and at night."""
        for i in np.resize(self.rng.permutation(len(self.inland)), places):
            base = self._revisit(*self.inland[i])
            for light in ("day", "sunset", "night"):
                camera = replace(base, heading=(base.heading + self.rng.normal(0, 2)) % 360)
                moment = _pick_moment(self.rng, {light: 1.0}, QUERY_YEARS, camera.heading)
                self._add(camera, moment, "ordinary" if light == "day" else "illumination", light)
        return self.database + self.queries

    def _revisit(self, spot: _Spot, camera: Camera) -> Camera:
        return _vary_camera(self.rng, spot, camera, 2.5 * self.settings.difficulty, 8 * self.settings.difficulty)


def _count_blocks(spots: int, step_m: float) -> int:
    """Blocks on a side of a city that has room for so many spots."""
    return max(5, math.ceil(math.sqrt(spots * step_m / 140)) + 2)


def _list_spots(city: City, step_m: float) -> list[_Spot]:
    """Spots on the inner streets, `step_m` apart along each."""
    east, north = city.extent  # nearly equal; a street is compared with its own length
    inner = [street for street in city.streets if 40 < street.center < (east if street.horizontal else north) - 40]
    return [_Spot(each, float(at)) for each in inner for at in np.arange(each.start + 45, each.end - 45, step_m)]


def _list_waterfront_spots(city: City) -> list[_Spot]:
    street = city.streets[0]
    positions = np.arange(street.start + 20, street.end - 20, WATERFRONT_STEP_M)
    return [_Spot(street, float(at), waterfront=True) for at in positions]


def _list_central_spots(city: City, number: int, step_m: float) -> list[_Spot]:
    """The spots nearest to the repetitive block that is nearest to the middle of the city, in the order of streets."""
    spots = _list_spots(city, step_m)
    blocks = city.repetitive_blocks.reshape(-1, 2, 2).mean(1)
    center = blocks[((blocks - np.array(city.extent) / 2) ** 2).sum(1).argmin()]
    distances = [np.abs(spot.street.point(spot.along) - center).max() for spot in spots]
    return [spots[i] for i in sorted(np.argsort(distances, kind="stable")[:number])]


def _pick_spots(rng: Generator, spots: list[_Spot], number: int) -> list[_Spot]:
    """A random sample of the spots, in their order."""
    if len(spots) < number:
        raise ValueError(f"the city has room for {len(spots)} spots, {number} are required; ask for fewer photos")
    return [spots[i] for i in sorted(rng.permutation(len(spots))[:number])]


def _pick_moment(rng: Generator, lights: dict[str, float], years: tuple[int, int], heading: float) -> Moment:
    """A random date and light (with its probability in `lights`); in a backlit photo the sun shines into the camera."""
    light = str(rng.choice(list(lights), p=list(lights.values())))
    sun = heading + rng.uniform(-18, 18) if light == "backlight" else rng.uniform(0, 360)
    return Moment(int(rng.integers(*years)), int(rng.integers(1, 13)), light, sun % 360, int(rng.integers(2**31)))


def _pick_turn(rng: Generator) -> float:
    """Random degrees from the street's direction: along it, oblique, or toward the houses."""
    turn = rng.choice((0, 45, 90), p=(0.25, 0.45, 0.3)) + rng.normal(0, 10)
    return float(rng.pick((-1, 1)) * turn + rng.pick((0, 180)))


def _vary_camera(rng: Generator, spot: _Spot, camera: Camera, meters: float, degrees: float) -> Camera:
    """The camera of another visit: on the road, with a slightly different position, heading, height and tilt."""
    shift, side = rng.normal(0, meters), rng.uniform(-0.6, 0.6) * spot.street.road
    moved = spot.place_camera(camera.heading + rng.normal(0, degrees), camera.size, shift, side)
    return replace(moved, height=float(rng.uniform(2.0, 2.7)), horizon=float(0.58 + rng.normal(0, 0.02)))


def _find_other_viewpoint(rng: Generator, city: City, spot: _Spot, camera: Camera) -> Camera | None:
    """A camera 5 to 20 m away that sees the same houses, turned by 20 to 60 degrees; None where there is none."""
    nearest = find_visible_walls(city, camera).nearest[camera.size // 2]
    if nearest == 0:
        return None
    target = np.array([camera.x, camera.y]) + camera.forward / nearest
    for _ in range(12):
        shift, side = rng.pick((-1, 1)) * rng.uniform(5, 19), rng.uniform(-0.6, 0.6) * spot.street.road
        moved = spot.place_camera(0.0, camera.size, shift, side)
        east, north = target - (moved.x, moved.y)
        moved = replace(moved, heading=find_angle(east, north) % 360)
        meters, degrees = _measure_gap(moved, camera)
        if 20 <= degrees <= 60 and 5 <= meters <= 20 and measure_length(east, north) > 5:
            return moved
    return None


def _measure_gap(camera: Camera, other: Camera) -> tuple[float, float]:
    """Meters and degrees between two cameras."""
    turn = abs(turn_between(camera.heading, other.heading))
    return measure_length(camera.x - other.x, camera.y - other.y), turn


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
