"""Re-ranking: the first predictions of a query in the order of their inliers, for all queries or the uncertain ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpr_lib.analysis.confidence import (
    area_under_precision_recall,
    ratio_confidence,
    similarity_confidence,
    spread_confidence,
)
from vpr_lib.analysis.local_features import count_inliers, extract_sift
from vpr_lib.analysis.verification import Extract, Matcher, verify_predictions
from vpr_lib.data_roots import DataRoot, Split, open_data_root
from vpr_lib.evaluation import Evaluation, evaluate_run
from vpr_lib.machine import Machine
from vpr_lib.options import check_choice
from vpr_lib.recall import recall_at_k
from vpr_lib.run_folders import Run

MODES = ("none", "all", "adaptive")
SCORE = "spread"  # decides which queries are verified; on validation photos, it judged most models best
NUM_CANDIDATES = 10  # predictions verified for each query


class Threshold(NamedTuple):
    """Queries whose confidence is below it are verified."""

    value: float  # of the score `SCORE`; infinite: all queries
    split: str  # where it was chosen


@dataclass(frozen=True)
class Reranking:
    """An evaluation before and after verification."""

    before: Evaluation
    after: Evaluation
    inliers: np.ndarray  # (Q, K) int64, between queries and their predictions before; -1 where not verified
    seconds_per_query: float  # of one core, mean over all queries, for their local features and their pairs
    threshold: Threshold | None = None  # of mode "adaptive"

    @property
    def verified(self) -> np.ndarray:
        """(Q,) bool, the queries whose predictions were verified."""
        return (self.inliers >= 0).any(1)

    @property
    def is_judgeable(self) -> bool:
        """Whether some first predictions are right and some wrong, before and after; else curves are undefined."""
        return all(0 < evaluation.hits.mean() < 1 for evaluation in (self.before, self.after))


def rerank_run(
    run: Run,
    data_root: str | Path | DataRoot,
    split: str,
    mode: str = "all",
    num_candidates: int | None = None,
    extract: Extract = extract_sift,
    matcher: Matcher = count_inliers,
    machine: Machine | None = None,
    **options: Any,
) -> Reranking:
    """Evaluate a run on a split, and order the first predictions of its queries by their inliers.

    Args:
        run, data_root, split, machine: as in `evaluate_run`, which is called.
        mode: "all"; "adaptive", which verifies queries whose `SCORE` is below a threshold chosen on the data root's
            first validation split by `choose_verified`; or "none".
        num_candidates: predictions to verify for each query; by default `NUM_CANDIDATES`, or all if there are fewer.
        extract, matcher: as in `verify_predictions`.
        options: `index` and `whiten` of `evaluate_run`.

    Raises:
        FileNotFoundError: no such split, or mode "adaptive" without a validation split.
        ValueError: as `evaluate_run`; no such mode; more candidates than predictions; or a photo can't be read.
    """
    check_choice("mode of re-ranking", mode, MODES)
    data_root, machine = open_data_root(data_root), machine or Machine()
    verify = _Verifier(run, data_root, num_candidates, extract, matcher, machine, options)
    val = verify.find_validation_split() if mode == "adaptive" else None
    before, photos = verify.evaluate(split)
    if mode == "none":
        return Reranking(before, before, np.full_like(before.indices[:, :1], -1), 0.0)
    rows = np.arange(before.num_queries)
    threshold = None
    if val:
        threshold = verify.choose_threshold(val)
        rows = np.flatnonzero(score_predictions(before, photos)[SCORE] < threshold.value)
    inliers, seconds = verify(before, photos, rows)
    return Reranking(before, rerank(before, inliers), inliers, float(seconds.mean()), threshold)


@dataclass(frozen=True)
class _Verifier:
    """Evaluates and verifies the predictions of a run; fields as the arguments of `rerank_run`."""

    run: Run
    data_root: DataRoot
    num_candidates: int | None
    extract: Extract
    matcher: Matcher
    machine: Machine
    options: Mapping[str, Any]

    def evaluate(self, split: str) -> tuple[Evaluation, Split]:
        evaluation = evaluate_run(self.run, self.data_root, split, self.machine, **self.options)
        num_predictions = evaluation.indices.shape[1]
        if self.num_candidates is not None and not 1 <= self.num_candidates <= num_predictions:
            text = f"{self.num_candidates} predictions to verify, but {split} has {num_predictions} a query"
            raise ValueError(f"{text}; choose 1 to {num_predictions}")
        return evaluation, self.data_root.read_split(split)

    def __call__(self, evaluation: Evaluation, photos: Split, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inliers (Q, K) and seconds (Q,); those of other queries than `rows` are -1 and 0."""
        num_candidates = NUM_CANDIDATES if self.num_candidates is None else self.num_candidates
        candidates = np.full_like(evaluation.indices[:, :num_candidates], -1)
        candidates[rows] = evaluation.indices[rows, : candidates.shape[1]]
        return verify_predictions(
            photos, candidates, self.run.folder.parent, evaluation.split, self.extract, self.matcher, self.machine
        )

    def find_validation_split(self) -> str:
        splits = self.data_root.list_validation_splits(self.run.settings.val_splits)
        if not splits:
            root = self.data_root.folder
            text = f"{root} has no validation split (a folder whose name ends in val) to choose a threshold on"
            raise FileNotFoundError(f"{text}; add one, or verify all queries")
        return splits[0]

    def choose_threshold(self, val: str) -> Threshold:
        evaluation, photos = self.evaluate(val)
        inliers, _ = self(evaluation, photos, np.arange(evaluation.num_queries))
        after = rerank(evaluation, inliers)
        score = score_predictions(evaluation, photos)[SCORE]
        return Threshold(choose_verified(evaluation.hits, after.hits, score), val)


def rerank(evaluation: Evaluation, inliers: np.ndarray) -> Evaluation:
    """Order the first K predictions of each query by inliers; ties keep the descriptor's order.

    Args:
        evaluation: predictions and distances of Q queries.
        inliers: (Q, K) int64, of the first K predictions; -1 where a pair was not verified, which comes last.
    """
    inliers = np.asarray(inliers, dtype=np.int64)
    num_queries, num_predictions = evaluation.indices.shape
    if inliers.ndim != 2 or len(inliers) != num_queries or inliers.shape[1] > num_predictions:
        raise ValueError(
            f"inliers of shape {inliers.shape} for predictions of shape {evaluation.indices.shape}; expected (Q, K)"
        )
    order = np.tile(np.arange(num_predictions), (num_queries, 1))
    order[:, : inliers.shape[1]] = np.argsort(-inliers, axis=1, kind="stable")
    indices, distances = (np.take_along_axis(each, order, 1) for each in (evaluation.indices, evaluation.distances))
    recall = recall_at_k(indices, evaluation.positives, list(evaluation.recall))
    return replace(evaluation, indices=indices, distances=distances, recall=recall)


def score_predictions(
    evaluation: Evaluation, photos: Split, inliers: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Scores of each query's first prediction, from `confidence`: {"similarity", "ratio", "spread": (Q,) float64}.

    With inliers (Q, K) there is also "inliers", the number of the first prediction.
    """
    distances = evaluation.distances
    scores = {"similarity": similarity_confidence(distances)}
    if distances.shape[1] > 1:
        scores["ratio"] = ratio_confidence(distances)
    scores["spread"] = spread_confidence(distances, photos.database.utm[evaluation.indices])
    return scores if inliers is None else scores | {"inliers": inliers[:, 0].astype(np.float64)}


def measure_areas(reranking: Reranking, photos: Split) -> dict[str, float]:
    """Area under the precision-recall curve of each score: how well it tells right first predictions from wrong ones.

    Returns:
        {score: area in [0, 1]} of the scores of `score_predictions`, for the first prediction before re-ranking; and
        "inliers_reranked", for the one after it. The inliers are there if all queries were verified. NaN, with a
        warning, where all predictions are right or all wrong.
    """
    before = reranking.before
    is_complete = bool(reranking.verified.all())
    scores = score_predictions(before, photos, reranking.inliers if is_complete else None)
    areas = {name: area_under_precision_recall(before.hits, score) for name, score in scores.items()}
    if is_complete:
        most = reranking.inliers.max(1).astype(np.float64)
        areas["inliers_reranked"] = area_under_precision_recall(reranking.after.hits, most)
    return areas


# Adaptive re-ranking


class TradeOff(NamedTuple):
    """What each threshold of a score costs and brings; queries whose score is below it are verified."""

    thresholds: np.ndarray  # (n,) rising, from no query verified to all
    verified: np.ndarray  # (n,) percent of the queries
    recall: np.ndarray  # (n,) R@1, percent


def trade_off(hits_before: np.ndarray, hits_after: np.ndarray, score: np.ndarray) -> TradeOff:
    """R@1 and effort of verifying the queries below each threshold.

    Args:
        hits_before, hits_after: (Q,) bool, whether the first prediction is right without and with verification.
        score: (Q,), confidence of the first prediction before.
    """
    values, counts = np.unique(score, return_counts=True)
    gains = np.asarray(hits_after, dtype=np.int64) - np.asarray(hits_before, dtype=np.int64)
    gained = np.bincount(np.searchsorted(values, score), gains, len(values))
    num_verified = np.append(0, np.cumsum(counts))
    num_right = np.sum(hits_before) + np.append(0, np.cumsum(gained))
    share = 100 / len(score)
    return TradeOff(np.append(values, np.inf), share * num_verified, share * num_right)


def choose_verified(hits_before: np.ndarray, hits_after: np.ndarray, score: np.ndarray) -> float:
    """The threshold of `trade_off` with the highest R@1; among equal ones, the one that verifies fewest queries."""
    curve = trade_off(hits_before, hits_after, score)
    return float(curve.thresholds[np.argmax(np.round(curve.recall, 9))])
