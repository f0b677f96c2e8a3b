"""Descriptors -> ranked database indices and distances, reading the database a chunk at a time.

Exact: faiss on a CPU, torch on a GPU. Approximate, for many queries against a large database: faiss's inverted lists.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vpr_lib.options import check_choice

INDEXES = ("exact", "ivf")
IVF_MIN_ROWS = 10_000  # below, comparing a query with every row takes a millisecond or less: nothing to save
IVF_NPROBE = 32


def search_database(
    database: np.ndarray,
    queries: np.ndarray,
    k: int,
    device: str = "auto",
    chunk_size: int = 65536,
    index: str = "exact",
    nprobe: int = IVF_NPROBE,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database descriptors of each query, by Euclidean distance.

    For unit-norm descriptors that is also the order of cosine similarity: distance^2 = 2 - 2 similarity.

    Args:
        database: (N, D) float32 or float16. Memory-mapped (`np.load(path, mmap_mode="r")`), it may exceed the memory.
        queries: (Q, D) float32 or float16.
        k: neighbours of each query, at most N.
        device: "cpu" (faiss), a GPU (torch), or "auto" for the GPU where there is one; "ivf" is the CPU's.
        chunk_size: database rows compared at a time, as float32.
        index: "exact", or "ivf" to compare only with the most promising rows, see `build_ivf`; with fewer than 10,000
            rows that is exact search, too, and a warning says so.
        nprobe: lists of the "ivf" that each query is compared with: more lists find more and take longer.

    Returns:
        distances (Q, k) float32, nearest first, and indices (Q, k) int64. On a CPU, the lower index comes first where
        distances are equal. Where the "ivf" finds fewer than k, indices are -1 and distances infinite.

    Raises:
        ValueError: k exceeds the database, the shapes don't fit, a number isn't positive, or there is no such index.
    """
    database, queries = np.asanyarray(database), np.ascontiguousarray(queries, dtype=np.float32)
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise ValueError(f"descriptors of shapes {database.shape} and {queries.shape}; expected (N, D) and (Q, D)")
    if not 1 <= k <= len(database):
        raise ValueError(f"k = {k}, but the database has {len(database)} photos; k must be 1 to {len(database)}")
    if chunk_size < 1 or nprobe < 1:
        raise ValueError(f"chunk_size = {chunk_size} and nprobe = {nprobe}; both must be at least 1")
    if choose_index(index, len(database)) == "ivf":
        return search_ivf(build_ivf(database, chunk_size), queries, k, nprobe)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return _search_faiss(database, queries, k, chunk_size)
    return search_torch(database, queries, k, device, chunk_size)


def read_chunks(database: np.ndarray, chunk_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of each chunk, as contiguous float32; no copy where the database is that already."""
    for start in range(0, len(database), chunk_size):
        yield start, np.ascontiguousarray(database[start : start + chunk_size], dtype=np.float32)


def _search_faiss(database: np.ndarray, queries: np.ndarray, k: int, chunk_size: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss  # here, because not every GPU environment has it

    best = np.empty((len(queries), 0), dtype=np.float32)
    indices = np.empty((len(queries), 0), dtype=np.int64)
    for start, chunk in read_chunks(database, chunk_size):
        squared, rows = faiss.knn(queries, chunk, min(k, len(chunk)))
        rows[rows >= 0] += start  # -1: not even comparable, as NaN is
        best, indices = np.hstack([best, squared]), np.hstack([indices, rows])
        order = np.argsort(best, axis=1, kind="stable")[:, :k]  # stable: the earlier chunk, so the lower index, first
        best, indices = (np.take_along_axis(a, order, axis=1) for a in (best, indices))
    return np.sqrt(np.maximum(best, 0.0)), indices


@torch.no_grad()
def search_torch(
    database: np.ndarray, queries: np.ndarray, k: int, device: str, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """`search` on any torch device; the device holds the queries and one chunk of the database at a time."""
    query = torch.tensor(queries, device=device)
    best = torch.full((len(query), k), torch.inf, device=device)
    indices = torch.full((len(query), k), -1, device=device)
    for start, rows in read_chunks(database, chunk_size):
        chunk = torch.tensor(rows, device=device)
        # |q - d|^2 without |q|^2, which is the same for all d: (Q, chunk)
        squared = torch.addmm(chunk.square().sum(1), query, chunk.T, alpha=-2)
        near, where = squared.topk(min(k, len(chunk)), largest=False)
        best, order = torch.cat([best, near], 1).topk(k, largest=False)
        indices = torch.cat([indices, where + start], 1).gather(1, order)
    distances = (best + query.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    return distances.cpu().numpy(), indices.cpu().numpy()


def choose_index(index: str, num_rows: int) -> str:
    """`index`, or "exact" with a warning where the database is too small for another one.

    Raises:
        ValueError: there is no such index; the message lists those there are.
    """
    if check_choice("index", index, INDEXES) == "ivf" and num_rows < IVF_MIN_ROWS:
        small = f"{num_rows} photos are too few for index ivf ({IVF_MIN_ROWS} or more)"
        warnings.warn(f"{small}: the search is exact", stacklevel=3)
        return "exact"
    return index


def build_ivf(database: np.ndarray, chunk_size: int = 65536, seed: int = 0) -> Any:
    """Inverted lists: rows in sqrt(N) lists, each in that of the nearest mean; the means are found by k-means.

    Filling the lists so costs what sqrt(N) exact queries cost. The rows are kept as float16, in half the memory and
    searched in about half the time; rounding moves the distances of unit-norm descriptors by less than 1e-4.

    Args:
        database: (N, D), as `search` takes it; all of it is held by the index, in 2 N D bytes.
        chunk_size: rows added at a time.
        seed: of the sample for k-means, and of where it starts.

    Returns:
        A faiss index for `search_ivf`.

    Source: Sivic and Zisserman, Video Google (ICCV 2003); Douze et al., The Faiss library (arXiv:2401.08281).
    """
    import faiss

    num_rows, size = database.shape
    num_lists = int(num_rows**0.5)
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(size), size, num_lists, faiss.ScalarQuantizer.QT_fp16)
    index.cp.seed = seed
    num_samples = min(num_rows, 40 * num_lists)  # faiss asks for 39 or more of each list
    sample = np.sort(np.random.default_rng(seed).choice(num_rows, num_samples, replace=False))
    index.train(np.ascontiguousarray(database[sample], dtype=np.float32))
    for _, chunk in read_chunks(database, chunk_size):
        index.add(chunk)
    return index


def search_ivf(index: Any, queries: np.ndarray, k: int, nprobe: int = IVF_NPROBE) -> tuple[np.ndarray, np.ndarray]:
    """`search` in the `nprobe` lists nearest each query; -1 and infinitely far where they hold fewer than k."""
    index.nprobe = min(nprobe, index.nlist)
    squared, indices = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
    return np.where(indices < 0, np.inf, np.sqrt(np.maximum(squared, 0.0))).astype(np.float32), indices


def check_search(
    database: np.ndarray, queries: np.ndarray, found: np.ndarray, device: str = "auto", sample: int = 1000
) -> dict[int, float]:
    """What an approximate search lost: `measure_overlap` with the exact one, at 1 and at all of its K.

    Args:
        database: (N, D), as `search` takes it.
        queries: (Q, D).
        found: int64 (Q, K), what the approximate search found.
        device: of the exact search.
        sample: queries to search exactly, or all where there are fewer; drawn at random, as every third one may be
            the same hour of the day.
    """
    rows = np.random.default_rng(0).permutation(len(queries))[:sample]
    exact = search_database(database, queries[rows], found.shape[1], device)[1]
    return measure_overlap(found[rows], exact, (1, found.shape[1]))


def measure_overlap(found: np.ndarray, exact: np.ndarray, ks: Sequence[int] = (1, 25)) -> dict[int, float]:
    """How much of the exact neighbours an approximate search finds.

    Args:
        found: int64 (Q, K), indices of the approximate search.
        exact: int64 (Q, K), those of the exact one.
        ks: ranks to look at, each at most K.

    Returns:
        {k: percent of the exact first k that are among the first k found}.
    """
    return {k: float(100 * np.mean([np.isin(e[:k], f[:k]) for e, f in zip(exact, found, strict=True)])) for k in ks}
