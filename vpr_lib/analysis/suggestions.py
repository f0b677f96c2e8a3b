"""Suggestions: scenarios of queries without labels, from their photos, positions and predictions.

A query may get several suggestions or none. `measure_suggestions` compares them with known labels; on rendered cities
viewpoint suggestions are the most reliable and repetitive ones the least.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.analysis import cues
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
) -> list[list[cues.Suggestion]]:
    """Suggest scenarios for queries.

    Args:
        database, queries: the split.
        evaluation: of one model on the split.
        rows: queries to consider; None for all.

    Returns:
        Suggestions of each query in `rows`, best first; without positives, they are from its photo and name only.

    Raises:
        ValueError: a photo is not readable (the message names it), or the evaluation belongs to other queries.
    """
    if not np.array_equal(evaluation.query_utm, queries.utm):
        raise ValueError(f"{evaluation.split} was evaluated with other queries than these {len(queries)}; run it again")
    read_database = functools.lru_cache(4096)(functools.partial(_read_small, database))  # queries share positives
    rows = range(len(queries)) if rows is None else rows
    return [_suggest_for_query(row, database, queries, evaluation, read_database) for row in rows]


def measure_suggestions(
    suggested: Sequence[Sequence[cues.Suggestion]], scenarios: Sequence[str]
) -> dict[str, SuggestionScore]:
    """Compare suggestions with known scenarios.

    Args:
        suggested: suggestions of each query, from `suggest_scenarios`.
        scenarios: known scenario of each of these queries; those with "" are left out.

    Returns:
        {scenario: score}, without "ordinary".
    """
    if len(suggested) != len(scenarios):
        raise ValueError(f"suggestions for {len(suggested)} queries, scenarios of {len(scenarios)}; expected as many")
    names = [{suggestion.scenario for suggestion in suggestions} for suggestions in suggested]
    known = [(truth, named) for truth, named in zip(scenarios, names, strict=True) if truth]
    scores = {}
    for scenario in [scenario for scenario in SCENARIOS if scenario != "ordinary"]:
        num_true = sum(truth == scenario for truth, _ in known)
        num_suggested = sum(scenario in named for _, named in known)
        num_both = sum(truth == scenario and scenario in named for truth, named in known)
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
) -> list[cues.Suggestion]:
    photo = _read_small(queries, row)
    noticed = [*cues.notice_name(queries.names[row]), cues.notice_skyline(photo)]
    positives = evaluation.positives[row]
    if len(positives):
        turns_deg = np.abs((database.headings[positives] - queries.headings[row] + 180) % 360 - 180)
        turns_deg = np.nan_to_num(turns_deg)  # 0 where a heading is unknown
        shifts_m = np.linalg.norm(database.utm[positives] - queries.utm[row], axis=1)
        order = np.argsort(np.hypot(turns_deg / cues.TURN_DEG, shifts_m / cues.SHIFT_M), kind="stable")
        alike = [read_database(int(i)) for i in positives[order[:NUM_POSITIVES]]]
        predicted = [read_database(int(i)) for i in evaluation.indices[row, :NUM_PREDICTIONS] if i >= 0]
        noticed += [
            cues.notice_illumination(photo, np.stack(alike)),
            cues.notice_viewpoint(float(turns_deg[order[0]]), float(shifts_m[order[0]])),
            cues.notice_occlusion(photo, np.stack([*alike, *predicted])),
        ]
        if all(suggestion.score < 0.5 for suggestion in noticed):  # otherwise that explains a wrong prediction
            noticed += cues.notice_repetitive(row, database, evaluation)
    best: dict[str, cues.Suggestion] = {}
    for suggestion in sorted(noticed, key=lambda suggestion: -suggestion.score):
        if suggestion.score >= 0.5:
            best.setdefault(suggestion.scenario, suggestion)
    return list(best.values())


def _read_small(table: ImageTable, row: int) -> np.ndarray:
    """A photo as (SIZE, SIZE, 3) float32, 0 to 255."""
    return read_photo(table, row, cues.SIZE).transpose(1, 2, 0).astype(np.float32)
