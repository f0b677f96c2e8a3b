"""Figures of queries with the first photo of each model."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, choose_examples, read_example
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.photo_grids import draw_examples
from vpr_lib.gallery.browser import Browser


def draw_queries(browser: Browser, rows: Sequence[int] | np.ndarray) -> Figure:
    """Draw queries with the first photo of each model, two in a row, numbered in their order.

    A ValueError is raised if there are none.
    """
    if not len(rows):
        raise ValueError("the selection is empty; choose another scenario, outcome or name")
    numbers = [str(number + 1) for number in range(len(rows))]
    return _draw_rows(browser, {", ".join(numbers[i : i + 2]): rows[i : i + 2] for i in range(0, len(rows), 2)})


def draw_scenarios(browser: Browser) -> Figure:
    """Draw Fig. 5: two queries of each known scenario and two fail cases with the first photo of each model.

    A ValueError is raised if no scenario is known.
    """
    labels = np.where(browser.without_positive, "", browser.known).tolist()
    if not any(labels):
        raise ValueError("no scenario is known: the data root has no scenarios.csv with names of these queries")
    chosen = choose_examples(list(browser.queries.names), labels, (browser.ranks == 0).T)
    titles = {**SCENARIOS, FAIL_CASES: FAIL_CASES}
    return _draw_rows(browser, {title: chosen[label] for label, title in titles.items() if label in chosen})


def _draw_rows(browser: Browser, rows_by_title: Mapping[str, Sequence[int] | np.ndarray]) -> Figure:
    examples = {}
    for title, rows in rows_by_title.items():
        examples[title] = [
            read_example(int(row), browser.database, browser.queries, browser.evaluations) for row in rows
        ]
    return draw_examples(examples)
