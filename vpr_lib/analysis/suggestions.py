"""Suggestions: scenarios of queries without labels, from their photos, positions and predictions.

A query may get several suggestions or none. `measure_suggestions` compares them with known labels; on rendered cities
viewpoint suggestions are the most reliable and repetitive ones the least.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.analysis.cues import (
    SHIFT_M,
    SIZE,
    TURN_DEG,
    Suggestion,
    notice_illumination,
    notice_name,
    notice_occlusion,
    notice_repetitive,
    notice_skyline,
    notice_viewpoint,
)
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.evaluation import Evaluation
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_photo

NUM_POSITIVES = 4  # positives with the most similar view that a query is compared with
NUM_PREDICTIONS = 5  # first predictions that a query is compared with


@dataclass(frozen=True)
class SuggestionScore:
    """Precision and recall of the suggestions of one scenario."""

    num_true: int  # queries of the scenario
    num_suggested: int  # queries for which it was suggested
    precision: float  # percent; NaN if it was never suggested
    recall: float  # percent; NaN if there is no query of it


def suggest_scenarios(
    database: ImageTable, queries: ImageTable, evaluation: Evaluation, rows: Sequence[int] | None = None
) -> list[list[Suggestion]]:
    """Suggest scenarios for queries.

    Args:
        database, queries: the split.
        evaluation: of one model on the split.
        rows: queries to consider; None for all.

    Returns:
        Suggestions of each query in `rows`, best first. For a query without positives only its own photo and name are
        used.

    Raises:
        ValueError: a photo is not readable (the message names it), or the evaluation belongs to other queries.
    """
    if not np.array_equal(evaluation.query_utm, queries.utm):
        raise ValueError(
            f"the evaluation on {evaluation.split} has other queries than these {len(queries)}; run it again"
        )
    # Neighboring queries share positives.
    read_database = functools.lru_cache(maxsize=4096)(functools.partial(_read_small, database))
    rows = range(len(queries)) if rows is None else rows
    return [_suggest_for_query(row, database, queries, evaluation, read_database) for row in rows]


def measure_suggestions(
    suggested: Sequence[Sequence[Suggestion]], scenarios: Sequence[str]
) -> dict[str, SuggestionScore]:
    """Compare suggestions with known scenarios.

    Args:
        suggested: suggestions of each query, from `suggest_scenarios`.
        scenarios: known scenario of each query; queries with "" are left out.

    Returns:
        {scenario: score}, without "ordinary".

    Raises:
        ValueError: the lengths differ.
    """
    if len(suggested) != len(scenarios):
        raise ValueError(f"suggestions for {len(suggested)} queries, scenarios of {len(scenarios)}; expected as many")
    scores = {}
    for scenario in SCENARIOS:
        if scenario == "ordinary":
            continue
        named = [any(s.scenario == scenario for s in names) for names in suggested]
        pairs = [(name, truth == scenario) for name, truth in zip(named, scenarios, strict=True) if truth]
        num_suggested = sum(name for name, _ in pairs)
        num_true = sum(true for _, true in pairs)
        num_both = sum(name and true for name, true in pairs)
        precision = 100 * num_both / num_suggested if num_suggested else math.nan
        recall = 100 * num_both / num_true if num_true else math.nan
        scores[scenario] = SuggestionScore(num_true, num_suggested, precision, recall)
    return scores


def _suggest_for_query(
    row: int,
    database: ImageTable,
    queries: ImageTable,
    evaluation: Evaluation,
    read_database: Callable[[int], np.ndarray],
) -> list[Suggestion]:
    photo = _read_small(queries, row)
    noticed = [*notice_name(queries.names[row]), notice_skyline(photo)]
    positives = evaluation.positives[row]
    if len(positives):
        turns_deg = _measure_turns(database.headings[positives], queries.headings[row])
        shifts_m = np.linalg.norm(database.utm[positives] - queries.utm[row], axis=1)
        nearest = np.argsort(np.hypot(turns_deg / TURN_DEG, shifts_m / SHIFT_M), kind="stable")[:NUM_POSITIVES]
        alike = [read_database(int(i)) for i in positives[nearest]]
        predicted = [read_database(int(i)) for i in evaluation.indices[row, :NUM_PREDICTIONS] if i >= 0]
        noticed += [
            notice_illumination(photo, np.stack(alike)),
            notice_viewpoint(float(turns_deg[nearest[0]]), float(shifts_m[nearest[0]])),
            notice_occlusion(photo, np.stack([*alike, *predicted])),
        ]
        if all(suggestion.score < 0.5 for suggestion in noticed):  # otherwise that explains a wrong prediction
            noticed += notice_repetitive(row, database, evaluation)
    best: dict[str, Suggestion] = {}
    for suggestion in sorted(noticed, key=lambda s: -s.score):
        if suggestion.score >= 0.5:
            best.setdefault(suggestion.scenario, suggestion)
    return list(best.values())


def _read_small(table: ImageTable, row: int) -> np.ndarray:
    """A photo as (SIZE, SIZE, 3) float32, 0 to 255."""
    return read_photo(table, row, SIZE).transpose(1, 2, 0).astype(np.float32)


def _measure_turns(headings: np.ndarray, heading: float) -> np.ndarray:
    """Angles between headings, degrees, 0 to 180; 0 where one is unknown."""
    return np.nan_to_num(np.abs((headings - heading + 180) % 360 - 180))
