"""Settings -> a run folder that is made once and read ever after; evaluating what it holds.

<name>-<8 hex>/settings.json     settings, data and versions
               history.csv       a row for each epoch
               model.pt          the kept weights; there once the run is complete
               predictions/      what `evaluate_run` found, a file for each split
"""

import hashlib
import json
import platform
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpr_lib.atomic_files import write_atomically
from vpr_lib.backbones import CITY_WEIGHTS
from vpr_lib.checkpoints import read_checked, to_bytes
from vpr_lib.data_roots import find_part, find_splits, read_split
from vpr_lib.evaluation import predict, score
from vpr_lib.identity import describe_module, hash_weights
from vpr_lib.images import read_images
from vpr_lib.loading import PhotoDataset
from vpr_lib.machine import Machine
from vpr_lib.models import build_model
from vpr_lib.optimization import Scores
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings
from vpr_lib.training import train


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
    identity = make_identity(settings, data_root, aggregator)
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
    identity = make_identity(settings, data_root, aggregator)
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


def make_identity(settings: Settings, data_root: str | Path, aggregator: nn.Module | None) -> dict[str, Any]:
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
