"""Results -> tables of text: rows of cells, the first row the head; nothing is computed here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TABLE_KS = (1, 5, 10, 25)
ALPHA = 0.05  # a difference is called one below this p-value

Rows = list[list[str]]
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]  # of runs.compare_runs


def comparison_rows(results: Results, splits: Sequence[str]) -> Rows:
    """A row for each run; recalls, interval and paired test for each split.

    Args:
        results: {run: {split: {"recall": {k: percent}, "interval": (low, high), "p_value": float or None}}};
            interval of R@1, p-value of the paired test against the row above.
        splits: columns, in order.
    """
    rows = [["R@k in percent"]]
    for split in splits:
        recall = next(iter(results.values()))[split]["recall"]
        ks = [k for k in TABLE_KS if k in recall]
        rows[0] += [f"{split} R@" + " / ".join(map(str, ks)), "R@1, 95% interval", "p (row above)"]
    for name, by_split in results.items():
        row = [name]
        for split in splits:
            result = by_split[split]
            row.append(join_recalls(result["recall"], [k for k in TABLE_KS if k in result["recall"]]))
            row.append("{:.1f} to {:.1f}".format(*result["interval"]))
            row.append("" if result["p_value"] is None else f"{result['p_value']:.2g}")
        rows.append(row)
    return rows


def comparison_table(results: Results, splits: Sequence[str]) -> str:
    """`comparison_rows` as a Markdown table."""
    return format_markdown(comparison_rows(results, splits))


def label_rows(found: Mapping[str, Mapping[str, Mapping[str, Any]]], titles: Mapping[str, str]) -> Rows:
    """R@1 of each kind of query.

    Args:
        found: {run: {label: {"queries": n, "recall": percent, "interval": (low, high)}}} of recall.recall_by_label.
        titles: {label: title}, in the order of the rows; labels without queries are left out.
    """
    rows = [["R@1 in percent (95% interval)", "queries", *found]]
    for label, title in titles.items():
        by_run = [found[name].get(label) for name in found]
        if all(by_run):
            cells = ["{:.1f} ({:.1f} to {:.1f})".format(r["recall"], *r["interval"]) for r in by_run]
            rows.append([title, str(by_run[0]["queries"]), *cells])
    return rows


def describe_differences(results: Results, split: str) -> list[str]:
    """A sentence for each run and the one before it: by how much their R@1 differ, and whether that is a difference."""
    sentences = []
    for (before, first), (name, second) in zip(list(results.items())[:-1], list(results.items())[1:], strict=True):
        p = second[split]["p_value"]
        points = second[split]["recall"][1] - first[split]["recall"][1]
        verdict = "a difference" if p < ALPHA else "no difference one can claim"
        sentences.append(f"{name} against {before}: {points:+.1f} points of R@1, p = {p:.2g}, {verdict}.")
    return sentences


def join_recalls(recall: Mapping[int, float], ks: Iterable[int]) -> str:
    """ "78.83 / 89.77 / 93.06"; a dash where a k isn't there."""
    return " / ".join(f"{recall[k]:.2f}" if k in recall else "-" for k in ks)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as plain text too; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
