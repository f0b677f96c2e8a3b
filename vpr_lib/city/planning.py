"""All photos of a data root, chosen before any is drawn; and those of its training cities."""

from collections.abc import Iterator

from vpr_lib.city.camera_placement import (
    DAYLIGHT,
    DIM,
    count_blocks,
    find_other_viewpoint,
    list_spots,
    list_waterfront_spots,
    pick_moment,
    pick_spots,
    pick_turn,
    vary_camera,
)
from vpr_lib.city.layout import make_city
from vpr_lib.city.occluders import find_occluder
from vpr_lib.city.seeding import make_rng
from vpr_lib.city.settings import CitySettings
from vpr_lib.city.split_views import make_split_views
from vpr_lib.city.views import TRAIN_SITES, View, name_photo, number_city

PLACE_STEP_M = 32.0  # between training places along a street


def make_views(settings: CitySettings) -> list[View]:
    """All photos of a data root, in an order in which neighbors show the same houses."""
    views = []
    for number in range(settings.cities):
        # Places are distributed evenly; the first cities take the remainder.
        places = settings.places // settings.cities + (number < settings.places % settings.cities)
        views += _make_train_views(settings, number, places)
    views += make_split_views(settings, "sf_val", 101, settings.val_database, settings.val_queries)
    views += make_split_views(settings, "sf_test", 102, settings.test_database, settings.test_queries)
    views += make_split_views(settings, "tokyo_test", 103, settings.tokyo_database, settings.tokyo_places)
    return views


def _make_train_views(settings: CitySettings, number: int, places: int) -> Iterator[View]:
    """The places of one city: the same spot and heading in other years, weather and traffic."""
    names = list(TRAIN_SITES)
    name, earlier = names[number % len(names)], number // len(names)
    folder = f"{name}{earlier + 1}" if earlier else name
    seed, blocks = number_city(settings, number + 1), count_blocks(places, PLACE_STEP_M)
    city, rng = make_city(seed, blocks), make_rng("train", seed)
    at_water = min(round(0.06 * places), 6)
    spots = pick_spots(rng, list_spots(city, PLACE_STEP_M), places - at_water)
    spots += pick_spots(rng, list_waterfront_spots(city), at_water)
    difficulty = settings.difficulty
    for place, spot in enumerate(spots):
        heading = 180 + rng.uniform(-50, 50) if spot.waterfront else spot.street.direction + pick_turn(rng)
        base = spot.place_camera(heading, settings.size)
        for photo in range(settings.photos_per_place):
            camera = vary_camera(rng, spot, base, 1.8 * difficulty, 7 * difficulty)
            if rng.random() < 0.25 * difficulty:
                camera = find_other_viewpoint(rng, city, spot, base) or camera
            lights = DIM if rng.random() < settings.dim_share else DAYLIGHT
            moment = pick_moment(rng, lights, (2008, 2022), camera.heading)
            occluder = find_occluder(rng, camera) if rng.random() < 0.06 * difficulty else None
            pano, note = f"{seed}p{place:05}v{photo:02}", f"{place:07}_{folder}"
            file_name = name_photo(name, camera, moment, pano, note, earlier)
            yield View(f"train/{folder.lower()}/{file_name}", seed, blocks, camera, moment, occluder)
