"""The training loop.

Batches and augmentation are seeded by (seed, epoch, batch), so a run that stops anywhere resumes to the same result: on
a CPU to the same bits, if the number of threads is the same.
"""

import contextlib
import functools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vpr_lib import optimization
from vpr_lib.atomic_files import write_atomically
from vpr_lib.augmentation import augment, is_augmented
from vpr_lib.checkpoints import to_bytes
from vpr_lib.devices import choose_device, keep_freed_memory
from vpr_lib.features import open_features
from vpr_lib.images import ImageTable
from vpr_lib.loading import PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.models import get_last_frozen
from vpr_lib.own_parts import measure_descriptor
from vpr_lib.processes import (
    count_processes,
    gather_objects,
    get_rank,
    is_any,
    is_main,
    iterate_together,
    raise_together,
    share_errors,
)
from vpr_lib.progress import Progress
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings
from vpr_lib.trainer import Trainer


def train(
    model: nn.Module,
    settings: Settings,
    table: ImageTable,
    folder: str | Path,
    validate: Callable[[nn.Module], optimization.Scores] | None = None,
    machine: Machine | None = None,
    on_batch: Callable[[Progress], None] | None = None,
    loss: nn.Module | None = None,
) -> Progress:
    """Train a model, or resume from the checkpoint in the run's folder.

    Writes `checkpoint.pt` (by wall time and after each epoch), `history.csv` and `best.pt`. Ctrl-C finishes
    the step, saves and returns; a second Ctrl-C stops at once. Of several processes, the main one writes; all call this
    function with the same arguments, and an error in one is raised in all. A run may be resumed by another number of
    processes, at the same batch.

    Args:
        model: images to descriptors; trained in place.
        settings: batches, loss, optimization.
        table: the training photos.
        folder: of the run; made if it doesn't exist.
        validate: model -> {split: {k: percent}}, called after each epoch. R@1 of the first split chooses the best
            epoch and steers ReduceLROnPlateau.
        machine: device, workers, time between checkpoints.
        on_batch: called after each batch, before a checkpoint is due.
        loss: an instance to copy in place of the loss that the settings name; it stays as it is.

    Returns:
        The run's progress; the run is complete if `progress.epoch == settings.epochs`.

    Raises:
        ValueError: the settings don't fit, or the folder holds a run of others.
        FloatingPointError: the loss isn't finite; the message names the batch's photos.
        OSError: a checkpoint can't be written; the last one is kept.
    """
    machine = machine or Machine()
    folder = Path(folder)
    device = choose_device(machine.device)
    check_training(model, settings, table, validate, loss)
    folder.mkdir(parents=True, exist_ok=True)
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):  # some miners and aggregators may draw numbers
        set_seed(settings.seed)
    # All processes draw the same random numbers, so a miner that draws some finds the same pairs in all.
    shape = (settings.num_places, settings.images_per_place)
    sampler = PlaceSampler(table.places, *shape, settings.seed, get_rank(), count_processes(), pad=True)
    labels = torch.from_numpy(sampler.labels)
    transform = functools.partial(augment, settings=settings) if is_augmented(settings) else None
    on_cpu = device.type == "cpu"  # augmentation runs in the loader's processes on a CPU, else on the device
    trainer = Trainer(model, settings, int(labels.max()) + 1, device, machine.train_chunk_size, loss)
    trainer.resume(folder)
    progress = trainer.progress
    dataset = open_features(model, settings, table, folder.parent, machine, "training photos")
    source = f"; read as frozen features (up to {get_last_frozen(model)})" if dataset else ""
    print(f"training: {sampler.summary}{source}", flush=True)
    if dataset is None:
        dataset = PhotoDataset(table, settings.image_size, machine.cache_gb, transform if on_cpu else None)
    loader = load_batches(dataset, sampler, machine)
    if on_cpu:
        keep_freed_memory()

    with _catch_interrupt() as interrupted:
        for epoch in range(progress.epoch, settings.epochs):
            _set_train_mode(model)
            sampler.set_epoch(epoch, progress.batch)
            last_save = last_batch = time.monotonic()
            batches = iterate_together(loader)
            for batch in progress.show_epoch(batches, settings.epochs, sampler.photos_per_epoch, machine.progress):
                inputs = batch.inputs.to(device, non_blocking=True)
                if transform and not on_cpu:
                    inputs = transform(inputs, batch.seed, part=batch.part)
                first, total = batch.part  # photos beyond the total are repeated ones
                counts = torch.arange(first, first + len(batch.rows)) < total
                with _name_photos(table.names[batch.rows[counts].numpy()]):
                    batch_loss, pairs = trainer.step(inputs, labels[batch.rows].where(counts, -1).to(device))
                now = time.monotonic()
                trivial = share_of_trivial_anchors(pairs, total)
                progress.add_batch(batch_loss, trivial, total, seconds=now - last_batch)
                last_batch = now
                if on_batch:
                    on_batch(progress)
                is_stopped = is_any(interrupted())
                if is_stopped or now - last_save > machine.save_every_s:
                    if is_main():
                        trainer.save(folder)
                    last_save = now
                if is_stopped:
                    print(f"stopped in epoch {epoch + 1}, batch {progress.batch}; the same call resumes there")
                    return progress

            scores = validate(model) if validate else {}
            is_best = progress.finish_epoch(trainer.optimizer.param_groups[0]["lr"], scores)
            optimization.step_scheduler(trainer.scheduler, scores)
            with share_errors():
                if is_main():
                    if is_best:
                        best = {"state_dict": model.state_dict(), "epoch": epoch}
                        write_atomically(folder / "best.pt", to_bytes(best))
                    progress.write_history(folder / "history.csv")
                    trainer.save(folder)
            if is_any(interrupted()):
                print(f"stopped after epoch {epoch + 1}; the same call resumes there")
                break
    return progress


def check_training(
    model: nn.Module, settings: Settings, table: ImageTable, validate: Callable | None, loss: nn.Module | None = None
) -> None:
    """Raise the ValueError that `train` with these arguments would end with, before it writes anything."""
    if settings.scheduler == "ReduceLROnPlateau" and validate is None:
        raise ValueError("ReduceLROnPlateau needs a validation split, and there is none (see val_splits)")
    shape = (settings.num_places, settings.images_per_place)
    sampler = PlaceSampler(table.places, *shape, settings.seed, world_size=count_processes())
    size = measure_descriptor(model, settings.image_size)
    if loss is None:
        optimization.check_options(settings, [*model.parameters()])
    else:
        optimization.check_options(settings, [*model.parameters()], loss, int(sampler.labels.max()) + 1, size)


def _set_train_mode(model: nn.Module) -> None:
    """Training mode, but for BatchNorm whose weights are frozen: its statistics stay as they are."""
    model.train()
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine and not part.weight.requires_grad:
            part.eval()


def share_of_trivial_anchors(pairs: tuple[torch.Tensor, ...] | None, batch_size: int) -> float:
    """Share of a batch's photos for which the miner found no pair to learn from; 0 without a miner.

    `pairs` are indices into the batch: (anchors, positives, anchors, negatives) or (anchors, positives, negatives).
    """
    if pairs is None:
        return 0.0
    anchors = torch.cat([pairs[0], pairs[2]]) if len(pairs) == 4 else pairs[0]
    return 1.0 - len(torch.unique(anchors)) / batch_size


@contextlib.contextmanager
def _name_photos(names: np.ndarray) -> Iterator[None]:
    """Add the photos of the batch, those of all processes, to the error that its loss isn't finite."""
    message = None
    try:
        yield
    except FloatingPointError as error:  # in all processes, as all have the same loss
        message = str(error)
    if message:
        photos = "\n  ".join(np.concatenate(gather_objects(names)))
        raise_together(FloatingPointError(f"{message}. Photos of the batch:\n  {photos}") if is_main() else None)


@contextlib.contextmanager
def _catch_interrupt() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; a second Ctrl-C interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread only
        return
    pressed = threading.Event()

    def note(signum: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
