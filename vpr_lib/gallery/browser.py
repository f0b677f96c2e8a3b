"""What one or two models found on a split -> the queries one wants to see, in order. Arrays only, no widgets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, Label, base_name, label_scenarios
from vpr_lib.evaluation import Evaluation
from vpr_lib.gallery.tags import Tags
from vpr_lib.images import ImageTable
from vpr_lib.options import check_choice
from vpr_lib.recall import first_hits
from vpr_lib.statistics import bootstrap_interval, group_cells

# Which queries; {a} and {b} stand for the models' names.
OUTCOMES = {
    "all": "all queries",
    "a_right": "{a} right",
    "a_wrong": "{a} wrong",
    "b_right": "{b} right",
    "b_wrong": "{b} wrong",
    "a_only": "{a} right, {b} wrong",
    "b_only": "{b} right, {a} wrong",
    "both_right": "both right",
    "both_wrong": "both wrong",
    "no_positive": "no positive exists",
}
# Who says that a query is of a scenario.
SOURCES = {"given": "known or tagged", "known": "known", "tagged": "tagged by hand", "suggested": "suggested"}
ORDERS = {
    "name": "name",
    "error_a": "distance error, {a}",
    "similarity_a": "similarity, {a}",
    "margin_a": "margin, {a}",
    "error_b": "distance error, {b}",
    "similarity_b": "similarity, {b}",
    "margin_b": "margin, {b}",
}
MARGIN_RADIUS_M = 25.0  # photos within this of each other show one place
NUM_SHOWN = (3, 5, 10, 25)  # photos of each model
REGION_RANKS = range(1, 11)  # of photos whose regions can be shown


@dataclass(frozen=True)
class View:
    """What is looked at; plain values, so it can be kept as JSON."""

    scenario: str = ""  # an id in `SCENARIOS`; "" for all, or all that are tagged or suggested
    source: str = "given"  # in `SOURCES`
    outcome: str = "all"  # in `OUTCOMES`
    search: str = ""  # part of the query's name
    order: str = "name"  # in `ORDERS`
    descending: bool = False
    query: str = ""  # name of the query shown; "" for the first one
    num_shown: int = 5  # photos of each model
    positives: bool = False  # whether the query's positives are shown
    regions: int = 0  # rank of the photo whose regions are shown, 0 for none

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def read_view(state: Mapping[str, Any]) -> View:
    """The view that `View.to_dict` wrote.

    Raises:
        ValueError: a key or value is none of a view.
    """
    for key, value in state.items():
        check_choice("key of a view", key, [f.name for f in fields(View)])
        if type(value) is not type(getattr(View, key)):
            raise ValueError(f"{key} = {value!r} in a view; expected something like {getattr(View, key)!r}")
    view = View(**state)
    check_choice("scenario", view.scenario, ["", *SCENARIOS])
    check_choice("source", view.source, SOURCES)
    check_choice("outcome", view.outcome, OUTCOMES)
    check_choice("order", view.order, ORDERS)
    check_choice("number of photos", view.num_shown, NUM_SHOWN)
    check_choice("rank for regions", view.regions, [0, *REGION_RANKS])
    return view


class Browser:
    """The queries of a split with what is known about each, to choose from.

    Args:
        database, queries: the split.
        found: {model: what it found}, one or two models, called a and b.
        labels: of the data root, see `scenarios.read_labels`.
        tags: by hand.

    Attributes:
        ranks: (M, Q) int64, rank (from 0) of each model's first right photo; K where there is none.
        errors_m: (M, Q) float64, metres from the query to the model's first photo.
        similarities: (M, Q) float64, cosine similarity of query and first photo.
        margins: (M, Q) float64, by how much the first photo is more similar than the first one of another place.
        suggestions: {row of a query: suggestions, each with a `scenario`, `score` and `why`}, as far as there are any.

    Raises:
        ValueError: not one or two models, or the evaluations are of different splits.
    """

    def __init__(
        self,
        database: ImageTable,
        queries: ImageTable,
        found: Mapping[str, Evaluation],
        labels: Mapping[str, Label],
        tags: Tags,
    ) -> None:
        check_same_split(queries, found)
        self.database, self.queries, self.found, self.tags = database, queries, dict(found), tags
        self.models = list(found)
        self.names = np.array([base_name(name).lower() for name in queries.names], dtype=str)
        self.known = label_scenarios(queries.names, labels)
        evaluations = list(found.values())
        self.without_positive = np.array([len(right) == 0 for right in evaluations[0].positives], dtype=bool)
        self.ranks = np.stack([first_hits(e.indices, e.positives) for e in evaluations])
        self.errors_m = np.stack([measure_errors(database, queries, e.indices)[:, 0] for e in evaluations])
        self.similarities = np.stack([to_similarity(e.distances)[:, 0] for e in evaluations])
        self.margins = np.stack([measure_margins(database, e) for e in evaluations])
        self.cells = group_cells(queries.utm)
        self.suggestions: dict[int, Sequence[Any]] = {}

    def __len__(self) -> int:
        return len(self.queries)

    def title(self, text: str) -> str:
        """A title with the models' names in it."""
        return text.replace("{a}", self.models[0]).replace("{b}", self.models[-1])

    def list_choices(self, titles: Mapping[str, str]) -> dict[str, str]:
        """{id: title} of `OUTCOMES` or `ORDERS`, without those that take a second model if there is one only."""
        one = len(self.models) == 1
        return {k: self.title(t) for k, t in titles.items() if not (one and ("{b}" in t or t.startswith("both")))}

    def mark_scenario(self, scenario: str, source: str = "given") -> np.ndarray:
        """(Q,) bool, the queries of a scenario according to a source."""
        marked = np.zeros(len(self), dtype=bool)
        if source in ("known", "given"):
            marked |= self.known == scenario
        if source in ("tagged", "given"):
            marked |= self.tags.mark_queries(scenario)
        if source == "suggested":
            rows = [row for row, found in self.suggestions.items() if any(s.scenario == scenario for s in found)]
            marked[rows] = True
        return marked

    def mark_outcome(self, outcome: str) -> np.ndarray:
        """(Q,) bool, the queries with an outcome."""
        a, b = self.ranks[0] == 0, self.ranks[-1] == 0
        marks = {
            "all": np.ones(len(self), dtype=bool),
            **{"a_right": a, "a_wrong": ~a, "b_right": b, "b_wrong": ~b},
            **{"a_only": a & ~b, "b_only": b & ~a, "both_right": a & b, "both_wrong": ~a & ~b},
            "no_positive": self.without_positive,
        }
        return marks[check_choice("outcome", outcome, self.list_choices(OUTCOMES))]

    def select(self, view: View) -> np.ndarray:
        """(n,) int64, rows of the queries a view is of, in its order; equal ones by name."""
        chosen = self.mark_outcome(view.outcome)
        if view.scenario or view.source in ("tagged", "suggested"):  # of any scenario, where none is chosen
            wanted = [view.scenario] if view.scenario else SCENARIOS
            chosen &= np.any([self.mark_scenario(scenario, view.source) for scenario in wanted], axis=0)
        if view.search:
            chosen &= np.char.find(self.names, view.search.strip().lower()) >= 0
        rows = np.flatnonzero(chosen)  # tables are sorted by name
        check_choice("order", view.order, self.list_choices(ORDERS))
        if view.order == "name":
            return rows[::-1] if view.descending else rows
        kind, letter = view.order.split("_")
        values = {"error": self.errors_m, "similarity": self.similarities, "margin": self.margins}[kind]
        keys = values[0 if letter == "a" else -1, rows]
        return rows[np.argsort(-keys if view.descending else keys, kind="stable")]  # unknown ones (NaN) come last

    def find(self, name: str) -> int | None:
        """The row of the query with exactly this name, with or without folders; None if there is none."""
        rows = self.tags.rows_of.get(base_name(name), [])
        exact = [row for row in rows if self.queries.names[row] == name]
        return (exact or rows or [None])[0]

    def summarise(self, rows: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Any]:
        """Counts and recall of a selection.

        Args:
            rows: (n,) of queries.
            ks: ranks; those beyond the predictions are left out.

        Returns:
            {"queries", "without_positive", "models": {model: {"recall": {k: percent}, "interval": 95% of R@1}}};
            no models where the selection is empty.
        """
        models = {}
        for model, ranks in zip(self.models, self.ranks, strict=True):
            if len(rows):
                valid = [k for k in ks if k <= self.found[model].indices.shape[1]]
                recall = {k: float(100 * np.mean(ranks[rows] < k)) for k in valid}
                models[model] = {
                    "recall": recall,
                    "interval": bootstrap_interval(ranks[rows] == 0, self.cells[rows]),
                }
        return {
            "queries": len(rows),
            "without_positive": int(self.without_positive[rows].sum()),
            "models": models,
        }

    def recall_by_scenario(self, source: str = "given") -> dict[str, dict[str, dict[str, Any]]]:
        """R@1 of each scenario that has queries, as `recall.recall_by_label` gives it; a query may count in several.

        Returns:
            {model: {scenario: {"queries": n, "recall": percent, "interval": (low, high)}}}
        """
        found: dict[str, dict[str, dict[str, Any]]] = {model: {} for model in self.models}
        for scenario in SCENARIOS:
            summary = self.summarise(np.flatnonzero(self.mark_scenario(scenario, source)), (1,))
            for model, result in summary["models"].items():
                found[model][scenario] = {
                    "queries": summary["queries"],
                    "recall": result["recall"][1],
                    "interval": result["interval"],
                }
        return found


def check_same_split(queries: ImageTable, found: Mapping[str, Evaluation]) -> None:
    """Raise a ValueError unless there are one or two evaluations, of these queries."""
    if not 1 <= len(found) <= 2:
        raise ValueError(f"{len(found)} models; the gallery shows one or two")
    splits = {model: evaluation.split for model, evaluation in found.items()}
    if len(set(splits.values())) > 1:
        text = " and ".join(f"{model} of {split}" for model, split in splits.items())
        raise ValueError(f"the models were evaluated on different splits, {text}; evaluate both on one")
    for model, evaluation in found.items():
        if not np.array_equal(evaluation.query_utm, queries.utm):
            raise ValueError(f"{model} was evaluated on other queries than these {len(queries)}; evaluate it again")


def measure_errors(database: ImageTable, queries: ImageTable, indices: np.ndarray) -> np.ndarray:
    """(Q, K) float64, metres from each query to its predictions; infinite where there is none."""
    distances_m = np.linalg.norm(database.utm[indices] - queries.utm[:, None], axis=2)
    return np.where(indices >= 0, distances_m, np.inf)


def to_similarity(distances: np.ndarray) -> np.ndarray:
    """Cosine similarity, float64, from Euclidean distance between unit-norm descriptors."""
    return 1 - np.asarray(distances, dtype=np.float64) ** 2 / 2


def measure_margins(database: ImageTable, found: Evaluation) -> np.ndarray:
    """(Q,) float64, similarity of the first photo less that of the first one of another place.

    Another place is more than `MARGIN_RADIUS_M` from the first photo; NaN where the K predictions show one place only.
    """
    utm = database.utm[found.indices]
    other = (np.linalg.norm(utm - utm[:, :1], axis=2) > MARGIN_RADIUS_M) & (found.indices >= 0)
    similarities = to_similarity(found.distances)
    runner_up = similarities[np.arange(len(other)), other.argmax(1)]
    return np.where(other.any(1), similarities[:, 0] - runner_up, np.nan)
