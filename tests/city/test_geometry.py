"""Where things appear in the photos: the camera, visible walls, roofs; and what the light changes."""

import math

import numpy as np
import pytest
from PIL import Image

from vpr_lib.city import walls
from vpr_lib.city.canvas import LIGHTINGS, Camera, Canvas, Moment
from vpr_lib.city.layout import FACES, REPETITIVE, make_city
from vpr_lib.city.photo import draw_photo
from vpr_lib.city.walls import Facade, draw_facade


@pytest.fixture(scope="module")
def city():
    return make_city(3)


def test_camera_projects_like_a_pinhole():
    camera = Camera(10.0, 20.0, heading=30.0, height=2.5, fov=90.0, horizon=0.5, size=200)
    rng = np.random.default_rng(0)
    points = rng.uniform((-50, -50, 0), (80, 90, 30), (50, 3))
    points = points[camera.to_view(points)[:, 1] > 0.25]
    for point, pixel in zip(points, camera.to_pixels(camera.to_view(points), points[:, 2]), strict=True):
        east, north, up = point - (10, 20, 2.5)
        angle = math.atan2(east, north) - math.radians(30)  # clockwise from the camera's axis
        distance = math.hypot(east, north)
        # 90 degrees: the focal length is half the width
        assert pixel[0] == pytest.approx(100 + 100 * math.tan(angle))
        assert pixel[1] == pytest.approx(100 - 100 * up / (distance * math.cos(angle)))


def hit_building(city, camera, column, row):
    """The first house that the ray through a pixel meets, by trying every box; -1 for none."""
    right = (column - camera.size / 2) / camera.focal
    up = (camera.horizon * camera.size - row) / camera.focal
    ray = [*(camera.forward + right * camera.right), up]
    nearest, hit = math.inf, -1
    for number, building in enumerate(city.buildings):
        enter, leave = 0.0, math.inf
        spans = (
            (building.x0, building.x1, camera.x),
            (building.y0, building.y1, camera.y),
            (0.0, building.height, camera.height),
        )
        for step, (low, high, start) in zip(ray, spans, strict=True):
            if abs(step) < 1e-12:
                if not low <= start <= high:
                    leave = -1.0
                continue
            first, last = sorted(((low - start) / step, (high - start) / step))
            enter, leave = max(enter, first), min(leave, last)
        if enter < leave and 0 < enter < min(nearest, walls.REACH_M):
            nearest, hit = enter, number
    return hit


@pytest.mark.slow
def test_walls_appear_where_rays_meet_them(city, monkeypatch):
    """Each house has its own color; the expected house at a pixel comes from a ray caster that tries every house."""

    def paint(building, face, shop, level):
        number = city.buildings.index(building) + 1
        picture = Image.new("RGB", (4, 4), (number % 256, number // 256, 7))
        return Facade([picture], [None], building.height, np.empty((0, 4)), np.empty((0, 4)))

    monkeypatch.setattr(walls, "get_facade", paint)
    monkeypatch.setattr(Canvas, "shade_picture", lambda self, picture, *rest: picture)
    rng = np.random.default_rng(1)
    right = total = 0
    for number in range(12):
        street = city.streets[2 + number % 6]
        x, y = street.point(rng.uniform(60, 400), rng.uniform(-3, 3))
        canvas = Canvas(city, Camera(x, y, rng.uniform(0, 360), size=128), Moment(2015, 6, "day", 0, 0))
        walls.draw_walls(canvas, walls.find_visible_walls(city, canvas.camera))
        pixels = np.asarray(canvas.image).astype(int)
        for column, row in rng.integers(1, 127, (60, 2)):
            block = pixels[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
            if (block == block[0]).all():  # not at an edge
                drawn = block[0, 0] + 256 * block[0, 1] - 1
                right += drawn == hit_building(city, canvas.camera, column + 0.5, row + 0.5)
                total += 1
    assert total > 400
    assert right / total > 0.99


def list_roof_edges(city, camera):
    """Column and row of upper edges of flat roofs that no other house overlaps."""
    visible = walls.find_visible_walls(city, camera)
    for wall, ends in zip(visible.index, visible.columns, strict=True):
        building, face = city.buildings[wall // 4], FACES[wall % 4]
        column = int(ends.clip(4, camera.size - 5).mean())
        covering = (visible.columns[:, 0] < column + 2) & (column - 1 < visible.columns[:, 1])
        if building.roof in ("flat", "cornice") and np.ptp(ends.clip(0, camera.size)) >= 20 and covering.sum() == 1:
            view = (column + 0.5 - camera.size / 2) / camera.focal * camera.right + camera.forward
            x, y = np.array([camera.x, camera.y]) + view / visible.nearest[column]
            top = building.height + (face in building.street_faces) * building.roof_height
            row = camera.to_pixels(camera.to_view(np.array([x, y])), top)[1]
            if 14 < row < 150:
                yield column, row


@pytest.mark.slow
def test_roofs_end_where_they_are_projected():
    """The first row of a house below the sky, in the finished photo, against the projected edge."""
    errors = []
    for city in (make_city(3), make_city(4), make_city(5)):
        street = [street for street in city.streets if street.horizontal][2]
        for along in np.arange(60, 450, 7.5):
            camera = Camera(*street.point(along), 20.0 if along % 15 else 200.0, size=320)
            edges = list(list_roof_edges(city, camera))
            if not edges:
                continue
            photo = np.asarray(draw_photo(city, camera, Moment(2015, 1, "sunset", 0, 5))).astype(int)
            for column, row in edges:
                strip = photo[int(row) - 12 : int(row) + 12, column - 1 : column + 2].mean(1)
                first = (np.abs(strip - strip[:3].mean(0)).max(-1) > 25).argmax()
                errors.append(int(row) - 12 + first - row)
    assert len(errors) >= 20  # a tree or a lamp hides some edges
    assert np.mean(np.abs(errors) < 1.5) >= 0.7 and abs(np.median(errors)) < 0.5, errors


def test_light_and_date_change_the_photo(city):
    street = city.streets[3]
    camera = Camera(*street.point(150.0), street.direction + 40, size=96)
    photos = {light: np.asarray(draw_photo(city, camera, Moment(2015, 6, light, 30.0, 1))) for light in LIGHTINGS}
    means = {light: photo.mean() for light, photo in photos.items()}
    assert means["night"] < 0.6 * means["sunset"] and means["sunset"] < means["day"]
    assert (photos["night"].max(-1) > 180).any()  # lit windows or lamps
    later = np.asarray(draw_photo(city, camera, Moment(2021, 12, "day", 30.0, 2)))
    assert (np.abs(later.astype(int) - photos["day"]) > 30).mean() > 0.05
    again = np.asarray(draw_photo(city, camera, Moment(2015, 6, "day", 30.0, 1)))
    np.testing.assert_array_equal(again, photos["day"])


def test_houses_of_a_repetitive_block_differ_in_details_only():
    cities = [make_city(seed) for seed in range(3)]
    houses = [house for city in cities for house in city.buildings if house.style == REPETITIVE]
    first = next(house for house in houses if house.street_faces == ("south",))
    row = [house for house in houses if house.look == first.look and len(house.street_faces) == 1]
    row = [house for house in row if max(house.x1 - house.x0, house.y1 - house.y0) < 13]
    pictures = [draw_facade(house, FACES.index(house.street_faces[0]), -1).levels[0] for house in row]
    pictures = [np.asarray(picture).astype(int) for picture in pictures if picture.size == pictures[0].size]
    assert len(pictures) >= 4
    for other in pictures[1:]:
        changed = (np.abs(other - pictures[0]).max(-1) > 8).mean()
        assert 0.0005 < changed < 0.35
