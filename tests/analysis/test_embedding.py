"""Descriptors in two dimensions: the same each time, neighbors together, and what can't be read off is said."""

import numpy as np
import pytest

from vpr_lib.analysis import embedding
from vpr_lib.analysis.embedding import embed_descriptors, list_methods, sample_rows


@pytest.fixture(scope="module")
def groups():
    """Descriptors (60, 32) and (30, 32) of three places, and the place of each row."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 32))
    places = np.repeat([0, 1, 2], 30)
    vectors = centers[places] + rng.normal(0, 0.1, (90, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    is_query = np.arange(90) % 3 == 0
    return vectors[~is_query], vectors[is_query], places[~is_query], places[is_query]


def test_pca_is_the_projection_on_the_directions_of_the_largest_variance(groups):
    database, queries, *_ = groups
    found = embed_descriptors(database, queries, "pca")
    both = np.concatenate([database, queries]).astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(both.T))
    by_hand = (both - both.mean(0)) @ directions[:, [-1, -2]]
    points = np.concatenate([found.database, found.queries])
    assert points.dtype == np.float32 and found.database.shape == (60, 2)
    np.testing.assert_allclose(np.abs(points), np.abs(by_hand), atol=1e-5)  # directions have no sign
    assert f"{100 * values[-2:].sum() / values.sum():.0f}% of the variance" in found.note


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_photos_of_a_place_lie_together(groups, method):
    database, queries, database_places, query_places = groups
    found = embed_descriptors(database, queries, method)
    nearest = np.linalg.norm(found.queries[:, None] - found.database[None], axis=2).argmin(1)
    np.testing.assert_array_equal(database_places[nearest], query_places)


@pytest.mark.slow
def test_the_map_is_always_the_same(groups):
    database, queries, *_ = groups
    first, second = (embed_descriptors(database, queries, "tsne") for _ in range(2))
    np.testing.assert_array_equal(first.queries, second.queries)
    np.testing.assert_array_equal(first.database, second.database)
    assert "Distances between groups" in first.note


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("shape", [(3, 1, 8), (4, 2, 1), (5, 0, 3)])
def test_few_photos_and_short_descriptors(method, shape):
    num_database, num_queries, size = shape
    vectors = np.random.default_rng(0).normal(size=(num_database + num_queries, size)).astype(np.float32)
    found = embed_descriptors(vectors[:num_database], vectors[num_database:], method)
    assert found.queries.shape == (num_queries, 2) and np.isfinite(found.database).all()


def test_arguments_that_make_no_map():
    vectors = np.zeros((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"'tsen'.*tsne, pca"):
        embed_descriptors(vectors, vectors, "tsen")
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 2\)"):
        embed_descriptors(vectors, vectors[:, :2])
    with pytest.raises(ValueError, match="3 photos"):
        embed_descriptors(vectors[:2], vectors[:1])


def test_umap_is_offered_if_it_is_installed(monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    assert list(list_methods()) == ["tsne", "pca"]
    monkeypatch.setattr(embedding, "find_spec", lambda name: object())
    assert list(list_methods()) == ["tsne", "pca", "umap"]


def test_a_sample_is_always_the_same():
    assert sample_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(1000, 50)
    assert len(set(rows)) == 50 and (np.diff(rows) > 0).all() and rows.max() > 800
    np.testing.assert_array_equal(rows, sample_rows(1000, 50))
