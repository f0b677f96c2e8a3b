"""PCA-whitening against an eigen-decomposition in NumPy."""

import numpy as np
import pytest

from vpr_lib.whitening import fit_whitening


def correlated(num=300, size=12, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(num, size)) @ generator.normal(size=(size, size)) + 2).astype(np.float32)


def slow_whitening(training, descriptors, num_components):
    """Up to the sign of each component."""
    training, descriptors = training.astype(np.float64), descriptors.astype(np.float64)
    mean = training.mean(0)
    covariance = np.zeros((training.shape[1],) * 2)
    for row in training - mean:
        covariance += np.outer(row, row) / len(training)
    variances, directions = np.linalg.eigh(covariance)  # ascending
    order = np.argsort(-variances)[:num_components]
    projected = (descriptors - mean) @ directions[:, order] / np.sqrt(variances[order])
    return projected / np.linalg.norm(projected, axis=1, keepdims=True)


@pytest.mark.parametrize(("num", "size", "num_components"), [(300, 12, 12), (300, 12, 5), (20, 32, 19)])
def test_whitening_is_an_eigen_decomposition(num, size, num_components):
    training, others = correlated(num, size), correlated(7, size, seed=1)
    found = fit_whitening(training, num_components)(others)
    expected = slow_whitening(training, others, num_components)
    signs = np.sign((found * expected).sum(0))
    assert found.shape == (7, num_components) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected * signs, atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_whitened_training_descriptors_have_identity_covariance():
    training = correlated(num=13_000)  # faiss alone would take 12,000 of them
    projected = fit_whitening(training, 6).project(training)
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(projected.T, bias=True), np.eye(6), atol=1e-4)


def test_a_descriptor_at_the_mean_is_no_division_by_zero():
    training = correlated()
    assert np.isfinite(fit_whitening(training, 3)(training.mean(0, keepdims=True))).all()


@pytest.mark.parametrize(("training", "num_components", "message"), [
    (correlated(8), 8, "more than 8 training photos, there are 8"),
    (correlated(), 13, "13 components; descriptors of 12 numbers"),
    (correlated(), 0, "0 components; .* allow 1 to 12"),
    (correlated(), -2, "-2 components; .* allow 1 to 12"),
    (np.where(np.arange(300)[:, None] == 41, np.inf, correlated()), 4, "descriptor 41 has numbers that aren't finite"),
    (np.repeat(correlated(5), 10, axis=0), 6, "vary in 4 directions, too few for 6"),
    (np.ones((50, 12)), 2, "vary in 0 directions, too few for 2"),
    (np.ones(12), 2, r"shape \(12,\)"),
])  # fmt: skip
def test_what_cannot_be_whitened_is_an_error_that_says_what_was_found(training, num_components, message):
    with pytest.raises(ValueError, match=message):
        fit_whitening(training, num_components)
