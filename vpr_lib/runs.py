"""Settings and photos -> a run folder. A run is trained once; later calls with the same arguments open it."""

import hashlib
import json
import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from tqdm.contrib import DummyTqdmFile

from vpr_lib.checked_files import hash_text, write_json
from vpr_lib.checkpoints import read_checked
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.descriptors import sample_local_features
from vpr_lib.evaluation import make_validator
from vpr_lib.identity import hash_library, hash_weights
from vpr_lib.machine import Machine
from vpr_lib.models import build_model, save_model
from vpr_lib.optimization import DEFAULT_OPTIONS
from vpr_lib.options import list_changes
from vpr_lib.processes import check_same, is_main, run_on_main, share_errors, work_together
from vpr_lib.progress import Progress
from vpr_lib.run_folders import Run, has_weights, hash_model_code, lock_folder, read_run_file
from vpr_lib.settings import Settings
from vpr_lib.training import check_training, train
from vpr_lib.trunks import find_city_weights

AnyAggregator = nn.Module | Callable[[], nn.Module] | None
Identity = dict[str, Any]


def get_run(
    settings: Settings,
    data_root: str | Path | DataRoot,
    runs_dir: str | Path = "runs",
    aggregator: AnyAggregator = None,
    machine: Machine | None = None,
) -> Run:
    """The run of these settings on these photos; trains it unless its folder is complete.

    Args:
        settings: what to train.
        data_root: folder with `train` and evaluation splits.
        runs_dir: parent of the run folders; the folder's name follows from settings, photos and code.
        aggregator: an instance in place of the one the settings name, or a function that makes one. The function is
            called with the settings' seed, so the next session finds the same run; an instance with random weights
            is another run each time it is made. If it has a method `initialize`, the training begins with it (on a
            copy of the instance), see `aggregators`.
        machine: device, workers, checkpoints.

    Returns:
        The run; not complete if Ctrl-C stopped it. The same call then resumes it.
    """
    return _train_or_open(settings, data_root, aggregator, machine, runs_dir=Path(runs_dir))


def train_run(
    settings: Settings,
    data_root: str | Path | DataRoot,
    folder: str | Path,
    aggregator: AnyAggregator = None,
    machine: Machine | None = None,
) -> Run:
    """As `get_run`, into a folder of the caller's choice; one that holds anything else is a ValueError."""
    return _train_or_open(settings, data_root, aggregator, machine, folder=Path(folder))


def train_all(
    variants: Mapping[str, Settings],
    data_root: str | Path | DataRoot,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    on_run: Callable[[str, Run], None] | None = None,
) -> dict[str, Run]:
    """`get_run` for {label: settings}, one after another; equal settings are trained once.

    Args:
        variants: {label: settings}.
        data_root, runs_dir, machine: as in `get_run`.
        on_run: called with label and run as soon as the run is complete.

    Returns:
        {label: run}, in order. If Ctrl-C stopped a training, its run is the last one there and is not complete; the
        same call resumes it.
    """
    data_root = open_data_root(data_root)
    machine = machine or Machine()
    total = len({settings.to_json() for settings in variants.values()})
    runs: dict[str, Run] = {}
    trained: dict[str, Run] = {}  # by settings
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc="runs", unit="run", disable=not machine.progress or total < 2))
        if not bar.disable:  # printed lines go above the bars
            stack.enter_context(redirect_stdout(DummyTqdmFile(sys.stdout)))
        for label, settings in variants.items():
            key = settings.to_json()
            if key not in trained:
                print(f"run {len(trained) + 1} of {total}: {label}", flush=True)
                trained[key] = get_run(settings, data_root, runs_dir, machine=machine)
                bar.update(trained[key].complete)
            runs[label] = trained[key]
            if not runs[label].complete:
                break
            if on_run:
                on_run(label, runs[label])
    return runs


def _train_or_open(
    settings: Settings,
    data_root: str | Path | DataRoot,
    aggregator: AnyAggregator,
    machine: Machine | None,
    runs_dir: Path | None = None,
    folder: Path | None = None,
) -> Run:
    """The run in `folder`, or in a folder of `runs_dir` that is named after its settings, photos and code."""
    with work_together():
        data_root = open_data_root(data_root)
        settings, aggregator = _resolve_aggregator(settings, aggregator)
        with share_errors():
            identity = _make_identity(settings, data_root, aggregator)
        check_same(_flatten(identity) | {"kit": hash_library()})
        folder = folder or _name_folder(runs_dir, settings, identity)
        run = Run(folder, settings, aggregator)
        if not run_on_main(lambda: _check_folder(run, identity)):
            machine = machine or Machine()
            _train(run, identity, data_root, replace(machine, progress=machine.progress and is_main()))
    return run


def _name_folder(runs_dir: Path, settings: Settings, identity: Identity) -> Path:
    digest = hash_text(json.dumps(identity, sort_keys=True))[:8]
    return runs_dir / f"{settings.aggregator}-{settings.optimizer}-lr{settings.lr:g}-seed{settings.seed}-{digest}"


def _check_folder(run: Run, identity: Identity) -> bool:
    """Whether a run is complete; a ValueError if its folder holds anything else."""
    folder = run.folder
    if (folder / "settings.json").is_file():
        saved = read_run_file(folder)
        if has_weights(folder):  # else nothing is lost by another run there
            _refuse_other(folder, saved, identity)
    elif folder.exists() and not (folder.is_dir() and all(_is_leftover(path.name) for path in folder.iterdir())):
        raise ValueError(f"{folder} is not empty and no run folder; choose another one")
    return run.complete


def _train(run: Run, identity: Identity, data_root: DataRoot, machine: Machine) -> None:
    settings, folder = run.settings, run.folder
    if settings.weights is None and settings.freeze_until is not None:
        text = f"random weights are frozen until {settings.freeze_until}; --set freeze_until=null trains them"
        warnings.warn(text, stacklevel=4)
    model = build_model(settings, run.aggregator)
    validate = make_validator(settings, data_root, folder.parent, machine)
    check_training(settings, data_root.train, validate)  # before anything is written: a typo must not block the folder
    with ExitStack() as stack:
        state = run_on_main(lambda: _open_folder(run, identity, stack))
        if state == "complete":
            return
        # A checkpoint would overwrite what is initialized here.
        if state == "new" and hasattr(model.aggregator, "initialize"):
            size, seed = settings.image_size, settings.seed
            local_features = sample_local_features(model.backbone, data_root.train, size, seed, machine)
            print(f"{settings.aggregator}: initialized from {len(local_features):,} local features", flush=True)
            model.aggregator.initialize(local_features)
        progress = train(model, settings, data_root.train, folder, validate, machine)
        if progress.epoch < settings.epochs:
            return
        if settings.keep == "best" and validate is None:
            warnings.warn("no validation split to choose the best epoch on: the last one is kept", stacklevel=4)
        run_on_main(lambda: _keep_weights(run, model, progress, validate is not None))


def _open_folder(run: Run, identity: Identity, stack: ExitStack) -> str:
    """Lock a run's folder until the stack is left, write its settings, and say what it holds."""
    run.folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(lock_folder(run.folder))
    if run.complete:  # by the process that had the lock before
        return "complete"
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    write_json(run.folder / "settings.json", identity | {"versions": versions})
    return "checkpoint" if any(run.folder.glob("checkpoint*.pt")) else "new"


def _keep_weights(run: Run, model: nn.Module, progress: Progress, has_validation: bool) -> None:
    """Write the weights of the best or last epoch, which completes the run."""
    settings, folder = run.settings, run.folder
    kept = {"state_dict": model.state_dict(), "epoch": settings.epochs - 1}
    if settings.keep == "best" and has_validation:
        kept = read_checked(folder / "best.pt", f"the best epoch is lost: remove {folder} to train again")
    save_model(folder / "model.pt", kept["state_dict"], settings, kept["epoch"], progress.history)


def _is_leftover(name: str) -> bool:
    """Whether a file is left by a training that was killed before it wrote its settings."""
    return name.endswith(".tmp") or name in (".training.lock", "training.txt")


def _resolve_aggregator(settings: Settings, aggregator: AnyAggregator) -> tuple[Settings, nn.Module | None]:
    """Settings that name the aggregator's class, and its instance, made here if a function is given."""
    if aggregator is None:
        return settings, None
    if not isinstance(aggregator, nn.Module):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            aggregator = aggregator()
    return replace(settings, aggregator=type(aggregator).__name__, aggregator_options={}), aggregator


def _make_identity(settings: Settings, data_root: DataRoot, aggregator: nn.Module | None) -> Identity:
    """What a run is a function of: settings, photos (names and contents), starting weights, the model's code."""
    parts = ["train", *data_root.list_validation_splits(settings.val_splits)]
    identity = {"settings": settings.to_dict(), "data": hash_text(" ".join(map(data_root.fingerprint, parts)))}
    identity["code"] = hash_model_code(settings, aggregator)
    weights = find_city_weights() if settings.weights == "city" else Path(settings.weights or "")
    if weights.is_file():
        identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    identity["default_options"] = [DEFAULT_OPTIONS.get(name or "") for name in (settings.loss, settings.miner)]
    if aggregator is not None:
        identity["aggregator_weights"] = hash_weights(aggregator)
    return identity


def _flatten(identity: Identity) -> dict[str, Any]:
    """{setting or what else there is: value}, under names for messages."""
    names = {"data": "photos", "code": "model code", "weights": "weights file", "aggregator_weights": "initial weights"}
    names["default_options"] = "default options of loss and miner"
    return identity["settings"] | {name: identity.get(key) for key, name in names.items()}


def _refuse_other(folder: Path, saved: Identity, wanted: Identity) -> None:
    """Raise a ValueError that lists how a run folder differs from what is asked for."""
    if changes := list_changes(_flatten(saved), _flatten(wanted)):
        raise ValueError(f"{folder} holds another run: {'; '.join(changes)}. Choose another folder")
