"""Suggested scenarios: each cue against a slow computation, all of them against a rendered city's truth."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import photo_name
from PIL import Image

from vpr_lib.aggregators import GeM
from vpr_lib.analysis.scenarios import SCENARIOS, label_scenarios, read_labels
from vpr_lib.analysis.suggestions import (
    Suggestion,
    SuggestionScore,
    measure_suggestions,
    notice_illumination,
    notice_name,
    notice_occlusion,
    notice_skyline,
    suggest_scenarios,
)
from vpr_lib.backbones import ResNet
from vpr_lib.city.render import write_city
from vpr_lib.city.views import CitySettings
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import Evaluation
from vpr_lib.images import read_images
from vpr_lib.loading import PhotoDataset
from vpr_lib.models import VPRModel
from vpr_lib.predictions import predict
from vpr_lib.recall import find_positives
from vpr_lib.settings import get_preset

# Percent, precision and recall, on the rendered city below: what may be lost to other fonts, JPEG or models.
FLOORS = {"viewpoint": (75, 70), "skyline": (40, 50), "occlusion": (30, 30), "illumination": (65, 60)}


def street(seed=0):
    """(64, 64, 3) float32: sky, and houses of many colors below it."""
    rng = np.random.default_rng(seed)
    photo = np.kron(rng.integers(40, 216, (16, 16, 3)), np.ones((4, 4, 1)))
    photo[:12] = (150, 170, 200)
    return photo.astype(np.float32)


def test_brightness_and_color_by_hand():
    photo, others = street(0) * 0.5, np.stack([street(seed) for seed in (1, 2, 3)])
    photo[..., 2] *= 0.5
    usual = [sorted(float(other[..., c].mean()) for other in others)[1] for c in range(3)]
    mean = [float(photo[..., c].mean()) for c in range(3)]
    ratio = (sum(mean) / 3 + 10) / (sum(usual) / 3 + 10)
    shares = [mean[c] / (sum(mean) + 1) - usual[c] / (sum(usual) + 1) for c in range(3)]
    expected = math.hypot(math.log(ratio) / 0.35, sum(map(abs, shares)) / 0.2) / 2
    suggestion = notice_illumination(photo, others)
    assert suggestion.score == pytest.approx(min(expected, 1), rel=1e-3) and suggestion.score > 0.5
    tint = f"{100 * max(shares):.0f} points {('redder', 'greener')[shares.index(max(shares))]}"
    assert suggestion.why == f"{100 * ratio:.0f}% as bright and {tint} than its positives"
    assert notice_illumination(others[0], others).score < 0.5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_edges_of_the_upper_image_by_hand(share):
    photo = street()
    photo[:28] = (150, 170, 200)
    photo[:28][np.random.default_rng(0).random((28, 64)) < share] = (20, 20, 20)
    light = np.log(photo.mean(2) + 10)
    edges = np.mean([abs(light[y, x + 1] - light[y, x]) > 0.2 * light.std() for y in range(28) for x in range(63)])
    suggestion = notice_skyline(photo)
    assert suggestion.score == pytest.approx(min(1.0, 0.07 / max(edges, 1e-6) / 2), rel=1e-3)
    assert suggestion.why == f"{100 * (1 - edges):.0f}% of its upper part is without edges"
    assert (suggestion.score >= 0.5) == (share == 0)


def average_blocks(photo):
    """(64, 64, 3) -> (16, 16, 3), means of blocks of 4 x 4 pixels, standardized."""
    blocks = np.array([[photo[y : y + 4, x : x + 4].mean((0, 1)) for x in range(0, 64, 4)] for y in range(0, 64, 4)])
    return (blocks - blocks.mean((0, 1))) / (blocks.std((0, 1)) + 5)


def test_blocks_that_no_other_photo_has_by_hand():
    photo, others = street(), np.stack([street(), street(5)]) * [[[[0.6, 0.7, 0.8]]]]
    others[0, 12:] = np.roll(others[0, 12:], (4, 8), axis=(0, 1))  # a block down, two to the side, in another light
    photo[24:, 30:] = (230, 20, 200)
    blocks = average_blocks(photo)
    padded = [np.pad(average_blocks(other), ((1, 1), (2, 2), (0, 0)), mode="edge") for other in others]
    unlike = 0
    for y, x in itertools.product(range(4, 16), range(16)):
        near = np.concatenate([other[y : y + 3, x : x + 5].reshape(15, 3) for other in padded])
        unlike += min(np.abs(block - blocks[y, x]).mean() for block in near) > 0.15
    suggestion = notice_occlusion(photo, others)
    assert suggestion.score == pytest.approx(min(1.0, unlike / 192 / 0.31 / 2))
    assert suggestion.score > 0.5 > notice_occlusion(street(), others).score
    tinted = photo * [0.5, 0.9, 0.7]
    assert notice_occlusion(tinted, others).score == pytest.approx(suggestion.score, abs=0.05)


@pytest.mark.parametrize(("name", "light"), [
    ("@1@2@54@S@@@113q00170-night@@58@@@@@@.jpg", "night"),
    ("night/@1@2@54@S@@@113q00169-Sunset@@58@@@@@@.jpg", "sunset"),
    ("night/@1@2@54@S@@@knightsbridge@@58@@@@@@.jpg", ""),
    ("@1@2@54@S@@@113q00168-day@@58@@@@@@.jpg", ""),
])  # fmt: skip
def test_names_that_say_when(name, light):
    assert [s.why for s in notice_name(name)] == ([f"its name says {light}"] if light else [])


# East, north, heading and brightness. The queries are: as the database, dark, turned and moved, alone, mistaken.
DATABASE = [(0, 0, 90, 1.0), (5, 0, 90, 1.0), (200, 0, 90, 1.0)]
QUERIES = [(1, 1, 92, 1.0), (2, 1, 92, 0.5), (14, 3, 125, 1.0), (900, 0, 90, 1.0), (3, 2, 95, 1.0)]


@pytest.fixture
def made(tmp_path):
    """A split, and predictions: for each query all three, the far one first for the last; {number of a query: row}."""
    for half, photos in (("database", DATABASE), ("queries", QUERIES)):
        (tmp_path / half).mkdir()
        for number, (east, north, heading, light) in enumerate(photos):
            photo = Image.fromarray((street(east == 200) * light).round().astype(np.uint8))
            name = photo_name(5e5 + east, 4e6 + north, heading, pano=number)
            photo.save(tmp_path / half / name, quality=95, subsampling=0)
    database, queries = read_images(tmp_path / "database"), read_images(tmp_path / "queries")
    row_of = {int(name.split("@")[7]): row for row, name in enumerate(queries.names)}
    indices = np.tile(np.argsort(database.utm[:, 0]), (5, 1))
    indices[row_of[4]] = indices[0, ::-1].copy()
    distances = np.tile(np.array([0.5, 0.6, 1.0], np.float32), (5, 1))
    positives = find_positives(database.utm, queries.utm)
    return database, queries, Evaluation("split", indices, distances, positives, queries.utm, {1: 0.0}), row_of


def test_each_query_of_a_made_up_split(made):
    database, queries, evaluation, row_of = made
    suggested = suggest_scenarios(database, queries, evaluation)
    by_query = [{s.scenario: s for s in suggested[row_of[i]]} for i in range(5)]
    assert [set(s) for s in by_query] == [set(), {"illumination"}, {"viewpoint"}, set(), {"repetitive"}]
    assert by_query[1]["illumination"].why.startswith("53% as bright")  # (0.5 x + 10) / (x + 10)
    assert by_query[2]["viewpoint"].why == "9 m and 35 degrees from the nearest positive"
    score = math.hypot(math.hypot(9, 3) / 10, 35 / 20) / 2
    assert by_query[2]["viewpoint"].score == pytest.approx(score)
    why = by_query[4]["repetitive"].why
    assert why.startswith("a photo 197 m away is more similar than its positives, its descriptor 50% nearer")
    for query in suggested:
        assert all(0.5 <= s.score <= 1 for s in query) and query == sorted(query, key=lambda s: -s.score)
    assert suggest_scenarios(database, queries, evaluation, [4, 1]) == [suggested[4], suggested[1]]
    assert suggest_scenarios(database, queries, evaluation, []) == []


def test_only_a_far_photo_that_stands_out_and_is_not_explained_otherwise_is_repetitive(made):
    database, queries, evaluation, row_of = made
    alike = replace(evaluation, distances=np.array([[0.9, 0.95, 1.0]] * 5, dtype=np.float32))
    assert suggest_scenarios(database, queries, alike, [row_of[4]]) == [[]]
    is_first = np.arange(3) < 1  # an "ivf" found only one
    indices, distances = np.where(is_first, evaluation.indices, -1), np.where(is_first, evaluation.distances, np.inf)
    partly = replace(evaluation, indices=indices, distances=distances)
    assert suggest_scenarios(database, queries, partly, [row_of[4]]) == [[]]
    mistaken = replace(evaluation, indices=np.repeat(evaluation.indices[[row_of[4]]], 5, axis=0))
    suggested = suggest_scenarios(database, queries, mistaken, [row_of[0], row_of[1]])
    assert [[s.scenario for s in query] for query in suggested] == [["repetitive"], ["illumination"]]
    database.utm[database.utm[:, 0] > 5e5 + 100, 0] -= 160  # the wrong one is now 40 m away
    assert suggest_scenarios(database, queries, mistaken, [row_of[0]]) == [[]]


def test_unknown_headings_are_no_turn(made):
    database, queries, evaluation, row_of = made
    unknown = replace(queries, headings=np.full(5, np.nan))
    assert suggest_scenarios(database, unknown, evaluation, [row_of[2]]) == [[]]  # 9 m alone don't suffice
    unknown.utm[row_of[2], 0] += 3  # evaluation.query_utm is the same array
    ((suggestion,),) = suggest_scenarios(database, unknown, evaluation, [row_of[2]])
    assert suggestion.why == "12 m and 0 degrees from the nearest positive"


def test_bad_input(made):
    database, queries, evaluation, row_of = made
    with pytest.raises(ValueError, match=r"split .*these 4"):
        suggest_scenarios(database, queries[:4], evaluation)
    (queries.root / queries.names[row_of[0]]).write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"@0@@92.*is not a readable photo"):
        suggest_scenarios(database, queries, evaluation)


def test_precision_and_recall_by_hand():
    a, b = Suggestion("viewpoint", 0.9, ""), Suggestion("skyline", 0.6, "")
    measured = measure_suggestions([[a], [a, b], [], [b], [a]], ["viewpoint", "skyline", "skyline", "ordinary", ""])
    assert measured["viewpoint"] == SuggestionScore(1, 2, 50.0, 100.0)
    assert measured["skyline"] == SuggestionScore(2, 2, 50.0, 50.0)
    assert set(measured) == set(SCENARIOS) - {"ordinary"}
    assert math.isnan(measured["occlusion"].precision) and math.isnan(measured["occlusion"].recall)
    with pytest.raises(ValueError, match="suggestions for 1 queries"):
        measure_suggestions([[]], ["", ""])


@pytest.mark.slow
def test_suggestions_against_the_truth_of_a_rendered_city(tmp_path, machine, summary):
    """A city no threshold was chosen on, and a model that was never trained for places."""
    sizes = {"cities": 2, "places": 4, "photos_per_place": 2, "test_database": 32, "test_queries": 6}
    sizes |= {"tokyo_database": 32, "tokyo_places": 1, "val_database": 320, "val_queries": 160, "size": 160}
    write_city(tmp_path / "city", CitySettings(seed=5, **sizes), progress=False)
    database, queries = read_split(tmp_path / "city", "sf_val")
    settings = get_preset("mini")
    model = VPRModel(ResNet(settings.backbone, "city", standardize=True), GeM())
    photos = [PhotoDataset(table, settings.image_size) for table in (database, queries)]
    indices, distances, *_ = predict(model, *photos, settings, machine, "exact")
    positives = find_positives(database.utm, queries.utm)
    evaluation = Evaluation("sf_val", indices, distances, positives, queries.utm, {})
    truth = label_scenarios(queries.names, read_labels(tmp_path / "city"))
    measured = measure_suggestions(suggest_scenarios(database, queries, evaluation), truth)
    summary(f"suggested scenarios on {len(queries)} queries of a rendered city (seed 5)")
    for scenario, m in measured.items():
        counts = f"{m.num_suggested:3d} suggested, {m.num_true:3d} true"
        summary(f"  {scenario:13}{counts}, precision {m.precision:5.1f}%, recall {m.recall:5.1f}%")
    for scenario, (precision, recall) in FLOORS.items():
        assert measured[scenario].precision >= precision and measured[scenario].recall >= recall, scenario
