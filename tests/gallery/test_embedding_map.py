"""The embedding map: what is drawn, how it is colored, and how it is linked with the selection."""

import itertools
import json
import re

import numpy as np
import pytest

from vpr_lib.analysis.embedding import embed_descriptors
from vpr_lib.analysis.scenarios import Label
from vpr_lib.figures.plots import GREEN, RED
from vpr_lib.gallery import Gallery, View, split_descriptors
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.embedding_map import embed_split, list_colorings, mark_outcomes, place_points
from vpr_lib.gallery.rendering import read_style
from vpr_lib.run_folders import Run

TIMES = itertools.count()


def describe(model, table, rows):
    """Made-up descriptors (n, 8) that differ by model."""
    rng = np.random.default_rng([ord(model), len(table)])
    return rng.normal(size=(100, 8)).astype(np.float32)[rows]


def extract(model, photos, *_):
    """In place of `extract_descriptors`."""
    return describe(model, "queries" if photos.root.name == "queries" else "database", np.arange(len(photos)))


@pytest.fixture
def mapped(gallery, monkeypatch):
    """The gallery with made-up descriptors, its map open and by PCA."""
    monkeypatch.setattr(Run, "load_model", lambda run: run.folder.name)
    monkeypatch.setattr(split_descriptors, "open_features", lambda *_: None)
    monkeypatch.setattr(split_descriptors, "extract_descriptors", extract)
    panel = gallery.panels["Embedding map"]
    panel.method.value = "pca"
    gallery.widget.children[-1].selected_index = list(gallery.panels).index("Embedding map")
    return gallery


def read_points(html):
    """{row: attributes of its point}."""
    return {
        int(row): rest + title
        for row, rest, title in re.findall(r'<path data-row="(\d+)"(.*?)><title>(.*?)</title>', html)
    }


def pick(panel, text):
    """What embedding_map.js writes."""
    panel.picked.value = f"{next(TIMES)} {text}"


def test_every_query_is_drawn_where_its_descriptor_is(mapped):
    panel = mapped.panels["Embedding map"]
    descriptors = (describe("A", name, np.arange(n)) for name, n in (("database", 60), ("queries", 40)))
    expected = embed_descriptors(*descriptors, "pca")
    points = read_points(panel.screen.value)
    assert sorted(points) == list(range(40))
    drawn = np.array([[float(x) for x in re.search(r"translate\((.*?)\)", points[i])[1].split()] for i in range(40)])
    scale = (drawn[1] - drawn[0]) / (expected.queries[1] - expected.queries[0])
    assert scale[0] == pytest.approx(-scale[1], rel=0.01) and scale[0] > 0  # the same for both axes; y points down
    np.testing.assert_allclose(drawn - drawn[0], (expected.queries - expected.queries[0]) * scale, atol=0.2)
    assert drawn.min() > 0 and "60 database photos" in panel.screen.value and "of the variance" in panel.screen.value


def test_outcomes_have_a_color_and_a_shape(mapped):
    browser, points = mapped.browser, read_points(mapped.panels["Embedding map"].screen.value)
    looks = {}
    for row, point in points.items():
        right = tuple(bool(browser.ranks[m, row] == 0) for m in (0, 1))
        kind = "none" if browser.without_positive[row] else right
        look = re.search(r'data-outcome="(\d)"', point)[1], re.search(r' d="(.*?)"', point)[1]
        looks.setdefault(kind, set()).add(look)
    assert len(looks) == 5 and all(len(found) == 1 for found in looks.values())
    for part in (0, 1):
        assert len({next(iter(found))[part] for found in looks.values()}) == 5
    colors = {kind: read_color(next(iter(found))[0]) for kind, found in looks.items()}
    assert colors[True, True] == GREEN and colors[False, False] == RED and len(set(colors.values())) == 5


def read_color(number):
    """The color of an outcome in the style sheet."""
    return re.search(rf'\[data-by="outcome"\] \[data-outcome="{number}"\] {{ fill: (#\w+)', read_style())[1]


def test_a_click_shows_a_query_and_a_lasso_selects(mapped):
    panel, names = mapped.panels["Embedding map"], mapped.browser.queries.names
    pick(panel, "query 7")
    assert mapped.row == 7 and len(mapped.rows) == 40
    assert names[7] in panel.query.value and "display: block" in panel.marker.value
    assert "display: block" in panel.marker.value
    pick(panel, "lasso 3 9 11")
    assert mapped.rows.tolist() == [3, 9, 11] and mapped.row == 3
    out = {row for row, point in read_points(panel.screen.value).items() if 'class="out"' in point}
    assert out == set(range(40)) - {3, 9, 11}
    right = [row for row in (3, 9, 11) if mapped.browser.ranks[0, row] == 0]
    mapped.layout.controls["outcome"].value = "a_right"  # together with the other filters
    assert mapped.rows.tolist() == right
    mapped.layout.controls["outcome"].value = "all"
    again = Gallery(mapped.browser, mapped.runs, json.loads(json.dumps(mapped.state)), None)
    assert again.rows.tolist() == [3, 9, 11]
    pick(panel, "all")
    assert len(mapped.rows) == 40
    pick(panel, "lasso 4")
    panel.all.click()
    assert len(mapped.rows) == 40 and mapped.view.picked == ""


def test_the_mark_follows_the_query(mapped):
    panel = mapped.panels["Embedding map"]
    split_map = panel.embed("A", "pca", ())
    for row in (0, 1, 39):
        mapped.show(View(query=str(mapped.browser.queries.names[row])))
        x, y = place_points(split_map.embedding)[1][row]
        assert f"translate({x:.1f}px, {y:.1f}px)" in panel.marker.value
    mapped.show(View(search="nowhere"))
    assert panel.marker.value == panel.query.value == ""


def test_a_closed_map_computes_nothing_and_a_missing_model_is_named(gallery):
    panel = gallery.panels["Embedding map"]
    gallery.step(1)
    gallery.show(View(outcome="a_right"))
    assert panel.screen.value == "" == panel.query.value
    panel.refresh()
    assert "No embedding map" in panel.screen.value and "model.pt" in panel.screen.value


def test_colorings_of_queries_that_differ(browser):
    assert set(list_colorings(browser)) == {"outcome", "scenario"}  # no light is known, and one city
    outcomes = mark_outcomes(browser)
    for row in range(len(browser)):
        a, b = (browser.ranks[m, row] == 0 for m in (0, 1))
        expected = "both_right" if a and b else "a_only" if a else "b_only" if b else "both_wrong"
        assert outcomes[row] == ("no_positive" if browser.without_positive[row] else expected)
    labels = {str(name): Label("illumination", "night") for name in browser.queries.names[:9]}
    lit = Browser(browser.database, browser.queries, {"A": browser.evaluations["A"]}, labels, browser.tags)
    coloring = list_colorings(lit)["light"]
    assert coloring.values.tolist() == ["night"] * 9 + [""] * 31
    assert coloring.labels == {"night": "night", "": "unknown"} and coloring.colors["night"] != coloring.colors[""]
    assert set(mark_outcomes(lit)) == {"a_right", "a_wrong", "no_positive"}


@pytest.mark.slow
def test_a_large_split_is_sampled_and_says_so(browser, monkeypatch):
    monkeypatch.setattr("vpr_lib.gallery.embedding_map.MAX_QUERIES", 30)
    monkeypatch.setattr("vpr_lib.gallery.embedding_map.MAX_DATABASE", 20)
    found = embed_split(browser, describe, "A", "tsne")
    assert len(found.queries) == len(found.embedding.queries) == 30 and len(found.embedding.database) == 20
    assert "sample of 30 of 40 queries" in found.note and "sample of 20 of 60 database photos" in found.note
    some = embed_split(browser, describe, "A", "pca", (1, 2, 3))  # as for a page of three queries
    assert some.queries.tolist() == [1, 2, 3] and "3 of 40 queries" in some.note


@pytest.mark.slow
def test_the_page_has_the_maps_of_its_queries(mapped, tmp_path):
    text = mapped.export_html(tmp_path / "page.html", [3, 4, 5]).read_text(encoding="utf-8")
    maps = re.findall(r'data-map="(.*?)" data-by="outcome"(.*?)</svg>', text, re.DOTALL)
    assert [name for name, _ in maps] == ["0-t-SNE", "0-PCA", "1-t-SNE", "1-PCA"]
    assert all(set(read_points(content)) == {3, 4, 5} for _, content in maps)


def test_a_page_without_descriptors_says_so(gallery, tmp_path, capsys):
    text = gallery.export_html(tmp_path / "page.html", [3, 4, 5]).read_text(encoding="utf-8")
    assert "without embedding maps" in capsys.readouterr().out and "data-map=" not in text
