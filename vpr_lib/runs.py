"""Settings and photos -> a run folder. A run is trained once; later calls with the same arguments open it."""

import hashlib
import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from tqdm.contrib import DummyTqdmFile

from vpr_lib.backbones import CITY_WEIGHTS
from vpr_lib.checked_files import hash_text, write_json
from vpr_lib.checkpoints import read_checked
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.devices import choose_device
from vpr_lib.evaluation import make_validator
from vpr_lib.features import open_features
from vpr_lib.identity import hash_weights
from vpr_lib.machine import Machine, count_cores
from vpr_lib.models import build_model, save_model
from vpr_lib.options import list_changes
from vpr_lib.processes import CAN_FORK, run_side_by_side
from vpr_lib.run_folders import Run, has_weights, hash_model_code, lock_folder, read_run_file
from vpr_lib.settings import Settings
from vpr_lib.training import check_training, train

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
            is another run each time it is made.
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
    """`get_run` for {label: settings}; equal settings are trained once.

    On a Linux CPU, runs that read frozen features are trained side by side, one on each core (`machine.parallel_runs`);
    others one after another, on all cores.

    Args:
        variants: {label: settings}.
        data_root, runs_dir, machine: as in `get_run`.
        on_run: called with label and run as soon as the run is complete.

    Returns:
        {label: run}, in order. If Ctrl-C stopped the training, runs that had not begun are missing, and those that had
        are not complete; the same call resumes them.
    """
    data_root, runs_dir, machine = open_data_root(data_root), Path(runs_dir), machine or Machine()
    labels: dict[str, list[str]] = {}  # of equal settings, by their JSON
    for label, settings in variants.items():
        labels.setdefault(settings.to_json(), []).append(label)
    trained: dict[str, Run] = {}
    with ExitStack() as stack:
        total = len(labels)
        bar = stack.enter_context(tqdm(total=total, desc="runs", unit="run", disable=not machine.progress or total < 2))
        if not bar.disable:  # printed lines go above the bars
            stack.enter_context(redirect_stdout(DummyTqdmFile(sys.stdout)))
        unique = {same[0]: variants[same[0]] for same in labels.values()}
        for run in _train_each(unique, data_root, runs_dir, machine):
            bar.update(run.complete)
            for label in labels[run.settings.to_json()]:
                trained[label] = run
                if run.complete and on_run:
                    on_run(label, run)
    return {label: trained[label] for label in variants if label in trained}


def _train_each(
    variants: Mapping[str, Settings], data_root: DataRoot, runs_dir: Path, machine: Machine
) -> Iterator[Run]:
    """The run of each variant as soon as its training has ended; after Ctrl-C, only of those that had begun."""
    waiting = dict(variants)
    for label, settings in variants.items():
        run, _ = _find(settings, data_root, None, runs_dir=runs_dir)
        if run.complete:
            del waiting[label]
            yield run
    num_parallel = _choose_parallel(list(waiting.values()), data_root, runs_dir, machine)
    if num_parallel > 1:
        parallel = list(waiting)[: len(waiting) // num_parallel * num_parallel]  # the rest gets all cores
        print(f"training {len(parallel)} runs, {num_parallel} at a time, with one thread each", flush=True)
        alone = replace(machine, progress=False, num_workers=0)
        functions = {
            label: partial(_train_with_one_thread, waiting.pop(label), data_root, runs_dir, alone) for label in parallel
        }
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # also for what the caller does meanwhile
        try:
            for _, run in run_side_by_side(functions, num_parallel):
                yield run
                if not run.complete:
                    waiting.clear()
        finally:
            torch.set_num_threads(num_threads)
    for label, settings in waiting.items():
        if len(variants) > 1:
            print(f"training {label}", flush=True)
        run = get_run(settings, data_root, runs_dir, machine=machine)
        yield run
        if not run.complete:
            break


def _choose_parallel(variants: list[Settings], data_root: DataRoot, runs_dir: Path, machine: Machine) -> int:
    """How many of these runs to train at a time.

    Several only if each of them reads frozen features, which are computed here first: such runs need little memory, and
    are too small to use several cores well.
    """
    on_cpu = (
        choose_device(machine.device).type == "cpu" and not torch.cuda.is_available()
    )  # CUDA doesn't survive a fork
    number = min(len(variants), count_cores() if machine.parallel_runs < 0 else machine.parallel_runs)
    if number < 2 or not (on_cpu and CAN_FORK):
        return 1
    tables = {"training photos": data_root.train}
    for settings in variants:
        for split in data_root.list_validation_splits(settings.val_splits):
            photos = data_root.read_split(split)
            tables |= {f"photos of {split}/{half}": table for half, table in photos._asdict().items()}
        model = build_model(settings)
        if any(
            open_features(model, settings, table, runs_dir, machine, what) is None for what, table in tables.items()
        ):
            return 1
    return number


def _train_with_one_thread(settings: Settings, data_root: DataRoot, runs_dir: Path, machine: Machine) -> Run:
    import faiss  # here, because not every GPU environment has it

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)  # its own library; after a fork, several threads would wait for each other forever
    return get_run(settings, data_root, runs_dir, machine=machine)


def _train_or_open(
    settings: Settings,
    data_root: str | Path | DataRoot,
    aggregator: AnyAggregator,
    machine: Machine | None,
    runs_dir: Path | None = None,
    folder: Path | None = None,
) -> Run:
    data_root = open_data_root(data_root)
    run, identity = _find(settings, data_root, aggregator, runs_dir, folder)
    if not run.complete:
        _train(run, identity, data_root, machine or Machine())
    return run


def _find(
    settings: Settings,
    data_root: DataRoot,
    aggregator: AnyAggregator,
    runs_dir: Path | None = None,
    folder: Path | None = None,
) -> tuple[Run, Identity]:
    """The run in `folder`, or in a folder of `runs_dir` that is named after its settings, photos and code."""
    settings, aggregator = _resolve_aggregator(settings, aggregator)
    identity = _make_identity(settings, data_root, aggregator)
    if folder is None:
        digest = hash_text(json.dumps(identity, sort_keys=True))[:8]
        folder = runs_dir / f"{settings.aggregator}-{settings.optimizer}-lr{settings.lr:g}-seed{settings.seed}-{digest}"
    run = Run(folder, settings, aggregator)
    if (folder / "settings.json").is_file():
        saved = read_run_file(folder)
        if has_weights(folder):  # else nothing is lost by another run there
            _check_same(folder, saved, identity)
    elif folder.exists() and not (folder.is_dir() and all(_is_leftover(path.name) for path in folder.iterdir())):
        raise ValueError(f"{folder} is not empty and no run folder; choose another one")
    return run, identity


def _train(run: Run, identity: Identity, data_root: DataRoot, machine: Machine) -> None:
    settings, folder = run.settings, run.folder
    if settings.weights is None and settings.freeze_until is not None:
        text = f"random weights are frozen until {settings.freeze_until}; --set freeze_until=null trains them"
        warnings.warn(text, stacklevel=4)
    model = build_model(settings, run.aggregator)
    validate = make_validator(settings, data_root, folder.parent, machine)
    check_training(settings, data_root.train, validate)  # before anything is written: a typo must not block the folder
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        if run.complete:  # by the process that had the lock before
            return
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        write_json(folder / "settings.json", identity | {"versions": versions})
        progress = train(model, settings, data_root.train, folder, validate, machine)
        if progress.epoch < settings.epochs:
            return
        kept = {"state_dict": model.state_dict(), "epoch": settings.epochs - 1}
        if settings.keep == "best" and validate is None:
            warnings.warn("no validation split to choose the best epoch on: the last one is kept", stacklevel=4)
        elif settings.keep == "best":
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
    weights = CITY_WEIGHTS if settings.weights == "city" else Path(settings.weights or "")
    if weights.is_file():
        identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    if aggregator is not None:
        identity["aggregator_weights"] = hash_weights(aggregator)
    return identity


def _check_same(folder: Path, saved: Identity, wanted: Identity) -> None:
    """Raise a ValueError that lists how a run folder differs from what is asked for."""
    names = {"data": "photos", "code": "model code", "weights": "weights file", "aggregator_weights": "initial weights"}
    old, new = (state["settings"] | {name: state.get(k) for k, name in names.items()} for state in (saved, wanted))
    if changes := list_changes(old, new):
        raise ValueError(f"{folder} holds another run: {'; '.join(changes)}. Choose another folder")
