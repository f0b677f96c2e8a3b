"""The rendered city: true geometry, honest scenarios, the same pixels each time."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpr_lib.analysis.scenarios import read_scenarios
from vpr_lib.city import walls
from vpr_lib.city.camera import Camera
from vpr_lib.city.drawing import draw_photo, occluder_share
from vpr_lib.city.facades import Facade, draw_facade
from vpr_lib.city.light import LIGHTS, Moment
from vpr_lib.city.render import write_city
from vpr_lib.city.scene import make_city
from vpr_lib.city.spots import estate_share
from vpr_lib.city.views import CitySettings, make_views
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import find_splits, read_split
from vpr_lib.file_names import parse_name
from vpr_lib.images import read_images
from vpr_lib.recall import find_positives

SMALL = CitySettings(
    size=64, cities=2, places=5, photos_per_place=3, val_database=40, val_queries=14, test_database=40, test_queries=14,
    tokyo_database=36, tokyo_places=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def city():
    return make_city(3)


@pytest.fixture(scope="module")
def views():
    return make_views(CitySettings(places=16, tokyo_places=8))


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    return write_city(tmp_path_factory.mktemp("city") / "mini", SMALL, workers=2, progress=False)


def read_photos(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


# Geometry


def test_camera_projects_as_the_textbook_does():
    camera = Camera(10.0, 20.0, heading=30.0, height=2.5, fov=90.0, horizon=0.5, size=200)
    rng = np.random.default_rng(0)
    points = rng.uniform((-50, -50, 0), (80, 90, 30), (50, 3))
    for point, pixel in zip(points, camera.project(points), strict=True):
        east, north, up = point - (10, 20, 2.5)
        angle = math.atan2(east, north) - math.radians(30)  # clockwise from the camera's axis
        distance = math.hypot(east, north)
        if distance * math.cos(angle) <= 0.25:
            assert np.isnan(pixel).all()
        else:  # 90 degrees: the focal length is half the width
            assert pixel[0] == pytest.approx(100 + 100 * math.tan(angle))
            assert pixel[1] == pytest.approx(100 - 100 * up / (distance * math.cos(angle)))


def hit_house(city, camera, column, row):
    """The first house that the ray through a pixel meets, by trying every box; -1 for none."""
    right = (column - camera.size / 2) / camera.focal
    up = (camera.horizon * camera.size - row) / camera.focal
    ray = [*(camera.forward + right * camera.right), up]
    best, found = math.inf, -1
    for number, b in enumerate(city.buildings):
        enter, leave = 0.0, math.inf
        spans = ((b.x0, b.x1, camera.x), (b.y0, b.y1, camera.y), (0.0, b.height, camera.height))
        for step, (low, high, start) in zip(ray, spans, strict=True):
            if abs(step) < 1e-12:
                if not low <= start <= high:
                    leave = -1.0
                continue
            a, b_ = sorted(((low - start) / step, (high - start) / step))
            enter, leave = max(enter, a), min(leave, b_)
        if enter < leave and 0 < enter < min(best, walls.REACH_M):
            best, found = enter, number
    return found


@pytest.mark.slow
def test_walls_appear_where_rays_meet_them(city, monkeypatch):
    """Each house in a colour of its own, against a ray caster that knows nothing of walls, columns or order."""

    def paint(building, face, shop, level):
        number = city.buildings.index(building) + 1
        picture = Image.new("RGB", (4, 4), (number % 256, number // 256, 7))
        return Facade([picture], [None], building.height, np.empty((0, 4)), np.empty((0, 4)))

    monkeypatch.setattr(walls, "get_facade", paint)
    monkeypatch.setattr(walls, "relight", lambda picture, *rest: picture)
    rng = np.random.default_rng(1)
    right = total = 0
    for number in range(12):
        street = city.streets[2 + number % 6]
        x, y = street.point(rng.uniform(60, 400), rng.uniform(-3, 3))
        camera = Camera(x, y, rng.uniform(0, 360), size=128)
        canvas = Image.new("RGB", (128, 128))
        walls.draw_walls(canvas, city, camera, Moment(2015, 6, "day", 0, 0), walls.find_visible(city, camera))
        pixels = np.asarray(canvas).astype(int)
        for column, row in rng.integers(1, 127, (60, 2)):
            block = pixels[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
            if (block == block[0]).all():  # not at an edge
                found = block[0, 0] + 256 * block[0, 1] - 1
                right += found == hit_house(city, camera, column + 0.5, row + 0.5)
                total += 1
    assert total > 400
    assert right / total > 0.99


@pytest.mark.slow
def test_corners_of_roofs_are_found_in_the_photo():
    """Project the upper edge of houses against the sky and look for it in the finished photo."""
    errors = []
    for city in (make_city(3), make_city(4), make_city(5)):
        street = [s for s in city.streets if s.horizontal][2]
        for along in np.arange(60, 450, 7.5):
            x, y = street.point(along)
            camera = Camera(x, y, 20.0 if along % 15 else 200.0, size=320)
            visible = walls.find_visible(city, camera)
            photo = np.asarray(draw_photo(city, camera, Moment(2015, 1, "sunset", 0, 5))).astype(int)
            for wall, ends in zip(visible.index, visible.columns, strict=True):
                building, column = city.buildings[city.wall_of[wall]], int(ends.clip(4, 315).mean())
                covering = (visible.columns[:, 0] < column + 2) & (column - 1 < visible.columns[:, 1])
                if building.roof not in ("flat", "cornice") or np.ptp(ends.clip(0, 320)) < 20 or covering.sum() != 1:
                    continue
                view = (column + 0.5 - 160) / camera.focal * camera.right + camera.forward
                spot = np.array([x, y]) + view / visible.nearest[column]
                front = city.wall_face[wall] in [walls_face(name) for name in building.fronts]
                top = building.height + front * building.roof_height
                row = camera.project(np.array([[*spot, top]]))[0, 1]
                if 14 < row < 150:
                    strip = photo[int(row) - 12 : int(row) + 12, column - 1 : column + 2].mean(1)
                    first = (np.abs(strip - strip[:3].mean(0)).max(-1) > 25).argmax()
                    errors.append(int(row) - 12 + first - row)
    assert len(errors) >= 20  # some edges hide behind a tree or a lamp
    assert np.mean(np.abs(errors) < 1.5) >= 0.7 and abs(np.median(errors)) < 0.5, errors


def walls_face(name):
    return ("south", "east", "north", "west").index(name)


def seen_houses(city, camera):
    return set(city.wall_of[walls.find_visible(city, camera).index].tolist())


def apart(a, b):
    return math.hypot(a.x - b.x, a.y - b.y), abs((a.heading - b.heading + 180) % 360 - 180)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["sf_val", "sf_test"])
def test_every_query_has_a_database_photo_that_suits_its_scenario(views, split):
    database = [v.camera for v in views if f"{split}/database" in v.path]
    for query in (v for v in views if v.scenario and f"{split}/queries" in v.path):
        gaps = [apart(query.camera, camera) for camera in database]
        if query.scenario == "viewpoint":  # the same house from elsewhere, and no easier photo
            city = make_city(query.city, query.blocks)
            house = seen_houses(city, replace(query.camera, fov=6.0))
            suited = [c for c, (d, t) in zip(database, gaps, strict=True) if 5 <= d <= 20 and 20 <= t <= 60]
            assert any(house & seen_houses(city, replace(c, fov=6.0)) for c in suited), query.path
            assert not any(d < 5 and t < 20 for d, t in gaps)
        else:
            assert any(d < 12 and t < 35 for d, t in gaps), query.path


# Scenarios


@pytest.mark.slow
def test_occluders_cover_a_third_to_two_thirds(views):
    queries = [v for v in views if v.scenario == "occlusion"]
    assert {v.occluder.kind for v in queries} == {"truck", "bus", "crowd", "scaffold"}
    for view in queries[::4]:
        city, camera = make_city(view.city, view.blocks), replace(view.camera, size=160)
        with_it = np.asarray(draw_photo(city, camera, view.moment, view.occluder)).astype(int)
        without = np.asarray(draw_photo(city, camera, view.moment)).astype(int)
        changed = (np.abs(with_it - without).max(-1) > 8).mean()
        assert 0.25 < changed < 0.7  # some of it may have the colour of what is behind
        assert 1 / 3 <= occluder_share(camera, view.occluder) <= 2 / 3


@pytest.mark.slow
def test_scenarios_show_what_they_say(views):
    by_name = {}
    for view in views:
        if view.scenario:
            by_name.setdefault(view.scenario, []).append(view)
    city = {v.city: make_city(v.city, v.blocks) for v in views}
    assert set(by_name) == {"ordinary", "viewpoint", "illumination", "occlusion", "repetitive", "skyline"}
    for view in by_name["skyline"]:  # south over the water: almost no houses
        assert abs(view.camera.heading - 180) < 65
        assert (walls.find_visible(city[view.city], view.camera).nearest > 0).mean() < 0.35
    assert all(estate_share(city[v.city], v.camera) >= 0.4 for v in by_name["repetitive"])
    assert all(
        v.moment.light in ("day", "overcast") and v.occluder is None for v in by_name["ordinary"] if not v.detail
    )
    assert {v.detail for v in by_name["illumination"]} >= {"night", "sunset", "backlight", "rain"}


def test_light_and_time_change_the_photo(city):
    x, y = city.streets[3].point(150.0)
    camera = Camera(x, y, city.streets[3].direction + 40, size=96)
    photos = {light: np.asarray(draw_photo(city, camera, Moment(2015, 6, light, 30.0, 1))) for light in LIGHTS}
    means = {light: photo.mean() for light, photo in photos.items()}
    assert means["night"] < 0.6 * means["sunset"] and means["sunset"] < means["day"]
    assert (photos["night"].max(-1) > 180).any()  # lit windows or lamps
    later = np.asarray(draw_photo(city, camera, Moment(2021, 12, "day", 30.0, 2)))
    assert (np.abs(later.astype(int) - photos["day"]) > 30).mean() > 0.05
    again = np.asarray(draw_photo(city, camera, Moment(2015, 6, "day", 30.0, 1)))
    np.testing.assert_array_equal(again, photos["day"])


def test_houses_of_an_estate_are_alike_but_not_the_same():
    cities = [make_city(seed) for seed in range(3)]
    estate = next(b for c in cities for b in c.buildings if b.style == "estate" and b.fronts == ("south",))
    city = next(c for c in cities if estate in c.buildings)
    row = [
        b for b in city.buildings if b.look == estate.look and len(b.fronts) == 1 and max(b.x1 - b.x0, b.y1 - b.y0) < 13
    ]
    pictures = [draw_facade(b, walls_face(b.fronts[0]), -1).levels[0] for b in row]
    pictures = [np.asarray(p).astype(int) for p in pictures if p.size == pictures[0].size]
    assert len(pictures) >= 4
    for other in pictures[1:]:
        changed = (np.abs(other - pictures[0]).max(-1) > 8).mean()
        assert 0.0005 < changed < 0.35


# The data root


@pytest.mark.slow
def test_root_reads_as_any_other(mini):
    assert find_splits(mini) == ["sf_test", "sf_val", "tokyo_test"]
    train = read_images(mini / "train")
    assert len(train) == 15 and len(set(train.places)) == 5
    assert len({p.split("/")[0] for p in train.places}) == 2
    scenarios = read_scenarios(mini)
    for split, (photos, queries) in {"sf_val": (40, 14), "sf_test": (40, 14), "tokyo_test": (36, 9)}.items():
        tables = read_split(mini, split)
        assert tuple(map(len, tables)) == (photos, queries)
        assert all(len(found) for found in find_positives(tables[0].utm, tables[1].utm))
        assert {Path(name).name for name in tables[1].names} <= set(scenarios)
        assert tables[1].dates.min() > tables[0].dates.max()  # queries are of later years
    assert json.loads((mini / "city.json").read_text())["complete"]


@pytest.mark.slow
def test_names_tell_where_the_camera_stood(mini):
    """UTM and heading of the file name against each other: they are turned by the same angle."""
    views = [v for v in make_views(SMALL) if v.path.startswith("sf_val/")]
    named = [parse_name(Path(v.path).name) for v in views]
    utm = np.array([[n.east_m, n.north_m] for n in named])
    place = np.array([[v.camera.x, v.camera.y] for v in views])
    angle = math.radians(named[0].heading_deg - views[0].camera.heading)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(utm - utm[0], (place - place[0]) @ turn, atol=0.05)


def test_tokyo_has_every_place_by_day_at_sunset_and_at_night():
    views = [v for v in make_views(SMALL) if "tokyo_test/queries" in v.path]
    for first in range(0, len(views), 3):
        three = views[first : first + 3]
        assert [v.detail for v in three] == ["day", "sunset", "night"]
        assert len({(v.camera.x, v.camera.y) for v in three}) == 1


@pytest.mark.slow
def test_splits_lie_in_cities_of_their_own():
    cities = {}
    for view in make_views(SMALL):
        cities.setdefault(view.path.split("/")[0], set()).add(view.city)
    names = list(cities)
    assert all(not cities[a] & cities[b] for a in names for b in names if a < b)


@pytest.mark.slow
def test_no_two_cities_lie_at_one_spot():
    """Else a check that no place is in two splits, which sees positions only, would find leaks that are none."""
    corners = {}
    for view in make_views(replace(SMALL, cities=9, places=18)):
        name = parse_name(view.path)
        corners.setdefault((view.city, name.zone), []).append((name.east_m, name.north_m))
    boxes = {key: (np.min(utm, axis=0), np.max(utm, axis=0)) for key, utm in corners.items()}
    for (one, zone), (low, high) in boxes.items():
        for (other, other_zone), (other_low, other_high) in boxes.items():
            if one < other and zone == other_zone:
                assert (low > other_high + 1000).any() or (other_low > high + 1000).any(), (one, other)


@pytest.mark.slow
def test_pixels_follow_from_the_seed_alone(mini, tmp_path):
    again = write_city(tmp_path / "again", SMALL, workers=0, progress=False)
    assert read_photos(again) == read_photos(mini)
    other, first = make_views(replace(SMALL, seed=1)), make_views(SMALL)
    assert not {(v.camera.x, v.camera.y) for v in other} & {(v.camera.x, v.camera.y) for v in first}
    assert not np.array_equal(make_city(other[0].city).walls, make_city(first[0].city).walls)


@pytest.mark.slow
def test_killed_render_goes_on(mini, tmp_path):
    folder = tmp_path / "killed"
    script = (
        "import sys; from vpr_lib.city.render import write_city; from vpr_lib.city.views import CitySettings; "
        "write_city(sys.argv[1], CitySettings(**eval(sys.argv[2])), workers=0, progress=False)"
    )
    values = {k: v for k, v in vars(SMALL).items()}
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), repr(values)])
    while len(list(folder.rglob("train/*/*.jpg"))) < 5 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not json.loads((folder / "city.json").read_text())["complete"]
    short = next(folder.rglob("train/*/*.jpg"))
    short.write_bytes(short.read_bytes()[:-100])  # as after a power cut
    kept = sorted(folder.rglob("train/*/*.jpg"))[-1]
    before = kept.stat().st_mtime_ns
    write_city(folder, SMALL, workers=0, progress=False)
    assert read_photos(folder) == read_photos(mini)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.slow
def test_finished_root_is_left_alone(mini):
    before = {p: p.stat().st_mtime_ns for p in mini.rglob("*")}
    write_city(mini, SMALL, progress=False)
    assert {p: p.stat().st_mtime_ns for p in mini.rglob("*")} == before


# Bad input


@pytest.mark.parametrize("force", [False, True])
def test_photos_of_ones_own_are_left_alone(tmp_path, force):
    own = tmp_path / "mine" / "train" / "london" / "real.jpg"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(ValueError, match="no rendered city"):
        write_city(tmp_path / "mine", SMALL, progress=False, force=force)
    assert own.read_text() == "mine"


@pytest.mark.slow
def test_another_city_is_refused_unless_forced(mini, tmp_path, monkeypatch):
    other = shutil.copytree(mini, tmp_path / "copy")
    fewer = replace(SMALL, tokyo_places=2)
    with pytest.raises(ValueError, match=r"tokyo_places is 3 there, 2 asked for.*--force"):
        write_city(other, fewer, progress=False)
    with monkeypatch.context() as patched:  # killed while deleting: neither city counts as complete
        patched.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_city(other, fewer, progress=False, force=True)
    with pytest.raises(ValueError, match="another version"):
        write_city(other, SMALL, progress=False)
    write_city(other, fewer, progress=False, workers=2, force=True)
    assert len(read_split(other, "tokyo_test")[1]) == 6


@pytest.mark.slow
def test_a_lost_photo_is_drawn_again(mini, tmp_path):
    copy = shutil.copytree(mini, tmp_path / "copy")
    next(copy.rglob("database/*.jpg")).unlink()
    assert read_photos(write_city(copy, SMALL, workers=0, progress=False)) == read_photos(mini)


def test_too_small_settings_are_told():
    with pytest.raises(ValueError, match="val_database is 3; a rendered city needs at least 32"):
        CitySettings(val_database=3)
    for wrong in ({"difficulty": -1}, {"seed": -1}, {"cities": 100}, {"quality": 500}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CitySettings(**wrong)


def test_full_disk_is_told_before_drawing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="MB free"):
        write_city(tmp_path / "full", SMALL, progress=False)
    assert not json.loads((tmp_path / "full" / "city.json").read_text())["complete"]


@pytest.mark.slow
def test_disk_that_fills_up_leaves_no_half_photo(tmp_path, monkeypatch):
    def write_half(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        write_city(tmp_path / "full", SMALL, workers=0, progress=False)
    assert not list((tmp_path / "full" / "train").rglob("*.jpg"))
    assert not json.loads((tmp_path / "full" / "city.json").read_text())["complete"]


@pytest.mark.slow
def test_command_line(tmp_path, capsys):
    arguments = ["city", "--out", str(tmp_path / "c"), "--workers", "0"]
    small = {k: v for k, v in vars(SMALL).items() if v != getattr(CitySettings(), k)}
    changes = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    assert main([*arguments, *changes]) == 0
    assert "contact sheet" in capsys.readouterr().out
    assert main([*arguments, "--set", "citys=3"]) == 1
    assert "valid: size, quality" in capsys.readouterr().err


@pytest.mark.slow
def test_the_study_runs_on_a_rendered_city(mini, tmp_path, capsys):
    arguments = ["report", "--data", str(mini), "--out", str(tmp_path / "page"), "--runs", str(tmp_path / "runs")]
    small = ("image_size=48", "epochs=1", "num_places=2", "images_per_place=2", "num_workers=0", "progress=false")
    assert main([*arguments, *(part for change in small for part in ("--set", change))]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    for text in ("Contact sheet", "Viewpoint change", "tokyo_test, by light", "Fig. 5", "night"):
        assert text in page, text
    printed = capsys.readouterr().out
    assert len(list((tmp_path / "runs").iterdir())) == 11  # shared runs are trained once
    assert main([*arguments, *(part for change in small for part in ("--set", change))]) == 0
    assert "epoch 1" in printed and "epoch 1" not in capsys.readouterr().out
