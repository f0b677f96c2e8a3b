"""Local features of made-up walls: matched as in a slow loop, and where a known camera motion puts them."""

import cv2
import numpy as np
import pytest
from textured_photos import SEEN_FROM_ASIDE, draw_wall, look

from vpr_lib.analysis.local_features import (
    LocalFeatures,
    count_inliers,
    extract_sift,
    find_inliers,
    match_features,
    match_photos,
)


@pytest.fixture(scope="module")
def wall():
    return extract_sift(draw_wall(0))


@pytest.fixture(scope="module")
def wall_from_aside():
    return extract_sift(look(draw_wall(0), SEEN_FROM_ASIDE))


def test_features_are_points_of_the_photo_with_whole_numbers(wall):
    assert len(wall.points) == len(wall.descriptors) > 100 and wall.descriptors.shape[1] == 128
    assert (wall.points.dtype, wall.descriptors.dtype) == (np.float32, np.uint8)
    assert wall.points.min() >= 0 and wall.points.max() < 300
    assert (wall.descriptors.max(1) > 50).all()


def test_inliers_lie_where_the_camera_motion_puts_them(wall, wall_from_aside):
    pairs = find_inliers(wall, wall_from_aside)
    expected = cv2.perspectiveTransform(wall.points[pairs[:, 0]][None], SEEN_FROM_ASIDE)[0]
    away = np.linalg.norm(expected - wall_from_aside.points[pairs[:, 1]], axis=1)
    assert len(pairs) > 50 and (away < 3).mean() > 0.9
    matches = {(row, column) for row, column in match_features(wall, wall_from_aside).tolist()}
    assert matches >= {(row, column) for row, column in pairs.tolist()}
    assert count_inliers(wall, wall_from_aside) == len(pairs)


def test_matching_photos_gives_the_points_of_their_inliers(wall, wall_from_aside):
    shared = match_photos(draw_wall(0), look(draw_wall(0), SEEN_FROM_ASIDE))
    pairs = find_inliers(wall, wall_from_aside).tolist()
    assert shared.first.tolist() == [wall.points[row].tolist() for row, _ in pairs]
    assert shared.second.tolist() == [wall_from_aside.points[row].tolist() for _, row in pairs]
    assert shared.num_matches == len(match_features(wall, wall_from_aside)) > len(pairs)


def test_unrelated_photos_have_few_inliers(wall, wall_from_aside):
    for seed in range(1, 4):
        other = extract_sift(draw_wall(seed))
        assert 5 * count_inliers(wall, other) < count_inliers(wall, wall_from_aside)


def test_all_matches_of_a_photo_with_itself_are_inliers(wall):
    pairs = find_inliers(wall, wall)
    np.testing.assert_array_equal(pairs, match_features(wall, wall))
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])
    assert len(pairs) > 0.9 * len(wall.points)


def match_slowly(pair, ratio):
    """Mutual nearest neighbors by the distance of the histograms' square roots."""
    first, second = ([np.sqrt(each / each.sum()) for each in half.descriptors.astype(float)] for half in pair)
    distances = np.array([[np.linalg.norm(one - other) for other in second] for one in first])
    pairs = []
    for row in range(len(first)):
        column, next_column = np.argsort(distances[row])[:2]
        is_mutual = np.argmin(distances[:, column]) == row
        if is_mutual and distances[row, column] < ratio * distances[row, next_column]:
            pairs.append((row, column))
    return pairs


def make_features(descriptors):
    points = np.random.default_rng(0).uniform(0, 300, (len(descriptors), 2))
    return LocalFeatures(points.astype(np.float32), np.asarray(descriptors, dtype=np.uint8))


@pytest.mark.parametrize("ratio", [0.6, 0.75, 0.9, 1.0])
def test_matches_are_those_of_a_slow_loop(ratio):
    rng = np.random.default_rng(1)
    descriptors = rng.integers(0, 200, (30, 128))
    noise = rng.normal(0, 1, (30, 128)) * np.linspace(5, 80, 30)[:, None]
    others = (descriptors + noise)[rng.permutation(30)].clip(0, 255)
    first, second = make_features(descriptors), make_features(np.concatenate([others, rng.integers(0, 200, (9, 128))]))
    for pair in ((first, second), (second, first)):
        matches = match_features(*pair, ratio=ratio)
        assert matches.dtype == np.int64 and [tuple(match) for match in matches] == match_slowly(pair, ratio)
        assert 0 < len(matches) <= 30


def test_a_point_with_an_exact_twin_in_the_other_photo_is_not_matched():
    """Both are equally near, as on a wall of equal windows."""
    descriptors = np.random.default_rng(0).integers(0, 256, (40, 128))
    twice = np.concatenate([descriptors, descriptors])
    assert match_features(make_features(descriptors), make_features(twice)).tolist() == []


def see_points(number):
    """Features of points in space, seen by two cameras."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-2, 2, (number, 2)), rng.uniform(4, 9, number)])
    turned = points @ cv2.Rodrigues(np.array([0.02, 0.1, -0.03]))[0].T + [0.5, 0.1, 0.2]
    descriptors = rng.integers(0, 256, (number, 128)).astype(np.uint8)
    photos = (300 * each[:, :2] / each[:, 2:] + 150 for each in (points, turned))
    return [LocalFeatures(photo.astype(np.float32), descriptors) for photo in photos]


@pytest.mark.parametrize("number", [0, 1, 2, 7, 8, 30])
def test_fewer_than_eight_matches_have_no_inliers(number):
    """Seven matches fit a camera motion whatever they are."""
    first, second = see_points(number)
    expected = number if number >= 8 else 0
    assert len(match_features(first, second)) == (number if number > 1 else 0)
    assert count_inliers(first, second) == expected and find_inliers(first, second).shape == (expected, 2)


def test_a_photo_with_one_feature_has_no_matches(wall):
    for number in (0, 1):
        few = LocalFeatures(wall.points[:number], wall.descriptors[:number])
        for pair in ((few, few), (few, wall), (wall, few)):
            assert match_features(*pair).shape == find_inliers(*pair).shape == (0, 2)


def test_photos_without_texture_have_no_features(wall):
    for photo in (np.full((300, 300, 3), 90), draw_wall(0)[:8, :8], draw_wall(0)[:1, :1]):
        features = extract_sift(photo.astype(np.uint8))
        assert (features.points.shape, features.descriptors.shape) == ((0, 2), (0, 128))
        assert (features.points.dtype, features.descriptors.dtype) == (wall.points.dtype, wall.descriptors.dtype)
        assert count_inliers(features, features) == count_inliers(features, wall) == count_inliers(wall, features) == 0


def test_gray_photos_have_features(wall):
    gray = np.repeat(cv2.cvtColor(draw_wall(0), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert count_inliers(extract_sift(gray), wall) > 0.9 * len(wall.points)


def test_photos_that_are_not_square_keep_x_and_y_apart(wall):
    part = extract_sift(draw_wall(0)[:150])
    assert part.points[:, 0].max() > 200 and part.points[:, 1].max() < 150
    pairs = find_inliers(part, wall)
    away = np.linalg.norm(part.points[pairs[:, 0]] - wall.points[pairs[:, 1]], axis=1)
    assert len(pairs) > 50 and (away < 3).mean() > 0.9


def test_a_dark_photo_is_matched_with_a_bright_one(wall):
    dark = extract_sift((draw_wall(0) * 0.15).astype(np.uint8))
    assert count_inliers(dark, wall) > 50


def test_the_same_photos_give_the_same_inliers(wall, wall_from_aside):
    expected = find_inliers(wall, wall_from_aside)
    other = extract_sift(draw_wall(1))
    unrelated = find_inliers(wall, other)
    for seed in (1, 99):
        cv2.setRNGSeed(seed)
        again = extract_sift(draw_wall(0))
        assert all(np.array_equal(*pair) for pair in zip(again, wall, strict=True))
        assert np.array_equal(find_inliers(again, wall_from_aside), expected)
        assert np.array_equal(find_inliers(again, other), unrelated)


def test_outliers_are_told_from_points_that_fit_one_camera_motion():
    """Every third match is wrong, far from its epipolar line."""
    first, second = see_points(90)
    second.points[::3, 1] += np.random.default_rng(0).choice([-60, 60], 30)
    pairs = find_inliers(first, second)
    assert set(pairs[:, 0]) >= {row for row in range(90) if row % 3}
    assert len(pairs) <= 63  # an outlier may lie on its line by chance
