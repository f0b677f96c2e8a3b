"""Photos and scores -> figures: places on a map, histograms, a line among outliers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vpr_lib.figures.plots import COLORS, GRAY, HATCHES, escape_math, make_figure
from vpr_lib.images import ImageTable


def plot_places(images: ImageTable, max_cities: int = 4) -> Figure:
    """A map of the places of each city, colored by their number of photos.

    The color scale is that of the numbers that occur; if all places have as many photos, the title says how many.

    Args:
        images: training photos; those whose names hold no place are one place.
        max_cities: cities to show, the first ones by name.
    """
    places, first, counts = np.unique(images.places, return_index=True, return_counts=True)
    cities = np.array([str(place).split("/")[0] for place in places])
    shown = np.unique(cities)[:max_cities]
    counts_shown = counts[np.isin(cities, shown)]
    scale = Normalize(counts_shown.min(), counts_shown.max())
    figure = make_figure(2.8)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, city in zip(panels, shown, strict=True):
        utm = images.utm[first[cities == city]]
        axes.scatter(*(utm - utm.min(0)).T, c=counts[cities == city], s=9, cmap="cividis", norm=scale)
        axes.set_title(f"{escape_math(city) or 'no place'}, {len(utm)} places", fontsize=9)
        axes.set(aspect="equal", xlabel="east, m")
    panels[0].set_ylabel("north, m")
    if scale.vmin < scale.vmax:
        ticks = MaxNLocator(integer=True)
        colors = ScalarMappable(scale, "cividis")
        figure.colorbar(colors, ax=list(panels), label="photos of the place", shrink=0.8, ticks=ticks)
    else:
        figure.suptitle(f"each place has {counts_shown[0]} photos", fontsize=9)
    return figure


def plot_histograms(values: Mapping[str, Mapping[str, np.ndarray]], num_bins: int = 20) -> Figure:
    """Histograms of {title: {label: (n,) values}}, a panel for each title; areas are equal, whatever their numbers."""
    figure = make_figure(2.4)
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (title, by_label) in zip(panels, values.items(), strict=True):
        edges = np.histogram_bin_edges(np.concatenate(list(by_label.values())), num_bins)
        for number, (label, some) in enumerate(by_label.items()):
            style = {"color": COLORS[number], "hatch": HATCHES[number % len(HATCHES)], "alpha": 0.6}
            axes.hist(some, edges, density=True, label=escape_math(label), histtype="stepfilled", **style)
        axes.set(xlabel=escape_math(title), yticks=[])
    panels[0].set_ylabel("share of the queries")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def plot_line_fit(
    points: np.ndarray, is_inlier: np.ndarray, line: tuple[np.ndarray, np.ndarray], least_squares: tuple[float, float]
) -> Figure:
    """Points (N, 2) with a line found among outliers, and the line of least squares.

    Args:
        is_inlier: (N,) bool, the points that the line fits.
        line: two points (2,) on it.
        least_squares: slope and intercept.
    """
    figure = make_figure(2.6)
    axes = figure.subplots()
    axes.scatter(*points[~is_inlier].T, marker="x", color=GRAY, label="outliers")
    axes.scatter(*points[is_inlier].T, color=COLORS[0], label=f"{is_inlier.sum()} inliers")
    axes.axline(*line, color=COLORS[0])
    slope, intercept = least_squares
    axes.axline((0, intercept), slope=slope, color=COLORS[1], linestyle="--", label="least squares")
    axes.legend()
    return figure
