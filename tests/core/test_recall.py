import math

import numpy as np
import pytest

from vpr_lib.recall import count_without_positive, find_positives, recall_at_k
from vpr_lib.statistics import bootstrap_interval, paired_test


def test_positives_against_a_loop():
    rng = np.random.default_rng(0)
    database = rng.uniform(0, 300, (200, 2)) + (544000, 4174000)
    queries = rng.uniform(0, 300, (50, 2)) + (544000, 4174000)
    found = find_positives(database, queries, 25.0)
    for query, positives in zip(queries, found, strict=True):
        slow = [i for i, photo in enumerate(database) if math.dist(photo, query) <= 25.0]
        assert positives.tolist() == slow
        assert positives.dtype == np.int64


def test_the_radius_is_inclusive_and_in_float64():
    # At 4,000 km north, float32 has steps of 0.25 m: it would put 25.1 m at 25.0.
    database = np.array([[0.0, 4174706.96], [0.0, 4174707.06]])
    query = np.array([[0.0, 4174681.96]])
    assert find_positives(database, query)[0].tolist() == [0]
    with pytest.raises(ValueError, match="float64"):
        find_positives(database.astype(np.float32), query)


def test_no_database_photo_near():
    positives = find_positives(np.array([[0.0, 0.0]]), np.array([[100.0, 0.0], [3.0, 4.0]]))
    assert [p.tolist() for p in positives] == [[], [0]]
    assert count_without_positive(positives) == 1


def slow_recall(predictions, positives, k):
    hits = 0
    for row, right in zip(predictions, positives, strict=True):
        hits += any(p != -1 and p in right for p in list(row)[:k])
    return 100 * hits / len(predictions)


def test_recall_against_a_loop():
    rng = np.random.default_rng(1)
    predictions = np.array([rng.permutation(40)[:10] for _ in range(60)])
    predictions[rng.random(predictions.shape) < 0.1] = -1
    positives = [np.sort(rng.permutation(40)[: rng.integers(0, 5)]) for _ in range(60)]
    found = recall_at_k(predictions, positives, (1, 3, 10))
    assert found == {k: pytest.approx(slow_recall(predictions, positives, k)) for k in (1, 3, 10)}


def test_unsorted_ks_do_not_inflate_recall():
    predictions = np.array([[5, 1], [2, 0]])
    positives = [np.array([1]), np.array([2])]
    assert recall_at_k(predictions, positives, (2, 1)) == {2: 100.0, 1: 50.0}


def test_minus_one_is_no_prediction_not_the_last_photo():
    positives = [np.array([3])]  # the last of four
    assert recall_at_k(np.array([[-1, -1]]), positives, (1, 2)) == {1: 0.0, 2: 0.0}
    assert recall_at_k(np.array([[-1]]), [np.array([-1])], (1,)) == {1: 0.0}


def test_a_query_without_positive_counts_as_missed():
    predictions = np.array([[0], [0]])
    assert recall_at_k(predictions, [np.array([0]), np.array([], dtype=np.int64)], (1,)) == {1: 50.0}


def test_recall_errors():
    predictions, positives = np.zeros((2, 3), dtype=np.int64), [np.array([0])] * 2
    with pytest.raises(ValueError, match="k = 4"):
        recall_at_k(predictions, positives, (1, 4))
    with pytest.raises(ValueError, match="k = 0"):
        recall_at_k(predictions, positives, (0,))
    with pytest.raises(ValueError, match="1 queries"):
        recall_at_k(predictions, positives[:1], (1,))
    with pytest.raises(ValueError, match="no queries"):
        recall_at_k(np.zeros((0, 3), dtype=np.int64), [], (1,))


def test_bootstrap_interval_is_near_the_binomial_one():
    hits = np.arange(400) < 300
    low, high = bootstrap_interval(hits)
    half = 100 * 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(75 - half, abs=0.7) and high == pytest.approx(75 + half, abs=0.7)


def test_queries_of_one_place_widen_the_interval():
    hits = np.repeat(np.arange(100) < 75, 4)  # the four queries of a place share their fate
    places = np.repeat(np.arange(100), 4)
    low, high = bootstrap_interval(hits)
    grouped_low, grouped_high = bootstrap_interval(hits, places)
    assert (grouped_high - grouped_low) == pytest.approx(2 * (high - low), rel=0.15)


def test_bootstrap_interval_draws_whole_groups():
    rng = np.random.default_rng(1)
    groups, hits = rng.integers(0, 60, 300), rng.random(300) < 0.6
    drawn = []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.choice(np.unique(groups), 60)])
        drawn.append(100 * hits[rows].mean())
    assert bootstrap_interval(hits, groups) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.6)


def test_paired_test_is_mcnemars():
    # 10 queries only A finds, 2 only B, the rest both: 2 * P(X <= 2), X ~ Binomial(12, 1/2)
    a = np.array([True] * 10 + [False] * 2 + [True] * 50)
    b = np.array([False] * 10 + [True] * 2 + [True] * 50)
    by_hand = 2 * sum(math.comb(12, i) for i in range(3)) / 2**12
    assert paired_test(a, b) == pytest.approx(by_hand)
    assert paired_test(a, a) == 1.0
    with pytest.raises(ValueError, match="same queries"):
        paired_test(a, b[:-1])


def test_positions_and_radii_that_are_no_numbers_are_refused():
    here, nowhere = np.zeros((1, 2)), np.array([[np.nan, 0.0]])
    for database, queries in ((here, nowhere), (nowhere, here)):
        with pytest.raises(ValueError, match="finite"):
            find_positives(database, queries)
    for radius_m in (np.nan, -1.0, np.inf):
        with pytest.raises(ValueError, match="radius_m"):
            find_positives(here, here, radius_m)
    assert find_positives(here, here, 0.0)[0].tolist() == [0]
