"""Which photos are chosen: each scenario holds what its name says, each query has a suitable database photo."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vpr_lib.city import CitySettings
from vpr_lib.city.layout import make_city
from vpr_lib.city.photo import draw_photo
from vpr_lib.city.planning import make_views, measure_repetitive_share
from vpr_lib.city.street_objects import KINDS, measure_occluder_share
from vpr_lib.city.walls import find_visible_walls
from vpr_lib.file_names import parse_name


@pytest.fixture(scope="module")
def views():
    return make_views(CitySettings(places=16, tokyo_places=8))


def list_middle_houses(view, camera):
    """Houses in the middle 6 degrees of a photo."""
    visible = find_visible_walls(make_city(view.city, view.blocks), replace(camera, fov=6.0))
    return set((visible.index // 4).tolist())


def measure_gap(camera, other):
    """Meters and degrees between two cameras."""
    turn = abs((camera.heading - other.heading + 180) % 360 - 180)
    return math.hypot(camera.x - other.x, camera.y - other.y), turn


@pytest.mark.slow
@pytest.mark.parametrize("split", ["sf_val", "sf_test"])
def test_every_query_has_a_database_photo_that_suits_its_scenario(views, split):
    database = [view.camera for view in views if f"{split}/database" in view.path]
    for query in (view for view in views if f"{split}/queries" in view.path):
        gaps = [(camera, *measure_gap(query.camera, camera)) for camera in database]
        if query.scenario == "viewpoint":  # the same house from elsewhere, and no easier photo
            suited = [camera for camera, meters, turn in gaps if 5 <= meters <= 20 and 20 <= turn <= 60]
            houses = list_middle_houses(query, query.camera)
            assert any(houses & list_middle_houses(query, camera) for camera in suited), query.path
            assert not any(meters < 5 and turn < 20 for _, meters, turn in gaps)
        else:
            assert any(meters < 12 and turn < 35 for _, meters, turn in gaps), query.path


@pytest.mark.slow
def test_occluders_cover_a_third_to_two_thirds(views):
    queries = [view for view in views if view.scenario == "occlusion"]
    assert {view.occluder.kind for view in queries} == set(KINDS)
    for view in queries[::4]:
        city, camera = make_city(view.city, view.blocks), replace(view.camera, size=160)
        with_it = np.asarray(draw_photo(city, camera, view.moment, view.occluder)).astype(int)
        without = np.asarray(draw_photo(city, camera, view.moment)).astype(int)
        changed = (np.abs(with_it - without).max(-1) > 8).mean()
        assert 0.25 < changed < 0.7  # some of it may have the color of what is behind
        assert 1 / 3 <= measure_occluder_share(camera, view.occluder) <= 2 / 3


@pytest.mark.slow
def test_queries_show_their_scenario(views):
    queries = defaultdict(list)
    for view in views:
        if view.scenario:
            queries[view.scenario].append(view)
    assert set(queries) == {"ordinary", "viewpoint", "illumination", "occlusion", "repetitive", "skyline"}
    for view in queries["skyline"]:  # south over the water: almost no houses
        assert abs(view.camera.heading - 180) < 65
        assert (find_visible_walls(make_city(view.city, view.blocks), view.camera).nearest > 0).mean() < 0.35
    for view in queries["repetitive"]:
        assert measure_repetitive_share(make_city(view.city, view.blocks), view.camera) >= 0.4
    for view in queries["ordinary"]:
        assert view.moment.light in ("day", "overcast") and view.occluder is None
    assert {view.detail for view in queries["illumination"]} >= {"night", "sunset", "backlight", "rain"}


def test_tokyo_has_every_place_by_day_at_sunset_and_at_night(city_settings):
    views = [view for view in make_views(city_settings) if "tokyo_test/queries" in view.path]
    for first in range(0, len(views), 3):
        three = views[first : first + 3]
        assert [view.detail for view in three] == ["day", "sunset", "night"]
        assert len({(view.camera.x, view.camera.y) for view in three}) == 1


@pytest.mark.slow
def test_names_hold_position_and_heading_of_the_camera(city_settings):
    """Positions and headings in the file names are those of the cameras, turned by the same angle."""
    views = [view for view in make_views(city_settings) if view.path.startswith("sf_val/")]
    named = [parse_name(Path(view.path).name) for view in views]
    utm = np.array([[name.east_m, name.north_m] for name in named])
    positions = np.array([[view.camera.x, view.camera.y] for view in views])
    angle = math.radians(named[0].heading_deg - views[0].camera.heading)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(utm - utm[0], (positions - positions[0]) @ turn, atol=0.05)


@pytest.mark.slow
def test_cities_do_not_overlap(city_settings):
    """Each split has its own city, and no two cities of a UTM zone are within 1 km."""
    positions, splits = defaultdict(list), defaultdict(set)
    for view in make_views(replace(city_settings, cities=9, places=18)):
        name = parse_name(view.path)
        positions[view.city, name.zone].append((name.east_m, name.north_m))
        splits[view.city].add(view.path.split("/")[0])
    assert all(len(names) == 1 for names in splits.values())
    boxes = {key: (np.min(utm, axis=0), np.max(utm, axis=0)) for key, utm in positions.items()}
    for (city, zone), (low, high) in boxes.items():
        for (other, other_zone), (other_low, other_high) in boxes.items():
            if city < other and zone == other_zone:
                assert (low > other_high + 1000).any() or (other_low > high + 1000).any(), (city, other)


@pytest.mark.slow
def test_another_seed_gives_other_cities(city_settings):
    views, others = make_views(city_settings), make_views(replace(city_settings, seed=1))
    positions, other_positions = ({(view.camera.x, view.camera.y) for view in some} for some in (views, others))
    assert not positions & other_positions
    assert not np.array_equal(make_city(views[0].city).walls, make_city(others[0].city).walls)


@pytest.mark.parametrize("wrong", [
    {"val_database": 3}, {"difficulty": -1}, {"seed": -1}, {"cities": 100}, {"quality": 500}, {"dim_share": 2},
    {"places": 240.5}, {"size": "64"}, {"cities": True}, {"seed": None}, {"difficulty": float("nan")},
])  # fmt: skip
def test_settings_out_of_range_or_of_another_type_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CitySettings(**wrong)
