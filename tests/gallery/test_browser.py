"""Filters, orders and counts of the gallery, against loops."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from vpr_lib.gallery import open_gallery
from vpr_lib.gallery.browser import ORDERS, OUTCOMES, SOURCES, Browser, View, read_view
from vpr_lib.recall import recall_at_k
from vpr_lib.settings import replace
from vpr_lib.statistics import bootstrap_interval, group_cells


def is_right(browser, model, row):
    """Whether the first photo lies within 25 m, measured here."""
    first = browser.evaluations[model].indices[row, 0]
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
    def measure(kind, evaluation, row):
        places = [browser.database.utm[i] if i >= 0 else None for i in evaluation.indices[row]]
        similarities = [1 - float(distance) ** 2 / 2 for distance in evaluation.distances[row]]
        if kind == "error":
            return math.dist(places[0], browser.queries.utm[row])
        if kind == "similarity":
            return similarities[0]
        if kind == "spread":
            spread_m = measure_spread([place for place in places if place is not None], evaluation.distances[row])
            return round(spread_m, 2)
        if kind == "inliers":
            count = browser.inliers[letter.upper()][row, 0]
            return count if count >= 0 else math.nan
        elsewhere = [i for i, place in enumerate(places) if place is not None and math.dist(place, places[0]) > 25]
        return similarities[0] - similarities[elsewhere[0]] if elsewhere else math.nan

    for order in set(ORDERS) - {"name"}:
        kind, letter = order.split("_")
        evaluation = browser.evaluations[letter.upper()]
        values = np.array([measure(kind, evaluation, row) for row in range(len(browser))])
        for descending in (False, True):
            rows = browser.select(View(order=order, descending=descending))
            ordered = values[rows]
            known = ordered[~np.isnan(ordered)]
            assert sorted(rows) == list(range(len(browser)))
            assert np.allclose(known, sorted(known, reverse=descending)), order
            assert np.isnan(ordered[len(known) :]).all()  # unknown ones come last, whichever way
            if kind == "inliers":  # equal ones are in the order of names
                assert (np.diff(rows[: len(known)])[np.diff(known) == 0] > 0).all()
                assert 0 < len(known) < len(browser) and len(set(known)) < len(known)
    names = list(browser.queries.names)
    assert [names[row] for row in browser.select(View(descending=True))] == names[::-1]


def measure_spread(places, distances):
    """Meters: the root of the variance of the places, weighted by descriptor distance, averaged over both axes."""
    weights = [math.exp(-100 * (float(distance) - float(distances[0]))) for distance in distances[: len(places)]]
    variance = 0
    for axis in (0, 1):
        values = [place[axis] for place in places]
        mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
        offsets = [max(-500, min(500, value - mean)) for value in values]
        variance += sum(w * offset**2 for w, offset in zip(weights, offsets, strict=True)) / sum(weights) / 2
    return math.sqrt(variance)


def test_search_by_name(browser):
    for text in ("q1oak", "Q1OAK ", "@5000", "nowhere", ""):
        wanted = text.strip().lower()
        expected = [row for row, name in enumerate(browser.queries.names) if wanted in name.lower()]
        assert browser.select(View(search=text)).tolist() == expected
    assert browser.find_query(browser.queries.names[3]) == 3 and browser.find_query("nowhere") is None


def test_predictions_of_a_query(browser):
    row = 3  # a multiple of 3: the last predictions are missing
    evaluation = browser.evaluations["B"]
    predictions = browser.list_predictions("B", row, 25)
    assert [p.rank for p in predictions] == list(range(1, 7))
    for prediction in predictions:
        photo = evaluation.indices[row, prediction.rank - 1]
        distance_m = math.dist(browser.database.utm[photo], browser.queries.utm[row])
        assert prediction.photo == photo and prediction.distance_m == pytest.approx(distance_m)
        assert prediction.right == (distance_m <= 25)
        assert prediction.similarity == pytest.approx(1 - evaluation.distances[row, prediction.rank - 1] ** 2 / 2)
        assert prediction.inliers == browser.inliers["B"][row, prediction.rank - 1]


def test_counts_and_recall_of_a_selection(browser):
    rows = browser.select(View(scenario="skyline"))
    summary = browser.summarize(rows, (1, 5, 25))
    assert summary.num_queries == len(rows)
    for model in "AB":
        evaluation = browser.evaluations[model]
        recall = recall_at_k(evaluation.indices[rows], [evaluation.positives[row] for row in rows], (1, 5))
        assert summary.recall[model] == pytest.approx(recall)  # k = 25 exceeds the predictions
        hits = np.array([is_right(browser, model, row) for row in rows])
        interval = bootstrap_interval(hits, group_cells(browser.queries.utm)[rows])
        assert summary.intervals[model] == interval
        assert browser.recall_by_scenario()[model]["skyline"].recall == pytest.approx(100 * hits.mean())
    assert browser.summarize(np.arange(40)).num_without_positive == 4
    empty = browser.summarize(np.array([], dtype=int))
    assert (empty.num_queries, empty.num_without_positive, empty.recall) == (0, 0, {})
    assert set(browser.recall_by_scenario("tagged")["A"]) == {"skyline"}


def test_a_view_is_saved_and_restored(browser):
    view = View("skyline", "tagged", "a_only", "oak", "margin_b", True, browser.queries.names[3], 10, True, 2, 3)
    assert read_view(json.loads(json.dumps(asdict(view)))) == view
    assert read_view({}) == View()
    with pytest.raises(ValueError, match=r"c_right.*a_right"):
        read_view({"outcome": "c_right"})
    with pytest.raises(ValueError, match="matches"):
        read_view({"matches": 11})
    with pytest.raises(ValueError, match="color"):
        read_view({"color": "red"})
    with pytest.raises(ValueError, match="descending = 'yes'"):
        read_view({"descending": "yes"})


def test_one_model(browser):
    alone = Browser(browser.database, browser.queries, {"A": browser.evaluations["A"]}, {}, browser.tags)
    assert set(alone.list_choices(OUTCOMES)) == {"all", "a_right", "a_wrong", "no_positive"}
    assert set(alone.list_choices(ORDERS)) == {"name", "error_a", "similarity_a", "margin_a", "spread_a"}
    assert alone.list_choices(OUTCOMES)["a_right"] == "A right"
    with pytest.raises(ValueError, match="b_wrong"):
        alone.select(View(outcome="b_wrong"))


def test_models_must_be_evaluated_on_one_split(browser):
    for change in ({"split": "sf_test"}, {"query_utm": browser.queries.utm[:5]}):
        other = replace(browser.evaluations["B"], **change)
        with pytest.raises(ValueError, match=f"B .*{other.split}"):
            Browser(browser.database, browser.queries, browser.evaluations | {"B": other}, {}, browser.tags)
    with pytest.raises(ValueError, match="0 runs"):
        open_gallery({}, "data", "val")


def test_inliers_are_known_or_not(browser):
    def open_browser(inliers):
        return Browser(browser.database, browser.queries, browser.evaluations, {}, browser.tags, inliers=inliers)

    assert set(browser.list_choices(ORDERS)) == set(ORDERS)
    assert set(open_browser({"B": browser.inliers["B"]}).list_choices(ORDERS)) == set(ORDERS)
    for inliers in (None, {"A": np.full_like(browser.inliers["A"], -1)}):
        unverified = open_browser(inliers)
        assert set(ORDERS) - set(unverified.list_choices(ORDERS)) == {"inliers_a", "inliers_b"}
        assert {each.inliers for each in unverified.list_predictions("A", 0, 10)} == {-1}
        with pytest.raises(ValueError, match=r"inliers_a.*spread_a"):
            unverified.select(View(order="inliers_a"))
    with pytest.raises(ValueError, match=r"\(40, 3\).*\(40, 10\)"):
        open_browser({"A": browser.inliers["A"][:, :3]})
    with pytest.raises(ValueError, match="MixVPR"):
        open_browser({"MixVPR": browser.inliers["A"]})
