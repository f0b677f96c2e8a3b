"""Suggestions: scenarios of queries without labels, from their photos, positions and predictions.

Each `notice_*` measures one cue. A score is the measured value divided by twice the threshold, so it is 0.5 at the
threshold. The thresholds were chosen on sf_val of four rendered cities (seeds 0, 7, 8, 9). A query may get several
suggestions or none; on rendered cities viewpoint suggestions are the most reliable and repetitive ones the least.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, find_light
from vpr_lib.analysis.views import SHIFT_M, TURN_DEG, sort_by_view
from vpr_lib.evaluation import Evaluation
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_photo

SIZE = 64  # pixels, height and width of the photos
BLOCKS = 16  # per side; occlusion compares means of blocks
SKY_ROWS = 28  # rows above the horizon
DARK = 10.0  # added to brightness before the logarithm, so that noise in dark photos does not count
BRIGHTNESS = 0.35  # logarithm of the ratio to the positives
COLOR = 0.2  # sum of the differences of the channels' shares
FAR_M = 50.0  # distance from which a photo shows another place
STANDOUT = 0.15  # by what fraction the far photo's descriptor is nearer than that of the last prediction
TEXTURELESS = 0.93  # fraction of the upper image without edges
EDGE = 0.2  # standard deviations of log brightness
UNMATCHED = 0.31  # fraction of the blocks
DIFFERENCE = 0.15  # standard deviations; a block with a larger difference is unmatched
NUM_POSITIVES = 4  # positives with the most similar view that a query is compared with
NUM_PREDICTIONS = 5  # first predictions that a query is compared with
# Suggested because a wrong photo is the most similar one, so recall of these queries is low by definition.
FROM_MISTAKES = ("repetitive",)


@dataclass(frozen=True)
class Suggestion:
    """A scenario that a query may belong to."""

    scenario: str  # key of `SCENARIOS`, never "ordinary"
    score: float  # 0 to 1; suggested from 0.5 on
    why: str  # what was measured


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
    suggested: Sequence[Sequence[Suggestion]], scenarios: Sequence[str]
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
) -> list[Suggestion]:
    photo = _read_small(queries, row)
    noticed = [*notice_name(queries.names[row]), notice_skyline(photo)]
    positives = evaluation.positives[row]
    if len(positives):
        views = sort_by_view(database, queries, row, positives)
        alike = [read_database(int(i)) for i in views.rows[:NUM_POSITIVES]]
        predicted = [read_database(int(i)) for i in evaluation.indices[row, :NUM_PREDICTIONS] if i >= 0]
        noticed += [
            notice_illumination(photo, np.stack(alike)),
            notice_viewpoint(float(views.turns_deg[0]), float(views.shifts_m[0])),
            notice_occlusion(photo, np.stack([*alike, *predicted])),
        ]
        if all(suggestion.score < 0.5 for suggestion in noticed):  # otherwise that explains a wrong prediction
            noticed += notice_repetitive(row, database, evaluation)
    best: dict[str, Suggestion] = {}
    for suggestion in sorted(noticed, key=lambda suggestion: -suggestion.score):
        if suggestion.score >= 0.5:
            best.setdefault(suggestion.scenario, suggestion)
    return list(best.values())


def _read_small(table: ImageTable, row: int) -> np.ndarray:
    """A photo as (SIZE, SIZE, 3) float32, 0 to 255."""
    return read_photo(table, row, SIZE).transpose(1, 2, 0).astype(np.float32)


def notice_name(name: str) -> list[Suggestion]:
    """Illumination: the file name contains a light other than day, as in Tokyo 24/7."""
    light = find_light(name)
    return [Suggestion("illumination", 1.0, f"its name says {light}")] if light not in ("", "day") else []


def notice_illumination(photo: np.ndarray, positives: np.ndarray) -> Suggestion:
    """Illumination: brightness and color of a photo (H, W, 3) differ from the median of its positives (P, H, W, 3)."""
    mean = photo.mean((0, 1))  # (3,)
    usual = np.median(positives.mean((1, 2)), axis=0)  # (3,)
    ratio = float((mean.mean() + DARK) / (usual.mean() + DARK))
    shares = mean / (mean.sum() + 1) - usual / (usual.sum() + 1)  # red, green and blue
    score = _rate(np.hypot(np.log(ratio) / BRIGHTNESS, np.abs(shares).sum() / COLOR), 1.0)
    tint = ("redder", "greener", "bluer")[int(shares.argmax())]
    why = f"{100 * ratio:.0f}% as bright and {100 * shares.max():.0f} points {tint} than its positives"
    return Suggestion("illumination", score, why)


def notice_viewpoint(turn_deg: float, shift_m: float) -> Suggestion:
    """Viewpoint: heading and position differ from the nearest positive."""
    score = _rate(np.hypot(turn_deg / TURN_DEG, shift_m / SHIFT_M), 1.0)
    return Suggestion("viewpoint", score, f"{shift_m:.0f} m and {turn_deg:.0f} degrees from the nearest positive")


def notice_repetitive(row: int, database: ImageTable, evaluation: Evaluation) -> list[Suggestion]:
    """Repetitive: a far photo is more similar than every positive and stands out from the other predictions.

    Positives that are not among the predictions are less similar than all of them.
    """
    valid = evaluation.indices[row] >= 0
    indices, distances = evaluation.indices[row][valid], evaluation.distances[row][valid]
    distances_m = np.linalg.norm(database.utm[indices] - evaluation.query_utm[row], axis=1)
    far = np.flatnonzero(distances_m > FAR_M)
    nearest_positive = distances[np.isin(indices, evaluation.positives[row])].min(initial=np.inf)
    if not len(far) or distances[far[0]] >= nearest_positive:
        return []
    standout = 1 - float(distances[far[0]] / max(distances[-1], 1e-6))
    nearer = f"its descriptor {100 * standout:.0f}% nearer than that of the last prediction"
    why = f"a photo {distances_m[far[0]]:.0f} m away is more similar than its positives, {nearer}"
    return [Suggestion("repetitive", _rate(standout, STANDOUT), why)]


def notice_skyline(photo: np.ndarray) -> Suggestion:
    """Skyline: most of the upper part of a photo (H, W, 3) has no vertical edges."""
    light = np.log(photo.mean(2) + DARK)  # the logarithm keeps edges in dark photos
    steps = np.abs(np.diff(light[:SKY_ROWS], axis=1))
    fraction = float((steps <= EDGE * light.std()).mean())
    score = _rate(1 - TEXTURELESS, max(1 - fraction, 1e-6))
    return Suggestion("skyline", score, f"{100 * fraction:.0f}% of its upper part is without edges")


def notice_occlusion(photo: np.ndarray, others: np.ndarray) -> Suggestion:
    """Occlusion: blocks of a photo (H, W, 3) have no similar block nearby in the other photos (P, H, W, 3).

    The others are positives and predictions. Blocks in the top quarter, mostly sky, are not counted.
    """
    blocks = _average_blocks(photo[None])[0]
    # The content may have moved by one block up or down and by two to the sides.
    padded = np.pad(_average_blocks(others), ((0, 0), (1, 1), (2, 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (BLOCKS, BLOCKS), (1, 2))  # (P, 3, 5, 3, B, B)
    least = np.abs(windows - blocks.transpose(2, 0, 1)).mean(3).min((0, 1, 2))  # (B, B)
    fraction = float((least[BLOCKS // 4 :] > DIFFERENCE).mean())
    why = f"{100 * fraction:.0f}% of its blocks are in no positive and no prediction"
    return Suggestion("occlusion", _rate(fraction, UNMATCHED), why)


def _rate(value: float, threshold: float) -> float:
    """A score: 0.5 at the threshold, 1 from twice the threshold on."""
    return float(np.clip(value / threshold / 2, 0, 1))


def _average_blocks(photos: np.ndarray) -> np.ndarray:
    """(P, H, W, 3) -> (P, BLOCKS, BLOCKS, 3), means of blocks, standardized against changes of light and tint."""
    side = SIZE // BLOCKS
    small = photos.reshape(-1, BLOCKS, side, BLOCKS, side, 3).mean((2, 4))
    return (small - small.mean((1, 2), keepdims=True)) / (small.std((1, 2), keepdims=True) + 5)
