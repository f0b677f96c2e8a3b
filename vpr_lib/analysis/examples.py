"""TODO-DOC analysis.examples."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.evaluation import Evaluation
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_thumbnail

FAIL_CASES = "Fail cases"  # the last row of Fig. 5: no model is right


@dataclass(frozen=True)
class Match:
    """A model's first photo for a query."""

    photo: np.ndarray  # (H, W, 3) uint8
    distance_m: float  # on the ground, from the query
    right: bool


@dataclass(frozen=True)
class Example:
    """A query and what models found first."""

    split: str
    name: str
    photo: np.ndarray  # (H, W, 3) uint8
    matches: dict[str, Match]  # by model, in order


def name_outcomes(models: Sequence[str], rights: np.ndarray) -> np.ndarray:
    """Which of the models are right, in words: "Only MixVPR right", "Both right", "Fail cases".

    Args:
        models: two names.
        rights: (Q, 2) bool.

    Returns:
        (Q,) str.
    """
    only = [f"Only {model} right" for model in models]
    names = {(True, True): "Both right", (False, False): FAIL_CASES, (True, False): only[0], (False, True): only[1]}
    return np.array([names[bool(first), bool(second)] for first, second in rights], dtype=str)


def choose_examples(
    names: Sequence[str], labels: Sequence[str], rights: np.ndarray, count: int = 2
) -> dict[str, list[int]]:
    """Queries to show for each label, chosen by rule and not by eye.

    Queries are taken in the order of their names' SHA-256, which has nothing to do with what they show: first one on
    which the models differ, if there is one, whichever of them is right; then any. At last, those not yet chosen that
    no model finds, as `FAIL_CASES`.

    Args:
        names: Q names.
        labels: Q labels; "" is not chosen from, except as a fail case.
        rights: (Q, M) bool, which models are right.
        count: queries a label.

    Returns:
        {label: indices of at most `count` queries}, in the order of the labels' first appearance in `labels`.
    """
    rights = np.asarray(rights, dtype=bool)
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    differ = rights.any(1) & ~rights.all(1)
    chosen: dict[str, list[int]] = {}
    for label in dict.fromkeys(label for label in labels if label):
        members = [i for i in order if labels[i] == label]
        first = [i for i in members if differ[i]][:1]
        chosen[label] = (first + [i for i in members if i not in first])[:count]
    taken = {i for indices in chosen.values() for i in indices}
    failed = [i for i in order if not rights[i].any() and i not in taken][:count]
    if failed and FAIL_CASES not in chosen:
        chosen[FAIL_CASES] = failed
    return chosen


def read_example(
    query: int, database: ImageTable, queries: ImageTable, evaluations: Mapping[str, Evaluation], max_pixels: int = 240
) -> Example:
    """A query's photo and each model's first one, small.

    Args:
        query: row of the query.
        database, queries: the split.
        evaluations: {model: what it found on the split}.
        max_pixels: longer side of the photos.
    """
    matches = {}
    for model, found in evaluations.items():
        row = int(found.indices[query, 0])
        distance_m = float(np.linalg.norm(queries.utm[query] - database.utm[row]))
        matches[model] = Match(read_thumbnail(database, row, max_pixels), distance_m, bool(found.hits[query]))
    split = next(iter(evaluations.values())).split
    return Example(split, queries.names[query], read_thumbnail(queries, query, max_pixels), matches)
