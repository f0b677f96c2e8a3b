"""Descriptors -> ranked database indices and distances, exact: faiss on a CPU, chunked torch on a GPU."""

import numpy as np
import torch


def search(
    database: np.ndarray, queries: np.ndarray, k: int, device: str = "auto", chunk_size: int = 65536
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest database descriptors of each query, by Euclidean distance.

    For unit-norm descriptors that is also the order of cosine similarity: distance^2 = 2 - 2 similarity.

    Args:
        database: (N, D) float32.
        queries: (Q, D) float32.
        k: neighbours of each query, at most N.
        device: "cpu" (faiss), a GPU (torch), or "auto" for the GPU where there is one.
        chunk_size: database rows compared at a time by torch.

    Returns:
        distances (Q, k) float32, nearest first, and indices (Q, k) int64.

    Raises:
        ValueError: k exceeds the database, or the shapes don't fit.
    """
    database = np.ascontiguousarray(database, dtype=np.float32)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if database.ndim != 2 or queries.ndim != 2 or database.shape[1] != queries.shape[1]:
        raise ValueError(f"descriptors of shapes {database.shape} and {queries.shape}; expected (N, D) and (Q, D)")
    if not 1 <= k <= len(database):
        raise ValueError(f"k = {k}, but the database has {len(database)} photos; k must be 1 to {len(database)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return _search_faiss(database, queries, k)
    return search_torch(torch.from_numpy(database), torch.from_numpy(queries), k, device, chunk_size)


def _search_faiss(database: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss  # here, because not every GPU environment has it

    squared, indices = faiss.knn(queries, database, k)
    return np.sqrt(np.maximum(squared, 0.0)), indices


@torch.no_grad()
def search_torch(
    database: torch.Tensor, queries: torch.Tensor, k: int, device: str, chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """`search` on any torch device; the device holds the queries and one chunk of the database at a time."""
    queries = queries.to(device)
    best = torch.full((len(queries), k), torch.inf, device=device)
    indices = torch.full((len(queries), k), -1, device=device)
    for start in range(0, len(database), chunk_size):
        chunk = database[start : start + chunk_size].to(device)
        # |q - d|^2 without |q|^2, which is the same for all d: (Q, chunk)
        squared = torch.addmm(chunk.square().sum(1), queries, chunk.T, alpha=-2)
        near, where = squared.topk(min(k, len(chunk)), largest=False)
        best, order = torch.cat([best, near], 1).topk(k, largest=False)
        indices = torch.cat([indices, where + start], 1).gather(1, order)
    distances = (best + queries.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
    return distances.cpu().numpy(), indices.cpu().numpy()
