"""Settings -> a run folder that is made once and read ever after; evaluating what it holds.

<name>-<8 hex>/settings.json     settings, data and versions
               history.csv       a row for each epoch
               model.pt          the kept weights; there once the run is complete
               predictions/      what `evaluate_run` found, a file for each split
"""

import csv
import hashlib
import io
import json
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vpr_lib.backbones import CITY_WEIGHTS
from vpr_lib.checkpoints import read_checked, to_bytes
from vpr_lib.datasets import PhotoDataset
from vpr_lib.descriptors import extract_dataset
from vpr_lib.devices import choose_device
from vpr_lib.files import write_atomically
from vpr_lib.model import VPRModel, build_model, describe_module, fingerprint, hash_weights, load_model
from vpr_lib.optimization import Scores
from vpr_lib.recall import (
    bootstrap_interval,
    count_without_positive,
    find_positives,
    first_hits,
    group_cells,
    paired_test,
    recall_at_k,
)
from vpr_lib.search import check_search, choose_index, search
from vpr_lib.settings import Machine, Settings
from vpr_lib.table import ImageTable, find_part, find_splits, read_images, read_split
from vpr_lib.training import train

NUM_PREDICTIONS = 25  # database photos kept for each query


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    settings: Settings
    aggregator: nn.Module | None = None  # the instance it was trained with, if `AGGREGATORS` doesn't hold it

    @property
    def complete(self) -> bool:
        """Whether the training has ended and the weights are there."""
        return (self.folder / "model.pt").is_file()

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each finished epoch: epoch, loss, trivial_anchors, lr, photos_per_s, "<split> R@<k>"."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return []
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        return [{name: float(value) for name, value in row.items()} for row in rows]

    def load_model(self) -> VPRModel:
        """The trained model, in eval mode on the CPU.

        Raises:
            FileNotFoundError: the run isn't complete.
            ValueError: it was trained with another aggregator instance.
        """
        if not self.complete:
            raise FileNotFoundError(
                f"{self.folder} has no model.pt: its training hasn't ended; train it again to go on"
            )
        model = load_model(self.folder / "model.pt", self.aggregator)[0]
        trained = json.loads((self.folder / "settings.json").read_text()).get("aggregator")
        if trained is not None and trained != describe_module(model.aggregator):
            raise ValueError(
                f"{self.folder} was trained with an instance of {self.settings.aggregator} that differs from this one; "
                "pass one made as it was: open_run(folder, aggregator=...)"
            )
        return model


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


def get_run(
    settings: Settings,
    data_root: str | Path,
    runs_dir: str | Path = "runs",
    aggregator: nn.Module | Callable[[], nn.Module] | None = None,
    machine: Machine | None = None,
) -> Run:
    """The run of these settings on these photos: trained if it isn't there yet, else read.

    Args:
        settings: what to train.
        data_root: folder with `train` and evaluation splits.
        runs_dir: where runs are kept; the folder's name follows from settings and data.
        aggregator: an instance in place of the one the settings name, or a function that makes one. The function is
            called with the settings' seed, so the run is found again in the next session; an instance with random
            weights is another run each time it is made.
        machine: device, workers, checkpoints.

    Returns:
        The run; not complete if Ctrl-C stopped it, and the same call goes on.
    """
    settings, aggregator = resolve_aggregator(settings, aggregator)
    identity = describe(settings, data_root, aggregator)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{settings.aggregator}-{settings.optimizer}-lr{settings.lr:g}-seed{settings.seed}-{digest}"
    return train_run(settings, data_root, Path(runs_dir) / name, aggregator, machine)


def train_run(
    settings: Settings,
    data_root: str | Path,
    folder: str | Path,
    aggregator: nn.Module | Callable[[], nn.Module] | None = None,
    machine: Machine | None = None,
) -> Run:
    """Train into a folder, go on with what it holds, or return at once if it is complete.

    Args and Returns: as `get_run`, but the folder is the caller's choice.

    Raises:
        ValueError: the folder holds a run of other settings or data, or something else.
    """
    folder, machine = Path(folder), machine or Machine()
    settings, aggregator = resolve_aggregator(settings, aggregator)
    identity = describe(settings, data_root, aggregator)
    run = Run(folder, settings, aggregator)
    if (folder / "settings.json").is_file():
        check_same(folder, json.loads((folder / "settings.json").read_text()), identity)
    elif folder.exists() and not (folder.is_dir() and all(p.suffix == ".tmp" for p in folder.iterdir())):
        raise ValueError(f"{folder} is not empty and no run folder; choose another one")
    if run.complete:
        return run

    if settings.weights is None and settings.freeze_until is not None:
        frozen = f"random weights are frozen until {settings.freeze_until}"
        warnings.warn(f"{frozen}; --set freeze_until=null trains them", stacklevel=2)
    table = read_images(find_part(data_root, "train"))
    model = build_model(settings, aggregator)
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    text = json.dumps(identity | {"versions": versions}, indent=2)
    write_atomically(folder / "settings.json", text.encode())

    validate = make_validator(settings, data_root, machine)
    progress = train(model, settings, table, folder, validate, machine)
    if progress.epoch == settings.epochs:
        state, epoch = model.state_dict(), settings.epochs - 1
        if settings.keep == "best" and progress.best_epoch < 0:
            warnings.warn("no validation split to choose the best epoch on: the last one is kept", stacklevel=2)
        elif settings.keep == "best":
            best = read_checked(folder / "best.pt")
            state, epoch = best["state_dict"], best["epoch"]
        saved = {"state_dict": state, "settings": settings.to_dict(), "epoch": epoch}
        write_atomically(folder / "model.pt", to_bytes(saved))
    return run


def open_run(folder: str | Path, aggregator: nn.Module | None = None) -> Run:
    """A run folder that is there.

    Raises:
        FileNotFoundError: it isn't one.
    """
    path = Path(folder) / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"no run at {folder} (no settings.json); python -m vpr_lib train makes one")
    return Run(Path(folder), Settings.from_dict(json.loads(path.read_text())["settings"]), aggregator)


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
    distances, indices = search(*descriptors, k, device, index=index)
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


def make_validator(settings: Settings, data_root: str | Path, machine: Machine) -> Callable[[nn.Module], Scores] | None:
    """A function that measures a model on the validation splits; decoded photos are kept between epochs.

    None where there is no validation split.
    """
    splits = {}
    for split in validation_splits(settings, data_root):
        tables = read_split(data_root, split)
        splits[split] = [PhotoDataset(table, settings.image_size, machine.cache_gb) for table in tables]

    def validate(model: nn.Module) -> Scores:
        scores = {}
        for split, (database, queries) in splits.items():
            predictions = predict(model, database, queries, settings, machine)
            scores[split] = score(split, database.table, queries.table, predictions, settings).recall
        return scores

    return validate if splits else None


def validation_splits(settings: Settings, data_root: str | Path) -> list[str]:
    """The splits to measure each epoch: those the settings name, or all whose name ends in "val"."""
    if settings.val_splits is not None:
        return list(settings.val_splits)
    return [split for split in find_splits(data_root) if split.endswith("val")]


def resolve_aggregator(
    settings: Settings, aggregator: nn.Module | Callable[[], nn.Module] | None
) -> tuple[Settings, nn.Module | None]:
    """Make the instance if a function is given; settings that name its class."""
    if aggregator is None:
        return settings, None
    if not isinstance(aggregator, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            aggregator = aggregator()
    return replace(settings, aggregator=type(aggregator).__name__, aggregator_options={}), aggregator


def describe(settings: Settings, data_root: str | Path, aggregator: nn.Module | None) -> dict[str, Any]:
    """What makes a run this run: settings, photos (names and sizes), starting weights, an instance's code."""
    tables = [read_images(find_part(data_root, "train"))]
    for split in validation_splits(settings, data_root):
        tables += read_split(data_root, split)
    data = hashlib.sha256("".join(t.fingerprint() for t in tables).encode()).hexdigest()[:16]
    identity = {"settings": settings.to_dict(), "data": data}
    weights = CITY_WEIGHTS if settings.weights == "city" else Path(settings.weights or "")
    if weights.is_file():
        identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    if aggregator is not None:
        identity["aggregator"] = describe_module(aggregator)
        identity["aggregator_weights"] = hash_weights(aggregator)[:16]
    return identity


def check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a ValueError that lists how a run folder differs from what is asked for."""
    extra = {"data": "data", "weights": "weights file", "aggregator": "instance", "aggregator_weights": "its weights"}
    old, new = (d["settings"] | {name: d.get(key) for key, name in extra.items()} for d in (found, wanted))
    changed = [f"{k} is {old.get(k)} there, {new.get(k)} asked for" for k in old | new if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(f"{folder} holds another run: {'; '.join(changed)}. Choose another folder")


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
