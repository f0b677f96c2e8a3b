"""Queries of the gallery -> figures, each query beside the models' first photos."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, Example, choose_examples, read_example
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.photo_grids import show_examples
from vpr_lib.gallery.browser import Browser


def draw_queries(browser: Browser, rows: Sequence[int]) -> Figure:
    """A figure of some queries, two in a row, numbered as they come.

    Raises:
        ValueError: there is no query, or a photo can't be read.
    """
    if not len(rows):
        raise ValueError("the selection is empty; choose another scenario, outcome or name")
    examples = read_examples(browser, rows)
    pairs = {i: examples[i : i + 2] for i in range(0, len(examples), 2)}
    return show_examples({", ".join(str(i + 1 + j) for j in range(len(pair))): pair for i, pair in pairs.items()})


def draw_scenarios(browser: Browser) -> Figure:
    """Fig. 5: two queries of each known scenario, and fail cases, chosen by `study.choose_examples` and not by eye.

    Raises:
        ValueError: no scenario is known, or a photo can't be read.
    """
    labels = [str(label) for label in np.where(browser.without_positive, "", browser.known)]
    if not any(labels):
        raise ValueError("no scenario is known: the data root has no scenarios.csv that names these queries")
    chosen = choose_examples(list(browser.queries.names), labels, (browser.ranks == 0).T)
    kinds = [kind for kind in (*SCENARIOS, FAIL_CASES) if kind in chosen]
    return show_examples({SCENARIOS.get(kind, kind): read_examples(browser, chosen[kind]) for kind in kinds})


def read_examples(browser: Browser, rows: Sequence[int]) -> list[Example]:
    """Queries with the models' first photos."""
    return [read_example(int(row), browser.database, browser.queries, browser.found) for row in rows]
