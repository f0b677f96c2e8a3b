"""Confidence scores by hand, curves and thresholds against loops over all thresholds."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve

from vpr_lib.analysis.confidence import (
    area_under_precision_recall,
    area_under_roc,
    calibration_error,
    choose_threshold,
    fit_probability,
    measure_answers,
    measure_reliability,
    precision_recall,
    ratio_confidence,
    recall_at_full_precision,
    similarity_confidence,
    spread_confidence,
    to_similarity,
)

INF = math.inf

# Scores of first predictions


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(0)
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in rng.normal(size=(2, 9, 8)))
    distances = np.column_stack([np.linalg.norm(first - second, axis=1), np.full(9, 3.0)])
    np.testing.assert_allclose(similarity_confidence(distances), (first * second).sum(1), atol=1e-12)
    by_hand = similarity_confidence(np.array([[0, 1], [math.sqrt(2), INF], [2, 2], [INF, INF]], dtype=np.float32))
    np.testing.assert_allclose(by_hand, [1, 0, -1, -1], atol=1e-6)
    assert by_hand.dtype == np.float64
    np.testing.assert_allclose(to_similarity(distances[:, 0]), (first * second).sum(1), atol=1e-12)


def test_the_ratio_is_that_of_the_first_two_distances():
    by_hand = {
        (0.5, 1.0, 9.0): 0.5,
        (0.3, 0.4, 0.4): 0.25,
        (0.7, 0.7, 0.7): 0.0,
        (0.0, 0.5, 0.5): 1.0,
        (0.0, 0.0, 0.5): 0.0,
        (0.5, INF, INF): 1.0,
        (INF, INF, INF): 0.0,
    }
    np.testing.assert_allclose(ratio_confidence(np.array([*by_hand])), [*by_hand.values()], atol=1e-12)


def measure_spread_slowly(distances, utm):
    """The root of the weighted variance of the first ten positions, averaged over both axes."""
    spreads = []
    for row, positions in zip(distances, utm, strict=True):
        weights = [math.exp(-100 * (distance - row[0])) for distance in row[:10]]
        variances = []
        for axis in range(2):
            mean = sum(w * p[axis] for w, p in zip(weights, positions, strict=False)) / sum(weights)
            offsets = [min(abs(p[axis] - mean), 500.0) for p in positions[:10]]
            variances.append(sum(w * o**2 for w, o in zip(weights, offsets, strict=True)) / sum(weights))
        spreads.append(math.sqrt(sum(variances) / 2))
    return spreads


@pytest.mark.parametrize("num_predictions", [1, 2, 10, 25])
def test_the_spread_is_that_of_a_loop(num_predictions):
    rng = np.random.default_rng(0)
    distances = np.sort(rng.uniform(0.5, 0.6, (12, num_predictions)), axis=1)
    utm = [5e5, 4e6] + rng.normal(0, 1, (12, num_predictions, 2)) * np.geomspace(1, 5000, 12)[:, None, None]
    spread = spread_confidence(distances, utm)
    np.testing.assert_allclose(spread, -np.array(measure_spread_slowly(distances, utm)), rtol=1e-6, atol=1e-6)
    assert spread.max() <= 0 and (num_predictions > 1 or (spread == 0).all())


def test_the_spread_by_hand():
    here, there, beyond, north = (np.array(each, dtype=np.float64) for each in ([0, 0], [60, 80], [1e6, 0], [0, 200]))
    utm = np.array([[here, here], [here, there], [here, north], [here, beyond], [here, beyond]])
    distances = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, INF]])
    # Half of each way lies on either side of the mean; positions count as at most 500 m away.
    by_hand = [0, -50 / math.sqrt(2), -100 / math.sqrt(2), -500 / math.sqrt(2), 0]
    np.testing.assert_allclose(spread_confidence(distances, utm), by_hand, atol=1e-9)


def test_predictions_that_do_not_exist_do_not_count():
    rng = np.random.default_rng(0)
    distances, utm = np.sort(rng.uniform(0.5, 0.6, (5, 8)), axis=1), rng.normal(0, 100, (5, 8, 2))
    fewer = np.where(np.arange(8) < 4, distances, INF)
    np.testing.assert_allclose(spread_confidence(fewer, utm), spread_confidence(distances[:, :4], utm[:, :4]))


def test_a_query_without_predictions_is_never_more_certain_than_another():
    distances = np.array([[INF, INF], [0.9, 0.9]])
    utm = np.array([[[0, 0], [0, 0]], [[0, 0], [5000, 0]]], dtype=np.float64)
    with np.errstate(invalid="raise"):
        scores = similarity_confidence(distances), ratio_confidence(distances), spread_confidence(distances, utm)
    assert [bool(score[0] <= score[1]) for score in scores] == [True, True, True]


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 1, 2)])
def test_distances_of_another_shape_are_an_error(shape):
    for measure in (similarity_confidence, ratio_confidence, lambda d: spread_confidence(d, np.zeros((*shape, 2)))):
        with pytest.raises(ValueError, match=rf"\({shape[0]},"):
            measure(np.zeros(shape))


def test_a_ratio_needs_two_predictions_and_a_spread_all_positions():
    with pytest.raises(ValueError, match=r"\(5, 1\)"):
        ratio_confidence(np.zeros((5, 1)))
    for shape in ((5, 3), (5, 2, 2), (4, 3, 2), (5, 3, 3)):
        with pytest.raises(ValueError, match=r"\(5, 3\)"):
            spread_confidence(np.zeros((5, 3)), np.zeros(shape))


# Curves


def draw_scores(seed, num_queries=60):
    """Hits and a score with ties that is higher for hits."""
    rng = np.random.default_rng(seed)
    hits = rng.random(num_queries) < 0.6
    return hits, np.round(rng.normal(0, 1, num_queries) + hits, 1)


def list_curve(hits, confidence):
    """(recall, precision) of each threshold, from no query to all."""
    points = [(0.0, 1.0)]
    for threshold in sorted({*confidence}, reverse=True):
        answered = [hit for hit, value in zip(hits, confidence, strict=True) if value >= threshold]
        points.append((sum(answered) / sum(hits), sum(answered) / len(answered)))
    return points


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_are_those_of_a_loop(seed):
    hits, confidence = draw_scores(seed)
    precision, recall = precision_recall(hits, confidence)
    np.testing.assert_allclose(np.column_stack([recall, precision])[::-1], list_curve(hits, confidence))
    assert (recall[0], precision[0]) == (1, hits.mean()) and (recall[-1], precision[-1]) == (0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_trapezoids_and_of_scikit_learn(seed):
    hits, confidence = draw_scores(seed)
    area = 0.0
    points = list_curve(hits, confidence)
    for (left, first), (right, second) in itertools.pairwise(points):
        area += (right - left) * (first + second) / 2
    assert area_under_precision_recall(hits, confidence) == pytest.approx(area)
    precision, recall, _ = precision_recall_curve(hits, confidence)
    assert area_under_precision_recall(hits, confidence) == pytest.approx(auc(recall, precision))
    assert area_under_precision_recall(hits, 7 * confidence - 3) == pytest.approx(area)  # the scale doesn't matter


def test_areas_by_hand():
    hits = np.array([True, True, False, False])
    assert area_under_precision_recall(hits, np.array([4.0, 3.0, 2.0, 1.0])) == 1
    assert area_under_precision_recall(hits, np.array([4, 3, 2, -INF])) == 1
    assert area_under_precision_recall(hits, np.array([INF, 3, 2, 1])) == 1
    # All at once: the recall goes from 0 to 1, the precision from 1 to a half.
    assert area_under_precision_recall(hits, np.zeros(4)) == 0.75


def test_areas_of_one_class_are_nan_with_a_warning():
    for hits, word in ((np.ones(5, dtype=bool), "right"), (np.zeros(5, dtype=bool), "wrong")):
        with pytest.warns(UserWarning, match=f"5 .*{word}"):
            assert math.isnan(area_under_precision_recall(hits, np.arange(5)))
        with pytest.raises(ValueError, match=f"5 .*{word}"):
            precision_recall(hits, np.arange(5))


@pytest.mark.parametrize("seed", range(5))
def test_the_recall_at_full_precision_is_that_of_a_loop(seed):
    hits, confidence = draw_scores(seed)
    best = max((recall for recall, precision in list_curve(hits, confidence) if precision == 1), default=0)
    assert recall_at_full_precision(hits, confidence) == pytest.approx(100 * best)


def test_recalls_at_full_precision_by_hand():
    hits = np.array([True, True, True, False])
    assert recall_at_full_precision(hits, np.array([3, 2, 1, 2])) == pytest.approx(100 / 3)
    assert recall_at_full_precision(hits, np.array([3, 2, 1, 3])) == 0
    assert recall_at_full_precision(hits, np.array([3, 2, INF, -INF])) == 100
    assert recall_at_full_precision(hits[:3], np.array([3, -INF, 1])) == 100  # no wrong one
    with pytest.warns(UserWarning, match="2 .*wrong"):
        assert math.isnan(recall_at_full_precision(np.zeros(2, dtype=bool), np.arange(2)))


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_roc_is_the_share_of_ordered_pairs(seed):
    known, confidence = draw_scores(seed)
    pairs = [(one > other) + 0.5 * (one == other) for one in confidence[known] for other in confidence[~known]]
    assert area_under_roc(known, confidence) == pytest.approx(np.mean(pairs))
    for same in (np.ones(4, dtype=bool), np.zeros(4, dtype=bool)):
        with pytest.raises(ValueError, match="known"):
            area_under_roc(same, np.arange(4))


# Thresholds


@pytest.mark.parametrize("precision", [50, 75, 80, 95, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_threshold_is_the_lowest_that_is_precise_enough(seed, precision):
    hits, confidence = draw_scores(seed)
    enough = [value for value in confidence if 100 * hits[confidence >= value].mean() >= precision]
    assert choose_threshold(hits, confidence, precision) == min(enough, default=INF)


def test_chosen_thresholds_by_hand():
    hits, confidence = np.array([True, False, True, True, False]), np.array([5, 4, 3, 2, 1])
    assert choose_threshold(hits, confidence, 100) == 5
    assert choose_threshold(hits, confidence, 75) == 2  # although 4 and 3 are less precise
    assert choose_threshold(hits, confidence, 0) == 1
    assert choose_threshold(~hits, confidence, 95) == INF
    assert choose_threshold(hits, np.zeros(5), 60) == 0 and choose_threshold(hits, np.zeros(5), 61) == INF
    assert choose_threshold(np.arange(20) > 0, np.arange(20)) == 0  # 95 percent


def test_answers_are_counted():
    hits, confidence = np.array([True, False, True, True]), np.array([4, 3, 2, 1])
    assert measure_answers(hits, confidence, 2) == pytest.approx((75, 200 / 3))
    assert measure_answers(hits, confidence, -INF) == (100, 75)
    answers = measure_answers(hits, confidence, INF)
    assert answers.answered == 0 and math.isnan(answers.right)


@pytest.mark.parametrize("seed", range(5))
def test_answers_above_the_chosen_threshold_are_precise_enough(seed):
    hits, confidence = draw_scores(seed)
    answers = measure_answers(hits, confidence, choose_threshold(hits, confidence, 80))
    assert answers.right >= 80 and answers.answered > 0


# Probabilities


def draw_probabilities(num_queries, seed=0):
    """Probabilities, and hits that fit them."""
    rng = np.random.default_rng(seed)
    probability = rng.random(num_queries)
    return rng.random(num_queries) < probability, probability


def test_probabilities_rise_with_a_helpful_score():
    hits, helpful = draw_probabilities(300)
    scores = np.column_stack([1e-4 * helpful, np.random.default_rng(1).normal(0, 1e4, 300)])  # of any scale
    probability = fit_probability(scores, hits)
    line = probability(np.column_stack([np.linspace(-1e-4, 2e-4, 9), np.zeros(9)]))
    assert line.shape == (9,) and (np.diff(line) > 0).all() and 0 <= line[0] < 0.1 < 0.9 < line[-1] <= 1
    falling = fit_probability(-scores, hits)(-scores)
    np.testing.assert_allclose(falling, probability(scores), atol=1e-3)
    assert calibration_error(measure_reliability(hits, probability(scores))) < 0.1
    assert area_under_roc(hits, probability(scores)) > 0.7


def test_probabilities_are_a_logistic_function_with_the_mean_of_the_hits():
    hits, helpful = draw_probabilities(300)
    probability = fit_probability(helpful[:, None], hits)
    assert probability(helpful[:, None]).mean() == pytest.approx(hits.mean(), abs=1e-3)
    odds = [math.log(each / (1 - each)) for each in probability(np.arange(5)[:, None] / 4)]
    np.testing.assert_allclose(np.diff(odds), np.diff(odds)[0])


def test_probabilities_cannot_be_fitted_to_one_class_or_no_numbers():
    hits, helpful = draw_probabilities(20)
    for value, word in ((True, "right"), (False, "wrong")):
        with pytest.raises(ValueError, match=f"20 .*{word}"):
            fit_probability(helpful[:, None], np.full(20, value))
    for scores in (np.full((20, 2), np.nan), np.full((20, 1), INF), helpful, np.zeros((19, 2)), np.zeros((20, 1, 1))):
        with pytest.raises(ValueError, match=r"\((19|20),.* 20 queries"):
            fit_probability(scores, hits)
    with pytest.raises(ValueError, match="NaN"):
        fit_probability(helpful[:, None], hits)(np.full((2, 1), np.nan))


@pytest.mark.parametrize("num_bins", [1, 4, 10])
def test_bins_are_those_of_a_loop(num_bins):
    hits, probability = draw_probabilities(200)
    probability[:6] = [0, 1, 0.25, 0.5, 0.75, 1]  # edges belong to the bin above
    chosen = (probability < 0.3) | (probability > 0.55)  # with 10 bins, some are empty
    hits, probability = hits[chosen], probability[chosen]
    expected = []
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        rows = [row for row, p in enumerate(probability) if low <= p < high or (p == 1 and number == num_bins - 1)]
        if rows:
            expected.append((len(rows), np.mean(probability[rows]), np.mean(hits[rows])))
    bins = measure_reliability(hits, probability, num_bins)
    assert len(bins) == len(expected) and sum(each.num_queries for each in bins) == len(hits)
    np.testing.assert_allclose(bins, expected)


def test_the_calibration_error_by_hand():
    hits = np.array([True, False, False, True, True, True, True])
    probability = np.array([0.5, 0.5, 0.1, 0.9, 0.9, 0.9, 0.9])
    # 2 queries of 0.5 that are half right, 1 of 0.1 that is wrong, 4 of 0.9 that are right
    assert calibration_error(measure_reliability(hits, probability)) == pytest.approx((0 + 0.1 + 4 * 0.1) / 7)
    assert calibration_error(measure_reliability(hits, hits.astype(float))) == 0
    assert calibration_error(measure_reliability(hits, 1.0 - hits)) == 1


def test_fitting_probabilities_have_a_small_calibration_error():
    hits, probability = draw_probabilities(50_000)
    assert calibration_error(measure_reliability(hits, probability)) < 0.01
    assert calibration_error(measure_reliability(hits, probability**3)) > 0.2


def test_numbers_outside_0_to_1_are_no_probabilities():
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"{wrong}"):
            measure_reliability(np.array([True, False]), np.array([0.5, wrong]))


@pytest.mark.parametrize("measure", [
    precision_recall, area_under_precision_recall, recall_at_full_precision, area_under_roc, choose_threshold,
    lambda *scores: measure_answers(*scores, 0.5), measure_reliability,
])  # fmt: skip
def test_scores_that_do_not_fit_the_queries_are_an_error(measure):
    hits = np.array([True, False, True])
    for scores in (np.zeros(4), np.zeros((3, 1)), np.zeros(())):
        with pytest.raises(ValueError, match=r"\(3,\)"):
            measure(hits, scores)
    with pytest.raises(ValueError, match=r"\(0,\)"):
        measure(hits[:0], np.zeros(0))
    with pytest.raises(ValueError, match=r"2 .*NaN"):
        measure(hits, np.array([0.5, np.nan, np.nan]))
