"""Maps, histograms and the line among outliers show the numbers they are given."""

import numpy as np
from conftest import photo_name
from matplotlib.collections import PathCollection
from test_figures import check_drawn, lines, texts

from vpr_lib.figures.data_plots import plot_histograms, plot_line_fit, plot_places
from vpr_lib.figures.plots import RED
from vpr_lib.images import read_images


def write_places(folder, counts):
    """Empty photos: {city: number of photos of each place}; place i lies 10 i m east and 20 i m north."""
    for city, numbers in counts.items():
        (folder / city).mkdir(parents=True)
        for place, number in enumerate(numbers):
            for photo in range(number):
                note = f"{place:05}_{city}" if city else ""
                name = photo_name(7000 + 10 * place, 4e6 + 20 * place, note=note, pano=photo)
                (folder / city / name).write_bytes(b"")
    return read_images(folder)


def find_dots(figure):
    return [dots for axes in figure.axes for dots in axes.collections if isinstance(dots, PathCollection)]


def test_places_have_the_color_of_their_number_of_photos(tmp_path):
    figure = plot_places(write_places(tmp_path, {"Aba": [3, 5, 4], "Bex": [9, 4]}))
    aba, bex = find_dots(figure)
    assert aba.get_offsets().tolist() == [[0, 0], [10, 20], [20, 40]] and aba.get_array().tolist() == [3, 5, 4]
    assert bex.get_array().tolist() == [9, 4]
    assert aba.get_clim() == bex.get_clim() == (3, 9)  # a scale of what there is
    (scale,) = [axes for axes in figure.axes if axes.get_ylabel() == "photos of the place"]
    assert scale.get_ylim() == (3, 9) and all(tick == int(tick) for tick in scale.get_yticks())
    assert {"Aba, 3 places", "Bex, 2 places"} <= set(texts(figure))
    check_drawn(figure, tmp_path)


def test_equal_numbers_need_no_color_scale(tmp_path):
    figure = plot_places(write_places(tmp_path, {"Aba": [4, 4], "Bex": [4]}))
    assert len(figure.axes) == 2 and "each place has 4 photos" in texts(figure)
    check_drawn(figure, tmp_path)


def test_the_map_shows_the_first_cities_and_photos_without_place(tmp_path):
    cities = {city: [2, 3] for city in ("Aba", "Bex", "Cos", "Dax", "Elm")}
    figure = plot_places(write_places(tmp_path / "five", cities | {"Elm": [30]}))
    assert len(find_dots(figure)) == 4 and find_dots(figure)[0].get_clim() == (2, 3)  # Elm isn't shown
    assert "no place, 1 places" in texts(plot_places(write_places(tmp_path / "none", {"": [3]})))


def test_histograms_have_equal_areas_and_common_bins(tmp_path):
    rng = np.random.default_rng(0)
    values = {"score": {"known": rng.normal(0, 1, 50), "strangers": rng.normal(3, 1, 400)}, "te$t": {"known": [1.0, 2]}}
    figure = plot_histograms(values, num_bins=10)
    left, right = figure.axes
    everything = np.concatenate(list(values["score"].values()))
    edges = np.linspace(everything.min(), everything.max(), 11)
    for patch, sample in zip(left.patches, values["score"].values(), strict=True):
        heights = np.histogram(sample, edges)[0] / len(sample) / (edges[1] - edges[0])
        drawn = patch.get_path().vertices[:, 1]
        assert sorted({*heights.round(9), 0.0}) == sorted(set(drawn.round(9)))
    assert left.get_xlabel() == "score" and right.get_xlabel() == r"te\$t"
    assert len({patch.get_hatch() for patch in left.patches}) == 2  # told apart without color
    assert {"known", "strangers"} <= set(texts(figure))
    check_drawn(figure, tmp_path)


def test_a_line_among_outliers(tmp_path):
    points = np.array([[0.0, 0], [1, 1], [2, 2], [1, 9]])
    is_inlier = np.array([True, True, True, False])
    figure = plot_line_fit(points, is_inlier, (points[0], points[1]), (0.5, 3.0))
    outliers, inliers = find_dots(figure)
    assert inliers.get_offsets().tolist() == points[:3].tolist() and outliers.get_offsets().tolist() == [[1, 9]]
    fitted = lines(figure.axes[0])["least squares"]
    assert fitted.get_slope() == 0.5 and fitted.get_xy1() == (0, 3)
    assert "3 inliers" in texts(figure) and fitted.get_color() != RED
    check_drawn(figure, tmp_path)
