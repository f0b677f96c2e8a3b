"""Checks of notebook 06's exercises, as in `exercises`."""

from collections.abc import Callable

import numpy as np

from vpr_lib.analysis.confidence import precision_recall
from vpr_lib.course.checking import (
    exercise,
    require,
    require_array,
    require_close,
    require_mask,
    require_number,
    require_pair,
)


@exercise
def check_ratio_test(ratio_test: Callable[[np.ndarray, float], np.ndarray]) -> None:
    """6.1: (N, M) distances of the points of two photos, ratio -> (N,) bool, the points that have a clear match."""
    distances = np.array([[0.9, 0.3, 0.5], [0.8, 0.7, 0.75], [0.2, 0.9, 0.21], [0.6, 0.61, 0.1]])
    result = require_mask(ratio_test(distances, 0.75), 4)
    require(not result[1], "0.7 and 0.75 are too similar: compare the smallest distance with the second smallest")
    require(bool(result[0]), "0.3 is below 0.75 times 0.5, the second smallest: the first point has a clear match")
    require_close(result, [True, False, False, True], f"for {distances.tolist()} it returns {result.tolist()}")
    larger = np.random.default_rng(0).uniform(size=(50, 20))
    smallest = np.sort(larger, axis=1)
    require_close(
        require_mask(ratio_test(larger, 0.9), 50),
        smallest[:, 0] < 0.9 * smallest[:, 1],
        "with a ratio of 0.9 it is wrong",
    )


@exercise
def check_count_line_inliers(count_line_inliers: Callable[..., int]) -> None:
    """6.2: (N, 2) points, two of them, tolerance -> number of points within the tolerance of the line through both."""
    points = np.array([[0, 0], [4, 3], [8, 6], [3, -4], [4, 5.5], [-4, -3.5]], dtype=float)
    for first, second in ((points[0], points[1]), (points[1], points[2])):
        result = require_number(count_line_inliers(points, first, second, 1.0), "the number of inliers")
        message = f"with a tolerance of 1 it returns {result:g}; expected 4, the two points themselves included"
        require(result == 4, message)
    message = "measure at a right angle to the line: with a tolerance of 2.1, [4, 5.5] is an inlier, 2 away"
    require(count_line_inliers(points, points[0], points[1], 2.1) == 5, message)
    vertical = np.array([[1, 0], [1, 5], [1.5, 9], [3, 2]], dtype=float)
    require(count_line_inliers(vertical, vertical[0], vertical[1], 1.0) == 3, "it is wrong for a vertical line")


@exercise
def check_rerank_rows(rerank_rows: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """6.3: (Q, K) predictions, (Q, K) inliers -> (Q, K) predictions, those with most inliers first."""
    predictions = np.array([[7, 3, 9, 1], [4, 8, 2, 6]])
    inliers = np.array([[2, 30, 2, 11], [0, 0, 0, 0]])
    result = require_array(rerank_rows(predictions, inliers), (2, 4))
    is_order = np.array_equal(result[0], [1, 3, 0, 2])
    require(not is_order, "it returns the order, columns from 0 to 3; expected the predictions in that order")
    require(result[0, 0] != 7 or result[0, -1] != 3, "most inliers come first, not last")
    message = "without inliers the descriptor's order must stay: use a stable sort"
    require_close(result[1], predictions[1], message)
    require_close(result[0], [3, 1, 7, 9], f"for predictions {predictions[0]} with {inliers[0]} inliers: {result[0]}")
    many = np.tile(np.arange(40), (2, 1))
    require_close(require_array(rerank_rows(many, np.zeros((2, 40), dtype=int)), (2, 40)), many, message)


@exercise
def check_precision_and_recall(answer: Callable[..., tuple[float, float]]) -> None:
    """6.4: (Q,) bool, (Q,) confidence, threshold -> precision and recall of the answers that reach it."""
    hits = np.array([1, 1, 0, 1, 0, 0, 1], dtype=bool)
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.2, 0.1])
    result = require_pair(answer(hits, confidence, 0.6), "(precision, recall)")
    require(max(result) <= 1, f"it returns {result}; expected shares from 0 to 1")
    require(not np.isclose(result[1], 3 / 7), "recall is the share of the four right predictions, not of all queries")
    require_close(result, (0.75, 0.75), f"at 0.6 it returns {result}; expected (0.75, 0.75): equal counts as reached")
    precision, recall = precision_recall(hits, confidence)
    for threshold in confidence:
        ours = require_pair(answer(hits, confidence, threshold), "(precision, recall)")
        is_on_curve = (np.isclose(precision, ours[0]) & np.isclose(recall, ours[1])).any()
        require(bool(is_on_curve), f"at {threshold} it returns {ours}, which is no point of the library's curve")
