"""Photos -> figures: grids of photos, queries beside the models' predictions, matches between two photos."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import Example
from vpr_lib.figures.plots import GRAY, GREEN, RED, escape_math, make_figure

MAX_LINES = 100  # matches drawn between two photos
LINE_COLORS = ((86, 180, 233), (230, 159, 0), (240, 228, 66), (204, 121, 167))  # the bright ones of Okabe and Ito, RGB
LINE_SHIFT = 4  # OpenCV draws at whole numbers, here of 1/16 pixel
DARKENING = 0.7  # brightness of the photos below the lines
MAX_PHOTO_IN = 4.0  # width of a photo in a grid, inches
PHOTO_GAP = 8  # pixels between the two photos


def draw_photos(
    photos: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int = 0,
    colors: Sequence[str] = (),
    width_in: float = 8.0,
) -> Figure:
    """A grid of photos, row by row.

    Args:
        photos: (H, W, 3) uint8 each, RGB; their sizes may differ. With none, the figure says so.
        titles: a line above each photo; none: no titles.
        columns: photos in a row; 0: all of them.
        colors: of each photo's frame; none: no frames.
        width_in: width of the figure in inches, less where a photo would be wider than `MAX_PHOTO_IN`.
    """
    columns = columns or max(1, len(photos))
    width_in = min(width_in, MAX_PHOTO_IN * columns)
    cell_in = width_in / columns
    titles = [textwrap.fill(escape_math(title), max(8, round(13 * cell_in))) for title in titles]
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    text_in = 0.1 + 0.15 * lines if lines else 0.0
    tallest = max((len(photo) / photo.shape[1] for photo in photos), default=0.1)
    rows = max(1, math.ceil(len(photos) / columns))
    figure = make_figure(rows * (cell_in * tallest + text_in + 0.05), width_in)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for number, (axes, photo) in enumerate(zip(grid.flat, photos, strict=False)):
        if colors:
            show_photo(axes, photo, colors[number], "")
        else:
            axes.imshow(photo)
        axes.set_title(titles[number] if titles else "", fontsize=9)
    if not photos:
        grid[0, 0].text(0.5, 0.5, "no photo to show", ha="center", va="center")
    return figure


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
    first_photo: np.ndarray, second_photo: np.ndarray, points_first: np.ndarray, points_second: np.ndarray
) -> np.ndarray:
    """Two photos side by side, darkened, with a line for each pair of points.

    If there are more than `MAX_LINES` pairs, that many are drawn, evenly chosen from the top of the first photo to its
    bottom. Colors alternate in this order, so that neighboring lines can be told apart.

    Args:
        first_photo, second_photo: (h, w, 3) uint8, RGB; their sizes may differ.
        points_first, points_second: (N, 2), x and y in pixels of each photo; N may be 0.

    Returns:
        (H, W, 3) uint8, white where there is no photo.
    """
    height, width = max(len(first_photo), len(second_photo)), first_photo.shape[1] + PHOTO_GAP
    drawn = np.full((height, width + second_photo.shape[1], 3), 255, dtype=np.uint8)
    for photo, left in ((first_photo, 0), (second_photo, width)):
        drawn[: len(photo), left : left + photo.shape[1]] = np.round(DARKENING * photo)
    order = np.argsort(points_first[:, 1], kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(len(order), MAX_LINES)).round().astype(int)]
    starts, ends = points_first[order], points_second[order] + (width, 0)
    starts, ends = (np.round(points * 2**LINE_SHIFT).astype(int).tolist() for points in (starts, ends))
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        color = LINE_COLORS[number % len(LINE_COLORS)]
        cv2.line(drawn, start, end, color, 1, cv2.LINE_AA, LINE_SHIFT)
        for point in (start, end):
            cv2.circle(drawn, point, 2 * 2**LINE_SHIFT, color, -1, cv2.LINE_AA, LINE_SHIFT)
    return drawn


def format_distance(distance_m: float) -> str:
    """A distance in meters below a kilometer, else in kilometers."""
    return f"{distance_m:.0f} m" if distance_m < 1000 else f"{distance_m / 1000:.1f} km"
