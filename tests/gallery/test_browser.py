"""Filters, orders and counts of the gallery, against loops."""

import json
import math

import numpy as np
import pytest
from conftest import photo_name, write_photo

from vpr_lib.analysis.scenarios import SCENARIOS, Label
from vpr_lib.analysis.suggestions import Suggestion
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import Evaluation
from vpr_lib.gallery.browser import ORDERS, OUTCOMES, SOURCES, Browser, View, read_view
from vpr_lib.gallery.tags import Tags
from vpr_lib.recall import find_positives, recall_at_k
from vpr_lib.settings import replace
from vpr_lib.statistics import bootstrap_interval, group_cells

NUM_QUERIES, NUM_DATABASE, K = 40, 60, 10


def make_evaluation(database, queries, seed, split="val"):
    """Random predictions, a third of them none."""
    rng = np.random.default_rng(seed)
    positives = find_positives(database.utm, queries.utm)
    indices = np.stack([rng.permutation(len(database))[:K] for _ in range(len(queries))])
    for row in np.flatnonzero(rng.random(len(queries)) < 0.5):
        indices[row, : len(positives[row])] = positives[row][:K]
    indices[::3, K - 4 :] = -1
    distances = np.sort(rng.random((len(queries), K), dtype=np.float32), axis=1)
    recall = recall_at_k(indices, positives, (1, 5, 10))
    return Evaluation(split, indices, distances, positives, queries.utm, recall)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Photos along a street, 10 m apart; the last queries lie far from it."""
    root = tmp_path_factory.mktemp("browse")
    write_photo(root / "one.jpg", 1)
    for half, count in (("database", NUM_DATABASE), ("queries", NUM_QUERIES)):
        (root / "val" / half).mkdir(parents=True)
        for i in range(count):
            east = 5e5 + 10 * i + (1e5 if half == "queries" and i >= NUM_QUERIES - 4 else 0)
            name = photo_name(east, 4e6, 10 * i, "201604", pano=f"{half[0]}{i}Oak")
            (root / "val" / half / name).hardlink_to(root / "one.jpg")
    return root


@pytest.fixture
def browser(split, tmp_path):
    database, queries = read_split(split, "val")
    found = {"A": make_evaluation(database, queries, 1), "B": make_evaluation(database, queries, 2)}
    labels = {name: Label(list(SCENARIOS)[i % 3]) for i, name in enumerate(queries.names) if i % 5}
    tags = Tags(tmp_path / "tags.csv", queries.names)
    tags.toggle(queries.names[5], "skyline")
    browser = Browser(database, queries, found, labels, tags)
    browser.suggestions[7] = [Suggestion("skyline", 0.9, "why")]
    return browser


def is_right(browser, model, row):
    """Whether the first photo lies within 25 m, measured here."""
    first = browser.found[model].indices[row, 0]
    return math.dist(browser.database.utm[first], browser.queries.utm[row]) <= 25


def test_outcomes_against_a_loop(browser):
    tests = {
        "all": lambda a, b: True, "a_right": lambda a, b: a, "a_wrong": lambda a, b: not a,
        "b_right": lambda a, b: b, "b_wrong": lambda a, b: not b, "a_only": lambda a, b: a and not b,
        "b_only": lambda a, b: b and not a, "both_right": lambda a, b: a and b,
        "both_wrong": lambda a, b: not a and not b,
    }  # fmt: skip
    rights = [[is_right(browser, model, row) for model in "AB"] for row in range(len(browser))]
    for outcome, test in tests.items():
        expected = [row for row, pair in enumerate(rights) if test(*pair)]
        assert browser.select(View(outcome=outcome)).tolist() == expected, outcome
        assert len(expected) > 0, outcome
    assert set(tests) | {"no_positive"} == set(OUTCOMES)
    distances = [min(math.dist(q, d) for d in browser.database.utm) for q in browser.queries.utm]
    lonely = [row for row, distance in enumerate(distances) if distance > 25]
    assert browser.select(View(outcome="no_positive")).tolist() == lonely and len(lonely) == 4


def test_scenarios_by_source(browser):
    known = [row for row in range(len(browser)) if browser.known[row] == "skyline"]
    assert known and 5 not in known and 7 not in known
    expected = {"given": sorted([*known, 5]), "known": known, "tagged": [5], "suggested": [7]}
    for source in SOURCES:
        view = View(scenario="skyline", source=source)
        assert browser.select(view).tolist() == expected[source]
    every = list(range(len(browser)))
    # Without a scenario: all queries, but only those that are tagged, or suggested, at all
    for source, rows in {"given": every, "known": every, "tagged": [5]}.items():
        assert browser.select(View(source=source)).tolist() == rows
    assert browser.select(View(source="suggested")).tolist() == sorted(r for r, f in browser.suggestions.items() if f)
    both = browser.select(View(scenario="skyline", outcome="a_wrong"))
    assert both.tolist() == [row for row in expected["given"] if not is_right(browser, "A", row)]


def test_orders_against_a_loop(browser):
    def margin(model, row):
        found = browser.found[model]
        similar = [1 - float(d) ** 2 / 2 for d in found.distances[row]]
        places = [browser.database.utm[i] if i >= 0 else None for i in found.indices[row]]
        for similarity, place in zip(similar, places, strict=True):
            if place is not None and math.dist(place, places[0]) > 25:
                return similar[0] - similarity
        return math.nan

    keys = {
        "error": lambda m, r: math.dist(browser.database.utm[browser.found[m].indices[r, 0]], browser.queries.utm[r]),
        "similarity": lambda m, r: 1 - float(browser.found[m].distances[r, 0]) ** 2 / 2,
        "margin": margin,
    }
    for order in set(ORDERS) - {"name"}:
        kind, letter = order.split("_")
        values = np.array([keys[kind](letter.upper(), row) for row in range(len(browser))])
        for descending in (False, True):
            rows = browser.select(View(order=order, descending=descending))
            ordered = values[rows]
            known = ordered[~np.isnan(ordered)]
            assert sorted(rows) == list(range(len(browser)))
            assert np.allclose(known, sorted(known, reverse=descending)), order
            assert np.isnan(ordered[len(known) :]).all()  # unknown ones come last, whichever way
    names = list(browser.queries.names)
    assert [names[row] for row in browser.select(View(descending=True))] == names[::-1]


def test_search_by_name(browser):
    for text in ("q1oak", "Q1OAK ", "@5000", "nowhere", ""):
        wanted = text.strip().lower()
        expected = [row for row, name in enumerate(browser.queries.names) if wanted in name.lower()]
        assert browser.select(View(search=text)).tolist() == expected
    assert browser.find(browser.queries.names[3]) == 3 and browser.find("nowhere") is None


def test_counts_and_recall_of_a_selection(browser):
    rows = browser.select(View(scenario="skyline"))
    summary = browser.summarise(rows, (1, 5, 25))
    assert summary["queries"] == len(rows)
    for model in "AB":
        found = browser.found[model]
        recall = recall_at_k(found.indices[rows], [found.positives[row] for row in rows], (1, 5))
        assert summary["models"][model]["recall"] == pytest.approx(recall)  # k = 25 exceeds the predictions
        hits = np.array([is_right(browser, model, row) for row in rows])
        interval = bootstrap_interval(hits, group_cells(browser.queries.utm)[rows])
        assert summary["models"][model]["interval"] == interval
        assert browser.recall_by_scenario()[model]["skyline"]["recall"] == pytest.approx(100 * hits.mean())
    assert browser.summarise(np.arange(40))["without_positive"] == 4
    assert browser.summarise(np.array([], dtype=int)) == {"queries": 0, "without_positive": 0, "models": {}}
    assert set(browser.recall_by_scenario("tagged")["A"]) == {"skyline"}


def test_a_view_is_saved_and_restored(browser):
    view = View("skyline", "tagged", "a_only", "oak", "margin_b", True, browser.queries.names[3], 10, True, 2)
    assert read_view(json.loads(json.dumps(view.to_dict()))) == view
    assert read_view({}) == View()
    with pytest.raises(ValueError, match="unknown outcome 'c_right'; valid: all, a_right"):
        read_view({"outcome": "c_right"})
    with pytest.raises(ValueError, match="unknown key of a view 'colour'"):
        read_view({"colour": "red"})
    with pytest.raises(ValueError, match="descending = 'yes'"):
        read_view({"descending": "yes"})


def test_one_model(browser):
    alone = Browser(browser.database, browser.queries, {"A": browser.found["A"]}, {}, browser.tags)
    assert set(alone.list_choices(OUTCOMES)) == {"all", "a_right", "a_wrong", "no_positive"}
    assert set(alone.list_choices(ORDERS)) == {"name", "error_a", "similarity_a", "margin_a"}
    assert alone.list_choices(OUTCOMES)["a_right"] == "A right"
    with pytest.raises(ValueError, match="unknown outcome 'b_wrong'"):
        alone.select(View(outcome="b_wrong"))


def test_models_must_be_of_one_split(browser):
    parts = browser.database, browser.queries
    other = replace(browser.found["B"], split="sf_test")
    with pytest.raises(ValueError, match="different splits, A of val and B of sf_test"):
        Browser(*parts, {"A": browser.found["A"], "B": other}, {}, browser.tags)
    fewer = replace(browser.found["B"], query_utm=browser.queries.utm[:5])
    with pytest.raises(ValueError, match="B was evaluated on other queries"):
        Browser(*parts, {"A": browser.found["A"], "B": fewer}, {}, browser.tags)
    with pytest.raises(ValueError, match="0 models; the gallery shows one or two"):
        Browser(*parts, {}, {}, browser.tags)
