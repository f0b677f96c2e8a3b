"""Descriptors -> the nearest database rows of each query; the database is read a chunk at a time.

Exact search uses faiss on a CPU and torch on a GPU. Approximate search, for many queries against a large database, uses
an index of `ivf_index`.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from vpr_lib.ivf_index import INDEXES, IVF_MIN_ROWS, IVF_NPROBE, build_ivf, search_index
from vpr_lib.options import check_choice
from vpr_lib.processes import count_processes, gather_objects, share_errors, share_rows

CHUNK_ROWS = 65536
SAMPLE_COMPARISONS = 5_000_000_000  # about a minute on two cores, for 1,024 numbers
BLOCK_ROWS = 1024  # faiss compares so many rows at a time; where blocks begin changes the last bits of distances


def search_database(
    database: np.ndarray,
    queries: np.ndarray,
    k: int,
    device: str = "auto",
    chunk_size: int = CHUNK_ROWS,
    index: str = "exact",
    nprobe: int = IVF_NPROBE,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database descriptors of each query, by Euclidean distance.

    For unit-norm descriptors this is the order of cosine similarity: distance^2 = 2 - 2 similarity.

    Args:
        database: (N, D) float32 or float16. Memory-mapped (`np.load(path, mmap_mode="r")`), it may exceed the memory.
        queries: (Q, D) float32 or float16.
        k: neighbors of each query, at most N.
        device: "cpu" (faiss), a GPU (torch), or "auto" for the GPU if there is one; an index runs on the CPU.
        chunk_size: database rows compared at a time, as float32.
        index: "exact", or "ivf", "ivf-sq8" or "ivf-pq" to compare only with the most promising rows: an index, see
            `ivf_index`, is built in memory. With fewer than 10,000 rows, the search is exact, with a warning.
        nprobe: lists of the index that each query is compared with: more lists find more and take longer.

    Returns:
        distances (Q, k) float32, nearest first, and indices (Q, k) int64. On a CPU, the lower index comes first where
        distances are equal. Where an index finds fewer than k, indices are -1 and distances infinite.

    Raises:
        ValueError: k exceeds the database, the shapes don't fit, a number isn't positive, or there is no such index.
    """
    database = np.asanyarray(database)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise ValueError(f"descriptors of shapes {database.shape} and {queries.shape}; expected (N, D) and (Q, D)")
    if not 1 <= k <= len(database):
        raise ValueError(f"k = {k}, but the database has {len(database)} photos; k must be 1 to {len(database)}")
    if chunk_size < 1 or nprobe < 1:
        raise ValueError(f"chunk_size = {chunk_size} and nprobe = {nprobe}; both must be at least 1")
    if choose_index(index, len(database)) != "exact":
        return search_index(build_ivf(database, index, chunk_size), database, queries, k, nprobe)
    squared, indices = _search_exactly(database, queries, k, device, chunk_size)
    return np.sqrt(squared), indices


def _search_exactly(
    database: np.ndarray, queries: np.ndarray, k: int, device: str, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and indices."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    search = _search_faiss if device == "cpu" else functools.partial(search_torch, device=device)
    squared, indices = search(database, queries, k, chunk_size=chunk_size)
    return np.maximum(squared, 0.0), indices  # rounding may leave less than 0


def _read_chunks(database: np.ndarray, chunk_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """First row and rows of each chunk, as contiguous float32; copied only if they are something else."""
    for start in range(0, len(database), chunk_size):
        yield start, np.ascontiguousarray(database[start : start + chunk_size], dtype=np.float32)


def _search_faiss(database: np.ndarray, queries: np.ndarray, k: int, chunk_size: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss  # here, because not every GPU environment has it

    best = np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
    for start, chunk in _read_chunks(database, chunk_size):
        squared, rows = faiss.knn(queries, chunk, min(k, len(chunk)))
        rows[rows >= 0] += start  # -1: not comparable, for example NaN
        best = _merge([best, (squared, rows)], k)
    return best


def _merge(found: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of several searches, in consecutive parts of a database: (squared distances, indices) of each."""
    distances, indices = (np.hstack(arrays) for arrays in zip(*found, strict=True))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]  # stable: the lower index first
    return np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)


def search_together(
    database: np.ndarray, queries: np.ndarray, k: int, device: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """`search_database` by all processes: each compares all queries with its part of the rows, and reads only these.

    On a CPU, the result is that of one process to the last bit.

    Args:
        database: (N, D), the same in all processes; memory-mapped, it may exceed the memory of one machine.
        queries, k, device: as in `search_database`.

    Returns:
        The same in all processes, as from `search_database`.
    """
    if count_processes() == 1:
        return search_database(database, queries, k, device)
    part = share_rows(len(database), BLOCK_ROWS)
    number = part.stop - part.start
    found = np.empty((len(queries), 0), dtype=np.float32), np.empty((len(queries), 0), dtype=np.int64)
    with share_errors():
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if number:
            squared, indices = _search_exactly(database[part], queries, min(k, number), device, CHUNK_ROWS)
            found = squared, np.where(indices < 0, -1, indices + part.start)
    squared, indices = _merge(gather_objects(found), k)
    return np.sqrt(squared), indices


@torch.no_grad()
def search_torch(
    database: np.ndarray, queries: np.ndarray, k: int, device: str, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and indices, on a torch device, which holds the queries and one chunk of the database."""
    query = torch.tensor(queries, device=device)
    best = torch.full((len(query), k), torch.inf, device=device)
    indices = torch.full((len(query), k), -1, device=device)
    for start, rows in _read_chunks(database, chunk_size):
        chunk = torch.tensor(rows, device=device)
        # |q - d|^2 without |q|^2, which is the same for all d: (Q, chunk)
        squared = torch.addmm(chunk.square().sum(1), query, chunk.T, alpha=-2)
        nearest, positions = squared.topk(min(k, len(chunk)), largest=False)
        best, order = torch.cat([best, nearest], 1).topk(k, largest=False)
        indices = torch.cat([indices, positions + start], 1).gather(1, order)
    return (best + query.square().sum(1, keepdim=True)).cpu().numpy(), indices.cpu().numpy()


def choose_index(index: str, num_rows: int) -> str:
    """`index`, or "exact" with a warning if the database is too small; an unknown one is a ValueError."""
    if check_choice("index", index, INDEXES) != "exact" and num_rows < IVF_MIN_ROWS:
        text = f"{num_rows} photos are too few for index {index} ({IVF_MIN_ROWS} or more): the search is exact"
        warnings.warn(text, stacklevel=3)
        return "exact"
    return index


def search_sample(
    database: np.ndarray, queries: np.ndarray, k: int, device: str = "auto", max_queries: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """An exact search for a random sample of queries, fewer in a very large database, to judge an approximate one by.

    Returns:
        The queries' rows, (S,) int64, and the indices of their nearest photos, (S, k) int64.
    """
    number = min(max_queries, max(100, SAMPLE_COMPARISONS // len(database)))
    rows = np.random.default_rng(0).permutation(len(queries))[:number]
    return rows, search_together(database, queries[rows], k, device)[1]


def measure_overlap(indices: np.ndarray, exact: np.ndarray, ks: Sequence[int] = (1, 25)) -> dict[int, float]:
    """{k: percent of the first k of an exact search (Q, K) that are among the first k of an approximate one}."""
    pairs = list(zip(indices, exact, strict=True))
    return {k: float(100 * np.mean([np.isin(right[:k], row[:k]) for row, right in pairs])) for k in ks}
