"""Positives and recall@k: NumPy in, NumPy out."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree


def find_positives(database_utm: np.ndarray, query_utm: np.ndarray, radius_m: float = 25.0) -> list[np.ndarray]:
    """The database photos that lie within a radius of each query.

    Args:
        database_utm: (N, 2) float64, meters.
        query_utm: (Q, 2) float64, meters, in the same UTM zone.
        radius_m: meters, inclusive.

    Returns:
        Q sorted int64 arrays of database indices; empty where a query has no positive.

    Raises:
        ValueError: the coordinates are float32, which rounds 4,000 km to 0.25 m and moves photos over the radius; a
            coordinate or the radius is not finite; or the radius is negative.
    """
    if not 0 <= radius_m < math.inf:
        raise ValueError(f"radius_m is {radius_m}; expected meters, 0 or more")
    for name, utm in (("database_utm", database_utm), ("query_utm", query_utm)):
        if np.asarray(utm).dtype in (np.float32, np.float16):
            raise ValueError(f"{name} is {np.asarray(utm).dtype}; pass float64: float32 rounds UTM to 0.25 m")
    tree = cKDTree(np.asarray(database_utm, dtype=np.float64).reshape(-1, 2))
    query_utm = np.asarray(query_utm, dtype=np.float64).reshape(-1, 2)
    neighbors = tree.query_ball_point(query_utm, radius_m, return_sorted=True)
    return [np.array(indices, dtype=np.int64) for indices in neighbors]


def first_hits(predictions: np.ndarray, positives: Sequence[np.ndarray]) -> np.ndarray:
    """(Q,) int64, the rank (from 0) of each query's first right prediction; K where none of its K is right.

    Arguments as in `recall_at_k`. A query is found at k if its value is below k.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 2 or len(predictions) != len(positives):
        raise ValueError(f"predictions of shape {predictions.shape} for {len(positives)} queries; expected (Q, K)")
    ranks = np.full(len(predictions), predictions.shape[1], dtype=np.int64)
    for query, (row, right) in enumerate(zip(predictions, positives, strict=True)):
        hits = np.flatnonzero(np.isin(row, right) & (row >= 0))
        if len(hits):
            ranks[query] = hits[0]
    return ranks


def recall_at_k(
    predictions: np.ndarray, positives: Sequence[np.ndarray], ks: Sequence[int] = (1, 5, 10, 25)
) -> dict[int, float]:
    """Share of queries that have a positive among their first k predictions.

    Args:
        predictions: int64 (Q, K), database indices, best first; -1 where there is none.
        positives: Q sorted int64 arrays, the database indices that count as right.
        ks: ranks to report, in any order, each at most K.

    Returns:
        {k: percent of all Q queries}; a query without positives counts as missed.

    Raises:
        ValueError: the lengths differ, there is no query, or a k isn't in 1 to K.

    Source: Arandjelovic et al., NetVLAD (CVPR 2016), section 5.1.
    """
    ranks = first_hits(predictions, positives)
    if not len(ranks):
        raise ValueError("recall of no queries; expected at least one")
    num_predictions = np.shape(predictions)[1]
    for k in ks:
        if not 1 <= k <= num_predictions:
            raise ValueError(f"k = {k}, but there are {num_predictions} predictions a query")
    return {int(k): float(100.0 * np.mean(ranks < k)) for k in ks}


def count_without_positive(positives: Sequence[np.ndarray]) -> int:
    """Number of queries without a database photo within the radius; no model can find them."""
    return sum(len(right) == 0 for right in positives)
