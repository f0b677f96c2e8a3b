"""Results -> tables of text: rows of cells, the first row is the head."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.analysis.suggestions import SuggestionScore
from vpr_lib.evaluation import Comparison
from vpr_lib.statistics import LabelRecall

TABLE_KS = (1, 5, 10, 25)
ALPHA = 0.05  # significance level of the paired test

Rows = list[list[str]]


def comparison_rows(comparisons: Mapping[str, Mapping[str, Comparison]]) -> Rows:
    """A row for each model of {split: {model: comparison}}, with recalls, interval and paired test for each split."""
    rows = [["R@k in percent"], *([name] for name in next(iter(comparisons.values())))]
    for split, by_name in comparisons.items():
        ks = [k for k in TABLE_KS if k in next(iter(by_name.values())).recall]
        rows[0] += [f"{split} R@" + " / ".join(map(str, ks)), "R@1, 95% interval", "p (row above)"]
        for row, comparison in zip(rows[1:], by_name.values(), strict=True):
            low, high = comparison.interval
            p_value = "" if comparison.p_value is None else f"{comparison.p_value:.2g}"
            row += [join_recalls(comparison.recall, ks), f"{low:.1f} to {high:.1f}", p_value]
    return rows


def label_rows(recalls: Mapping[str, Mapping[str, LabelRecall]], titles: Mapping[str, str]) -> Rows:
    """A row for each kind of query, with the R@1 of each run.

    Args:
        recalls: {run: {label: recall}}, see `recall_by_label`.
        titles: {label: title}, in the order of the rows; labels without queries are left out.
    """
    rows = [["R@1 in percent (95% interval)", "queries", *recalls]]
    for label, title in titles.items():
        by_run = [by_label[label] for by_label in recalls.values() if label in by_label]
        if len(by_run) == len(recalls):
            cells = [f"{run.recall:.1f} ({run.interval[0]:.1f} to {run.interval[1]:.1f})" for run in by_run]
            rows.append([title, str(by_run[0].num_queries), *cells])
    return rows


def suggestion_rows(scores: Mapping[str, SuggestionScore]) -> Rows:
    """A row for each scenario: how often it was suggested, and how often rightly; a dash where that is undefined."""
    rows = [["scenario", "queries", "suggested", "of these right, %", "of the queries found, %"]]
    for scenario, score in scores.items():
        shares = ["-" if math.isnan(share) else f"{share:.0f}" for share in (score.precision, score.recall)]
        rows.append([SCENARIOS[scenario], str(score.num_true), str(score.num_suggested), *shares])
    return rows


def list_differences(comparisons: Mapping[str, Comparison], split: str) -> list[str]:
    """A sentence for each model and the one before it: their difference in R@1, and whether it is significant."""
    sentences = []
    for (before, first), (name, second) in pairwise(comparisons.items()):
        points = second.recall[1] - first.recall[1]
        verdict = f"p = {second.p_value:.2g}, {'significant' if second.p_value < ALPHA else 'not significant'}"
        sentences.append(f"{name} against {before}: {points:+.1f} points of R@1 on {split}, {verdict}.")
    return sentences


def join_recalls(recall: Mapping[int, float], ks: Iterable[int]) -> str:
    """Recalls as in "78.83 / 89.77 / 93.06"; a dash where a k is missing."""
    return " / ".join(f"{recall[k]:.2f}" if k in recall else "-" for k in ks)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned as plain text, too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
