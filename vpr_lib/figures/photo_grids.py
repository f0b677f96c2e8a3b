"""Photos -> figures that show queries beside the models' predictions."""

import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import Example
from vpr_lib.figures.plots import GRAY, GREEN, RED, escape_math, make_figure

MAX_LINES = 100
LINE_COLORS = ((86, 180, 233), (230, 159, 0), (240, 228, 66))  # of Okabe and Ito; light ones, on darkened photos


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


def draw_matches(
    first: np.ndarray, second: np.ndarray, first_points: np.ndarray, second_points: np.ndarray
) -> np.ndarray:
    """Two photos side by side with a line between each pair of points, at most 100 of them.

    Args:
        first, second: (H, W, 3) uint8, of any two sizes.
        first_points, second_points: (N, 2), x and y in pixels of each photo.

    Returns:
        (H, W, 3) uint8, as high as the higher photo, with a gap between the two.
    """
    gap = max(2, first.shape[1] // 40)
    left = first.shape[1] + gap
    canvas = np.full((max(len(first), len(second)), left + second.shape[1], 3), 255, dtype=np.uint8)
    canvas[: len(first), : first.shape[1]] = first * 0.6
    canvas[: len(second), left:] = second * 0.6
    chosen = (
        np.unique(np.linspace(0, len(first_points) - 1, MAX_LINES).round().astype(int)) if len(first_points) else []
    )
    for number, i in enumerate(chosen):
        ends = np.round([first_points[i], second_points[i] + [left, 0]]).astype(int).tolist()
        color = LINE_COLORS[number % len(LINE_COLORS)]
        cv2.line(canvas, *ends, color, 1, cv2.LINE_AA)
        for end in ends:
            cv2.circle(canvas, end, 2, color, -1, cv2.LINE_AA)
    return canvas


def format_distance(distance_m: float) -> str:
    """A distance in meters below a kilometer, else in kilometers."""
    return f"{distance_m:.0f} m" if distance_m < 1000 else f"{distance_m / 1000:.1f} km"
