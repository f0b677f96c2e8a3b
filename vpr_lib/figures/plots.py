"""Results -> matplotlib figures; nothing is computed here.

Figures are made without pyplot, so nothing global changes: a notebook shows them as a cell's last value.
Colours are those of Okabe and Ito, which colour-blind readers tell apart; a marker, hatch or sign always says it too.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vpr_lib.atomic_files import write_atomically

WIDTH_IN = 8.0
DPI = 150
GREEN, RED, GREY = "#009E73", "#D55E00", "#777777"
COLORS = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
# The four keep their style in every figure.
STYLES = {"AVG": 0, "GeM": 1, "ConvAP": 2, "MixVPR": 3}

Recalls = Mapping[str, Mapping[int, float]]  # label -> {k: percent}


def plot_recalls(recalls: Mapping[str, Recalls], published: Mapping[str, Recalls] | None = None) -> Figure:
    """Recall against k, a panel for each split.

    Args:
        recalls: {split: {label: {k: percent}}}.
        published: the same, drawn thin and dashed in the colour of their label.
    """
    figure = Figure((WIDTH_IN, 3.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(recalls), sharey=True, squeeze=False)[0]
    for axes, (split, by_label) in zip(panels, recalls.items(), strict=True):
        for label, recall in ((published or {}).get(split, {})).items():
            style = style_of(label, list(by_label))
            axes.plot(list(recall), list(recall.values()), "--", color=style["color"], linewidth=1)
        for label, recall in by_label.items():
            axes.plot(list(recall), list(recall.values()), label=plain(label), **style_of(label, list(by_label)))
        axes.set_xticks(sorted({k for recall in by_label.values() for k in recall}))
        axes.set_xlabel("k, photos retrieved")
        axes.set_title(plain(split))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("recall@k, percent")
    if published:
        panels[-1].plot([], [], "--", color=GREY, linewidth=1, label="published")
    handles, names = panels[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def plot_grids(grids: Mapping[str, Mapping[tuple[float, float], Mapping[int, float]]]) -> Figure:
    """Heat maps of recall over learning rate and weight decay, side by side, each on a colour scale of its own.

    Args:
        grids: {title: {(learning rate, weight decay): {k: percent}}}; colour is R@1.
    """
    figure = Figure((WIDTH_IN, 3.2), dpi=DPI, layout="constrained")
    for axes, (title, cells) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
        rates, decays = (sorted({key[i] for key in cells}, reverse=True) for i in (0, 1))
        values = np.array([[cells[rate, decay][1] for rate in rates] for decay in decays])
        span = max(0.1, np.ptp(values) / 2)  # equal cells get a scale, too
        middle = (values.min() + values.max()) / 2
        image = axes.imshow(values, cmap="cividis", vmin=middle - span, vmax=middle + span)
        for (y, x), value in np.ndenumerate(values):
            lines = [f"R@{k} {percent:.2f}" for k, percent in cells[rates[x], decays[y]].items()]
            color = "white" if value < middle else "black"
            axes.text(x, y, "\n".join(lines), ha="center", va="center", color=color, fontsize=9)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("weight decay")
        axes.set_title(plain(title))
        figure.colorbar(image, ax=axes, label="R@1, percent", shrink=0.85)
    return figure


def plot_losses(
    losses: Mapping[str, Sequence[float]], published: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """Mean training loss of each epoch, counted from 1.

    Args:
        losses: {label: loss of each epoch}.
        published: the same, drawn thin and dashed in the colour of their label.
    """
    figure = Figure((WIDTH_IN, 3.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for label, loss in (published or {}).items():
        style = style_of(label, list(losses))
        axes.plot(range(1, len(loss) + 1), loss, "--", color=style["color"], linewidth=1, label=f"{label}, published")
    for label, loss in losses.items():
        axes.plot(range(1, len(loss) + 1), loss, label=plain(label), **style_of(label, list(losses)))
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_schedules(
    rates: Mapping[str, np.ndarray], recalls: Mapping[str, Sequence[float]], steps_per_epoch: int, split: str
) -> Figure:
    """The learning rate of each optimizer step, and the validation recall after each epoch.

    Args:
        rates: {label: (steps,) learning rates}.
        recalls: {label: R@1 of each epoch, percent}.
        steps_per_epoch: where the epochs lie among the steps.
        split: of the recalls.
    """
    figure = Figure((WIDTH_IN, 3.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (label, rate) in enumerate(rates.items()):
        style = style_of(label, list(rates))
        style["linestyle"] = ("-", "--", ":")[number % 3]  # lines may lie on one another
        right.plot(range(1, len(recalls[label]) + 1), recalls[label], label=label, **style)
        steps = np.arange(1, len(rate) + 1) / steps_per_epoch
        left.plot(steps, rate, drawstyle="steps-pre", label=label, **style | {"marker": ""})
    left.set_xlabel("epochs, from optimizer steps")
    left.set_ylabel("learning rate")
    left.set_ylim(bottom=0)
    right.set_xlabel("epoch")
    right.set_ylabel(f"{plain(split)} R@1, percent")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure


def plot_bars(found: Mapping[str, Mapping[str, Mapping[str, Any]]], titles: Mapping[str, str], split: str) -> Figure:
    """R@1 of each kind of query as bars, a bar for each run, with 95% intervals.

    Args:
        found: {run: {label: {"queries": n, "recall": percent, "interval": (low, high)}}} of recall.recall_by_label.
        titles: {label: title}, in order; labels without queries are left out.
        split: of the queries.
    """
    labels = [label for label in titles if all(label in by_label for by_label in found.values())]
    figure = Figure((WIDTH_IN, 3.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(found)
    for number, (name, by_label) in enumerate(found.items()):
        recalls = np.array([by_label[label]["recall"] for label in labels])
        ends = np.array([by_label[label]["interval"] for label in labels]).reshape(-1, 2)
        x = np.arange(len(labels)) + (number - (len(found) - 1) / 2) * width
        style = STYLES.get(name, number) % len(COLORS)
        look = {"color": COLORS[style], "hatch": HATCHES[style], "edgecolor": "white", "linewidth": 0}
        axes.bar(x, recalls, width, label=plain(name), **look)
        errors = np.abs([recalls - ends[:, 0], ends[:, 1] - recalls])
        axes.errorbar(x, recalls, errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    queries = next(iter(found.values()))
    names = [f"{textwrap.fill(plain(titles[label]), 12)}\nn = {queries[label]['queries']}" for label in labels]
    axes.set_xticks(range(len(labels)), names)
    axes.set_ylim(0, 102)
    axes.set_ylabel(f"{plain(split)} R@1, percent")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=len(found))
    return figure


def plot_intervals(results: Mapping[str, Mapping[str, Mapping[str, Any]]], splits: Sequence[str]) -> Figure:
    """R@1 of each run as a dot on its 95% interval, a panel for each split.

    Args:
        results: {run: {split: {"recall": {k: percent}, "interval": (low, high)}}} of runs.compare_evaluations.
        splits: panels, in order.
    """
    figure = Figure((WIDTH_IN, 0.9 + 0.33 * len(results)), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        for row, by_split in enumerate(results.values()):
            low, high = by_split[split]["interval"]
            axes.plot([low, high], [row, row], color=GREY, linewidth=3, solid_capstyle="butt")
            axes.plot(by_split[split]["recall"][1], row, "o", color=COLORS[0], markersize=7)
        axes.set_title(plain(split))
        axes.set_xlabel("R@1, percent")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(results)), [plain(name) for name in results])
    panels[0].set_ylim(len(results) - 0.5, -0.5)  # the first run on top
    return figure


def style_of(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """Colour and marker: an aggregator's own, else by the label's place among the labels."""
    number = STYLES.get(label, labels.index(label) if label in labels else len(labels)) % len(COLORS)
    return {"color": COLORS[number], "marker": MARKERS[number], "markersize": 5, "linewidth": 2}


def plain(text: str) -> str:
    """A name as it is: matplotlib takes a dollar sign for the start of a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, or as JPEG by the path's suffix, whole or not at all; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:])
    write_atomically(path, buffer.getvalue())
    return path
