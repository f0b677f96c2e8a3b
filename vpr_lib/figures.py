"""Results -> tables and figures; nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

TABLE_KS = (1, 5, 10, 25)


def comparison_table(results: Mapping[str, Mapping[str, Mapping[str, Any]]], splits: Sequence[str]) -> str:
    """The layout of the published comparison as Markdown: a row for each aggregator, recalls for each split.

    Args:
        results: {aggregator: {split: {"recall": {k: percent}, "interval": (low, high), "p_value": float or None}}};
            interval of R@1, p-value of the paired test against the row above.
        splits: columns, in order.

    Returns:
        Lines of a Markdown table.
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
            row.append(" / ".join(f"{result['recall'][k]:.2f}" for k in TABLE_KS if k in result["recall"]))
            row.append("{:.1f} to {:.1f}".format(*result["interval"]))
            row.append("" if result["p_value"] is None else f"{result['p_value']:.2g}")
        rows.append(row)
    return format_markdown(rows)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as plain text too; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
