"""Figures and tables hold the numbers they are given."""

import math

import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from vpr_lib.analysis.confidence import Bin, precision_recall
from vpr_lib.analysis.examples import Example, Match
from vpr_lib.analysis.reranking import trade_off
from vpr_lib.analysis.suggestions import SuggestionScore
from vpr_lib.evaluation import Comparison
from vpr_lib.figures.photo_grids import (
    LINE_COLORS,
    MAX_LINES,
    draw_examples,
    draw_matches,
    draw_photos,
    format_distance,
)
from vpr_lib.figures.plots import (
    GRAY,
    GREEN,
    RED,
    plot_bars,
    plot_grids,
    plot_intervals,
    plot_losses,
    plot_precision_recall,
    plot_recalls,
    plot_reliability,
    plot_schedules,
    plot_trade_off,
    save_figure,
    style_of,
)
from vpr_lib.figures.tables import comparison_rows, format_markdown, label_rows, list_differences, suggestion_rows
from vpr_lib.statistics import LabelRecall
from vpr_lib.study import published
from vpr_lib.study.published import published_rows

KS = (1, 5, 10, 25)


def texts(figure):
    """All visible text of a figure."""
    return [t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def check_drawn(figure, tmp_path):
    """The figure can be written and is not blank."""
    pixels = np.asarray(Image.open(save_figure(figure, tmp_path / "new" / "figure.png")).convert("L"))
    assert pixels.shape[1] == 1200 and 0.01 < np.mean(pixels < 250) < 0.9
    assert not list((tmp_path / "new").glob("*.tmp"))


def compare(value, p_value=None):
    return Comparison({k: value + k for k in KS}, (1.0, 9.0), p_value)


COMPARISONS = {split: {"AVG": compare(10.0), "MixVPR": compare(20.0, 0.04)} for split in ("sf_val", "home")}


def test_published_numbers_are_those_of_the_design():
    assert published.RECALLS["AVG"]["sf_val"] == {1: 47.22, 10: 68.75, 25: 76.33}
    assert published.RECALLS["GeM"]["tokyo_test"][10] == 62.86
    assert published.RECALLS["ConvAP"]["sf_test"][25] == 67.30
    assert published.RECALLS["MixVPR"]["tokyo_test"] == {1: 70.16, 10: 84.13, 25: 91.11}
    assert published.GRID[0.001, 0.01] == published.RECALLS["ConvAP"]["sf_val"]  # the grid's best is the table's
    assert published.GRID[0.01, 0.001][1] == 70.99
    assert [published.OPTIMIZERS[o][5] for o in ("AdamW", "Adam", "SGD")] == [87.0, 86.0, 84.3]
    assert (published.LOSSES["MixVPR"][5], published.LOSSES["ConvAP"][9]) == (0.405, 0.577)
    assert all(len(losses) == 10 for losses in published.LOSSES.values())


def test_the_table_sets_published_numbers_beside_ours():
    rows = published_rows(COMPARISONS)
    assert rows[0] == ["R@1 / 10 / 25 in percent", "sf_val", "sf_val, published", "home"]
    assert rows[2] == ["MixVPR", "21.00 / 30.00 / 45.00", "78.83 / 89.77 / 93.06", "21.00 / 30.00 / 45.00"]
    without = {"sf_val": {"Mine": Comparison({1: 50.0, 10: 60.0}, (1.0, 9.0), None)}}
    assert published_rows(without)[1] == ["Mine", "50.00 / 60.00 / -", "- / - / -"]


def test_a_comparison_has_columns_for_each_split():
    rows = comparison_rows(COMPARISONS)
    assert rows[0][:4] == ["R@k in percent", "sf_val R@1 / 5 / 10 / 25", "R@1, 95% interval", "p (row above)"]
    assert rows[1] == ["AVG", *["11.00 / 15.00 / 20.00 / 35.00", "1.0 to 9.0", ""] * 2]
    assert rows[2] == ["MixVPR", *["21.00 / 25.00 / 30.00 / 45.00", "1.0 to 9.0", "0.04"] * 2]
    lines = format_markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned as plain text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[0], *cells[2:]] == rows and set(lines[1]) == {"|", "-"}


def test_a_difference_is_significant_below_5_percent():
    (sentence,) = list_differences(COMPARISONS["home"], "home")
    assert sentence == "MixVPR against AVG: +10.0 points of R@1 on home, p = 0.04, significant."
    (sentence,) = list_differences({"AVG": compare(10.0), "GeM": compare(9.0, 0.05)}, "home")
    assert sentence.startswith("GeM against AVG: -1.0") and sentence.endswith("p = 0.05, not significant.")


def test_colors_of_models_are_not_those_of_right_and_wrong():
    study = ["AVG", "GeM", "ConvAP", "MixVPR"]
    colors = [style_of(label, study)["color"] for label in study]
    assert len(set(colors)) == 4 and not {GREEN, RED} & set(colors)
    assert [style_of(label, ["MixVPR"])["color"] for label in study] == colors  # in every figure
    labels = [f"run {i}" for i in range(12)]
    styles = [style_of(label, labels) for label in labels]
    assert not {GREEN, RED} & {style["color"] for style in styles}
    assert len({(style["color"], style["marker"]) for style in styles}) == 12  # told apart


def test_recall_against_k(tmp_path):
    by_label = {name: {k: base + k for k in KS} for name, base in (("AVG", 10), ("MixVPR", 20))}
    recalls = {"sf_val": by_label, "home_$1$": by_label}
    figure = plot_recalls(recalls, {"sf_val": {"MixVPR": {1: 78.8, 25: 93.1}}})
    left, right = figure.axes
    assert left.get_xticks().tolist() == list(KS) == right.get_xticks().tolist()
    assert list(lines(right)["MixVPR"].get_ydata()) == [21, 25, 30, 45]
    (dashed,) = [line for line in left.get_lines() if line.get_linestyle() == "--"]
    assert list(dashed.get_ydata()) == [78.8, 93.1] and dashed.get_color() == lines(left)["MixVPR"].get_color()
    assert dashed.get_linewidth() < lines(left)["MixVPR"].get_linewidth()
    assert {"sf_val", r"home_\$1\$", "recall@k, percent", "k, photos retrieved", "AVG", "published"} <= set(
        texts(figure)
    )
    markers = [line.get_marker() for line in left.get_lines() if line.get_linestyle() == "-"]
    assert len(set(markers)) == 2  # told apart without color
    check_drawn(figure, tmp_path)


def test_heat_maps(tmp_path):
    ours = {(lr, wd): {1: 1000 * lr + 100 * wd, 10: 50.0} for lr, wd in published.GRID}
    figure = plot_grids({"ours": ours, "published": published.GRID})
    axes = figure.axes[0]
    image = axes.get_images()[0].get_array()
    columns, rows = (
        [float(t.get_text()) for t in labels] for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    )
    for y, wd in enumerate(rows):
        for x, lr in enumerate(columns):
            assert image[y, x] == ours[lr, wd][1]
    assert "R@1 70.99\nR@10 82.75\nR@25 86.84" in texts(figure)
    assert {"learning rate", "weight decay", "R@1, percent"} <= set(texts(figure))
    check_drawn(figure, tmp_path)
    check_drawn(plot_grids({"equal": {key: {1: 5.0} for key in published.GRID}}), tmp_path)


def test_losses_count_epochs_from_1(tmp_path):
    figure = plot_losses({"MixVPR": [0.9, 0.5]}, published.LOSSES)
    (axes,) = figure.axes
    drawn = lines(axes)
    assert list(drawn["MixVPR"].get_xdata()) == [1, 2] and list(drawn["MixVPR"].get_ydata()) == [0.9, 0.5]
    assert list(drawn["ConvAP, published"].get_xdata()) == list(range(1, 11))
    assert drawn["MixVPR, published"].get_color() == drawn["MixVPR"].get_color()
    assert drawn["ConvAP, published"].get_color() != drawn["MixVPR"].get_color()
    check_drawn(figure, tmp_path)


def test_schedules(tmp_path):
    rates = {"MultiStepLR": np.array([0.5, 1, 1, 0.3]), "ReduceLROnPlateau": np.ones(4)}
    figure = plot_schedules(rates, {"MultiStepLR": [3.0, 4.0], "ReduceLROnPlateau": [3.0, 5.0]}, 2, "val")
    left, right = figure.axes
    assert lines(left)["MultiStepLR"].get_xdata().tolist() == [0.5, 1, 1.5, 2]
    assert list(lines(right)["ReduceLROnPlateau"].get_ydata()) == [3, 5]
    assert {"learning rate", "epoch", "val R@1, percent"} <= set(texts(figure))
    check_drawn(figure, tmp_path)


LABEL_RECALLS = {
    "MixVPR": {"a": LabelRecall(7, 40.0, (10.0, 60.0))},
    "ConvAP": {"a": LabelRecall(7, 90.0, (80.0, 100.0))},
}
TITLES = {"b": "Nobody has it", "a": "Skyline"}


def test_bars_with_intervals(tmp_path):
    figure = plot_bars(LABEL_RECALLS, TITLES, "sf_test")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [40, 90]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    ends = [path for collection in axes.collections for path in collection.get_segments()]
    assert [[end[1] for end in segment] for segment in ends] == [[10, 60], [80, 100]]
    assert {"Skyline\nn = 7", "sf_test R@1, percent", "MixVPR", "ConvAP"} <= set(texts(figure))
    assert "Nobody" not in "".join(texts(figure))
    check_drawn(figure, tmp_path)
    assert label_rows(LABEL_RECALLS, TITLES)[1] == ["Skyline", "7", "40.0 (10.0 to 60.0)", "90.0 (80.0 to 100.0)"]


def test_intervals_are_drawn_where_they_are(tmp_path):
    names = {name: Comparison({1: r}, (r - 4, r + 5), None) for name, r in (("one", 40.0), ("two", 60.0))}
    figure = plot_intervals({"val": names, "te$t": names})
    for axes in figure.axes:
        bar_one, dot_one, bar_two, dot_two = axes.get_lines()
        assert [list(dot.get_xdata()) for dot in (dot_one, dot_two)] == [[40.0], [60.0]]
        assert [list(bar.get_xdata()) for bar in (bar_one, bar_two)] == [[36.0, 45.0], [56.0, 65.0]]
        assert dot_one.get_ydata()[0] < dot_two.get_ydata()[0] and axes.yaxis_inverted()  # the first one on top
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["one", "two"]
    check_drawn(figure, tmp_path)


def test_suggestions_in_a_table():
    scores = {"skyline": SuggestionScore(10, 4, 75.0, 30.0), "occlusion": SuggestionScore(0, 0, math.nan, math.nan)}
    rows = suggestion_rows(scores)
    assert rows[1:] == [["Skyline", "10", "4", "75", "30"], ["Occlusion", "0", "0", "-", "-"]]
    assert len(rows[0]) == 5


def test_suffix_says_the_format(tmp_path):
    figure = Figure((2, 1))
    for suffix, kind in ((".png", "PNG"), (".jpg", "JPEG")):
        with Image.open(save_figure(figure, tmp_path / f"figure{suffix}")) as picture:
            assert picture.format == kind


def make_example(name, *matches):
    photo = np.full((24, 32, 3), 120, np.uint8)
    matches = {model: Match(photo, d, d <= 25) for model, d in zip(("MixVPR", "ConvAP"), matches, strict=True)}
    return Example("sf_test", name, photo, matches)


def test_examples_are_framed_and_signed(tmp_path):
    rows = {"Viewpoint change": [make_example("a", 3.0, 400.0), make_example("b", 25.0, 24.0)],
            "Fail cases": [make_example("c", 90.0, 5300.0)]}  # fmt: skip
    figure = draw_examples(rows)
    shown = [axes for axes in figure.axes if axes.get_images()]
    assert len(shown) == 3 * 3
    frames = [matplotlib.colors.to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in shown]
    assert frames == [color.upper() for color in (GRAY, GREEN, RED, GRAY, GREEN, GREEN, GRAY, RED, RED)]
    signs = [axes.get_xlabel() for axes in shown]
    assert signs == ["", "✓ 3 m", "✗ 400 m", "", "✓ 25 m", "✓ 24 m", "", "✗ 90 m", "✗ 5.3 km"]
    assert {"Viewpoint\nchange", "Fail cases", "query", "MixVPR's\nfirst photo"} <= set(texts(figure))
    check_drawn(figure, tmp_path)


def test_a_grid_of_photos_is_filled_row_by_row(tmp_path):
    photos = [np.full((24, 32 + number, 3), 40 * number, np.uint8) for number in range(5)]
    figure = draw_photos(photos, [f"photo {number}" for number in range(5)], 2, [GRAY, GREEN, RED, RED, GREEN])
    shown = [axes for axes in figure.axes if axes.get_images()]
    assert [axes.get_title() for axes in shown] == [f"photo {number}" for number in range(5)]
    assert all((axes.get_images()[0].get_array() == photo).all() for axes, photo in zip(shown, photos, strict=True))
    assert [(axes.get_subplotspec().rowspan[0], axes.get_subplotspec().colspan[0]) for axes in shown] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0)
    ]  # fmt: skip
    frames = [matplotlib.colors.to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in shown]
    assert frames == [color.upper() for color in (GRAY, GREEN, RED, RED, GREEN)]
    check_drawn(figure, tmp_path)


def test_photos_without_titles_fill_the_width():
    figure = draw_photos([np.zeros((10, 20, 3), np.uint8)] * 3, width_in=6)
    assert len(figure.axes) == 3 and not texts(figure) and figure.get_figwidth() == 6
    assert 1 < figure.get_figheight() < 1.3  # a third of the width, half as high
    assert draw_photos([np.zeros((10, 20, 3), np.uint8)]).get_figwidth() == 4  # a single photo isn't enlarged further


def test_a_grid_without_photos_says_so(tmp_path):
    figure = draw_photos([], columns=4)
    assert "no photo to show" in texts(figure)
    assert np.asarray(Image.open(save_figure(figure, tmp_path / "none.png")).convert("L")).std() > 5


def find_colors(drawn, row, columns):
    """Numbers of the line colors that occur in a part of a row."""
    return {i for i, color in enumerate(LINE_COLORS) if (drawn[row, columns] == color).all(1).any()}


def test_matches_are_lines_from_point_to_point():
    wide, tall = np.zeros((40, 60, 3), np.uint8), np.full((50, 30, 3), 200, np.uint8)
    empty = draw_matches(wide, tall, np.zeros((0, 2)), np.zeros((0, 2)))
    left = empty.shape[1] - 30  # of the second photo
    assert empty.dtype == np.uint8 and empty.shape[0] == 50 and left > 60
    assert (empty[:40, :60] == 0).all() and (empty[40:, :60] == 255).all()
    assert (empty[:, left:] < 200).all() and (empty[:, left:] > 100).all()  # darkened
    assert (wide == 0).all() and (tall == 200).all()  # the photos themselves are not

    first, second = np.array([[10.0, 30], [20, 5]]), np.array([[5.0, 30], [25, 5]])  # two horizontal lines
    drawn = draw_matches(wide, tall, first, second)
    assert find_colors(drawn, 5, slice(20, left + 26)) == {0} and find_colors(drawn, 30, slice(10, left + 6)) == {1}
    changed = np.argwhere((drawn != empty).any(2))
    assert {int(y) for y, _ in changed} <= {2, 3, 4, 5, 6, 7, 8, 27, 28, 29, 30, 31, 32, 33}
    assert {int(x) for y, x in changed if y == 5} >= set(range(20, left + 26))
    assert {int(x) for y, x in changed if y == 30} >= set(range(10, left + 6))


def test_many_matches_are_thinned_evenly():
    photo = np.zeros((1200, 20, 3), np.uint8)
    heights = np.random.default_rng(0).permutation(np.arange(5, 1195, 5))  # 238 horizontal lines
    points = np.stack([np.full(len(heights), 10), heights], axis=1).astype(np.float32)
    drawn = draw_matches(photo, photo, points, points)
    crossed = np.flatnonzero((drawn[:, 24] != 255).any(1))  # between the photos
    lines = np.unique(np.round(crossed / 5))
    assert len(lines) == MAX_LINES and lines[0] == 1 and lines[-1] == 238
    assert set(np.diff(lines)) == {2, 3}


def test_distances_have_a_unit():
    assert [format_distance(d) for d in (0.4, 12.3, 999.0, 1234.0)] == ["0 m", "12 m", "999 m", "1.2 km"]


def test_precision_against_recall(tmp_path):
    curve = precision_recall(np.array([True, True, False, True]), np.array([0.9, 0.8, 0.7, 0.6]))
    figure = plot_precision_recall({"val": {"a_$1$": curve, "b": curve}, "test": {"a_$1$": curve, "b": curve}})
    left, right = figure.axes
    drawn = lines(left)["b"]
    np.testing.assert_allclose(drawn.get_ydata(), [75, 200 / 3, 100, 100, 100])
    np.testing.assert_allclose(drawn.get_xdata(), [100, 200 / 3, 200 / 3, 100 / 3, 0])
    assert len({line.get_linestyle() for line in right.get_lines()}) == 2  # told apart without color
    assert {"val", "test", "b", r"a_\$1\$"} <= set(texts(figure))
    check_drawn(figure, tmp_path)


def test_reliability_shows_the_number_of_queries(tmp_path):
    figure = plot_reliability({"val": [Bin(30, 0.2, 0.1), Bin(10, 0.9, 0.8)]})
    (axes,) = figure.axes
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_offsets(), [[20, 10], [90, 80]])
    assert points.get_sizes()[0] == 3 * points.get_sizes()[1]
    check_drawn(figure, tmp_path)


def test_the_trade_off_marks_the_chosen_threshold(tmp_path):
    score = np.array([1.0, 2, 3, 4])
    curve = trade_off(np.zeros(4, dtype=bool), np.array([True, True, False, False]), score)
    figure = plot_trade_off({"val": {"AVG": curve}}, {"AVG": 2.5})  # between two thresholds: two queries are below
    curve, marker = figure.axes[0].get_lines()
    assert curve.get_xdata().tolist() == [0, 25, 50, 75, 100] and curve.get_ydata().tolist() == [0, 25, 50, 50, 50]
    assert (marker.get_xdata().tolist(), marker.get_ydata().tolist()) == ([50], [50])
    check_drawn(figure, tmp_path)
