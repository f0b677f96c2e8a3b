"""TODO-DOC evaluation."""

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vpr_lib.atomic_files import write_atomically
from vpr_lib.data_roots import read_split
from vpr_lib.descriptors import extract_dataset
from vpr_lib.devices import choose_device
from vpr_lib.identity import fingerprint
from vpr_lib.images import ImageTable
from vpr_lib.loading import PhotoDataset
from vpr_lib.machine import Machine
from vpr_lib.recall import count_without_positive, find_positives, first_hits, recall_at_k
from vpr_lib.run_folders import Run
from vpr_lib.search import check_search, choose_index, search_database
from vpr_lib.settings import Settings
from vpr_lib.statistics import bootstrap_interval, group_cells, paired_test

NUM_PREDICTIONS = 25  # database photos kept for each query


@dataclass(frozen=True)
class Evaluation:
    """What a model found on a split."""

    split: str
    indices: np.ndarray  # (Q, K) int64, database rows, best first
    distances: np.ndarray  # (Q, K) float32, between descriptors
    positives: list[np.ndarray]  # Q sorted arrays of database rows
    query_utm: np.ndarray  # (Q, 2) float64, metres
    recall: dict[int, float]  # {k: percent}
    overlap: dict[int, float] = field(default_factory=dict)  # of an approximate search with the exact one, see search

    @property
    def hits(self) -> np.ndarray:
        """(Q,) bool: whether the first prediction is right."""
        return first_hits(self.indices, self.positives) < 1

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "recall": {str(k): v for k, v in self.recall.items()},
            "queries": len(self.positives),
            "without_positive": count_without_positive(self.positives),
        } | ({"overlap": {str(k): v for k, v in self.overlap.items()}} if self.overlap else {})


def evaluate_run(
    run: Run, data_root: str | Path, split: str, machine: Machine | None = None, index: str = "exact"
) -> Evaluation:
    """Describe, search and score a split; predictions are kept in the run folder and read the next time.

    Args:
        run: a complete run.
        data_root: folder with the split; any root, not only the one trained on.
        split: its name.
        machine: device, workers, batch size.
        index: "exact", or "ivf" for a database too large for it, see `search.search`.

    Raises:
        FileNotFoundError: no such split, or the run isn't complete.
        ValueError: the split has no database or no queries, or there is no such index.
    """
    machine = machine or Machine()
    database, queries = read_split(data_root, split)
    index = choose_index(index, len(database))
    model = run.load_model()
    path = locate_predictions(run, model, split, database, queries, index)
    if not path.is_file():
        size = run.settings.image_size
        photos = PhotoDataset(database, size), PhotoDataset(queries, size)
        predictions = predict(model, *photos, run.settings, machine, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, **predictions)
        write_atomically(path, buffer.getvalue())
    with np.load(path) as found:
        return score(split, database, queries, found, run.settings)


def read_predictions(
    run: Run, data_root: str | Path, split: str, database: ImageTable, queries: ImageTable
) -> Evaluation:
    """What `evaluate_run` found before, without computing anything.

    Args:
        run: a complete run.
        data_root: folder with the split.
        split: its name.
        database, queries: of the split, as `read_split` gives them.

    Raises:
        FileNotFoundError: the run wasn't evaluated on these photos, or isn't complete.
    """
    path = locate_predictions(run, run.load_model(), split, database, queries)
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no predictions for the photos of {split} in {data_root}; make them with evaluate_run or "
            f"python -m vpr_lib evaluate --run {run.folder} --data {data_root} --split {split}"
        )
    with np.load(path) as found:
        return score(split, database, queries, found, run.settings)


def locate_predictions(
    run: Run, model: nn.Module, split: str, database: ImageTable, queries: ImageTable, index: str = "exact"
) -> Path:
    """The file for what this model finds on these photos: its name changes with either."""
    key = f"{fingerprint(model)}-{database.fingerprint()}-{queries.fingerprint()}"
    key += "" if index == "exact" else f"-{index}"
    name = f"{split.strip('/').replace('/', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.npz"
    return run.folder / "predictions" / name


def predict(
    model: nn.Module,
    database: PhotoDataset,
    queries: PhotoDataset,
    settings: Settings,
    machine: Machine,
    index: str = "exact",
) -> dict[str, np.ndarray]:
    """The nearest database photos of each query.

    Returns:
        "indices" (Q, K) int64 and "distances" (Q, K) float32; for an approximate index also "overlap" (2, 2), rows of
        k and percent.
    """
    device = str(choose_device(machine.device))
    descriptors = [extract_dataset(model, part, settings.precision, machine) for part in (database, queries)]
    k = min(max(NUM_PREDICTIONS, *settings.ks), len(database.table))
    distances, indices = search_database(*descriptors, k, device, index=index)
    found = {"indices": indices, "distances": distances}
    if index != "exact":
        found["overlap"] = np.array(list(check_search(*descriptors, indices, device).items()))
    return found


def score(
    split: str,
    database: ImageTable,
    queries: ImageTable,
    found: Mapping[str, np.ndarray],
    settings: Settings,
) -> Evaluation:
    """Compare what `predict` found with positions. Ranks beyond the database are left out, with a warning."""
    positives = find_positives(database.utm, queries.utm, settings.radius_m)
    ks = [k for k in settings.ks if k <= len(database)]
    if len(ks) < len(settings.ks):
        beyond = sorted(set(settings.ks) - set(ks))
        warnings.warn(f"no recall at k = {beyond}: the database of {split} has {len(database)} photos", stacklevel=2)
    if not ks:
        raise ValueError(f"all of ks = {settings.ks} exceed the {len(database)} photos in the database of {split}")
    overlap = {int(k): float(percent) for k, percent in found["overlap"]} if "overlap" in found else {}
    recall = recall_at_k(found["indices"], positives, ks)
    return Evaluation(split, found["indices"], found["distances"], positives, queries.utm, recall, overlap)


def compare_runs(
    runs: Mapping[str, Run], data_root: str | Path, splits: Sequence[str], machine: Machine | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluate runs on the same splits, with what it takes to call a difference one.

    Args:
        runs: name -> complete run.
        data_root: folder with the splits.
        splits: their names.
        machine: device, workers, batch size.

    Returns:
        {name: {split: {"recall": {k: percent}, "queries", "without_positive", "interval": 95% of R@1, "p_value": of
        the paired test on R@1 against the run before, None for the first}}}
    """
    found = {name: {s: evaluate_run(run, data_root, s, machine) for s in splits} for name, run in runs.items()}
    return compare_evaluations(found)


def compare_evaluations(
    evaluations: Mapping[str, Mapping[str, Evaluation]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """`compare_runs` for what is already evaluated.

    Args:
        evaluations: {name: {split: evaluation}}, the same splits for each name.
    """
    results: dict[str, dict[str, dict[str, Any]]] = {}
    before: Mapping[str, Evaluation] = {}
    for name, by_split in evaluations.items():
        results[name] = {
            split: found.to_dict()
            | {
                "recall": found.recall,
                "interval": bootstrap_interval(found.hits, group_cells(found.query_utm)),
                "p_value": paired_test(before[split].hits, found.hits) if before else None,
            }
            for split, found in by_split.items()
        }
        before = by_split
    return results
