"""Settings and photos -> a run folder. A run is trained once; later calls with the same arguments open it."""

import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm
from tqdm.contrib import DummyTqdmFile

from vpr_lib.checked_files import write_json
from vpr_lib.checkpoints import read_checked
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.descriptors import sample_local_features
from vpr_lib.devices import choose_device
from vpr_lib.evaluation import make_validator
from vpr_lib.identity import hash_library
from vpr_lib.machine import Machine
from vpr_lib.models import build_model, check_names, save_model
from vpr_lib.optimization import check_options
from vpr_lib.own_parts import AnyPart, make_part, name_parts
from vpr_lib.processes import check_same, is_main, run_on_main, share_errors, work_together
from vpr_lib.progress import Progress
from vpr_lib.run_folders import Run, has_weights, lock_folder, read_run_file
from vpr_lib.run_identity import Identity, find_twin, flatten_identity, make_identity, name_folder, refuse_other
from vpr_lib.settings import Settings
from vpr_lib.training import check_training, train

OnBatch = Callable[[Progress], None] | None


def get_run(
    settings: Settings,
    data_root: str | Path | DataRoot,
    runs_dir: str | Path = "runs",
    aggregator: AnyPart = None,
    machine: Machine | None = None,
    *,
    backbone: AnyPart = None,
    loss: AnyPart = None,
    on_batch: OnBatch = None,
) -> Run:
    """The run of these settings on these photos; trains it unless its folder is complete.

    Args:
        settings: what to train.
        data_root: folder with `train` and evaluation splits.
        runs_dir: parent of the run folders; the folder's name follows from settings, photos and code.
        aggregator, backbone, loss: an instance in place of the one the settings name, or a class or function that makes
            one. It is called without arguments and with the settings' seed, so the next session finds the same run; an
            instance with random weights is another run each time it is made. A copy of the instance is trained.
            aggregator: feature maps (B, C, h, w) to descriptors (B, D) of unit norm. If it has a method `initialize`,
            the training begins with it, see `aggregators`.
            backbone: normalized images (B, 3, H, W) to feature maps, with an attribute `out_channels`. What it freezes
            is up to it (`requires_grad`): `weights`, `crop_after`, `freeze_until` and `standardize` have no effect.
            loss: called with descriptors, places (B,) and the miner's pairs, or None without a miner, as the losses of
            pytorch-metric-learning; also a function, see `own_parts.FunctionLoss`. Its weights are trained, too.
        machine: device, workers, checkpoints.
        on_batch: called with the training's progress after each batch.

    Returns:
        The run; not complete if Ctrl-C stopped it. The same call then resumes it.

    Raises:
        ValueError: a setting is not valid or a part doesn't fit; nothing has been written then.
    """
    parts = {"aggregator": aggregator, "backbone": backbone, "loss": loss}
    return _train_or_open(settings, data_root, parts, machine, on_batch, runs_dir=Path(runs_dir))


def train_run(
    settings: Settings,
    data_root: str | Path | DataRoot,
    folder: str | Path,
    aggregator: AnyPart = None,
    machine: Machine | None = None,
    *,
    backbone: AnyPart = None,
    loss: AnyPart = None,
    on_batch: OnBatch = None,
) -> Run:
    """As `get_run`, into a folder of the caller's choice; one that holds anything else is a ValueError."""
    parts = {"aggregator": aggregator, "backbone": backbone, "loss": loss}
    return _train_or_open(settings, data_root, parts, machine, on_batch, folder=Path(folder))


def train_all(
    variants: Mapping[str, Settings],
    data_root: str | Path | DataRoot,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    on_run: Callable[[str, Run], None] | None = None,
    on_batch: OnBatch = None,
) -> dict[str, Run]:
    """`get_run` for {label: settings}, one after another; equal settings are trained once.

    Args:
        variants: {label: settings}.
        data_root, runs_dir, machine, on_batch: as in `get_run`.
        on_run: called with label and run as soon as the run is complete.

    Returns:
        {label: run}, in order. If Ctrl-C stopped a training, its run is the last one there and is not complete; the
        same call resumes it.

    Raises:
        ValueError: as `get_run`; a name or option that isn't valid is found before the first run is trained.
    """
    for settings in variants.values():
        check_names(settings)
        check_options(settings)
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
                trained[key] = get_run(settings, data_root, runs_dir, machine=machine, on_batch=on_batch)
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
    parts: Mapping[str, AnyPart],
    machine: Machine | None,
    on_batch: OnBatch,
    runs_dir: Path | None = None,
    folder: Path | None = None,
) -> Run:
    """The run in `folder`, or in a folder of `runs_dir` that is named after its settings, photos and code."""
    with work_together():
        data_root = open_data_root(data_root)
        with share_errors():
            own = {what: make_part(what, part, settings.seed) for what, part in parts.items()}
            settings = name_parts(settings, **own)
            identity = make_identity(settings, data_root, **own)
        check_same(flatten_identity(identity) | {"kit": hash_library()})
        run = Run(folder or name_folder(runs_dir, settings, identity), settings, **own)
        if not run_on_main(lambda: _check_folder(run, identity)):
            machine = machine or Machine()
            _train(run, identity, data_root, replace(machine, progress=machine.progress and is_main()), on_batch)
    return run


def _check_folder(run: Run, identity: Identity) -> bool:
    """Whether a run is complete; a ValueError if its folder holds anything else."""
    folder = run.folder
    if (folder / "settings.json").is_file():
        saved = read_run_file(folder)
        if has_weights(folder):  # else nothing is lost by another run there
            refuse_other(folder, saved, identity)
    elif folder.exists() and not (folder.is_dir() and all(_is_leftover(path.name) for path in folder.iterdir())):
        raise ValueError(f"{folder} is not empty and no run folder; choose another one")
    return run.complete


def _train(run: Run, identity: Identity, data_root: DataRoot, machine: Machine, on_batch: OnBatch) -> None:
    settings, folder = run.settings, run.folder
    if settings.weights is None and settings.freeze_until is not None:
        text = f"random weights are frozen until {settings.freeze_until}; --set freeze_until=null trains them"
        warnings.warn(text, stacklevel=4)
    # Before anything is written: a typo must not block the folder.
    choose_device(machine.device)
    model = build_model(settings, run.aggregator, run.backbone)
    validate = make_validator(settings, data_root, folder.parent, machine)
    check_training(model, settings, data_root.train, validate, run.loss)
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
        progress = train(model, settings, data_root.train, folder, validate, machine, on_batch, run.loss)
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
    if any(run.folder.glob("checkpoint*.pt")):
        return "checkpoint"
    if twin := find_twin(run.folder, identity):
        print(f"same settings as in {twin}, other photos: training anew", flush=True)
    return "new"


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
