"""The queries of a split with the predictions of one or two models: views, selections, counts. No widgets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from vpr_lib.analysis.confidence import spread_confidence, to_similarity
from vpr_lib.analysis.scenarios import SCENARIOS, Label, base_name, find_light, label_lights, label_scenarios
from vpr_lib.analysis.suggestions import FROM_MISTAKES, Suggestion, suggest_scenarios
from vpr_lib.evaluation import Evaluation
from vpr_lib.gallery.tags import Tags
from vpr_lib.images import ImageTable
from vpr_lib.options import check_choice
from vpr_lib.recall import first_hits
from vpr_lib.statistics import LabelRecall, bootstrap_interval, group_cells

MARGIN_RADIUS_M = 25.0  # photos within this distance of each other show one place
# Titles; {a} and {b} are replaced by the names of the models.
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
# Where the scenario of a query comes from.
SOURCES = {"given": "known or tagged", "known": "known", "tagged": "tagged by hand", "suggested": "suggested"}
ORDERS = {
    "name": "name",
    "error_a": "distance error, {a}",
    "similarity_a": "similarity, {a}",
    "margin_a": "margin, {a}",
    "spread_a": "spread, {a}",
    "inliers_a": "inliers, {a}",
    "error_b": "distance error, {b}",
    "similarity_b": "similarity, {b}",
    "margin_b": "margin, {b}",
    "spread_b": "spread, {b}",
    "inliers_b": "inliers, {b}",
}
NUM_SHOWN = (3, 5, 10, 25)  # choices for the photos of each model
PAIR_RANKS = range(1, 11)  # choices for the photo whose regions or matches are shown


@dataclass(frozen=True)
class View:
    """Selection and display options; plain values that can be stored as JSON."""

    scenario: str = ""  # key of `SCENARIOS`; "" for all, or for any scenario if the source is tagged or suggested
    source: str = "given"  # key of `SOURCES`
    outcome: str = "all"  # key of `OUTCOMES`
    search: str = ""  # part of the query's name
    order: str = "name"  # key of `ORDERS`
    descending: bool = False
    query: str = ""  # name of the query shown; "" for the first one
    num_shown: int = 5  # photos of each model
    positives: bool = False  # whether the query's positives are shown
    regions: int = 0  # rank of the photo whose regions are shown; 0 for none
    matches: int = 0  # rank of the photo whose matches with the query are drawn; 0 for none
    picked: str = ""  # file names of the queries picked on the embedding map, one a line; "" for all
    hide_labels: bool = False  # whether outcome, scenario and suggestions are hidden, for tagging without knowing them


def read_view(state: Mapping[str, Any]) -> View:
    """Restore a view from its fields as a dictionary; missing keys have their defaults.

    Raises:
        ValueError: a key or value is not valid.
    """
    choices = {"source": SOURCES, "outcome": OUTCOMES, "order": ORDERS, "num_shown": NUM_SHOWN}
    choices |= {"scenario": ["", *SCENARIOS], "regions": [0, *PAIR_RANKS], "matches": [0, *PAIR_RANKS]}
    for key, value in state.items():
        check_choice("key of a view", key, asdict(View()))
        if type(value) is not type(getattr(View, key)):
            raise ValueError(f"{key} = {value!r} in a view; expected something like {getattr(View, key)!r}")
        if key in choices:
            check_choice(key, value, choices[key])
    return View(**state)


class Prediction(NamedTuple):
    """One of a model's predictions for a query."""

    rank: int  # from 1
    photo: int  # database row
    right: bool
    distance_m: float  # ground distance to the query
    similarity: float  # cosine similarity of the descriptors
    inliers: int  # matches with the query that geometry confirms; -1 if they were not computed


@dataclass(frozen=True)
class SelectionSummary:
    """Counts and recall of a selection of queries."""

    num_queries: int
    num_without_positive: int
    recall: dict[str, dict[int, float]]  # {model: {k: percent}}; empty if the selection is empty
    intervals: dict[str, tuple[float, float]]  # {model: 95% interval of R@1, percent}


class Browser:
    """The queries of a split with what is known about each.

    A ValueError is raised if a model was evaluated on other queries, or its inliers are of other predictions.
    """

    def __init__(
        self,
        database: ImageTable,
        queries: ImageTable,
        evaluations: Mapping[str, Evaluation],  # one or two models, called a and b
        labels: Mapping[str, Label],  # known scenarios, from `read_labels`
        tags: Tags,
        radius_m: float = 25.0,  # photos within it are right
        inliers: Mapping[str, np.ndarray] | None = None,  # {model: (Q, K) int64}, from `read_inliers`
    ) -> None:
        per_model = list(evaluations.values())
        self.split = per_model[0].split
        for model, evaluation in evaluations.items():
            if evaluation.split != self.split or not np.array_equal(evaluation.query_utm, queries.utm):
                text = f"{model} was evaluated on other queries, of {evaluation.split}"
                raise ValueError(f"{text}; expected {len(queries)} of {self.split}, evaluate it on them")
        self.database = database
        self.queries = queries
        self.evaluations = dict(evaluations)
        self.tags = tags
        self.radius_m = radius_m
        self.models = list(evaluations)
        self.inliers = _fill_inliers(evaluations, inliers or {})
        self.positives = per_model[0].positives  # Q sorted arrays of database rows
        self.without_positive = np.array([len(rows) == 0 for rows in self.positives], dtype=bool)
        self.known = label_scenarios(queries.names, labels)  # (Q,) str, "" where unknown
        lights = label_lights(queries.names, labels)
        in_names = np.array([find_light(name) for name in queries.names.tolist()], dtype=str)
        self.lights = np.where(lights == "", in_names, lights)  # (Q,) str, "" where unknown
        self.suggestions: dict[int, Sequence[Suggestion]] = {}  # {row: suggestions} of the queries processed so far
        # (M, Q): rank (from 0) of the first right photo, K if there is none; then for the first photo its distance to
        # the query, its cosine similarity, how far that exceeds the first photo of another place, and its inliers, NaN
        # if unknown. The spread is of the first ten photos.
        self.ranks = np.stack([first_hits(each.indices, each.positives) for each in per_model])
        self.errors_m = np.stack([_measure_errors(database, queries.utm, each.indices[:, 0]) for each in per_model])
        self.similarities = np.stack([to_similarity(each.distances)[:, 0] for each in per_model])
        self.margins = np.stack([_measure_margins(database, each) for each in per_model])
        first_inliers = np.stack([self.inliers[model][:, 0] for model in self.models])
        self.first_inliers = np.where(first_inliers >= 0, first_inliers, np.nan)
        confidences = [spread_confidence(each.distances, database.utm[each.indices]) for each in per_model]
        self.spreads_m = np.round(-np.stack(confidences), 2)  # less than a centimeter is noise
        self._search_names = np.char.lower(tags.names)
        self._cells = group_cells(queries.utm)

    def __len__(self) -> int:
        return len(self.queries)

    def list_choices(self, titles: Mapping[str, str]) -> dict[str, str]:
        """{key: title} of `OUTCOMES` or `ORDERS` with the models' names.

        Those of b are left out if there is one model only, and the inliers if those of no photo are known.
        """
        first, last = self.models[0], self.models[-1]
        has_inliers = any((counts >= 0).any() for counts in self.inliers.values())
        return {
            key: title.replace("{a}", first).replace("{b}", last)
            for key, title in titles.items()
            if (len(self.models) == 2 or not ("{b}" in title or title.startswith("both")))
            and (has_inliers or not key.startswith("inliers"))
        }

    def mark_scenario(self, scenario: str, source: str = "given") -> np.ndarray:
        """(Q,) bool, the queries of a scenario according to a source."""
        if source == "suggested":
            rows = [row for row, items in self.suggestions.items() if scenario in {item.scenario for item in items}]
            return np.isin(np.arange(len(self)), rows)
        known, tagged = self.known == scenario, self.tags.mark_queries(scenario)
        return {"given": known | tagged, "known": known, "tagged": tagged}[source]

    def mark_outcome(self, outcome: str) -> np.ndarray:
        """(Q,) bool, the queries with an outcome."""
        check_choice("outcome", outcome, self.list_choices(OUTCOMES))
        a_right, b_right = self.ranks[0] == 0, self.ranks[-1] == 0
        marks = {"all": np.ones(len(self), dtype=bool), "no_positive": self.without_positive}
        marks |= {"a_right": a_right, "a_wrong": ~a_right, "b_right": b_right, "b_wrong": ~b_right}
        marks |= {"a_only": a_right & ~b_right, "b_only": b_right & ~a_right}
        marks |= {"both_right": a_right & b_right, "both_wrong": ~a_right & ~b_right}
        return marks[outcome]

    def select(self, view: View) -> np.ndarray:
        """(n,) int64, rows of the queries that match a view, in its order; ties are in the order of names."""
        check_choice("order", view.order, self.list_choices(ORDERS))
        chosen = self.mark_outcome(view.outcome)
        if view.scenario or view.source in ("tagged", "suggested"):
            wanted = [view.scenario] if view.scenario else SCENARIOS  # no scenario chosen: any
            chosen = chosen & np.any([self.mark_scenario(scenario, view.source) for scenario in wanted], axis=0)
        if view.picked:
            chosen = chosen & np.isin(self.tags.names, view.picked.split("\n"))
        rows = np.flatnonzero(chosen & (np.char.find(self._search_names, view.search.strip().lower()) >= 0))
        if view.order == "name":  # tables are sorted by name
            return rows[::-1] if view.descending else rows
        kind, letter = view.order.split("_")
        values = {"error": self.errors_m, "similarity": self.similarities, "margin": self.margins}
        values |= {"spread": self.spreads_m, "inliers": self.first_inliers}
        keys = values[kind][0 if letter == "a" else -1, rows]
        return rows[np.argsort(-keys if view.descending else keys, kind="stable")]  # NaN comes last

    def shows_recall(self, view: View) -> bool:
        """Whether recall of a view's selection is shown: not if queries are chosen by what models get right."""
        by_mistakes = view.source == "suggested" and view.scenario in FROM_MISTAKES
        return view.outcome == "all" and not by_mistakes and not view.hide_labels

    def find_query(self, name: str) -> int | None:
        """Row of a query by its name, with or without folders; None if there is none."""
        exact = np.flatnonzero(self.queries.names == name).tolist()
        return next(iter(exact or np.flatnonzero(self.tags.names == base_name(name)).tolist()), None)

    def suggest(self, row: int) -> Sequence[Suggestion]:
        """Scenarios suggested for a query from its photo and the first model's predictions; raises as `read_photo`."""
        if row not in self.suggestions:
            first = self.evaluations[self.models[0]]
            self.suggestions[row] = suggest_scenarios(self.database, self.queries, first, [row])[0]
        return self.suggestions[row]

    def suggest_all(self, rows: np.ndarray, report: Callable[[str], None]) -> str:
        """Suggest for several queries and report progress; returns why there is nothing for some, or ""."""
        failure = ""
        for i, row in enumerate(rows):
            if i % 50 == 0:
                report(f"Suggestions for {i:,} of {len(rows):,} queries ...")
            try:
                self.suggest(int(row))
            except (OSError, ValueError) as error:
                failure = f"No suggestions for some queries: {error}"
        return failure

    def list_predictions(self, model: str, row: int, count: int) -> list[Prediction]:
        """The first predictions of a model for a query; fewer if an approximate search returned fewer."""
        evaluation = self.evaluations[model]
        photos = evaluation.indices[row, :count]
        right = np.isin(photos, evaluation.positives[row])
        distances_m = _measure_errors(self.database, self.queries.utm[row], photos)
        similarities = to_similarity(evaluation.distances[row, :count])
        inliers = self.inliers[model][row, :count]
        columns = (array.tolist() for array in (photos, right, distances_m, similarities, inliers))
        predictions = [Prediction(i, *values) for i, values in enumerate(zip(*columns, strict=True), start=1)]
        return [prediction for prediction in predictions if prediction.photo >= 0]

    def summarize(self, rows: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> SelectionSummary:
        """Count the queries of a selection (n,) and compute their recall at those ks for which predictions exist."""
        summary = SelectionSummary(len(rows), int(self.without_positive[rows].sum()), {}, {})
        for model, ranks in zip(self.models, self.ranks, strict=True):
            if len(rows):
                valid_ks = [k for k in ks if k <= self.evaluations[model].indices.shape[1]]
                summary.recall[model] = {k: float(100 * np.mean(ranks[rows] < k)) for k in valid_ks}
                summary.intervals[model] = bootstrap_interval(ranks[rows] == 0, self._cells[rows])
        return summary

    def recall_by_scenario(self, source: str = "given") -> dict[str, dict[str, LabelRecall]]:
        """{model: {scenario: R@1 of its queries}} for each scenario that has queries; a query may have several.

        Scenarios that are suggested because of a wrong answer are left out: their recall is low by definition.
        """
        recalls: dict[str, dict[str, LabelRecall]] = {model: {} for model in self.models}
        left_out = FROM_MISTAKES if source == "suggested" else ()
        for scenario in (each for each in SCENARIOS if each not in left_out):
            summary = self.summarize(np.flatnonzero(self.mark_scenario(scenario, source)), (1,))
            for model, recall in summary.recall.items():
                recalls[model][scenario] = LabelRecall(summary.num_queries, recall[1], summary.intervals[model])
        return recalls


def _fill_inliers(evaluations: Mapping[str, Evaluation], inliers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{model: (Q, K) int64} for all models; -1 where inliers are unknown."""
    filled = {model: np.full_like(evaluation.indices, -1) for model, evaluation in evaluations.items()}
    for model, counts in inliers.items():
        check_choice("model with inliers", model, filled)
        if counts.shape != filled[model].shape:
            text = f"{model} has inliers of shape {counts.shape} and predictions of shape {filled[model].shape}"
            raise ValueError(f"{text}; expected the same, with -1 for unknown inliers")
        filled[model] = counts
    return filled


def _measure_errors(database: ImageTable, query_utm: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """(n,) float64, meters from a query, or each of n, to n database rows; infinite where a row is -1."""
    return np.where(photos >= 0, np.linalg.norm(database.utm[photos] - query_utm, axis=1), np.inf)


def _measure_margins(database: ImageTable, evaluation: Evaluation) -> np.ndarray:
    """(Q,) float64, see `Browser.margins`; NaN where all predictions show one place."""
    utm = database.utm[evaluation.indices]  # (Q, K, 2)
    elsewhere = (np.linalg.norm(utm - utm[:, :1], axis=2) > MARGIN_RADIUS_M) & (evaluation.indices >= 0)
    similarities = to_similarity(evaluation.distances)
    second_place = similarities[np.arange(len(elsewhere)), elsewhere.argmax(1)]
    return np.where(elsewhere.any(1), similarities[:, 0] - second_place, np.nan)
