"""The nearest database photos of each query, and their files in a run folder."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import DamagedFile, hash_text, read_zip, seal_zip
from vpr_lib.data_roots import DataRoot
from vpr_lib.descriptors import Dataset, extract_from_dataset, save_descriptors
from vpr_lib.devices import choose_device
from vpr_lib.index_folders import build_index, open_index
from vpr_lib.ivf_index import IVF_NPROBE, search_index
from vpr_lib.machine import Machine
from vpr_lib.processes import gather_objects, run_on_main, share_errors, share_rows
from vpr_lib.run_folders import Run
from vpr_lib.search import search_sample, search_together
from vpr_lib.settings import Settings
from vpr_lib.whitening import Whitening

NUM_PREDICTIONS = 25  # database photos kept for each query
NO_SAMPLE = np.empty(0, dtype=np.int64)


class Predictions(NamedTuple):
    """The nearest database photos of each query; the first fields are those of `evaluation.Evaluation`."""

    indices: np.ndarray
    distances: np.ndarray
    sample: np.ndarray = NO_SAMPLE  # (S,) int64, rows of queries that were also searched exactly, if the search wasn't
    exact: np.ndarray = NO_SAMPLE  # (S, K) int64, what was found for them


def predict(
    model: nn.Module,
    database: Dataset,
    queries: Dataset,
    settings: Settings,
    machine: Machine,
    index: str,
    whitening: Whitening | None = None,
    keep: Path | None = None,
    nprobe: int = IVF_NPROBE,
) -> Predictions:
    """The nearest database photos of each query.

    Args:
        model: computes the descriptors.
        database, queries: its photos or frozen features.
        settings: precision, number of predictions.
        machine: device, batch size.
        index, nprobe: as in `evaluation.evaluate_run`.
        whitening: of the descriptors; None takes them as they are.
        keep: file for the descriptors of the database, which an index needs; None keeps them in memory.
    """
    device = str(choose_device(machine.device))
    finish = whitening or (lambda descriptors: descriptors)
    if keep:
        vectors = save_descriptors(keep, model, database, settings.precision, machine, finish)
    else:
        vectors = finish(extract_from_dataset(model, database, settings.precision, machine))
    query_vectors = finish(extract_from_dataset(model, queries, settings.precision, machine))
    k = min(max(NUM_PREDICTIONS, *settings.ks), len(database.table))
    if index == "exact":
        distances, indices = search_together(vectors, query_vectors, k, device)
        return Predictions(indices, distances)
    distances, indices = _search_index(keep.with_suffix(f".{index}"), vectors, query_vectors, k, index, nprobe)
    return Predictions(indices, distances, *search_sample(vectors, query_vectors, k, device))


def _search_index(
    folder: Path, database: np.ndarray, queries: np.ndarray, k: int, kind: str, nprobe: int
) -> tuple[np.ndarray, np.ndarray]:
    """By the index in a folder, which is built first if there is none; each process searches for a part of queries."""
    opened: list[Any] = []
    run_on_main(lambda: opened.append(_open_or_build(folder, database, kind)))
    with share_errors():
        index = opened[0] if opened else open_index(folder, database, kind)
        found = search_index(index, database, queries[share_rows(len(queries))], k, nprobe)
    distances, indices = zip(*gather_objects(found), strict=True)
    return np.concatenate(distances), np.concatenate(indices)


def _open_or_build(folder: Path, database: np.ndarray, kind: str) -> Any:
    try:
        return open_index(folder, database, kind)
    except FileNotFoundError:
        pass
    except DamagedFile as error:
        print(error, flush=True)
    print(f"building index {kind} of {len(database):,} descriptors in {folder}", flush=True)
    build_index(database, folder, kind)
    return open_index(folder, database, kind)


def find_predictions(
    run: Run, data_root: DataRoot, split: str, index: str, whiten: int = 0, nprobe: int = IVF_NPROBE
) -> Path:
    """The file for this model on these photos: its name changes with all that changes the predictions.

    Args:
        run, data_root, split, index, whiten, nprobe: as in `evaluation.evaluate_run`.

    Raises:
        FileNotFoundError: the run isn't complete, or there are no training photos to fit a whitening on.
    """
    options = f"{max(NUM_PREDICTIONS, *run.settings.ks)}-{index}"
    if index != "exact":
        options += f"-{nprobe}"
    return run.folder / "predictions" / f"{_name_file(run, data_root, split, options, whiten)}.npz"


def find_descriptors(run: Run, data_root: DataRoot, split: str, whiten: int = 0) -> Path:
    """The file with the descriptors of the split's database; arguments and errors as of `find_predictions`."""
    return run.folder / "descriptors" / f"{_name_file(run, data_root, split, 'database', whiten)}.npy"


def _name_file(run: Run, data_root: DataRoot, split: str, options: str, whiten: int) -> str:
    options = f"{run.settings.image_size}-{run.settings.precision}-{options}"
    if whiten:
        try:
            options += f"-whiten{whiten}-{data_root.fingerprint('train')}"
        except FileNotFoundError as error:
            raise FileNotFoundError(f"whitening is fitted on training photos, but {error}") from None
    key = f"{run.model_hash}-{data_root.fingerprint(split)}-{options}"
    return f"{split.strip('/').replace('/', '-')}-{hash_text(key)[:8]}"


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a file with its checksum; OSError where nothing can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **predictions._asdict())
    write_atomically(path, seal_zip(buffer.getvalue()))


def read_predictions(path: Path) -> Predictions:
    """Read such a file; `DamagedFile` if it isn't what was written."""
    with np.load(read_zip(path, "evaluate_run computes it again")) as arrays:
        return Predictions(**{name: arrays[name] for name in Predictions._fields if name in arrays})
