"""The map of a query: directions and distances, far marks, database photos, and links with the photos."""

import math
import re

import numpy as np
import pytest

from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.gallery.rendering import read_style

CENTER = np.array([551_000.0, 4_178_000.0])


def draw(offsets, **options):
    """A map of wrong photos; returns their positions, with up positive, the circle of 25 m, and the SVG."""
    marks = [Mark(CENTER + offset, "wrong", f"mark {i}", str(i), key=f"a{i}") for i, offset in enumerate(offsets)]
    svg = draw_map(CENTER, 25.0, marks, **options)
    found = {title: place for place, title in re.findall(r'translate\(([-\d. ]+)\)"[^>]*><title>([^<]+)', svg)}
    places = [np.array([float(x) for x in found[mark.title].split()]) * [1, -1] for mark in marks]
    return np.array(places), float(re.search(r'<circle class="vg-radius" r="([\d.]+)"', svg)[1]), svg


def test_near_marks_are_to_scale_with_north_up():
    places, radius, svg = draw([(30, 40), (-10, 5)], heading_deg=90)
    np.testing.assert_allclose(places, np.array([(30, 40), (-10, 5)]) * radius / 25, atol=0.2)
    assert "log" not in svg and "rotate(90)" in svg and 'role="img"' in svg and re.search(r">\d+ m<", svg)


def test_far_marks_keep_direction_and_order_and_do_not_pile_up():
    offsets = [(0, 20), (150, -150), (-900, 0), (4000, 3000), (-2500, 5500), (2500, 5500), (6000, 100)]
    places, radius, svg = draw(offsets)
    lengths = np.linalg.norm(places, axis=1)
    away_m = [math.hypot(*offset) for offset in offsets]
    reach = 106
    for place, offset, length, away in zip(places, offsets, lengths, away_m, strict=True):
        np.testing.assert_allclose(place / length, np.array(offset) / away, atol=0.02)
        expected = reach * math.log(1 + away / 25) / math.log(1 + max(away_m) / 25)
        assert length == pytest.approx(expected, abs=0.2)
    assert (np.argsort(lengths) == np.argsort(away_m)).all() and lengths.max() == pytest.approx(reach, abs=0.2)
    assert radius == pytest.approx(reach * math.log(2) / math.log(1 + max(away_m) / 25), abs=0.1)
    assert "log scale" in svg and ">100 m<" in svg and ">1 km<" in svg and ">10 km<" not in svg


def test_database_photos_are_dots_within_reach():
    dots = CENTER + np.array([(0.0, 40.0), (0.5, 40.0), (-20.0, 0.0), (9000.0, 0.0)])
    _, radius, svg = draw([(30, 40)], dots=dots)
    drawn = re.findall(r"M(-?\d+) (-?\d+)h0", svg)
    by_hand = {(0, -40), (-20, 0)}  # two lie within a pixel of each other, one is beyond the map
    scale = radius / 25
    found = {(round(int(x) / scale / 10) * 10, round(int(y) / scale / 10) * 10) for x, y in drawn}
    assert found == by_hand and len(drawn) == 2


def test_no_marks_at_all():
    svg = draw_map(CENTER, 25.0, [], dots=np.empty((0, 2)))
    assert svg.startswith("<svg") and "NaN" not in svg and "nan" not in svg


def test_a_photo_and_its_mark_highlight_each_other(gallery):
    html = gallery.layout.screen.value
    for kind in ("figure", "g"):
        keys = re.findall(rf'<{kind} [^>]*data-mark="(\w+)"', html)
        assert sorted(keys) == sorted(f"{model}{rank}" for model in "ab" for rank in range(1, 6))
        assert all(f'.vg-view:has([data-mark="{key}"]:hover) {kind}[data-mark="{key}"]' in read_style() for key in keys)
