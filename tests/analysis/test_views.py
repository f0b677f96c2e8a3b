"""Photos of the same view: found by turn and shift together, shown by the points that both photos share."""

import math

import numpy as np
import pytest
from conftest import photo_name
from PIL import Image
from textured_photos import MOVED, draw_wall, look

from vpr_lib.analysis.views import choose_pairs, sort_by_view
from vpr_lib.data_roots import read_split
from vpr_lib.recall import find_positives

# Cameras of the database: meters east and north of the query, degrees from its heading.
CAMERAS = [(0, 0, 170), (3, 4, 60), (12, 5, 2), (6, 8, -10), (0, 1, None)]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Six queries: of 0 to 2, the photo of the most similar view shows another wall for 0 and 1, its own for 2."""
    root = tmp_path_factory.mktemp("views")
    for half in ("queries", "database"):
        (root / "val" / half).mkdir(parents=True)

    def write(half, wall, east, north=0.0, heading="", homography=None):
        photo = draw_wall(wall, 120) if homography is None else look(draw_wall(wall, 120), homography)
        name = photo_name(1000 * east + 500, 4e6 + north, heading, pano=f"{half[0]}{east}")
        Image.fromarray(photo).save(root / "val" / half / name, quality=95)

    for place in range(5):
        write("queries", place, place, heading=350)
        write("database", place if place in (2, 3) else place + 50, place, 5.0, 355, MOVED)
    write("queries", 5, 5)  # without a positive
    return read_split(root, "val")


def test_views_are_sorted_by_turn_and_shift_together(tmp_path):
    for half, cameras in (("queries", [(0, 0, 0)]), ("database", CAMERAS)):
        (tmp_path / "val" / half).mkdir(parents=True)
        for number, (east, north, turn) in enumerate(cameras):
            heading = "" if turn is None else (350 + turn) % 360
            name = photo_name(7000 + east, 4e6 + north, heading, pano=f"p{number}")
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "val" / half / name)
    database, queries = read_split(tmp_path, "val")
    number_of = [int(name.split("@")[7][1:]) for name in database.names]
    views = sort_by_view(database, queries, 0, np.arange(5))

    def differ(number):
        east, north, turn = CAMERAS[number]
        return math.sqrt((east**2 + north**2) / 10**2 + ((turn or 0) / 20) ** 2)

    order = [number_of[row] for row in views.rows]
    assert order == sorted(range(5), key=differ) == [4, 3, 2, 1, 0]
    assert views.shifts_m.tolist() == pytest.approx([1, 10, 13, 5, 0])
    assert views.turns_deg.tolist() == pytest.approx([0, 10, 2, 60, 170])


def test_a_pair_of_each_kind_shares_points(split):
    database, queries = split
    place_of = [round((east - 500) / 1000) for east in queries.utm[:, 0]]
    kinds = np.array(["b" if place in (3, 4) else "a" if place < 3 else "c" for place in place_of])
    positives = find_positives(database.utm, queries.utm)
    pairs = choose_pairs(database, queries, positives, kinds, {"b": "Kind B", "c": "Kind C", "a": "Kind A"})
    assert list(pairs) == ["Kind B", "Kind A"]  # the query of kind c has no positive
    for title, place in (("Kind B", 3), ("Kind A", 2)):
        pair = pairs[title]
        assert place_of[pair.query] == place and pair.num_shared > 20
        assert pair.photo == positives[pair.query][0]
        assert (pair.shift_m, pair.turn_deg) == pytest.approx((5, 5))
