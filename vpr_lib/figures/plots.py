"""Results -> matplotlib figures.

Figures are made without pyplot, so no global state changes; a notebook displays a figure that is a cell's last value.
Colors are those of Okabe and Ito, which color-blind readers can tell apart; a marker, hatch or sign repeats the color.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vpr_lib.analysis.confidence import Bin
from vpr_lib.atomic_files import write_atomically
from vpr_lib.evaluation import Comparison
from vpr_lib.statistics import LabelRecall

if TYPE_CHECKING:
    from vpr_lib.analysis.reranking import TradeOff

JPEG_DPI = 110
GREEN = "#009E73"
RED = "#D55E00"
GRAY = "#777777"
# Of models and settings; green and red are left to right and wrong.
COLORS = ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
_STYLES = {"AVG": 0, "GeM": 1, "ConvAP": 2, "MixVPR": 3}  # the same style in every figure

Recalls = Mapping[str, Mapping[int, float]]  # {label: {k: percent}}
History = Sequence[Mapping[str, float]]  # a row for each epoch


def make_figure(height_in: float, width_in: float = 8.0) -> Figure:
    """An empty figure, 150 dots per inch."""
    return Figure((width_in, height_in), dpi=150, layout="constrained")


def plot_recalls(recalls: Mapping[str, Recalls], published: Mapping[str, Recalls] | None = None) -> Figure:
    """Recall against k, a panel for each split of {split: {label: {k: percent}}}.

    Published curves are drawn thin and dashed in the color of their label.
    """
    figure = make_figure(3.4)
    panels = figure.subplots(1, len(recalls), sharey=True, squeeze=False)[0]
    for axes, (split, by_label) in zip(panels, recalls.items(), strict=True):
        for label, recall in ((published or {}).get(split, {})).items():
            color = style_of(label, list(by_label))["color"]
            axes.plot(list(recall), list(recall.values()), "--", color=color, linewidth=1)
        for label, recall in by_label.items():
            style = style_of(label, list(by_label))
            axes.plot(list(recall), list(recall.values()), label=escape_math(label), **style)
        axes.grid(alpha=0.3)
        ks = sorted({k for recall in by_label.values() for k in recall})
        axes.set(xticks=ks, xlabel="k, photos retrieved", title=escape_math(split))
    panels[0].set_ylabel("recall@k, percent")
    if published:
        panels[-1].plot([], [], "--", color=GRAY, linewidth=1, label="published")
    handles, names = panels[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def plot_grids(grids: Mapping[str, Mapping[tuple[float, float], Mapping[int, float]]]) -> Figure:
    """Heat maps of {title: {(learning rate, weight decay): {k: percent}}}, each with its own color scale for R@1."""
    figure = make_figure(3.2)
    for axes, (title, cells) in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids.items(), strict=True):
        rates, decays = (sorted(set(values), reverse=True) for values in zip(*cells, strict=True))
        values = np.array([[cells[rate, decay][1] for rate in rates] for decay in decays])
        span = max(0.1, np.ptp(values) / 2)  # equal values need a scale, too
        middle = (values.min() + values.max()) / 2
        image = axes.imshow(values, cmap="cividis", vmin=middle - span, vmax=middle + span)
        for (row, column), value in np.ndenumerate(values):
            recall = cells[rates[column], decays[row]]
            text = "\n".join(f"R@{k} {percent:.2f}" for k, percent in recall.items())
            color = "white" if value < middle else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
        axes.set(xlabel="learning rate", ylabel="weight decay", title=escape_math(title))
        figure.colorbar(image, ax=axes, label="R@1, percent", shrink=0.85)
    return figure


def plot_losses(
    losses: Mapping[str, Sequence[float]], published: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """{label: mean training loss of each epoch}; published curves are drawn thin and dashed, as in `plot_recalls`."""
    figure = make_figure(3.4)
    axes = figure.subplots()
    for label, loss in (published or {}).items():
        color = style_of(label, list(losses))["color"]
        axes.plot(range(1, len(loss) + 1), loss, "--", color=color, linewidth=1, label=f"{label}, published")
    for label, loss in losses.items():
        axes.plot(range(1, len(loss) + 1), loss, label=escape_math(label), **style_of(label, list(losses)))
    _label_epochs(axes, "training loss")
    axes.legend()
    return figure


def plot_epochs(histories: Mapping[str, Sequence[History]], columns: Mapping[str, str]) -> Figure:
    """Columns of histories against the epoch, a panel for each of {column: title}: mean and range over a label's runs.

    Args:
        histories: {label: one history for each run, for example of each seed}.
        columns: of `history.csv`.
    """
    figure = make_figure(3.0)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, (column, title) in zip(panels, columns.items(), strict=True):
        for label, runs in histories.items():
            values = np.array([[row[column] for row in history] for history in runs])
            style = style_of(label, list(histories))
            epochs = range(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), label=escape_math(label), **style)
            axes.fill_between(epochs, values.min(0), values.max(0), color=style["color"], alpha=0.2, linewidth=0)
        _label_epochs(axes, title)
    panels[0].legend(fontsize=8)
    return figure


def plot_schedules(
    rates: Mapping[str, np.ndarray], recalls: Mapping[str, Sequence[float]], steps_per_epoch: int, split: str
) -> Figure:
    """{label: (steps,) learning rate of each optimizer step} beside {label: R@1 on the split after each epoch}."""
    figure = make_figure(3.4)
    left, right = figure.subplots(1, 2)
    for number, (label, rate) in enumerate(rates.items()):
        # Equal curves cover each other.
        style = style_of(label, list(rates)) | {"label": label, "linestyle": ("-", "--", ":")[number % 3]}
        right.plot(range(1, len(recalls[label]) + 1), recalls[label], **style)
        epochs = np.arange(1, len(rate) + 1) / steps_per_epoch
        left.plot(epochs, rate, drawstyle="steps-pre", **style | {"marker": ""})
    left.set(xlabel="epochs, from optimizer steps", ylabel="learning rate")
    left.set_ylim(bottom=0)
    left.legend(fontsize=8)
    left.grid(alpha=0.3)
    _label_epochs(right, f"{escape_math(split)} R@1, percent")
    return figure


def plot_bars(recalls: Mapping[str, Mapping[str, LabelRecall]], titles: Mapping[str, str], split: str) -> Figure:
    """R@1 of each kind of query as bars, a bar for each run, with 95% intervals.

    Args:
        recalls: {run: {label: recall}}, see `recall_by_label`.
        titles: {label: title}, in order; labels without queries are left out.
        split: name of the split.
    """
    labels = [label for label in titles if all(label in by_label for by_label in recalls.values())]
    figure = make_figure(3.6)
    axes = figure.subplots()
    width = 0.8 / len(recalls)
    for number, (name, by_label) in enumerate(recalls.items()):
        heights = np.array([by_label[label].recall for label in labels])
        low, high = np.reshape([by_label[label].interval for label in labels], (-1, 2)).T
        x = np.arange(len(labels)) + (number - (len(recalls) - 1) / 2) * width
        style = style_of(name, list(recalls))
        color, hatch = style["color"], HATCHES[_MARKERS.index(style["marker"])]
        axes.bar(x, heights, width, label=escape_math(name), color=color, hatch=hatch, ec="white", lw=0)
        errors = np.abs([heights - low, high - heights])
        axes.errorbar(x, heights, errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    first = next(iter(recalls.values()))
    names = [f"{textwrap.fill(escape_math(titles[label]), 12)}\nn = {first[label].num_queries}" for label in labels]
    axes.set_xticks(range(len(labels)), names)
    axes.set(ylim=(0, 102), ylabel=f"{escape_math(split)} R@1, percent", axisbelow=True)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(recalls))
    return figure


def plot_intervals(comparisons: Mapping[str, Mapping[str, Comparison]]) -> Figure:
    """R@1 of each run as a dot on its 95% interval, a panel for each split of {split: {run: comparison}}."""
    names = list(next(iter(comparisons.values())))
    figure = make_figure(0.9 + 0.33 * len(names))
    panels = figure.subplots(1, len(comparisons), sharey=True, squeeze=False)[0]
    for axes, (split, by_name) in zip(panels, comparisons.items(), strict=True):
        for row, comparison in enumerate(by_name.values()):
            axes.plot(comparison.interval, [row, row], color=GRAY, linewidth=3, solid_capstyle="butt")
            axes.plot(comparison.recall[1], row, "o", color=COLORS[0], markersize=7)
        axes.set(title=escape_math(split), xlabel="R@1, percent")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), map(escape_math, names))
    panels[0].set_ylim(len(names) - 0.5, -0.5)  # the first run at the top
    return figure


def plot_precision_recall(curves: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Precision against recall, a panel for each split of {split: {label: (precision, recall)}}, both in [0, 1]."""
    figure = make_figure(3.4)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (split, by_label) in zip(panels, curves.items(), strict=True):
        for number, (label, (precision, recall)) in enumerate(by_label.items()):
            style = style_of(label, list(by_label)) | {"marker": "", "linestyle": ("-", "--", ":", "-.")[number % 4]}
            axes.plot(100 * recall, 100 * precision, drawstyle="steps-post", label=escape_math(label), **style)
        axes.set(xlabel="right answers given, percent", title=escape_math(split))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("answers that are right, percent")
    handles, names = panels[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def plot_reliability(bins: Mapping[str, Sequence[Bin]]) -> Figure:
    """Share of right predictions against their probability, a panel for each of {title: bins}; areas show numbers."""
    figure = make_figure(3.4)
    panels = figure.subplots(1, len(bins), sharey=True, squeeze=False)[0]
    for axes, (title, in_bins) in zip(panels, bins.items(), strict=True):
        axes.plot([0, 100], [0, 100], "--", color=GRAY, linewidth=1)
        numbers, probabilities, shares = np.transpose(in_bins)
        axes.plot(100 * probabilities, 100 * shares, color=COLORS[0], linewidth=1)
        axes.scatter(100 * probabilities, 100 * shares, 600 * numbers / numbers.sum(), color=COLORS[0], alpha=0.7)
        axes.set(xlabel="predicted probability, percent", title=escape_math(title), xlim=(-4, 104), ylim=(-4, 104))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("right, percent")
    return figure


def plot_trade_off(curves: Mapping[str, Mapping[str, "TradeOff"]], chosen: Mapping[str, float]) -> Figure:
    """R@1 against verified queries, a panel for each split of {split: {label: curve}}.

    A marker shows the threshold of each label in `chosen`.
    """
    figure = make_figure(3.4)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (split, by_label) in zip(panels, curves.items(), strict=True):
        for label, curve in by_label.items():
            style = style_of(label, list(by_label))
            place = np.searchsorted(curve.thresholds, chosen[label])
            axes.plot(curve.verified, curve.recall, color=style["color"], label=escape_math(label))
            axes.plot(curve.verified[place], curve.recall[place], color=style["color"], marker=style["marker"], ms=9)
        axes.set(xlabel="queries verified, percent", title=escape_math(split))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("R@1, percent")
    panels[-1].legend()
    return figure


def style_of(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """Line style: an aggregator's own, else by the label's position among the labels."""
    number = _STYLES.get(label, labels.index(label) if label in labels else len(labels))
    # More labels than colors differ in their markers.
    color, marker = COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]
    return {"color": color, "marker": marker, "markersize": 5, "linewidth": 2}


def escape_math(text: str) -> str:
    """Text for matplotlib, which reads a dollar sign as the start of a formula."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically, as PNG or JPEG by the path's suffix; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    # JPEGs are grids of thumbnails, which have no more detail.
    figure.savefig(buffer, format=path.suffix[1:], dpi="figure" if path.suffix == ".png" else JPEG_DPI)
    write_atomically(path, buffer.getvalue())
    return path


def _label_epochs(axes: Axes, label: str) -> None:
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
