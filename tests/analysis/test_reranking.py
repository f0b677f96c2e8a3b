"""Re-ranking against slow loops, and of a run that was trained for a second."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_root
from sklearn.metrics import auc, precision_recall_curve
from textured_photos import write_split

from vpr_lib.analysis.confidence import spread_confidence
from vpr_lib.analysis.reranking import (
    Reranking,
    choose_verified,
    measure_areas,
    rerank,
    rerank_run,
    score_predictions,
    trade_off,
)
from vpr_lib.analysis.verification import read_inliers, verify_predictions
from vpr_lib.data_roots import DataRoot
from vpr_lib.evaluation import Evaluation, evaluate_run
from vpr_lib.machine import Machine
from vpr_lib.photos import read_photo
from vpr_lib.recall import recall_at_k
from vpr_lib.runs import get_run
from vpr_lib.settings import get_preset

MACHINE = Machine(device="cpu", num_workers=0, progress=False)


@pytest.fixture
def evaluation():
    """Twelve predictions for each of 40 queries; 30 database photos, some queries without a positive."""
    rng = np.random.default_rng(0)
    indices = np.array([rng.permutation(30)[:12] for _ in range(40)])
    positives = [np.sort(rng.permutation(30)[: query % 4]) for query in range(40)]
    distances = np.sort(rng.random((40, 12)), axis=1).astype(np.float32)
    recall = recall_at_k(indices, positives, (1, 5, 12))
    return Evaluation("val", indices, distances, positives, np.zeros((40, 2)), recall)


def rerank_slowly(values, inliers):
    """Selection sort: the first one of the largest is moved to the end of the result, again and again."""
    ordered = []
    for row, counts in zip(values.tolist(), inliers.tolist(), strict=True):
        left = [*zip(counts, row[: len(counts)], strict=True)]
        best = []
        while left:
            first = next(i for i, (count, _) in enumerate(left) if count == max(other for other, _ in left))
            best.append(left.pop(first)[1])
        ordered.append(best + row[len(counts) :])
    return ordered


@pytest.mark.parametrize("num_candidates", [0, 1, 7, 12])
def test_predictions_are_ordered_by_inliers(evaluation, num_candidates):
    inliers = np.random.default_rng(1).integers(-1, 4, (40, num_candidates))  # many ties
    after = rerank(evaluation, inliers)
    assert after.indices.tolist() == rerank_slowly(evaluation.indices, inliers)
    assert after.distances.tolist() == rerank_slowly(evaluation.distances, inliers)
    assert after.indices[:, num_candidates:].tolist() == evaluation.indices[:, num_candidates:].tolist()
    right = [[index in known for index in row] for row, known in zip(after.indices, evaluation.positives, strict=True)]
    assert after.recall == pytest.approx({k: 100 * np.mean([any(row[:k]) for row in right]) for k in (1, 5, 12)})
    assert after.hits.tolist() == [row[0] for row in right]
    assert (after.split, after.positives) == (evaluation.split, evaluation.positives)


def test_the_evaluation_before_is_not_changed(evaluation):
    indices, hits = evaluation.indices.copy(), evaluation.hits.copy()
    rerank(evaluation, np.arange(480).reshape(40, 12))
    np.testing.assert_array_equal(evaluation.indices, indices)
    np.testing.assert_array_equal(evaluation.hits, hits)


def test_pairs_that_were_not_verified_come_last(evaluation):
    inliers = np.tile([-1, 0, -1, 3], (40, 1))
    np.testing.assert_array_equal(rerank(evaluation, inliers).indices[:, :4], evaluation.indices[:, [3, 1, 0, 2]])
    np.testing.assert_array_equal(rerank(evaluation, np.full((40, 12), -1)).indices, evaluation.indices)


@pytest.mark.parametrize("shape", [(40,), (39, 3), (40, 13), (40, 3, 1)])
def test_inliers_of_another_shape_are_an_error(evaluation, shape):
    with pytest.raises(ValueError, match=rf"\({shape[0]},.* \(40, 12\)"):
        rerank(evaluation, np.zeros(shape, dtype=np.int64))


def draw_hits(seed, num_queries=23):
    """Hits before and after, and a score with ties."""
    rng = np.random.default_rng(seed)
    return rng.random(num_queries) < 0.5, rng.random(num_queries) < 0.6, rng.integers(-6, 6, num_queries) / 4


@pytest.mark.parametrize("seed", range(5))
def test_the_trade_off_is_that_of_all_thresholds(seed):
    before, after, score = draw_hits(seed)
    curve = trade_off(before, after, score)
    assert curve.thresholds.tolist() == [*sorted({*score.tolist()}), np.inf]
    for threshold, verified, recall in zip(*curve, strict=True):
        chosen = [bool(value < threshold) for value in score]
        hits = [right if is_chosen else left for is_chosen, left, right in zip(chosen, before, after, strict=True)]
        assert (verified, recall) == pytest.approx((100 * np.mean(chosen), 100 * np.mean(hits)))


@pytest.mark.parametrize("seed", range(20))
def test_the_chosen_threshold_has_the_highest_recall_and_then_the_fewest_queries(seed):
    before, after, score = draw_hits(seed)

    def judge(threshold):
        verified = score < threshold
        return np.where(verified, after, before).sum(), -verified.sum()

    candidates = [-np.inf, *(score - 1e-6), *(score + 1e-6), np.inf]
    assert judge(choose_verified(before, after, score)) == max(map(judge, candidates))


def test_no_query_is_verified_where_that_helps_nobody_and_all_where_it_helps_all():
    score = np.random.default_rng(0).random(50)
    some = np.arange(50) % 2 == 0
    assert not (score < choose_verified(some, some, score)).any()
    assert not (score < choose_verified(~some, np.zeros(50, dtype=bool), score)).any()
    assert choose_verified(np.zeros(50, dtype=bool), np.ones(50, dtype=bool), score) == np.inf


# A run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Beside train/: splits of walls that local features find and the short training doesn't."""
    folder = tmp_path_factory.mktemp("reranking") / "root"
    make_root(folder, num_places=4)
    walls = [*range(12)]
    write_split(folder / "sf_val", queries=walls[:6], database=walls)
    write_split(folder / "test", queries=walls[3:9], database=walls)
    write_split(folder / "small", queries=walls[:3], database=walls[:5])
    write_split(folder / "far", queries=walls[:3], database=walls[:5], far_m=100.0)
    write_split(folder / "copies", queries=[0, 0], database=[0] * 5)
    return DataRoot(folder)


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    changes = {"image_size": 32, "num_places": 3, "crop_after": "layer1", "epochs": 1, "ks": (1, 5)}
    settings = replace(get_preset("smoke"), aggregator="GeM", **changes)
    return get_run(settings, root, tmp_path_factory.mktemp("runs"), machine=MACHINE)


def rerank_here(run, root, split, *args, **options):
    return rerank_run(run, root, split, *args, machine=MACHINE, **options)


def test_without_verification_nothing_changes(run, root):
    result = rerank_here(run, root, "test", "none")
    assert result.before is result.after and not result.verified.any()
    assert (result.seconds_per_query, result.threshold) == (0, None)
    assert result.before.recall == evaluate_run(run, root, "test", MACHINE).recall


@pytest.mark.parametrize("num_candidates", [None, 3, 12])
def test_all_queries_are_verified(run, root, num_candidates):
    result = rerank_here(run, root, "test", "all", num_candidates)
    evaluation = evaluate_run(run, root, "test", MACHINE)
    candidates = evaluation.indices[:, : num_candidates or 10]
    verification = verify_predictions(root.read_split("test"), candidates, run.folder.parent, "test", machine=MACHINE)
    np.testing.assert_array_equal(result.inliers, verification.inliers)
    assert result.after.indices.tolist() == rerank_slowly(evaluation.indices, verification.inliers)
    assert result.before.recall == evaluation.recall and result.verified.all() and result.threshold is None
    assert result.seconds_per_query == pytest.approx(verification.seconds.sum() / 6) and result.seconds_per_query > 0
    assert result.after.recall[1] >= result.before.recall[1]
    if num_candidates == 12:  # all database photos
        assert result.after.recall[1] == 100 > result.before.recall[1]


@pytest.mark.parametrize("split", ["test", "sf_val"])
def test_uncertain_queries_are_verified(run, root, split):
    result = rerank_here(run, root, split, "adaptive")
    before, after, inliers, scores = {}, {}, {}, {}
    for name in ("sf_val", "test"):
        photos, before[name] = root.read_split(name), evaluate_run(run, root, name, MACHINE)
        indices = before[name].indices
        candidates = (photos, indices[:, :10], run.folder.parent, name)
        inliers[name] = verify_predictions(*candidates, machine=MACHINE).inliers
        after[name] = rerank(before[name], inliers[name])
        scores[name] = spread_confidence(before[name].distances, photos.database.utm[indices])
    right = {
        value: np.where(scores["sf_val"] < value, after["sf_val"].hits, before["sf_val"].hits).sum()
        for value in [*scores["sf_val"], np.inf]
    }
    threshold = min(value for value, number in right.items() if number == max(right.values()))
    assert (result.threshold.value, result.threshold.split) == (threshold, "sf_val")
    uncertain = scores[split] < threshold
    assert 0 < uncertain.sum() < 6
    np.testing.assert_array_equal(result.verified, uncertain)
    np.testing.assert_array_equal(result.inliers, np.where(uncertain[:, None], inliers[split], -1))
    chosen = np.where(uncertain[:, None], after[split].indices, before[split].indices)
    np.testing.assert_array_equal(result.after.indices, chosen)


def test_adaptive_takes_the_same_number_of_candidates_on_the_validation_split(run, root, tmp_path):
    own = replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"))
    result = rerank_here(own, root, "test", "adaptive", num_candidates=2)
    assert result.inliers.shape == (6, 2)
    evaluation = evaluate_run(own, root, "sf_val", MACHINE)
    known = read_inliers(root.read_split("sf_val"), evaluation.indices, tmp_path, "sf_val")
    assert (known >= 0).sum(1).tolist() == [2] * 6


def test_adaptive_needs_a_validation_split(run, root, tmp_path):
    shutil.copytree(root.folder / "small", tmp_path / "root" / "small")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "root"))):
        rerank_here(run, tmp_path / "root", "small", "adaptive")
    assert rerank_here(run, tmp_path / "root", "small", "all").before.num_queries == 3  # a folder is a root, too


def test_a_split_with_few_photos_has_all_its_predictions_verified(run, root):
    assert rerank_here(run, root, "small").inliers.shape == (3, 5)


@pytest.mark.parametrize("num_candidates", [6, 99, 0, -1])
@pytest.mark.parametrize("mode", ["all", "adaptive"])
def test_candidates_that_do_not_exist_are_an_error(run, root, mode, num_candidates):
    with pytest.raises(ValueError, match=rf"{num_candidates} predictions.* small .*1 to 5"):
        rerank_here(run, root, "small", mode, num_candidates)


def test_an_unknown_mode_lists_the_valid_ones(run, root):
    with pytest.raises(ValueError, match=r"'some'; valid: none, all, adaptive"):
        rerank_here(run, root, "small", "some")


def test_an_own_matcher_orders_the_predictions(run, root):
    def match(first, second):
        return round(255 - abs(first - second))

    result = rerank_here(run, root, "small", extract=np.mean, matcher=match)
    photos = root.read_split("small")
    database, queries = ([read_photo(table, row, 120).mean() for row in range(len(table))] for table in photos)
    for own, indices, inliers in zip(queries, result.before.indices, result.inliers, strict=True):
        assert inliers.tolist() == [match(own, database[index]) for index in indices]
    assert result.after.indices.tolist() == rerank_slowly(result.before.indices, result.inliers)
    assert (result.after.indices != result.before.indices).any()


def test_options_are_those_of_the_evaluation(run, root):
    result = rerank_here(run, root, "test", whiten=4)
    whitened = evaluate_run(run, root, "test", MACHINE, whiten=4)
    np.testing.assert_array_equal(result.before.indices, whitened.indices)
    assert (result.before.indices != evaluate_run(run, root, "test", MACHINE).indices).any()


# Scores


def test_scores_are_those_of_the_first_prediction(run, root):
    result, photos = rerank_here(run, root, "test"), root.read_split("test")
    scores = score_predictions(result.before, photos, result.inliers)
    assert list(scores) == ["similarity", "ratio", "spread", "inliers"]
    first, second = result.before.distances[:, :2].astype(np.float64).T
    np.testing.assert_allclose(scores["similarity"], 1 - first**2 / 2)
    np.testing.assert_allclose(scores["ratio"], 1 - first / second)
    np.testing.assert_array_equal(scores["inliers"], result.inliers[:, 0])
    assert {score.dtype for score in scores.values()} == {np.dtype(np.float64)}
    assert "inliers" not in score_predictions(result.before, photos)
    one = replace(result.before, indices=result.before.indices[:, :1], distances=result.before.distances[:, :1])
    assert list(score_predictions(one, photos)) == ["similarity", "spread"]


def test_areas_are_those_of_scikit_learn(evaluation):
    inliers = np.random.default_rng(1).integers(0, 20, (40, 5))
    utm = np.random.default_rng(2).normal(0, 100, (30, 2))
    photos = SimpleNamespace(database=SimpleNamespace(utm=utm))
    result = Reranking(evaluation, rerank(evaluation, inliers), inliers, 0.0)
    scores = score_predictions(evaluation, photos, inliers)
    expected = {name: (evaluation.hits, score) for name, score in scores.items()}
    expected["inliers_reranked"] = (result.after.hits, inliers.max(1))
    areas = measure_areas(result, photos)
    assert list(areas) == list(expected)
    for name, pair in expected.items():
        precision, recall, _ = precision_recall_curve(*pair)
        assert areas[name] == pytest.approx(auc(recall, precision))


def test_areas_of_inliers_need_all_queries(run, root):
    photos = root.read_split("test")
    for mode in ("none", "adaptive"):
        assert list(measure_areas(rerank_here(run, root, "test", mode), photos)) == ["similarity", "ratio", "spread"]


@pytest.mark.slow
@pytest.mark.parametrize(("split", "recall"), [("far", 0), ("copies", 100)])
def test_areas_without_right_or_wrong_predictions_are_nan(run, root, split, recall):
    result = rerank_here(run, root, split)
    assert result.after.recall == result.before.recall == {1: recall, 5: recall}
    with pytest.warns(UserWarning, match="right" if recall else "wrong"):
        areas = measure_areas(result, root.read_split(split))
    assert list(areas) == ["similarity", "ratio", "spread", "inliers", "inliers_reranked"]
    assert np.isnan([*areas.values()]).all()
