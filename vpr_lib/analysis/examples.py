"""Example queries for a figure: which ones to show, and their photos."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpr_lib.evaluation import Evaluation
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_thumbnail

FAIL_CASES = "Fail cases"  # last row of Fig. 5: no model is right


@dataclass(frozen=True)
class Match:
    """A model's first prediction for a query."""

    photo: np.ndarray  # (H, W, 3) uint8
    distance_m: float  # ground distance to the query
    right: bool


@dataclass(frozen=True)
class Example:
    """A query with the first prediction of each model."""

    split: str
    name: str
    photo: np.ndarray  # (H, W, 3) uint8
    matches: dict[str, Match]  # {model: its first prediction}, in the order of the columns


def name_outcomes(models: Sequence[str], rights: Sequence[Sequence[bool]]) -> np.ndarray:
    """Name which of two models are right, (Q, 2) bool: "Only MixVPR right", "Both right", "Fail cases" as (Q,) str."""
    first, second = np.asarray(rights, dtype=bool).reshape(-1, 2).T
    names = ["Both right", f"Only {models[0]} right", f"Only {models[1]} right"]
    return np.select([first & second, first, second], names, FAIL_CASES)


def order_by_hash(names: Sequence[str]) -> list[int]:
    """Rows in the order of the SHA-256 of their names, which is unrelated to what the photos show."""
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())


def choose_examples(
    names: Sequence[str], labels: Sequence[str], rights: np.ndarray, count: int = 2
) -> dict[str, list[int]]:
    """Choose queries to show for each label by a fixed rule.

    Queries are ordered by `order_by_hash`. For each label the first query on which the models differ comes first, if
    there is one; the rest follow in order. Remaining queries on which no model is right are added as `FAIL_CASES`.

    Args:
        names, labels: of Q queries; those with the label "" are used for `FAIL_CASES` only.
        rights: (Q, M) bool, which models are right.

    Returns:
        {label: indices of at most `count` queries}, in the order in which the labels first appear.
    """
    rights = np.asarray(rights, dtype=bool)
    order = order_by_hash(names)
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
    """Read thumbnails of a query and of each model's first prediction.

    Args:
        query: its row in `queries`.
        evaluations: {model: its evaluation on the split}.
        max_pixels: longer side of the thumbnails.
    """
    matches = {}
    for model, evaluation in evaluations.items():
        row = int(evaluation.indices[query, 0])
        distance_m = float(np.linalg.norm(queries.utm[query] - database.utm[row]))
        matches[model] = Match(read_thumbnail(database, row, max_pixels), distance_m, bool(evaluation.hits[query]))
    split = next(iter(evaluations.values())).split
    return Example(split, queries.names[query], read_thumbnail(queries, query, max_pixels), matches)
