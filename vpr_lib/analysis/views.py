"""Which photos show the same view: those whose cameras stood near each other and looked the same way."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vpr_lib.analysis.examples import order_by_hash
from vpr_lib.analysis.local_features import MAX_PIXELS, count_inliers, extract_sift
from vpr_lib.images import ImageTable
from vpr_lib.photos import read_thumbnail

TURN_DEG = 20.0  # a turn that changes the view as much as ...
SHIFT_M = 10.0  # ... this shift does


class Views(NamedTuple):
    """Database photos and how their cameras differ from a query's."""

    rows: np.ndarray  # (n,) int64, database rows
    shifts_m: np.ndarray  # (n,) float64
    turns_deg: np.ndarray  # (n,) float64, from 0 to 180; 0 where a heading is unknown


class ViewPair(NamedTuple):
    """A query and a database photo with the same view."""

    query: int
    photo: int  # database row
    shift_m: float
    turn_deg: float
    num_shared: int  # points found in both photos, confirmed by geometry


def sort_by_view(database: ImageTable, queries: ImageTable, query: int, rows: np.ndarray) -> Views:
    """Sort database photos by turn and shift from a query together, the most similar view first.

    Args:
        query: its row in `queries`.
        rows: (n,) int64, database rows, such as the query's positives.
    """
    turns_deg = np.abs((database.headings[rows] - queries.headings[query] + 180) % 360 - 180)
    turns_deg = np.nan_to_num(turns_deg)
    shifts_m = np.linalg.norm(database.utm[rows] - queries.utm[query], axis=1)
    order = np.argsort(np.hypot(turns_deg / TURN_DEG, shifts_m / SHIFT_M), kind="stable")
    return Views(np.asarray(rows)[order], shifts_m[order], turns_deg[order])


def choose_pairs(
    database: ImageTable,
    queries: ImageTable,
    positives: Sequence[np.ndarray],
    kinds: np.ndarray,
    titles: Mapping[str, str],
    num_tried: int = 8,
) -> dict[str, ViewPair]:
    """Choose a query of each kind, with the positive that shows its view.

    By rule: of the first queries of a kind, in the order of `order_by_hash`, the one that shares most points with the
    positive of the most similar view.

    Args:
        positives: one array of database rows for each query; queries without positives are left out.
        kinds, titles: from `group_queries`.
        num_tried: queries of each kind whose photos are compared.

    Returns:
        {title: pair}, in the order of the titles.
    """
    pairs = {}
    order = [i for i in order_by_hash(queries.names) if len(positives[i])]
    for kind, title in titles.items():
        members = [i for i in order if kinds[i] == kind][:num_tried]
        tried = [_compare(database, queries, i, positives[i]) for i in members]
        if tried:
            pairs[title] = max(tried, key=lambda pair: pair.num_shared)
    return pairs


def _compare(database: ImageTable, queries: ImageTable, query: int, positives: np.ndarray) -> ViewPair:
    rows, shifts_m, turns_deg = sort_by_view(database, queries, query, positives)
    photos = (read_thumbnail(queries, query, MAX_PIXELS), read_thumbnail(database, int(rows[0]), MAX_PIXELS))
    num_shared = count_inliers(*map(extract_sift, photos))
    return ViewPair(query, int(rows[0]), float(shifts_m[0]), float(turns_deg[0]), num_shared)
