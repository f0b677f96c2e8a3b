"""The nearest database photos of each query, and their files in a run folder."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import hash_text, read_zip, seal_zip
from vpr_lib.data_roots import DataRoot
from vpr_lib.run_folders import Run

NUM_PREDICTIONS = 25  # database photos kept for each query


class Predictions(NamedTuple):
    """The nearest database photos of each query; the fields are those of `evaluation.Evaluation`."""

    indices: np.ndarray
    distances: np.ndarray
    overlap: dict[int, float]


def find_predictions(run: Run, data_root: DataRoot, split: str, index: str, whiten: int = 0) -> Path:
    """The file for this model on these photos: its name changes with all that changes the predictions.

    Args:
        run, data_root, split, index, whiten: as in `evaluation.evaluate_run`.

    Raises:
        FileNotFoundError: the run isn't complete, or there are no training photos to fit a whitening on.
    """
    settings = run.settings
    options = f"{settings.image_size}-{settings.precision}-{max(NUM_PREDICTIONS, *settings.ks)}-{index}"
    if whiten:
        try:
            options += f"-whiten{whiten}-{data_root.fingerprint('train')}"
        except FileNotFoundError as error:
            raise FileNotFoundError(f"whitening is fitted on training photos, but {error}") from None
    key = f"{run.model_hash}-{data_root.fingerprint(split)}-{options}"
    return run.folder / "predictions" / f"{split.strip('/').replace('/', '-')}-{hash_text(key)[:8]}.npz"


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a file with its checksum; OSError where nothing can be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    overlap = np.array(list(predictions.overlap.items())).reshape(-1, 2)  # rows of k and percent
    np.savez(buffer, indices=predictions.indices, distances=predictions.distances, overlap=overlap)
    write_atomically(path, seal_zip(buffer.getvalue()))


def read_predictions(path: Path) -> Predictions:
    """Read such a file; `DamagedFile` if it isn't what was written."""
    with np.load(read_zip(path, "evaluate_run computes it again")) as arrays:
        overlap = {int(k): float(percent) for k, percent in arrays["overlap"]}
        return Predictions(arrays["indices"], arrays["distances"], overlap)
