"""Queries without labels -> the scenarios their photos, positions and predictions speak for, each with its reason.

Every cue measures one thing and divides it by the value above which it counts: the thresholds below, chosen on four
rendered cities (sf_val, seeds 0, 7, 8, 9). A query may be none of it, or several. How often they are right on another
city, `tests/test_suggestions.py` prints: heading and position tell most, and a repetitive street hardly shows in what
one model takes for another.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.analysis.scenarios import LIGHTS, SCENARIOS, base_name
from vpr_lib.evaluation import Evaluation
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_photo

SIZE = 64  # pixels, height and width of the photos that are compared
BLOCKS = 16  # a side: occlusion compares means of blocks
SKY = 28  # rows of the small photo above the horizon
ALIKE, FOUND = 4, 5  # photos a query is compared with: positives that look the same way, and first predictions

# What counts: each of these is a score of 0.5.
DARK = 10.0  # levels added to brightness before its logarithm: below, differences are noise
BRIGHTNESS, COLOUR = 0.35, 0.2  # logarithm of the ratio; sum of the differences of the channels' shares
TURN_DEG, SHIFT_M = 20.0, 10.0  # from the nearest positive
FAR_M, STANDING = 50.0, 0.15  # how far a far photo is; by what share its descriptor is nearer than the last found
TEXTURELESS, EDGE = 0.93, 0.2  # share of the upper image; what an edge is, in deviations of the photo
UNLIKE, DIFFERENCE = 0.31, 0.15  # share of the blocks; what unlike is, in deviations of the photo

Reader = Callable[[int], np.ndarray]  # row of a table -> (SIZE, SIZE, 3) float32


@dataclass(frozen=True)
class Suggestion:
    """A scenario a query may belong to."""

    scenario: str  # an id in `SCENARIOS`, never "ordinary"
    score: float  # 0 to 1; it is suggested from 0.5 on
    why: str  # what was measured


def suggest_scenarios(
    database: ImageTable, queries: ImageTable, found: Evaluation, rows: Sequence[int] | None = None
) -> list[list[Suggestion]]:
    """Scenarios that queries may belong to, from small photos, positions, and what a model found.

    Args:
        database, queries: the split.
        found: what one model found on it.
        rows: queries to look at; None is all of them.

    Returns:
        For each of the rows its suggestions, best first; none where nothing stands out. A query without positives
        is compared with none: only its own photo and name speak.

    Raises:
        ValueError: a photo can't be read, the message names it; or `found` is of another split.
    """
    if not np.array_equal(found.query_utm, queries.utm):
        raise ValueError(f"what was found on {found.split} is of other queries than these {len(queries)}; evaluate it")
    read = functools.lru_cache(maxsize=4096)(functools.partial(read_small, database))  # neighbours share positives
    return [suggest_for(row, database, queries, found, read) for row in (range(len(queries)) if rows is None else rows)]


def suggest_for(
    row: int, database: ImageTable, queries: ImageTable, found: Evaluation, read: Reader
) -> list[Suggestion]:
    """`suggest_scenarios` for one query."""
    photo = read_small(queries, row)
    noticed = [*notice_name(queries.names[row]), notice_skyline(photo)]
    positives = found.positives[row]
    if len(positives):
        turns = turn_deg(database.headings[positives], queries.headings[row])
        shifts = np.linalg.norm(database.utm[positives] - queries.utm[row], axis=1)
        nearest = np.argsort(np.hypot(turns / TURN_DEG, shifts / SHIFT_M), kind="stable")[:ALIKE]
        alike = np.stack([read(int(i)) for i in positives[nearest]])
        others = [read(int(i)) for i in found.indices[row, :FOUND] if i >= 0]
        noticed += [
            notice_illumination(photo, alike),
            notice_viewpoint(float(turns[nearest[0]]), float(shifts[nearest[0]])),
            notice_occlusion(photo, np.stack([*alike, *others])),
        ]
        if all(suggestion.score < 0.5 for suggestion in noticed):  # else it may be mistaken for that reason
            noticed += notice_repetitive(row, database, found)
    best: dict[str, Suggestion] = {}
    for suggestion in sorted(noticed, key=lambda s: -s.score):
        if suggestion.score >= 0.5:
            best.setdefault(suggestion.scenario, suggestion)
    return list(best.values())


def read_small(table: ImageTable, row: int) -> np.ndarray:
    """A photo as (SIZE, SIZE, 3) float32, 0 to 255."""
    return read_photo(table, row, SIZE).transpose(1, 2, 0).astype(np.float32)


def turn_deg(headings: np.ndarray, heading: float) -> np.ndarray:
    """Angles between headings, degrees, 0 to 180; 0 where one is unknown."""
    return np.nan_to_num(np.abs((headings - heading + 180) % 360 - 180))


def rate(value: float, threshold: float) -> float:
    """A score: 0.5 at the threshold, 1 from twice as much on."""
    return float(np.clip(value / threshold / 2, 0, 1))


# The cues


def notice_name(name: str) -> list[Suggestion]:
    """Illumination, where the photo's name says when it was taken, as a query of Tokyo may."""
    lights = "|".join(light for light in LIGHTS if light != "day")
    match = re.search(rf"(?<![a-z])({lights})(?![a-z])", base_name(name).lower())
    return [Suggestion("illumination", 1.0, f"its name says {match[1]}")] if match else []


def notice_illumination(photo: np.ndarray, others: np.ndarray) -> Suggestion:
    """Brightness and colour, against the median of the positives that look the same way.

    Args:
        photo: (H, W, 3).
        others: (P, H, W, 3).
    """
    mean, usual = photo.mean((0, 1)), np.median(others.mean((1, 2)), axis=0)
    ratio = float((mean.mean() + DARK) / (usual.mean() + DARK))
    shares = mean / (mean.sum() + 1) - usual / (usual.sum() + 1)  # of red, green and blue
    colour = float(np.abs(shares).sum())
    score = rate(float(np.hypot(np.log(ratio) / BRIGHTNESS, colour / COLOUR)), 1.0)
    light = f"{100 * ratio:.0f}% as bright"
    tint = f"{100 * shares.max():.0f} points {('redder', 'greener', 'bluer')[int(shares.argmax())]}"
    return Suggestion("illumination", score, f"{light} and {tint} than its positives")


def notice_viewpoint(turn: float, shift: float) -> Suggestion:
    """Heading and position, against the positive with the least of both."""
    score = rate(float(np.hypot(turn / TURN_DEG, shift / SHIFT_M)), 1.0)
    return Suggestion("viewpoint", score, f"{shift:.0f} m and {turn:.0f} degrees from the nearest positive")


def notice_repetitive(row: int, database: ImageTable, found: Evaluation) -> list[Suggestion]:
    """A far photo that is more similar than every positive, and stands out from the other predictions.

    Positives that aren't among the predictions are less similar than the last of them.
    """
    known = found.indices[row] >= 0
    indices, distances = found.indices[row][known], found.distances[row][known]
    metres = np.linalg.norm(database.utm[indices] - found.query_utm[row], axis=1)
    far = np.flatnonzero(metres > FAR_M)
    true = distances[np.isin(indices, found.positives[row])].min(initial=np.inf)
    if not len(far) or distances[far[0]] >= true:
        return []
    standing = 1 - float(distances[far[0]] / max(distances[-1], 1e-6))
    why = f"a photo {metres[far[0]]:.0f} m away is more similar than its positives"
    why += f", its descriptor {100 * standing:.0f}% nearer than the last one found"
    return [Suggestion("repetitive", rate(standing, STANDING), why)]


def notice_skyline(photo: np.ndarray) -> Suggestion:
    """The share of the upper image without vertical edges: sky, and little that stands in it."""
    light = np.log(photo.mean(2) + DARK)  # edges in the dark count as well
    steps = np.abs(np.diff(light[:SKY], axis=1))
    share = float((steps <= EDGE * light.std()).mean())
    score = rate(1 - TEXTURELESS, max(1 - share, 1e-6))  # what counts is how little is left
    return Suggestion("skyline", score, f"{100 * share:.0f}% of its upper part is without edges")


def notice_occlusion(photo: np.ndarray, others: np.ndarray) -> Suggestion:
    """The share of blocks, below the top quarter, that no other photo has nearby.

    Args:
        photo: (H, W, 3).
        others: (P, H, W, 3), positives and predictions.
    """
    blocks, theirs = average_blocks(photo[None])[0], average_blocks(others)
    down, right = 1, 2  # how far a block may have moved, in blocks
    theirs = np.pad(theirs, ((0, 0), (down, down), (right, right), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(theirs, (BLOCKS, BLOCKS), (1, 2))  # (P, 3, 5, 3, B, B)
    least = np.abs(windows - blocks.transpose(2, 0, 1)).mean(3).min((0, 1, 2))  # (B, B)
    share = float((least[BLOCKS // 4 :] > DIFFERENCE).mean())
    why = f"{100 * share:.0f}% of its blocks are in no positive and no photo found"
    return Suggestion("occlusion", rate(share, UNLIKE), why)


def average_blocks(photos: np.ndarray) -> np.ndarray:
    """(P, H, W, 3) -> (P, BLOCKS, BLOCKS, 3), the mean of each block, standardised: light and tint hardly matter."""
    side = SIZE // BLOCKS
    small = photos.reshape(-1, BLOCKS, side, BLOCKS, side, 3).mean((2, 4))
    return (small - small.mean((1, 2), keepdims=True)) / (small.std((1, 2), keepdims=True) + 5)


# Against the truth


def measure_suggestions(suggested: Sequence[Sequence[Suggestion]], truth: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision and recall of the suggestions of each scenario.

    Args:
        suggested: for each query, of `suggest_scenarios`.
        truth: the scenario of each query; queries with "" are left out.

    Returns:
        {scenario: {"true": queries that are, "suggested": queries it was suggested for, "precision" and "recall":
        percent, NaN where there is nothing to divide by}}, "ordinary" left out.

    Raises:
        ValueError: the lengths differ.
    """
    if len(suggested) != len(truth):
        raise ValueError(f"suggestions for {len(suggested)} queries, truth of {len(truth)}; expected the same queries")
    known = [(i, {s.scenario for s in names}) for i, names in enumerate(suggested) if truth[i]]
    measured = {}
    for scenario in (name for name in SCENARIOS if name != "ordinary"):
        named = {i for i, names in known if scenario in names}
        true = {i for i, _ in known if truth[i] == scenario}
        measured[scenario] = {
            "true": len(true),
            "suggested": len(named),
            "precision": 100 * len(named & true) / len(named) if named else math.nan,
            "recall": 100 * len(named & true) / len(true) if true else math.nan,
        }
    return measured
