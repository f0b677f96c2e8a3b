"""Embedding: descriptors of a split in two dimensions, to see which photos a model takes for alike.

The same descriptors give the same points: seeds are fixed, and the computation runs in one thread, because sums of
several threads differ in their last digits, which t-SNE amplifies.
"""

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from vpr_lib.options import check_choice

METHODS = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}
MAX_QUERIES, MAX_DATABASE = 2000, 1000  # photos in a map; of more, a random sample
NUM_COMPONENTS = 50  # of PCA before t-SNE and UMAP: removes noise and takes less time
PERPLEXITY = 30.0  # of t-SNE: about how many neighbors are kept together
SEED = 0
NEIGHBORS_NOTE = (
    "photos with similar descriptors lie close together. Distances between groups and the sizes of groups mean nothing."
)


class Embedding(NamedTuple):
    """Photos in two dimensions; the unit of the axes has no meaning."""

    database: np.ndarray  # (N, 2) float32
    queries: np.ndarray  # (Q, 2) float32
    note: str  # what can and can't be read off


def list_methods() -> dict[str, str]:
    """{method: title} of those that are installed: UMAP needs the package umap-learn."""
    return {name: title for name, title in METHODS.items() if name != "umap" or find_spec("umap")}


def sample_rows(num_rows: int, max_rows: int) -> np.ndarray:
    """Sorted int64 rows: all, or a random sample of `max_rows`, always the same one."""
    if num_rows <= max_rows:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(SEED).permutation(num_rows)[:max_rows])


def embed_descriptors(database: np.ndarray, queries: np.ndarray, method: str = "tsne") -> Embedding:
    """Reduce the descriptors of database and queries together to two dimensions.

    Args:
        database: float32 (N, D).
        queries: float32 (Q, D), from the same model.
        method: a key of `list_methods`.

    Raises:
        ValueError: an unknown method, one that isn't installed, other shapes, or fewer than four photos.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE (JMLR 2008); McInnes, Healy and Melville, UMAP
    (arXiv 1802.03426).
    """
    check_choice("method", method, list_methods())
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise ValueError(f"descriptors of shapes {database.shape} and {queries.shape}; expected (N, D) and (Q, D)")
    descriptors = np.concatenate([database, queries]).astype(np.float64)
    if len(descriptors) < 4:
        raise ValueError(f"{len(descriptors)} photos; a map needs at least four")
    from threadpoolctl import threadpool_limits  # it comes with scikit-learn

    with threadpool_limits(1):
        points, note = {"pca": _run_pca, "tsne": _run_tsne, "umap": _run_umap}[method](descriptors)
    points = points.astype(np.float32)
    return Embedding(points[: len(database)], points[len(database) :], note)


def _reduce_linearly(descriptors: np.ndarray, num_components: int) -> tuple[np.ndarray, float]:
    """Principal components (n, num_components), and the percentage of the variance that they hold."""
    from sklearn.decomposition import PCA

    pca = PCA(min(num_components, *descriptors.shape), svd_solver="full")
    points = pca.fit_transform(descriptors)
    return points, 100 * float(np.nan_to_num(pca.explained_variance_ratio_).sum())


def _run_pca(descriptors: np.ndarray) -> tuple[np.ndarray, str]:
    points, percent = _reduce_linearly(descriptors, 2)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))  # descriptors of one number
    text = f"PCA: the two directions in which descriptors differ most; they hold {percent:.0f}% of the variance"
    return points, f"{text}, so photos that lie close together here may still differ in the others."


def _run_tsne(descriptors: np.ndarray) -> tuple[np.ndarray, str]:
    from sklearn.manifold import TSNE

    reduced, _ = _reduce_linearly(descriptors, NUM_COMPONENTS)
    perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
    init = "pca" if reduced.shape[1] > 1 else "random"
    points = TSNE(init=init, perplexity=perplexity, random_state=SEED).fit_transform(reduced)
    return points, f"t-SNE: {NEIGHBORS_NOTE}"


def _run_umap(descriptors: np.ndarray) -> tuple[np.ndarray, str]:
    from umap import UMAP

    reduced, _ = _reduce_linearly(descriptors, NUM_COMPONENTS)
    points = UMAP(n_neighbors=min(15, len(reduced) - 1), random_state=SEED, n_jobs=1).fit_transform(reduced)
    return points, f"UMAP: {NEIGHBORS_NOTE}"
