"""PCA-whitening of descriptors: fewer numbers, without correlations, each of the same variance on training photos."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Whitening:
    """A linear map to whitened descriptors, made by `fit_whitening`.

    The components that vary most, such as those of brightness, then no longer dominate the distances.
    """

    matrix: np.ndarray  # (d, D) float32
    bias: np.ndarray  # (d,) float32

    def __call__(self, descriptors: np.ndarray) -> np.ndarray:
        """Unit-norm float32 (M, d) of descriptors (M, D)."""
        projected = self.project(descriptors)
        return projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """As the call, without the normalization: the fitted descriptors have mean 0 and identity covariance."""
        return np.asarray(descriptors, dtype=np.float32) @ self.matrix.T + self.bias


def fit_whitening(descriptors: np.ndarray, num_components: int) -> Whitening:
    """The whitening that keeps the `num_components` directions in which descriptors vary most.

    Args:
        descriptors: (N, D) float32, of training photos: those of a split to be evaluated would leak into its result.
        num_components: d, at most D and less than N.

    Raises:
        ValueError: d doesn't fit to N and D, descriptors aren't finite, or vary in fewer than d directions.

    Source: Jégou and Chum, Negative evidences and co-occurences in image retrieval (ECCV 2012), section 3.
    """
    import faiss  # here, because not every GPU environment has it

    descriptors = np.ascontiguousarray(descriptors, dtype=np.float32)
    if descriptors.ndim != 2:
        raise ValueError(f"descriptors of shape {descriptors.shape}; expected (N, D)")
    num_photos, size = descriptors.shape
    if not 1 <= num_components <= size:
        raise ValueError(f"whitening to {num_components} components; descriptors of {size} numbers allow 1 to {size}")
    if num_photos <= num_components:  # around their mean, N photos span N - 1 directions
        raise ValueError(
            f"whitening to {num_components} components needs more than {num_components} training photos, "
            f"there are {num_photos}"
        )
    if not np.isfinite(descriptors).all():
        row = np.flatnonzero(~np.isfinite(descriptors).all(1))[0]
        raise ValueError(f"training descriptor {row} has numbers that aren't finite; whitening needs finite ones")
    pca = faiss.PCAMatrix(size, num_components, -0.5)  # each component divided by the root of its variance
    pca.max_points_per_d = num_photos  # no random sample of them
    pca.train(descriptors)
    variances = faiss.vector_to_array(pca.eigenvalues)[:num_components]
    number = int((variances > 1e-6 * variances[0]).sum())  # below, a variance is that of float32's rounding
    if number < num_components:
        raise ValueError(f"training descriptors vary in {number} directions, too few for {num_components} components")
    matrix, bias = (faiss.vector_to_array(each) * np.sqrt(np.float32(num_photos)) for each in (pca.A, pca.b))
    return Whitening(matrix.reshape(num_components, size), bias)  # faiss divides by the root of N times the variance
