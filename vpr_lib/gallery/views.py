"""The state of a gallery: which queries are selected, in which order, and what is shown of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.options import check_choice

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
    "error_b": "distance error, {b}",
    "similarity_b": "similarity, {b}",
    "margin_b": "margin, {b}",
}
NUM_SHOWN = (3, 5, 10, 25)  # choices for the photos of each model
REGION_RANKS = range(1, 11)  # choices for the photo whose regions are shown


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


def read_view(state: Mapping[str, Any]) -> View:
    """Restore a view from its fields as a dictionary; missing keys have their defaults.

    Raises:
        ValueError: a key or value is not valid.
    """
    choices = {"source": SOURCES, "outcome": OUTCOMES, "order": ORDERS, "num_shown": NUM_SHOWN}
    choices |= {"scenario": ["", *SCENARIOS], "regions": [0, *REGION_RANKS]}
    for key, value in state.items():
        check_choice("key of a view", key, asdict(View()))
        if type(value) is not type(getattr(View, key)):
            raise ValueError(f"{key} = {value!r} in a view; expected something like {getattr(View, key)!r}")
        if key in choices:
            check_choice(key, value, choices[key])
    return View(**state)
