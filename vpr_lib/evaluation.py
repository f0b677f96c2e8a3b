"""Evaluating models on splits: predictions, recall, and what differs between models."""

import functools
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vpr_lib.checked_files import DamagedFile
from vpr_lib.data_roots import DataRoot, Split, open_data_root
from vpr_lib.descriptors import Dataset, extract_from_dataset
from vpr_lib.features import open_features
from vpr_lib.images import ImageTable
from vpr_lib.ivf_index import IVF_NPROBE
from vpr_lib.loading import PhotoDataset
from vpr_lib.machine import Machine
from vpr_lib.optimization import Scores
from vpr_lib.predictions import (
    Predictions,
    find_descriptors,
    find_predictions,
    predict,
    read_predictions,
    write_predictions,
)
from vpr_lib.processes import check_same, count_processes, is_main, run_on_main, share_errors, work_together
from vpr_lib.recall import count_without_positive, find_positives, first_hits, recall_at_k
from vpr_lib.run_folders import Run
from vpr_lib.search import choose_index, measure_overlap
from vpr_lib.settings import Settings
from vpr_lib.statistics import bootstrap_interval, group_cells, paired_test
from vpr_lib.whitening import Whitening, fit_whitening

KEPT_PHOTOS = 100_000  # the descriptors of so many or more in a database are kept in a file
MAX_WHITENING_PHOTOS = 20_000  # enough for 1,024 components; half a million would take longer than the evaluation


@dataclass(frozen=True)
class SearchLoss:
    """What an approximate search missed, on a sample of queries that were also searched exactly."""

    num_queries: int
    overlap: dict[int, float]  # {k: percent of the first k of the exact search that it found}
    recall: dict[int, float]  # {k: percent}
    exact_recall: dict[int, float]  # {k: percent}, of the exact search

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model on a split, and how right they are."""

    split: str
    indices: np.ndarray  # (Q, K) int64, database rows, best first; -1 where there is none
    distances: np.ndarray  # (Q, K) float32, between descriptors
    positives: list[np.ndarray]  # Q sorted int64 arrays of database rows
    query_utm: np.ndarray  # (Q, 2) float64, meters
    recall: dict[int, float]  # {k: percent}
    search_loss: SearchLoss | None = None  # of an approximate search

    @functools.cached_property
    def hits(self) -> np.ndarray:
        """(Q,) bool: whether the first prediction is right."""
        return first_hits(self.indices, self.positives) < 1

    @property
    def num_queries(self) -> int:
        """Q, those without a positive included."""
        return len(self.positives)

    @property
    def num_without_positive(self) -> int:
        """Queries without a database photo within the radius; they count as missed."""
        return count_without_positive(self.positives)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        loss = {"search_loss": self.search_loss.to_dict()} if self.search_loss else {}
        recall = {str(k): percent for k, percent in self.recall.items()}
        return {"recall": recall, "queries": self.num_queries, "without_positive": self.num_without_positive} | loss


@dataclass(frozen=True)
class Comparison:
    """A row of a table of models on one split."""

    recall: dict[int, float]  # {k: percent}
    interval: tuple[float, float]  # 95% interval of R@1, percent
    p_value: float | None  # paired test of R@1 against the row before; None in the first row


def evaluate_run(
    run: Run,
    data_root: str | Path | DataRoot,
    split: str,
    machine: Machine | None = None,
    index: str = "exact",
    whiten: int = 0,
    nprobe: int = IVF_NPROBE,
) -> Evaluation:
    """Evaluate a run on a split. Predictions are saved in the run folder; later calls read them.

    Damaged predictions are computed again. Where they can't be saved, and where queries are the same files as database
    photos, a warning says so. The descriptors of a database of 100,000 photos or more, and those that an index or
    several processes read, are kept in the run's folder `descriptors`, with the index beside them.

    Args:
        run: a complete run.
        data_root: folder with the split; any root, not only the one trained on.
        split: its name.
        machine: device, workers, batch size.
        index: "exact", or one of `ivf_index.INDEXES` for a large database. It is built once.
        whiten: components of PCA-whitened descriptors, see `fit_whitening`; 0 takes the model's descriptors as they
            are. Fitted on the data root's `train`, or on 20,000 photos of it, drawn with a fixed seed.
        nprobe: lists of the index that each query is compared with: more lists find more and take longer.

    Raises:
        FileNotFoundError: no such split, the run isn't complete, or there is no `train` to fit the whitening on.
        ValueError: the split has no database or no queries, there is no such index, or too few training photos.
    """
    machine = machine or Machine()
    with work_together():
        machine = replace(machine, progress=machine.progress and is_main())
        with share_errors():
            data_root = open_data_root(data_root)
            photos = data_root.read_split(split)
            _warn_of_leak(split, photos)
            index = choose_index(index, len(photos.database))
            path = find_predictions(run, data_root, split, index, whiten, nprobe)
        check_same({"run, photos or options": path.name})
        predictions = run_on_main(lambda: _read_saved(path))
        if predictions is None:
            is_kept = index != "exact" or count_processes() > 1 or len(photos.database) >= KEPT_PHOTOS
            keep = find_descriptors(run, data_root, split, whiten) if is_kept else None
            model, runs_dir = run.load_model(), run.folder.parent
            once = replace(machine, cache_gb=0.0)
            whitening = _fit_on_training(model, run.settings, data_root, runs_dir, once, whiten) if whiten else None
            database, queries = _open_datasets(model, run.settings, split, photos, runs_dir, once)
            predictions = predict(model, database, queries, run.settings, machine, index, whitening, keep, nprobe)
            run_on_main(lambda: _save(path, predictions))
        return _score(split, photos, predictions, run.settings)


def _read_saved(path: Path) -> Predictions | None:
    """Saved predictions; None if there are none, or damaged ones."""
    try:
        return read_predictions(path) if path.is_file() else None
    except DamagedFile as error:
        print(error, flush=True)
        return None


def _save(path: Path, predictions: Predictions) -> None:
    try:
        write_predictions(path, predictions)
    except OSError as error:
        warnings.warn(f"the next call computes the predictions again: {error}", stacklevel=5)


def evaluate_all(
    runs: Mapping[str, Run], data_root: str | Path | DataRoot, split: str, machine: Machine | None = None
) -> dict[str, Evaluation]:
    """`evaluate_run` for several runs on one split: {name: evaluation}, in the order of the runs."""
    data_root = open_data_root(data_root)
    return {name: evaluate_run(run, data_root, split, machine) for name, run in runs.items()}


def read_evaluation(run: Run, data_root: str | Path | DataRoot, split: str) -> Evaluation:
    """The saved result of `evaluate_run`, without loading a model; FileNotFoundError if there is none."""
    data_root = open_data_root(data_root)
    photos = data_root.read_split(split)
    path = find_predictions(run, data_root, split, "exact")
    if not path.is_file():
        root = data_root.folder
        raise FileNotFoundError(
            f"{run.folder} has no predictions for the photos of {split} in {root}; make them with evaluate_run or "
            f"python -m vpr_lib evaluate --run {run.folder} --data {root} --split {split}"
        )
    return _score(split, photos, read_predictions(path), run.settings)


def compare_evaluations(evaluations: Mapping[str, Evaluation]) -> dict[str, Comparison]:
    """Recall with 95% intervals, and a paired test of each evaluation against the one before.

    Args:
        evaluations: {name: evaluation}, all on one split; others are a ValueError.

    Returns:
        {name: comparison}, in the same order.
    """
    splits = {name: evaluation.split for name, evaluation in evaluations.items()}
    if len(set(splits.values())) > 1:
        raise ValueError(f"evaluations on different splits, {splits}; compare those on one split")
    comparisons = {}
    before: Evaluation | None = None
    for name, evaluation in evaluations.items():
        interval = bootstrap_interval(evaluation.hits, group_cells(evaluation.query_utm))
        p_value = paired_test(before.hits, evaluation.hits) if before else None
        comparisons[name] = Comparison(evaluation.recall, interval, p_value)
        before = evaluation
    return comparisons


def _open_datasets(
    model: nn.Module, settings: Settings, split: str, photos: Split, runs_dir: Path, machine: Machine
) -> list[Dataset]:
    """The halves of a split, each as in `_open_dataset`."""
    halves = photos._asdict().items()
    return [_open_dataset(model, settings, t, runs_dir, machine, f"photos of {split}/{half}") for half, t in halves]


def _open_dataset(
    model: nn.Module, settings: Settings, table: ImageTable, runs_dir: Path, machine: Machine, what: str
) -> Dataset:
    """Photos as the model's frozen features, or else as they are, kept in memory if they fit."""
    features = open_features(model, settings, table, runs_dir, machine, what)
    return features or PhotoDataset(table, settings.image_size, machine.cache_gb)


def _fit_on_training(
    model: nn.Module, settings: Settings, data_root: DataRoot, runs_dir: Path, machine: Machine, num_components: int
) -> Whitening:
    """The whitening of the descriptors of the training photos, or of a random sample of them."""
    table = data_root.train
    if len(table) > MAX_WHITENING_PHOTOS:
        table = table[np.sort(np.random.default_rng(0).permutation(len(table))[:MAX_WHITENING_PHOTOS])]
    dataset = _open_dataset(model, settings, table, runs_dir, machine, "training photos")
    return fit_whitening(extract_from_dataset(model, dataset, settings.precision, machine), num_components)


def _score(split: str, photos: Split, predictions: Predictions, settings: Settings) -> Evaluation:
    """Ranks beyond the size of the database are left out, with a warning."""
    database, queries = photos
    positives = find_positives(database.utm, queries.utm, settings.radius_m)
    ks = _list_ks(split, photos, settings)
    if len(ks) < len(settings.ks):
        beyond = sorted(set(settings.ks) - set(ks))
        warnings.warn(f"no recall at k = {beyond}: the database of {split} has {len(database)} photos", stacklevel=2)
    indices, distances, sample, exact = predictions
    recall = recall_at_k(indices, positives, ks)
    loss = None
    if len(sample):
        right = [positives[query] for query in sample]
        found = [recall_at_k(rows, right, ks) for rows in (indices[sample], exact)]
        loss = SearchLoss(len(sample), measure_overlap(indices[sample], exact, (1, exact.shape[1])), *found)
    return Evaluation(split, indices, distances, positives, queries.utm, recall, loss)


def _list_ks(split: str, photos: Split, settings: Settings) -> list[int]:
    """The ranks that a split's database allows; a ValueError if it allows none."""
    number = len(photos.database)
    if min(settings.ks) > number:
        raise ValueError(f"all of ks = {settings.ks} exceed the {number} photos in the database of {split}")
    return [k for k in settings.ks if k <= number]


def make_validator(
    settings: Settings, data_root: DataRoot, runs_dir: Path, machine: Machine
) -> Callable[[nn.Module], Scores] | None:
    """A function model -> {split: {k: percent}} on the validation splits; None without one.

    It keeps the photos or frozen features that its first model needs, so later ones must have the same frozen part.
    """
    splits = data_root.list_validation_splits(settings.val_splits)
    for split in splits:
        _list_ks(split, data_root.read_split(split), settings)
    datasets: dict[str, list[Dataset]] = {}

    def validate(model: nn.Module) -> Scores:
        scores = {}
        for split in splits:
            photos = data_root.read_split(split)
            if split not in datasets:
                datasets[split] = _open_datasets(model, settings, split, photos, runs_dir, machine)
            predictions = predict(model, *datasets[split], settings, machine, "exact")
            scores[split] = _score(split, photos, predictions, settings).recall
        return scores

    return validate if splits else None


def _warn_of_leak(split: str, photos: Split) -> None:
    """Warn of queries that are database photos: a model needs no skill to find a copy."""
    database, queries = ([*zip(table.sizes.tolist(), table.checksums.tolist(), strict=True)] for table in photos)
    known = set(database)
    if copies := sum(query in known for query in queries):
        warnings.warn(f"{copies} queries of {split} are the same files as database photos", stacklevel=3)
