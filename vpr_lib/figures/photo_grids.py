"""Photos -> figures that show queries beside the models' predictions."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import Example
from vpr_lib.figures.plots import GRAY, GREEN, RED, escape_math, make_figure


def draw_examples(rows: Mapping[str, Sequence[Example]]) -> Figure:
    """Fig. 5: a row for each kind of query, two queries side by side, each with every model's first photo.

    Args:
        rows: {title: one or two examples}, all of them with the same models.
    """
    models = list(next(iter(rows.values()))[0].matches)
    columns = 1 + len(models)
    figure = make_figure(1.35 * len(rows) + 0.4)
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.03, wspace=0, hspace=0)
    # A narrow empty column separates the two queries of a row.
    ratios = [1.0] * columns + [0.04] + [1.0] * columns
    grid = figure.subplots(len(rows), 2 * columns + 1, squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.axis("off")
    titles = ["query", *(f"{escape_math(model)}'s\nfirst photo" for model in models)]
    for axes, title in zip(grid[0], [*titles, "", *titles], strict=True):
        axes.set_title(title, fontsize=9)
    for cells, (title, examples) in zip(grid, rows.items(), strict=True):
        cells[0].set_ylabel(textwrap.fill(escape_math(title), 12), rotation=0, ha="right", va="center", fontsize=9)
        for example, (first, *others) in zip(examples, (cells[:columns], cells[columns + 1 :]), strict=False):
            show_photo(first, example.photo, GRAY, "")
            for axes, match in zip(others, example.matches.values(), strict=True):
                sign, color = ("✓", GREEN) if match.right else ("✗", RED)
                show_photo(axes, match.photo, color, f"{sign} {format_distance(match.distance_m)}")
    return figure


def show_photo(axes: Axes, photo: np.ndarray, color: str, text: str) -> None:
    """Show a photo (H, W, 3) in a colored frame, with a line of text below it."""
    axes.axis("on")
    axes.imshow(photo)
    axes.set(xticks=[], yticks=[], anchor="N")  # wide and tall photos of a row are aligned at the top
    axes.spines[:].set(color=color, linewidth=3)
    axes.set_xlabel(text, color=color, fontsize=9, fontweight="bold", labelpad=2)


def format_distance(distance_m: float) -> str:
    """A distance in meters below a kilometer, else in kilometers."""
    return f"{distance_m:.0f} m" if distance_m < 1000 else f"{distance_m / 1000:.1f} km"
