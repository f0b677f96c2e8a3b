"""A made-up split with random predictions of two models, and its browser and gallery."""

import numpy as np
import pytest
from conftest import photo_name, write_photo

from vpr_lib.analysis.scenarios import SCENARIOS, Label
from vpr_lib.analysis.suggestions import Suggestion
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import Evaluation
from vpr_lib.gallery import Gallery
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.tags import Tags
from vpr_lib.recall import find_positives, recall_at_k
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings

NUM_QUERIES, NUM_DATABASE, K = 40, 60, 10


def make_evaluation(database, queries, seed):
    """Random predictions, some of them missing."""
    rng = np.random.default_rng(seed)
    positives = find_positives(database.utm, queries.utm)
    indices = np.stack([rng.permutation(len(database))[:K] for _ in range(len(queries))])
    for row in np.flatnonzero(rng.random(len(queries)) < 0.5):
        indices[row, : len(positives[row])] = positives[row][:K]
    indices[::3, K - 4 :] = -1
    distances = np.sort(rng.random((len(queries), K), dtype=np.float32), axis=1)
    distances[indices < 0] = np.inf
    recall = recall_at_k(indices, positives, (1, 5, 10))
    return Evaluation("val", indices, distances, positives, queries.utm, recall)


def make_inliers(evaluation, seed):
    """Random inliers of the first four photos of most queries, with ties."""
    rng = np.random.default_rng(seed)
    inliers = np.full_like(evaluation.indices, -1)
    verified = rng.random(len(inliers)) < 0.7
    inliers[verified, :4] = rng.integers(0, 12, (verified.sum(), 4))
    return inliers


@pytest.fixture(scope="session")
def split(tmp_path_factory):
    """Photos along a street, 10 m apart; the last four queries are far away from it."""
    root = tmp_path_factory.mktemp("street")
    write_photo(root / "one.jpg", 1)
    for half, count in (("database", NUM_DATABASE), ("queries", NUM_QUERIES)):
        (root / "val" / half).mkdir(parents=True)
        for i in range(count):
            east = 5e5 + 10 * i + (1e5 if half == "queries" and i >= NUM_QUERIES - 4 else 0)
            name = photo_name(east, 4e6, 10 * i, "201604", pano=f"{half[0]}{i}Oak")
            (root / "val" / half / name).hardlink_to(root / "one.jpg")
    return root


@pytest.fixture
def browser(split, tmp_path):
    database, queries = read_split(split, "val")
    evaluations = {"A": make_evaluation(database, queries, 1), "B": make_evaluation(database, queries, 2)}
    labels = {name: Label(list(SCENARIOS)[i % 3]) for i, name in enumerate(queries.names) if i % 5}
    tags = Tags(tmp_path / "tags.csv", queries.names)
    tags.toggle(queries.names[5], "skyline")
    inliers = {model: make_inliers(evaluation, 3) for model, evaluation in evaluations.items()}
    inliers["B"][10] = -1  # known for one of the models only
    browser = Browser(database, queries, evaluations, labels, tags, inliers=inliers)
    browser.suggestions[7] = [Suggestion("skyline", 0.9, "why")]
    return browser


@pytest.fixture
def gallery(browser, tmp_path, machine):
    runs = {name: Run(tmp_path / name, Settings()) for name in browser.models}
    return Gallery(browser, runs, None, machine)
