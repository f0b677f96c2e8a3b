"""Approximate search: inverted lists of compressed descriptors, whose best rows are then compared exactly.

An index finds candidates by their codes; the descriptors of these, in memory or in a file, give the distances. Bytes of
a code for D numbers: 2 D for "ivf" (float16), D for "ivf-sq8" (8-bit scalar quantization), 64 to 128 for "ivf-pq" (a
PCA and product quantization; D where that is less).

Sources: Sivic and Zisserman, Video Google (ICCV 2003), for inverted lists; Jegou et al., Product quantization for
nearest neighbor search (TPAMI 2011); Douze et al., The Faiss library (arXiv:2401.08281).
"""

import math
from typing import Any

import numpy as np

from vpr_lib.options import check_choice

INDEXES = ("exact", "ivf", "ivf-sq8", "ivf-pq")
IVF_MIN_ROWS = 10_000  # below, an exact query takes a millisecond or less
IVF_NPROBE = 128
CANDIDATES = 5  # for each neighbor asked for; more found next to nothing in benchmarks/search.py
MIN_CANDIDATES = 50  # of a query, if k is small
PQ_MAX_BYTES = 128  # of a code
PQ_MAX_DIMENSIONS = 512  # of the PCA: 1,024 took twice as long and found no more
PCA_MAX_DIMENSIONS = 2048  # larger descriptors are projected at random first: time grows with the cube
_SEARCH_BYTES = 2**27  # of descriptors compared at a time
_SEARCH_PAIRS = 2**20  # of a query and a candidate, ranked at a time


def build_ivf(database: np.ndarray, kind: str = "ivf", chunk_size: int = 65536, seed: int = 0) -> Any:
    """A faiss index in memory, of sqrt(N) inverted lists around means found by k-means.

    Args:
        database: (N, D) float32 or float16, in memory or memory-mapped. Rows with NaN or infinity are never found.
        kind: "ivf", "ivf-sq8" or "ivf-pq", see the module.
        chunk_size: rows read at a time, as float32.
        seed: of the sample for k-means (40 rows of each list) and of its start.

    Returns:
        The index, for `search_index`.

    Raises:
        ValueError: there is no such kind, the shape isn't (N, D), or there are too few rows to train on.
    """
    index = make_index(database, kind, seed)
    train_index(index, database, seed)
    add_rows(index, database, 0, len(database), chunk_size)
    return index


def search_index(
    index: Any,
    database: np.ndarray,
    queries: np.ndarray,
    k: int,
    nprobe: int = IVF_NPROBE,
    candidates: int = CANDIDATES,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of the candidates that an index finds, by exact Euclidean distances.

    Args:
        index: from `open_index` or `build_ivf`.
        database: the descriptors it was built of. Of a memory-mapped file, the candidates' rows are read.
        queries: (Q, D) float32 or float16.
        k: neighbors of each query, at most N.
        nprobe: lists that each query is compared with: more find more and take longer. Beyond all lists, all are taken.
        candidates: rows compared exactly for each of the k, at least 50 a query: more find more and take longer.

    Returns:
        distances (Q, k) float32, nearest first, and indices (Q, k) int64; the lower index comes first where distances
        are equal. Where the lists hold fewer than k rows, indices are -1 and distances infinite.

    Raises:
        ValueError: the shapes don't fit each other, k exceeds the database, or a number isn't positive.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    ivf = get_ivf(index)
    if database.ndim != 2 or queries.ndim != 2 or {database.shape[1], queries.shape[1]} != {index.d}:
        shapes = f"{database.shape} and {queries.shape}"
        raise ValueError(f"descriptors of shapes {shapes}, expected (N, {index.d}) and (Q, {index.d})")
    if index.ntotal > len(database):
        raise ValueError(f"an index of {index.ntotal} descriptors, but {len(database)} given; give those of the index")
    if not 1 <= k <= len(database):
        raise ValueError(f"k = {k}, but the database has {len(database)} photos; k must be 1 to {len(database)}")
    if nprobe < 1 or candidates < 1:
        raise ValueError(f"nprobe = {nprobe} and candidates = {candidates}; both must be at least 1")
    ivf.nprobe = min(nprobe, ivf.nlist)
    number = min(max(candidates * k, MIN_CANDIDATES), len(database))
    distances = np.empty((len(queries), k), dtype=np.float32)
    indices = np.empty((len(queries), k), dtype=np.int64)
    step = max(1, _SEARCH_PAIRS // number)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        found = index.search(queries[part], number)[1]
        distances[part], indices[part] = _rank_exactly(database, queries[part], found, k)
    return distances, indices


def _rank_exactly(
    database: np.ndarray, queries: np.ndarray, found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query's candidates (Q, C), -1 where there is none, as `search_index` returns them."""
    found = np.sort(found, axis=1)  # the lower index comes first where distances are equal
    squared = np.full(found.shape, np.inf, dtype=np.float32)
    query_rows, columns = np.nonzero(found >= 0)
    order = np.argsort(found[query_rows, columns], kind="stable")  # a file is read in the order of its rows
    query_rows, columns = query_rows[order], columns[order]
    step = max(1, _SEARCH_BYTES // (2 * 4 * queries.shape[1]))
    for start in range(0, len(order), step):
        pairs = query_rows[start : start + step], columns[start : start + step]
        # |a - b|^2 by differences: |a|^2 + |b|^2 - 2ab is inexact for near-duplicates. (pairs, D)
        difference = database[found[pairs]].astype(np.float32, copy=False)
        difference -= queries[pairs[0]]
        squared[pairs] = np.einsum("ij,ij->i", difference, difference)
    squared[np.isnan(squared)] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    squared, found = np.take_along_axis(squared, order, 1), np.take_along_axis(found, order, 1)
    return np.sqrt(squared), np.where(np.isinf(squared), -1, found)


def make_index(database: np.ndarray, kind: str, seed: int) -> Any:
    """An index without rows, not trained."""
    import faiss

    check_choice("index", kind, INDEXES[1:])
    if database.ndim != 2 or 0 in database.shape:
        raise ValueError(f"descriptors of shape {database.shape}; expected (N, D)")
    num_lists, size = math.isqrt(len(database)), database.shape[1]
    if kind == "ivf-pq":
        # dimensions that are coded in one byte, so that there are at most PQ_MAX_BYTES
        together = math.ceil(min(size, PQ_MAX_DIMENSIONS) / PQ_MAX_BYTES)
        num_bytes = min(size, PQ_MAX_DIMENSIONS) // together
        reduced = num_bytes * together
        # Spreads the variance evenly over the bytes, see Ge et al., Optimized product quantization (CVPR 2013), 3.2.
        pca = faiss.PCAMatrix(min(size, PCA_MAX_DIMENSIONS), reduced)
        pca.balanced_bins = num_bytes
        ivf = faiss.IndexIVFPQ(faiss.IndexFlatL2(reduced), reduced, num_lists, num_bytes, 8)
        # Ten iterations take twice as long and find no more. With fewer than 10,240 rows, faiss would warn of that.
        codes = ivf.pq.cp
        codes.seed, codes.niter, codes.max_points_per_centroid, codes.min_points_per_centroid = seed, 5, 40, 1
        ivf.use_precomputed_table = -1  # none: 130 MB for a million rows, and searches took as long without
        index = faiss.IndexPreTransform(pca, ivf)
        if size > PCA_MAX_DIMENSIONS:
            rotation = faiss.RandomRotationMatrix(size, PCA_MAX_DIMENSIONS)
            rotation.init(seed)
            index.prepend_transform(rotation)
    else:
        quantizer = {"ivf": faiss.ScalarQuantizer.QT_fp16, "ivf-sq8": faiss.ScalarQuantizer.QT_8bit}[kind]
        index = ivf = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(size), size, num_lists, quantizer)
    ivf.cp.seed = seed
    return index


def train_index(index: Any, database: np.ndarray, seed: int) -> None:
    """Fit means and codes to a random sample of the rows, without those that aren't finite."""
    import faiss

    ivf = get_ivf(index)
    num_samples = min(len(database), max(40 * ivf.nlist, 10_000))  # faiss asks for 39 of each list, and of 256 codes
    rows = np.sort(np.random.default_rng(seed).choice(len(database), num_samples, replace=False))
    sample = np.ascontiguousarray(database[rows], dtype=np.float32)
    is_finite = np.isfinite(sample).all(axis=1)
    sample = sample if is_finite.all() else sample[is_finite]
    needed = max(ivf.nlist, 256 if isinstance(ivf, faiss.IndexIVFPQ) else 0)
    if len(sample) < needed:
        raise ValueError(f"{len(sample)} of {num_samples} descriptors are finite; the index needs {needed} or more")
    ivf.cp.min_points_per_centroid = 1  # no warning if some of the 40 for each list weren't finite
    index.train(sample)


def add_rows(index: Any, database: np.ndarray, start: int, stop: int, chunk_size: int) -> None:
    """Add rows start to stop - 1 of the database under their own numbers, a chunk at a time."""
    for first in range(start, stop, chunk_size):
        last = min(first + chunk_size, stop)
        chunk = np.ascontiguousarray(database[first:last], dtype=np.float32)
        rows = np.arange(first, last)
        is_finite = np.isfinite(chunk).all(axis=1)
        if not is_finite.all():  # faiss leaves out the others, too; old versions crash
            chunk, rows = chunk[is_finite], rows[is_finite]
        index.add_with_ids(chunk, rows)


def get_ivf(index: Any) -> Any:
    """The inverted lists of an index, without the transformation before them."""
    import faiss

    return faiss.downcast_index(faiss.extract_index_ivf(index))
