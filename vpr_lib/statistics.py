"""Intervals and paired tests: when a difference in recall is one. NumPy in, NumPy out."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class LabelRecall:
    """Recall of the queries with one label."""

    num_queries: int
    recall: float  # percent
    interval: tuple[float, float]  # 95%, percent


def bootstrap_interval(
    hits: np.ndarray, groups: np.ndarray | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a recall: lower and upper end, percent.

    Args:
        hits: (Q,) bool, whether each query was found.
        groups: (Q,) labels that are drawn together, for example places: two queries of one place are not two
            independent trials. None: each query on its own.
        level: coverage.
        resamples, seed: of the bootstrap.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    hits = np.asarray(hits, dtype=np.float64)
    members = np.arange(len(hits)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    # Groups with equal numbers of queries and hits are alike: drawing how many of each kind is equivalent and faster.
    kinds, counts = np.unique([np.bincount(members, hits), np.bincount(members)], axis=1, return_counts=True)
    num_hits, num_queries = kinds
    # How often each kind is drawn, (resamples, kinds): a multinomial is drawing with replacement.
    times = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), resamples)
    recalls = 100.0 * (times @ num_hits) / (times @ num_queries)
    low, high = np.quantile(recalls, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def group_cells(utm: np.ndarray, size_m: float = 25.0) -> np.ndarray:
    """(Q,) int64, the same number for queries (Q, 2) in one square cell; such queries succeed and fail together."""
    return np.unique(np.floor(np.asarray(utm) / size_m), axis=0, return_inverse=True)[1].ravel()


def recall_by_label(hits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> dict[str, LabelRecall]:
    """Recall of each kind of query, for example of each scenario.

    Args:
        hits: (Q,) bool, whether each query was found.
        labels: (Q,) str, the kind of each query; those with "" are left out.
        groups: (Q,) labels that are drawn together, see `bootstrap_interval`.

    Returns:
        {label: recall}, sorted by label.
    """
    hits, labels = np.asarray(hits, dtype=bool), np.asarray(labels, dtype=str)
    if hits.shape != labels.shape:
        raise ValueError(f"hits of shape {hits.shape} for labels of shape {labels.shape}; expected one a query")
    recalls = {}
    for label in np.unique(labels[labels != ""]):
        chosen = labels == label
        interval = bootstrap_interval(hits[chosen], None if groups is None else groups[chosen])
        recalls[str(label)] = LabelRecall(int(chosen.sum()), float(100.0 * hits[chosen].mean()), interval)
    return recalls


def paired_test(hits_a: np.ndarray, hits_b: np.ndarray) -> float:
    """Exact McNemar test: could two equally good models differ this much on the same queries?

    Args:
        hits_a, hits_b: (Q,) bool, whether each model found each query; different lengths are a ValueError.

    Returns:
        Two-sided p-value; 1.0 where the models agree on every query.

    Source: McNemar (Psychometrika 1947); only queries found by exactly one of the two count.
    """
    hits_a, hits_b = np.asarray(hits_a, dtype=bool), np.asarray(hits_b, dtype=bool)
    if hits_a.shape != hits_b.shape:
        raise ValueError(f"hits of shapes {hits_a.shape} and {hits_b.shape}; a paired test needs the same queries")
    only_a, only_b = int(np.sum(hits_a & ~hits_b)), int(np.sum(hits_b & ~hits_a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def choose_evenly(total: int, limit: int) -> np.ndarray:
    """(n,) int64, rows from 0 to `total` - 1 in order: all of them, or `limit` at even distances if there are more."""
    return np.unique(np.linspace(0, total - 1, min(total, limit)).round().astype(np.int64))
