"""Figures of queries with the first prediction of each model."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, Example, choose_examples, read_example
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.photo_grids import draw_examples
from vpr_lib.gallery.browser import Browser


def draw_queries(browser: Browser, rows: Sequence[int]) -> Figure:
    """Draw queries, two in a row, numbered in their order.

    Raises:
        ValueError: there is no query, or a photo is not readable.
    """
    if not len(rows):
        raise ValueError("the selection is empty; choose another scenario, outcome or name")
    examples = _read_examples(browser, rows)
    pairs = {}
    for i in range(0, len(examples), 2):
        pair = examples[i : i + 2]
        pairs[", ".join(str(i + j + 1) for j in range(len(pair)))] = pair
    return draw_examples(pairs)


def draw_scenarios(browser: Browser) -> Figure:
    """Draw Fig. 5: two queries of each known scenario and two fail cases, from `examples.choose_examples`.

    Raises:
        ValueError: no scenario is known, or a photo is not readable.
    """
    labels = [str(label) for label in np.where(browser.without_positive, "", browser.known)]
    if not any(labels):
        raise ValueError("no scenario is known: the data root has no scenarios.csv with names of these queries")
    chosen = choose_examples(list(browser.queries.names), labels, (browser.ranks == 0).T)
    labels_in_order = [label for label in (*SCENARIOS, FAIL_CASES) if label in chosen]
    return draw_examples({SCENARIOS.get(s, s): _read_examples(browser, chosen[s]) for s in labels_in_order})


def _read_examples(browser: Browser, rows: Sequence[int]) -> list[Example]:
    return [read_example(int(row), browser.database, browser.queries, browser.evaluations) for row in rows]
