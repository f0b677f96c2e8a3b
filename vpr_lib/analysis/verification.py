"""Geometric verification: the inliers between queries and their first predictions, kept on disk beside the runs.

<runs>/local_features/<method>/<photo>.npz              local features of a photo, and how long they took
<runs>/local_features/<method>/pairs-<split>-<id>.npz   inliers of pairs of photos

Both are of photos and not of a model, so what one run needed another one finds.
"""

import functools
import hashlib
import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from vpr_lib.analysis.local_features import MAX_PIXELS, LocalFeatures, count_inliers, extract_sift
from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import DamagedFile, hash_text, read_zip, seal_zip
from vpr_lib.data_roots import Split
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine, count_cores
from vpr_lib.photos import read_thumbnail

FOLDER = "local_features"
SAVE_EVERY_S = 60.0  # what a killed process loses of the pairs
CACHED_PHOTOS = 500  # whose features are in the memory of each process; SIFT takes 0.14 MB a photo

Extract = Callable[[np.ndarray], Any]  # photo (H, W, 3) uint8 -> its features
Matcher = Callable[[Any, Any], int]  # features of two photos -> number of inliers


class Verification(NamedTuple):
    """Inliers between queries and their predictions."""

    inliers: np.ndarray  # (Q, K) int64; -1 where a pair was not verified
    seconds: np.ndarray  # (Q,) float64, of one core, for the query's own features and its pairs; 0 without pairs


class Pairs(NamedTuple):
    """Verified pairs of a split, sorted by their keys."""

    keys: np.ndarray  # (P,) int64, row of the query times size of the database, plus row of the database
    inliers: np.ndarray  # (P,) int64
    match_s: np.ndarray  # (P,) float64, seconds
    extract_s: np.ndarray  # (P,) float64, seconds for the features of the query

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where keys of any shape are among the pairs; P where they aren't."""
        places = np.searchsorted(self.keys, keys)
        return np.where(np.append(self.keys, -1)[places] == keys, places, len(self.keys))

    def add(self, others: Sequence["Pairs"]) -> "Pairs":
        """All of them together."""
        columns = [np.concatenate(column) for column in zip(self, *others, strict=True)]
        keys, first = np.unique(columns[0], return_index=True)
        return Pairs(keys, *(column[first] for column in columns[1:]))


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


def verify_predictions(
    photos: Split,
    indices: np.ndarray,
    runs_dir: str | Path,
    split: str,
    extract: Extract = extract_sift,
    matcher: Matcher = count_inliers,
    machine: Machine | None = None,
) -> Verification:
    """Count the inliers between each query and its predictions.

    An interrupted call continues where it was. Files that can't be written are left out.

    Args:
        photos: database and queries.
        indices: (Q, K) int64, database rows to compare each query with; -1 for none.
        runs_dir: features and pairs are kept in its folder `FOLDER`.
        split: name of the split, for the name of a file.
        extract: computes the features of a photo (H, W, 3) uint8 with a longer side of at most 384 pixels.
        matcher: counts the inliers of two photos, given their features. If `extract` or `matcher` is another function
            than the default, all is done in this process, which may hold a model on a GPU, and nothing is kept on disk.
        machine: number of processes, progress bar.

    Raises:
        ValueError, FileNotFoundError: a photo can't be read; the message names it.
    """
    machine = machine or Machine()
    keys = _make_keys(photos, indices)
    is_ours = extract is extract_sift and matcher is count_inliers
    path = _find_pairs(photos, runs_dir, split) if is_ours else None
    pairs = _read_pairs(path) if is_ours else NO_PAIRS
    missing = np.unique(keys[(keys >= 0) & (pairs.find(keys) == len(pairs.keys))])
    if len(missing):
        num_workers = (count_cores() if machine.num_workers < 0 else machine.num_workers) if is_ours else 0
        jobs = list(_list_jobs(photos, missing, path.parent if is_ours else None, extract, matcher))
        with closing(_run_jobs(jobs, num_workers)) as results:
            pairs = _collect(results, len(missing), path, pairs, machine.progress)
    return _look_up(pairs, keys)


def read_inliers(photos: Split, indices: np.ndarray, runs_dir: str | Path, split: str) -> np.ndarray:
    """(Q, K) int64, the inliers of predictions (Q, K) as far as they are known; -1 for the others."""
    return _look_up(_read_pairs(_find_pairs(photos, runs_dir, split)), _make_keys(photos, indices)).inliers


def _make_keys(photos: Split, indices: np.ndarray) -> np.ndarray:
    """(Q, K) int64, see `Pairs`; -1 where there is no prediction."""
    return np.where(indices >= 0, indices + np.arange(len(indices))[:, None] * len(photos.database), -1)


def _look_up(pairs: Pairs, keys: np.ndarray) -> Verification:
    places = pairs.find(keys)
    match_s, extract_s = (np.append(column, 0.0)[places] for column in (pairs.match_s, pairs.extract_s))
    return Verification(np.append(pairs.inliers, -1)[places], match_s.sum(1) + extract_s.max(1, initial=0.0))


# Jobs: one for each query

Job = Callable[[], Pairs]


def _list_jobs(
    photos: Split, keys: np.ndarray, folder: Path | None, extract: Extract, matcher: Matcher
) -> Iterator[Job]:
    queries, rows = np.divmod(keys, len(photos.database))
    for query in np.unique(queries):
        chosen = queries == query
        tables = photos.queries[[query]], photos.database[rows[chosen]]  # small ones, which are sent to the processes
        yield functools.partial(_verify_query, *tables, keys[chosen], folder, extract, matcher)


def _run_jobs(jobs: Sequence[Job], num_workers: int) -> Iterator[Pairs]:
    if num_workers > 1:
        parallel = Parallel(num_workers, return_as="generator")
        yield from parallel(map(delayed(_run_single_threaded), jobs))
    else:
        yield from (job() for job in jobs)


def _run_single_threaded(job: Job) -> Pairs:
    _end_with_parent()
    cv2.setNumThreads(1)  # this process has one core; joblib limits the threads of NumPy
    return job()


@functools.cache
def _end_with_parent() -> None:
    """Let this process end when its parent has ended, even if that was killed; joblib's would wait for minutes."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _verify_query(
    query: ImageTable, candidates: ImageTable, keys: np.ndarray, folder: Path | None, extract: Extract, matcher: Matcher
) -> Pairs:
    """The pairs of one query with its candidates, whose keys are given."""
    own, extract_s = _get_features(query, 0, folder, extract)
    inliers, match_s = [], []
    for row in range(len(candidates)):
        features, _ = _get_features(candidates, row, folder, extract)
        start = time.perf_counter()
        inliers.append(int(matcher(own, features)))
        match_s.append(time.perf_counter() - start)
    return Pairs(keys, np.array(inliers), np.array(match_s), np.full(len(keys), extract_s))


_memory: dict[tuple[str, Extract, Path | None], tuple[Any, float]] = {}  # features of this process, oldest first


def _get_features(table: ImageTable, row: int, folder: Path | None, extract: Extract) -> tuple[Any, float]:
    """Features of a photo and the seconds that they took: from memory, from their file, or computed."""
    photo = hashlib.sha256(table.read_bytes(row)).hexdigest()[:16]  # the same photo may be in several splits
    key = (photo, extract, folder)
    if key not in _memory:
        if len(_memory) >= CACHED_PHOTOS:
            _memory.pop(next(iter(_memory)))
        path = folder / f"{photo}.npz" if folder else None
        _memory[key] = (path and _read_features(path)) or _compute_features(table, row, path, extract)
    return _memory[key]


def _compute_features(table: ImageTable, row: int, path: Path | None, extract: Extract) -> tuple[Any, float]:
    start = time.perf_counter()
    features = extract(read_thumbnail(table, row, MAX_PIXELS))
    seconds = time.perf_counter() - start
    if path:
        with suppress(OSError):  # `_collect` warns of such a disk
            _write_npz(path, seconds=np.array(seconds), **features._asdict())
    return features, seconds


def _collect(results: Iterator[Pairs], num_missing: int, path: Path | None, pairs: Pairs, progress: bool) -> Pairs:
    """Add results to the known pairs and save them, also when it is interrupted."""
    new: list[Pairs] = []
    saved = time.monotonic()
    try:
        with tqdm(total=num_missing, unit="pair", desc="verifying", disable=not progress, leave=False) as bar:
            for result in results:
                new.append(result)
                bar.update(len(result.keys))
                if path and time.monotonic() - saved > SAVE_EVERY_S:
                    _save_pairs(path, new)
                    saved = time.monotonic()
    finally:
        _memory.clear()
        if path and new:
            _save_pairs(path, new)
    return pairs.add(new)


# Files


@functools.cache
def _hash_method() -> str:
    """Changes with the code that computes features and inliers, and with OpenCV's version."""
    from vpr_lib.identity import hash_code  # here, because it imports torch, which the processes don't need

    return hash_text(f"{MAX_PIXELS} {hash_code(extract_sift)} {hash_code(count_inliers)} {cv2.__version__}")


def _find_pairs(photos: Split, runs_dir: str | Path, split: str) -> Path:
    content = hash_text(f"{photos.database.fingerprint} {photos.queries.fingerprint}")[:8]
    return Path(runs_dir) / FOLDER / _hash_method() / f"pairs-{split.strip('/').replace('/', '-')}-{content}.npz"


def _read_pairs(path: Path) -> Pairs:
    if path.is_file():
        try:
            with np.load(read_zip(path, "its pairs are verified again")) as arrays:
                return Pairs(*(arrays[name] for name in Pairs._fields))
        except (OSError, DamagedFile) as error:
            print(error, flush=True)
    return NO_PAIRS


def _save_pairs(path: Path, new: Sequence[Pairs]) -> None:
    """Add pairs to a file; another process may have added to it, too."""
    try:
        _write_npz(path, **_read_pairs(path).add(new)._asdict())
    except OSError as error:
        warnings.warn(f"the next call verifies these pairs again: {error}", stacklevel=4)


def _read_features(path: Path) -> tuple[LocalFeatures, float] | None:
    """None if there is no such file, or none that can be read."""
    try:
        with np.load(read_zip(path, "")) as arrays:
            return LocalFeatures(arrays["points"], arrays["descriptors"]), float(arrays["seconds"])
    except (OSError, DamagedFile):
        return None


def _write_npz(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, seal_zip(buffer.getvalue()))
