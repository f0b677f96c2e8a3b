"""The one training loop, and what it is made of: loss, miner, optimizer, schedule.

A run is a function of settings, photos and starting weights. Batches and augmentation are seeded by
(seed, epoch, batch), so a run that stops anywhere goes on from its checkpoint as if it hadn't stopped.
"""

import contextlib
import csv
import functools
import io
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.augmentation import augment, augments, normalize
from vpr_lib.checkpoints import get_random_states, load_checkpoint, save_checkpoint, set_random_states, to_bytes
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.images import ImageTable
from vpr_lib.loading import Batch, PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.optimization import (
    Scores,
    first_score,
    make_loss,
    make_miner,
    make_optimizer,
    make_scheduler,
    step_scheduler,
    warmed_up,
)
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings


@dataclass
class Progress:
    """Where a run stands; with weights, optimizer and random states, all that a resume needs."""

    epoch: int = 0  # the epoch under way
    batch: int = 0  # its finished batches
    step: int = 0  # optimizer steps of the whole run
    loss_sum: float = 0.0  # over the epoch's finished batches
    trivial_sum: float = 0.0
    num_photos: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)  # a row for each finished epoch

    def add_batch(self, loss: float, trivial: float, num_photos: int, seconds: float) -> None:
        """Count one finished batch."""
        self.seconds += seconds
        self.batch += 1
        self.step += 1
        self.loss_sum += loss
        self.trivial_sum += trivial
        self.num_photos += num_photos


def train(
    model: nn.Module,
    settings: Settings,
    table: ImageTable,
    folder: str | Path,
    validate: Callable[[nn.Module], Scores] | None = None,
    machine: Machine | None = None,
) -> Progress:
    """Train a model, or go on from the checkpoint in the run's folder.

    Writes `checkpoint.pt` (by wall time and after each epoch), `history.csv` and `best.pt`. Ctrl-C finishes
    the step, saves and returns; a second Ctrl-C stops at once.

    Args:
        model: images to descriptors; trained in place.
        settings: batches, loss, optimization.
        table: the training photos.
        folder: of the run; made if need be.
        validate: model -> {split: {k: percent}}, called after each epoch. The first split's R@1 chooses the
            best epoch and steers ReduceLROnPlateau.
        machine: device, workers, time between checkpoints.

    Returns:
        The run's progress; complete if `progress.epoch == settings.epochs`.

    Raises:
        ValueError: the settings don't fit, or the folder holds a run of others.
        FloatingPointError: the loss isn't finite; the message names the batch's photos.
        OSError: a checkpoint can't be written; the last one is kept.
    """
    machine = machine or Machine()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(machine.device)
    dtype = choose_dtype(settings.precision, device)
    seed_everything(settings.seed)

    sampler = PlaceSampler(table.places, settings.num_places, settings.images_per_place, settings.seed)
    on_cpu = device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    transform = functools.partial(augment, settings=settings) if augments(settings) else None
    dataset = PhotoDataset(table, settings.image_size, machine.cache_gb, transform if on_cpu else None)
    loader = load_batches(dataset, sampler, machine)
    labels = torch.from_numpy(sampler.labels)
    print(f"training: {sampler.describe()}", flush=True)

    model.to(device, memory_format=torch.channels_last)
    loss_fn = make_loss(settings, int(labels.max()) + 1, descriptor_size(model, settings, device)).to(device)
    miner = make_miner(settings)
    optimizer = make_optimizer(settings, [*model.parameters(), *loss_fn.parameters()])
    scheduler = make_scheduler(settings, optimizer)
    if settings.scheduler == "ReduceLROnPlateau" and validate is None:
        raise ValueError("ReduceLROnPlateau needs a validation split, and there is none (see val_splits)")
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    parts = {"model": model, "loss": loss_fn, "optimizer": optimizer, "scaler": scaler}
    parts |= {"scheduler": scheduler} if scheduler else {}
    progress = resume(folder, settings, parts)

    def save() -> None:
        states = {name: part.state_dict() for name, part in parts.items()}
        marks = {"progress": asdict(progress), "random": get_random_states(), "settings": settings.to_dict()}
        save_checkpoint(folder, states | marks)

    with interrupt_flag() as interrupted:
        for epoch in range(progress.epoch, settings.epochs):
            model.train()
            sampler.set_epoch(epoch, progress.batch)
            last_save = last_batch = time.monotonic()
            for photos in epoch_bar(loader, progress, settings, sampler.photos_per_epoch, machine):
                images = photos.images.to(device, non_blocking=True)
                if transform and not on_cpu:
                    images = transform(images, photos.seed)
                places = labels[photos.rows].to(device)

                with autocast(device, dtype):
                    descriptors = model(normalize(images))  # (P * K, D)
                pairs = miner(descriptors, places) if miner else None
                loss = loss_fn(descriptors, places, pairs)
                check_finite(loss, table, photos)

                optimizer.zero_grad()
                scaler.scale(loss).backward()
                with warmed_up(optimizer, progress.step, settings.warmup_steps):
                    scaler.step(optimizer)
                scaler.update()

                trivial, now = share_of_trivial_anchors(pairs, len(places)), time.monotonic()
                progress.add_batch(loss.item(), trivial, len(places), seconds=now - last_batch)
                last_batch = now
                if interrupted() or now - last_save > machine.save_every_s:
                    save()
                    last_save = now
                if interrupted():
                    print(f"stopped in epoch {epoch + 1}, batch {progress.batch}; the same call goes on from there")
                    return progress

            scores = validate(model) if validate else {}
            finish_epoch(progress, scores, optimizer, folder, model)
            step_scheduler(scheduler, scores)
            save()
            if interrupted():
                print(f"stopped after epoch {epoch + 1}; the same call goes on from there")
                break
    return progress


def share_of_trivial_anchors(pairs: tuple[torch.Tensor, ...] | None, batch_size: int) -> float:
    """Share of a batch's photos for which the miner found nothing left to learn; 0 without a miner.

    Args:
        pairs: (anchors, positives, anchors, negatives) or (anchors, positives, negatives), indices into the batch.
        batch_size: photos in the batch.
    """
    if pairs is None:
        return 0.0
    anchors = torch.cat([pairs[0], pairs[2]]) if len(pairs) == 4 else pairs[0]
    return 1.0 - len(torch.unique(anchors)) / batch_size


def check_finite(loss: torch.Tensor, table: ImageTable, photos: Batch) -> None:
    """Raise FloatingPointError with the batch's photos if the loss isn't finite."""
    if not torch.isfinite(loss):
        names = "\n  ".join(table.names[photos.rows.numpy()])
        raise FloatingPointError(
            f"the loss is {loss.item()}: lower the learning rate or try --set precision=float32. The last "
            f"checkpoint is kept. Photos of the batch:\n  {names}"
        )


def finish_epoch(
    progress: Progress, scores: Scores, optimizer: torch.optim.Optimizer, folder: Path, model: nn.Module
) -> None:
    """Write the epoch's row of the history, and the weights if they are the best so far."""
    row: dict[str, float] = {
        "epoch": progress.epoch + 1,
        "loss": progress.loss_sum / progress.batch,
        "trivial_anchors": progress.trivial_sum / progress.batch,
        "lr": optimizer.param_groups[0]["lr"],
        "photos_per_s": progress.num_photos / max(progress.seconds, 1e-9),
    }
    for split, recalls in scores.items():
        row |= {f"{split} R@{k}": recall for k, recall in recalls.items()}
    progress.history.append(row)
    if scores and first_score(scores) > progress.best_score:
        progress.best_score, progress.best_epoch = first_score(scores), progress.epoch
        write_atomically(folder / "best.pt", to_bytes({"state_dict": model.state_dict(), "epoch": progress.epoch}))
    progress.epoch += 1
    progress.batch = progress.num_photos = 0
    progress.loss_sum = progress.trivial_sum = progress.seconds = 0.0
    write_history(folder / "history.csv", progress.history)
    recalls = "".join(f", {name} {value:.1f}" for name, value in row.items() if name.endswith("R@1"))
    print(
        f"epoch {row['epoch']}: loss {row['loss']:.3f}, {row['trivial_anchors']:.0%} of the anchors trivial, "
        f"{row['photos_per_s']:.0f} photos/s{recalls}",
        flush=True,
    )


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """One row an epoch: loss, share of trivial anchors, learning rate, photos/s and the recalls."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())


def resume(folder: Path, settings: Settings, parts: dict[str, Any]) -> Progress:
    """Put the newest checkpoint's states into the parts; a fresh `Progress` where there is none."""
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        return Progress()
    old, new = checkpoint["settings"], settings.to_dict()
    changed = [f"{k} = {old.get(k)} there, {new.get(k)} asked for" for k in old | new if old.get(k) != new.get(k)]
    if changed:
        raise ValueError(f"{folder} holds a run of other settings ({'; '.join(changed)}); choose another folder")
    try:
        for name, part in parts.items():
            # An empty state is that of a scaler not in use: the run began on a device of another precision.
            if checkpoint[name]:
                part.load_state_dict(checkpoint[name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"the checkpoint in {folder} is of another model: {error}") from None
    set_random_states(checkpoint["random"])
    return Progress(**checkpoint["progress"])


def epoch_bar(
    loader: Iterable[Batch], progress: Progress, settings: Settings, num_photos: int, machine: Machine
) -> Iterator[Batch]:
    """The epoch's batches under a bar that counts photos: photos/s and time left."""
    bar = tqdm(
        total=num_photos,
        initial=progress.num_photos,
        desc=f"epoch {progress.epoch + 1}/{settings.epochs}",
        unit="photo",
        disable=not machine.progress,
        leave=False,
    )
    with bar:
        for photos in loader:
            yield photos
            bar.set_postfix(loss=f"{progress.loss_sum / max(1, progress.batch):.3f}", refresh=False)
            bar.update(len(photos.rows))


@contextlib.contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag to look at between steps; the second one interrupts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread only
        return
    raised = threading.Event()

    def note(signum: int, frame: Any) -> None:
        raised.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield raised.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch: some miners and a student's own aggregator may draw from them."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@torch.no_grad()
def descriptor_size(model: nn.Module, settings: Settings, device: torch.device) -> int:
    """D, found by describing one black image."""
    model.eval()
    return model(torch.zeros(1, 3, settings.image_size, settings.image_size, device=device)).shape[1]
