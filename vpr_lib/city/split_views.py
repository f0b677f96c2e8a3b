"""Database and query photos of one evaluation split."""

import math
from dataclasses import dataclass, replace

import numpy as np

from vpr_lib.city.camera import Camera
from vpr_lib.city.camera_placement import (
    DAYLIGHT,
    DIM,
    WATERFRONT_STEP_M,
    Spot,
    count_blocks,
    find_middle_building,
    find_other_viewpoint,
    list_central_spots,
    list_waterfront_spots,
    look_alike,
    measure_repetitive_share,
    pick_moment,
    pick_spots,
    vary_camera,
)
from vpr_lib.city.layout import City, make_city
from vpr_lib.city.occluders import find_occluder
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.settings import CitySettings
from vpr_lib.city.views import View, name_photo, number_city

HEADINGS = 4  # photos of a database spot, a quarter turn apart
WATERFRONT_SHARE = 0.12  # of the database spots
SPOT_STEP_M = 20.0  # between database spots along a street
QUERY_YEARS = (2016, 2023)  # the end is exclusive
QUERY_SHARES = {"ordinary": 0.22, "viewpoint": 0.17, "illumination": 0.19, "occlusion": 0.15, "repetitive": 0.14,
                "skyline": 0.13}  # fmt: skip


@dataclass(frozen=True)
class Anchor:
    """A database photo that a query is taken near."""

    spot: Spot
    camera: Camera


def make_split_views(settings: CitySettings, split: str, number: int, database: int, queries: int) -> list[View]:
    """A database that covers some streets by day, and queries taken near its photos years later.

    Args:
        settings: of the data root.
        split: tokyo_test has queries by day, at sunset and at night; the others have all scenarios.
        number: of the city.
        database: number of photos.
        queries: their number; in tokyo_test the number of places.
    """
    at_water = max(1, round(WATERFRONT_SHARE * database / HEADINGS))
    inland = math.ceil(database / HEADINGS) - at_water
    blocks = max(count_blocks(inland, SPOT_STEP_M), math.ceil(at_water * WATERFRONT_STEP_M / 75))
    city = _find_city(settings, number, blocks)
    rng = make_rng(split, city.seed)
    views, anchors = [], []
    spots = pick_spots(rng, list_waterfront_spots(city), at_water) + list_central_spots(city, inland, SPOT_STEP_M)
    for spot in spots:
        first = rng.uniform(0, 90)
        headings = [120, 160, 200, 240] if spot.waterfront else [first + 90 * turn for turn in range(HEADINGS)]
        for heading in headings[: database - len(views)]:
            heading_noise, side = rng.normal(0, 3), rng.uniform(-0.4, 0.4) * spot.street.road
            camera = spot.place_camera(heading + heading_noise, settings.size, side=side)
            moment = pick_moment(rng, DAYLIGHT, (2009, 2015), camera.heading)
            anchors.append(Anchor(spot, camera))
            file_name = name_photo(split, camera, moment, f"{city.seed}d{len(views):05}")
            views.append(View(f"{split}/database/{file_name}", city.seed, blocks, camera, moment))
    make_queries = _make_tokyo_queries if split == "tokyo_test" else _make_mixed_queries
    for count, view in enumerate(make_queries(settings, city, anchors, queries, rng)):
        pano = f"{city.seed}q{count:05}" + (f"-{view.detail}" if split == "tokyo_test" else "")
        file_name = name_photo(split, view.camera, view.moment, pano)
        views.append(replace(view, path=f"{split}/queries/{file_name}", city=city.seed, blocks=blocks))
    return views


def _find_city(settings: CitySettings, number: int, blocks: int) -> City:
    """The first city numbered `number`, `number` + 10, ... that has a repetitive block inside."""
    for attempt in range(number, 1000, 10):
        city = make_city(number_city(settings, attempt), blocks)
        middles = city.repetitive_blocks.reshape(-1, 2, 2).mean(1) / city.extent
        if ((middles > 0.25) & (middles < 0.75)).all(1).any():
            return city
    raise ValueError(f"no city of {blocks} x {blocks} blocks has a repetitive district; try another seed")


def _make_mixed_queries(
    settings: CitySettings, city: City, anchors: list[Anchor], number: int, rng: np.random.Generator
) -> list[View]:
    """Queries of every scenario, in the shares of `QUERY_SHARES`, at least one of each.

    Raises:
        ValueError: this database does not allow that many queries of a scenario.
    """
    counts = {scenario: max(1, int(share * number)) for scenario, share in QUERY_SHARES.items()}
    counts["ordinary"] += number - sum(counts.values())
    inland = [anchor for anchor in anchors if not anchor.spot.waterfront]
    pools = dict.fromkeys(QUERY_SHARES, inland)
    pools["skyline"] = [
        anchor for anchor in anchors if anchor.spot.waterfront and abs(anchor.camera.heading - 180) < 35
    ]
    pools["repetitive"] = [anchor for anchor in inland if measure_repetitive_share(city, anchor.camera) > 0.5]
    views = []
    for scenario, count in counts.items():
        pool, chosen = pools[scenario], []
        for _ in range(8 * count):
            if pool and len(chosen) < count:
                view = _make_query(settings, city, pool[int(rng.integers(len(pool)))], anchors, scenario, rng)
                chosen += [view] if view else []
        if len(chosen) < count:
            raise ValueError(
                f"only {len(chosen)} of {count} {scenario} queries are possible; ask for fewer, or a larger database"
            )
        views += chosen
    return views


def _make_query(
    settings: CitySettings, city: City, anchor: Anchor, others: list[Anchor], scenario: str, rng: np.random.Generator
) -> View | None:
    """A query of a scenario near a database photo; None where the scenario is not possible."""
    camera = _revisit(settings, anchor, rng)
    if scenario == "viewpoint":
        camera = find_other_viewpoint(rng, city, anchor.spot, anchor.camera)
        if camera is None or find_middle_building(city, anchor.camera) != find_middle_building(city, camera):
            return None
        if any(look_alike(camera, other.camera) for other in others):  # a photo of another spot is too similar
            return None
    if scenario == "repetitive" and measure_repetitive_share(city, camera) < 0.4:
        return None
    occluder = find_occluder(rng, camera, city) if scenario == "occlusion" else None
    moment = pick_moment(rng, DIM if scenario == "illumination" else DAYLIGHT, QUERY_YEARS, camera.heading)
    details = {"ordinary": "day", "illumination": moment.light}
    detail = occluder.kind if occluder else details.get(scenario, "")
    return View("", city.seed, 0, camera, moment, occluder, scenario, detail)


def _make_tokyo_queries(
    settings: CitySettings, city: City, anchors: list[Anchor], number: int, rng: np.random.Generator
) -> list[View]:
    """Places photographed three times: by day, at sunset and at night."""
    inland = [anchor for anchor in anchors if not anchor.spot.waterfront]
    views = []
    for i in np.resize(rng.permutation(len(inland)), number):
        base = _revisit(settings, inland[i], rng)
        for light in ("day", "sunset", "night"):
            camera = replace(base, heading=(base.heading + rng.normal(0, 2)) % 360)
            moment = pick_moment(rng, {light: 1.0}, QUERY_YEARS, camera.heading)
            scenario = "ordinary" if light == "day" else "illumination"
            views.append(View("", city.seed, 0, camera, moment, None, scenario, light))
    return views


def _revisit(settings: CitySettings, anchor: Anchor, rng: np.random.Generator) -> Camera:
    return vary_camera(rng, anchor.spot, anchor.camera, 2.5 * settings.difficulty, 8 * settings.difficulty)
