"""Agreement: how far two people who tagged the same queries independently mean the same by a scenario."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vpr_lib.analysis.scenarios import SCENARIOS, base_name
from vpr_lib.gallery.tags import read_tags


class Agreement(NamedTuple):
    """Counts of queries by who gave them a scenario, and Cohen's kappa of these counts."""

    both: int
    only_first: int
    only_second: int
    neither: int
    kappa: float  # 1: full agreement, 0: as much as by chance; NaN if both gave the scenario to all queries, or to none


def compare_tags(first: str | Path, second: str | Path, queries: Sequence[str] | None = None) -> dict[str, Agreement]:
    """Compare two files of tags, for each scenario separately, since a query may have several.

    Args:
        first, second: CSVs with the columns query and scenario, as the gallery writes them.
        queries: names of the queries that both people looked at, for example the first twenty of a split; None for
            those that both tagged at all. A query that one of them left without a tag is not among these.

    Returns:
        {scenario: agreement} of all scenarios that one of them used.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is not a CSV of tags, or there is no query to compare.

    Source: Cohen, A Coefficient of Agreement for Nominal Scales (Educational and Psychological Measurement, 1960).
    """
    tags = [read_tags(path) for path in (first, second)]
    tagged = [{query for query, _ in each} for each in tags]
    names = sorted(tagged[0] & tagged[1]) if queries is None else [base_name(name) for name in queries]
    if not names:
        raise ValueError(f"no query is tagged in both {first} and {second}; tag the same queries, or pass queries=")
    agreements = {}
    for scenario in SCENARIOS:
        marks = [[(name, scenario) in each for name in names] for each in tags]
        if any(map(any, marks)):
            agreements[scenario] = _count_agreement(*marks)
    return agreements


def list_agreement_rows(
    agreements: dict[str, Agreement], names: tuple[str, str] = ("first", "second")
) -> list[list[str]]:
    """Rows of a table of `compare_tags`, its header first; `names` are those of the two people."""
    rows = [["scenario", "both", f"only {names[0]}", f"only {names[1]}", "neither", "kappa"]]
    for scenario, (*counts, kappa) in agreements.items():
        rows.append([SCENARIOS[scenario], *map(str, counts), "undefined" if math.isnan(kappa) else f"{kappa:.2f}"])
    return rows


def _count_agreement(first: list[bool], second: list[bool]) -> Agreement:
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    (neither, only_second), (only_first, both) = confusion_matrix(first, second, labels=[False, True]).tolist()
    is_constant = len({*first, *second}) == 1  # chance alone explains full agreement: 0 / 0
    kappa = math.nan if is_constant else float(cohen_kappa_score(first, second))
    return Agreement(both, only_first, only_second, neither, kappa)
