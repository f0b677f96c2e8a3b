"""TODO-DOC figures.photo_grids."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import Example
from vpr_lib.figures.plots import DPI, GREEN, GREY, RED, WIDTH_IN, plain


def show_examples(rows: Mapping[str, Sequence[Example]]) -> Figure:
    """Fig. 5: a row for each kind of query, two queries side by side, each with every model's first photo.

    Args:
        rows: {title: one or two examples}, all of them with the same models.
    """
    models = list(next(iter(rows.values()))[0].matches)
    columns = 1 + len(models)
    figure = Figure((WIDTH_IN, 1.35 * len(rows) + 0.4), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.03, wspace=0, hspace=0)
    # A narrow empty column between the two queries of a row.
    ratios = [1.0] * columns + [0.04] + [1.0] * columns
    grid = figure.subplots(len(rows), 2 * columns + 1, squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.axis("off")
    for cells, (title, examples) in zip(grid, rows.items(), strict=True):
        for example, row in zip(examples, (cells[:columns], cells[columns + 1 :]), strict=False):
            show_photo(row[0], example.photo, GREY, "")
            for axes, match in zip(row[1:], example.matches.values(), strict=True):
                sign, color = ("✓", GREEN) if match.right else ("✗", RED)
                show_photo(axes, match.photo, color, f"{sign} {format_distance(match.distance_m)}")
        cells[0].set_ylabel(textwrap.fill(plain(title), 12), rotation=0, ha="right", va="center", fontsize=9)
    for start in (0, columns + 1):
        for axes, name in zip(
            grid[0, start:], ["query", *(f"{model}'s\nfirst photo" for model in models)], strict=False
        ):
            axes.set_title(plain(name), fontsize=9)
    return figure


def show_photo(axes: Axes, photo: np.ndarray, color: str, text: str) -> None:
    """A photo (H, W, 3) in a frame of a colour, with a line below it."""
    axes.axis("on")
    axes.imshow(photo)
    axes.set_anchor("N")  # wide and tall photos of a row begin at one height
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=3)
    axes.set_xlabel(text, color=color, fontsize=9, fontweight="bold", labelpad=2)


def format_distance(distance_m: float) -> str:
    """Metres below a kilometre, else kilometres."""
    return f"{distance_m:.0f} m" if distance_m < 1000 else f"{distance_m / 1000:.1f} km"
