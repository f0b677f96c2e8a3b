"""Confidence: can the first prediction of a query be trusted? Scores, how to judge them, and thresholds.

A score is higher where the prediction is more certain. Its scale doesn't matter for the curves; `fit_probability` makes
probabilities of scores. NumPy in, NumPy out. scikit-learn takes a second to import, so functions import it.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Of the spread; the slope was chosen on sf_val of the rendered city and on 96 queries of real photos.
NUM_SPREAD = 10
SLOPE = 100.0
MAX_OFFSET_M = 500.0  # photos farther away count as if they were this far


def to_similarity(distances: np.ndarray) -> np.ndarray:
    """Cosine similarity, float64, from Euclidean distances of unit-norm descriptors; of any shape."""
    return 1 - np.asarray(distances, dtype=np.float64) ** 2 / 2


def similarity_confidence(distances: np.ndarray) -> np.ndarray:
    """Cosine similarity of the first prediction.

    Args:
        distances: (Q, K), between unit-norm descriptors, nearest first; infinite where there is no prediction.

    Returns:
        (Q,) float64 in [-1, 1]; -1 where there is no prediction.
    """
    return np.maximum(to_similarity(_check_distances(distances, 1)[:, 0]), -1.0)


def ratio_confidence(distances: np.ndarray) -> np.ndarray:
    """How much nearer the first prediction is than the second: 1 minus the ratio of their distances.

    Args:
        distances: (Q, K) as in `similarity_confidence`, K at least 2.

    Returns:
        (Q,) float64 in [0, 1]; 0 where both distances are 0 or infinite.

    Source: Lowe, Distinctive Image Features from Scale-Invariant Keypoints (IJCV 2004), section 7.1, for descriptors of
    whole photos.
    """
    first, second = _check_distances(distances, 2)[:, :2].T
    ratio = np.divide(first, second, out=np.ones_like(first), where=(second > 0) & np.isfinite(first))
    return 1 - ratio


def spread_confidence(distances: np.ndarray, utm: np.ndarray) -> np.ndarray:
    """Minus the spread of the positions of the first ten predictions, weighted by descriptor distance (SUE).

    If photos that look alike lie in different places, the first one may be wrong.

    Args:
        distances: (Q, K) as in `similarity_confidence`.
        utm: (Q, K, 2) float64, positions of the predictions, meters.

    Returns:
        (Q,) float64, meters, at most 0: minus the root of the weighted variance, averaged over both axes;
        -500 where there is no prediction.

    Source: Zaffar, Nan and Kooij, On the Estimation of Image-matching Uncertainty in Visual Place Recognition
    (CVPR 2024), whose measure is the variance; as in its code, a position counts as at most 500 m from the mean.
    """
    distances = _check_distances(distances, 1)[:, :NUM_SPREAD]
    utm = np.asarray(utm, dtype=np.float64)[:, :NUM_SPREAD]
    if utm.shape != (*distances.shape, 2):
        raise ValueError(f"positions of shape {utm.shape} for distances of shape {distances.shape}; expected (Q, K, 2)")
    nearest = np.where(np.isfinite(distances[:, :1]), distances[:, :1], 0.0)
    weights = np.exp(-SLOPE * (distances - nearest))  # (Q, K); 0 where there is no prediction
    weights = (weights / np.maximum(weights.sum(1, keepdims=True), 1e-300))[..., None]
    mean = (weights * utm).sum(1, keepdims=True)  # (Q, 1, 2)
    offsets = np.clip(utm - mean, -MAX_OFFSET_M, MAX_OFFSET_M)
    spread = np.sqrt((weights * offsets**2).sum(1).mean(1))
    return -np.where(np.isfinite(distances[:, 0]), spread, MAX_OFFSET_M)


def _check_distances(distances: np.ndarray, num_needed: int) -> np.ndarray:
    distances = np.asarray(distances, dtype=np.float64)
    if distances.ndim != 2 or distances.shape[1] < num_needed:
        raise ValueError(f"distances of shape {distances.shape}; expected (Q, K) with K at least {num_needed}")
    return distances


# Curves


def precision_recall(hits: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of "the first prediction is right" for each threshold of the confidence.

    Args:
        hits: (Q,) bool, whether the first prediction is right.
        confidence: (Q,), higher where it is more certain.

    Returns:
        precision and recall (n,) in [0, 1], from all queries to none. Recall is the share of the right predictions that
        reach the threshold.

    Raises:
        ValueError: the shapes differ, a confidence isn't a number, or no prediction is right or all are.
    """
    hits, confidence = _check_scores(hits, confidence)
    if hits.all() or not hits.any():
        raise ValueError(f"{_describe_one_class(hits)}: the curve of precision and recall is undefined")
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(hits, confidence)
    return precision, recall


def area_under_precision_recall(hits: np.ndarray, confidence: np.ndarray) -> float:
    """Area under `precision_recall` by trapezoids, in [0, 1]; arguments as there.

    If all predictions are right or all wrong, it is undefined: NaN, with a warning.
    """
    hits, confidence = _check_scores(hits, confidence)
    if hits.all() or not hits.any():
        warnings.warn(f"{_describe_one_class(hits)}: the area is undefined", stacklevel=2)
        return math.nan
    from sklearn.metrics import auc

    precision, recall = precision_recall(hits, confidence)
    return float(auc(recall, precision))


def recall_at_full_precision(hits: np.ndarray, confidence: np.ndarray) -> float:
    """Percent of the right predictions that are more certain than every wrong one; arguments as in `precision_recall`.

    NaN, with a warning, if all predictions are wrong.
    """
    hits, confidence = _check_scores(hits, confidence)
    if not hits.any():
        warnings.warn(f"{_describe_one_class(hits)}: their recall is undefined", stacklevel=2)
        return math.nan
    return float(100 * np.mean(confidence[hits] > confidence[~hits].max(initial=-np.inf)))


def area_under_roc(known: np.ndarray, confidence: np.ndarray) -> float:
    """Probability that a query that should be answered is more certain than one that shouldn't, in [0, 1].

    Args:
        known: (Q,) bool, for example whether the query's place is in the database; both must occur.
        confidence: (Q,).
    """
    known, confidence = _check_scores(known, confidence)
    if known.all() or not known.any():
        raise ValueError("all queries are known, or none; expected some of both")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(known, confidence))


def _check_scores(hits: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits, confidence = np.asarray(hits, dtype=bool), np.asarray(confidence, dtype=np.float64)
    if hits.ndim != 1 or hits.shape != confidence.shape or not len(hits):
        raise ValueError(f"hits of shape {hits.shape}, confidence of shape {confidence.shape}; expected (Q,) of both")
    if np.isnan(confidence).any():
        raise ValueError(f"{np.isnan(confidence).sum()} confidences are NaN; expected numbers")
    return hits, np.nan_to_num(confidence)  # infinite ones become the largest numbers


def _describe_one_class(hits: np.ndarray) -> str:
    return f"all {len(hits)} first predictions are {'right' if hits.all() else 'wrong'}"


# Probabilities


def fit_probability(scores: np.ndarray, hits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Logistic regression from scores to the probability that the first prediction is right.

    Args:
        scores: (Q, S), several scores of each query of a validation split.
        hits: (Q,) bool; both values must occur.

    Returns:
        A function from scores (n, S) to probabilities (n,).
    """
    scores, hits = np.asarray(scores, dtype=np.float64), np.asarray(hits, dtype=bool)
    if scores.ndim != 2 or len(scores) != len(hits) or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape} for {len(hits)} queries; expected finite numbers (Q, S)")
    if hits.all() or not hits.any():
        raise ValueError(f"{_describe_one_class(hits)}; fit on a split with right and wrong predictions")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression()).fit(scores, hits)
    return lambda scores: regression.predict_proba(np.asarray(scores, dtype=np.float64))[:, 1]


class Bin(NamedTuple):
    """Queries with about the same probability."""

    num_queries: int
    probability: float  # mean
    share_right: float


def measure_reliability(hits: np.ndarray, probability: np.ndarray, num_bins: int = 10) -> list[Bin]:
    """Compare probabilities with what happened, in bins of equal width from 0 to 1; empty bins are left out.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 2.
    """
    hits, probability = _check_scores(hits, probability)
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(f"probabilities from {probability.min():g} to {probability.max():g}; expected 0 to 1")
    numbers = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    chosen = [numbers == number for number in np.unique(numbers)]
    return [Bin(int(c.sum()), float(probability[c].mean()), float(hits[c].mean())) for c in chosen]


def calibration_error(bins: list[Bin]) -> float:
    """Mean difference between probability and share of right predictions over all queries, in [0, 1]."""
    weights = [each.num_queries for each in bins]
    return float(np.average([abs(each.probability - each.share_right) for each in bins], weights=weights))


# Thresholds


class Answers(NamedTuple):
    """What is answered if queries below a threshold get no answer."""

    answered: float  # percent of the queries
    right: float  # percent of the answers; NaN without any


def choose_threshold(hits: np.ndarray, confidence: np.ndarray, precision: float = 95.0) -> float:
    """The lowest confidence from which on at least `precision` percent of the answers are right; infinite if none is.

    Args:
        hits: (Q,) bool, of a validation split.
        confidence: (Q,).
        precision: percent.
    """
    hits, confidence = _check_scores(hits, confidence)
    order = np.argsort(-confidence, kind="stable")
    shares = 100 * np.cumsum(hits[order]) / np.arange(1, len(hits) + 1)
    is_last = np.append(np.diff(confidence[order]) < 0, True)  # equal confidences are answered together
    enough = np.flatnonzero(is_last & (shares >= precision))
    return float(confidence[order[enough[-1]]]) if len(enough) else math.inf


def measure_answers(hits: np.ndarray, confidence: np.ndarray, threshold: float) -> Answers:
    """Answer the queries whose confidence reaches the threshold."""
    hits, confidence = _check_scores(hits, confidence)
    answered = confidence >= threshold
    return Answers(float(100 * answered.mean()), float(100 * hits[answered].mean()) if answered.any() else math.nan)
