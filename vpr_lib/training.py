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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vpr_lib import optimization
from vpr_lib.atomic_files import write_atomically
from vpr_lib.augmentation import augment, is_augmented, normalize
from vpr_lib.checkpoints import get_random_states, load_checkpoint, save_checkpoint, set_random_states, to_bytes
from vpr_lib.descriptors import prepare_for_inference
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.features import open_features
from vpr_lib.images import ImageTable
from vpr_lib.loading import PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.models import get_last_frozen, split_model
from vpr_lib.options import list_changes
from vpr_lib.progress import Progress
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings


class Trainer:
    """All that changes in a training: model, loss, optimizer, scheduler, scaler and progress.

    Args:
        model: images to descriptors; trained in place.
        settings: loss, miner, optimization.
        num_places: in the training set, for losses with a weight for each.
        device: to train on.
    """

    def __init__(self, model: nn.Module, settings: Settings, num_places: int, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.dtype = choose_dtype(settings.precision, device)
        self.progress = Progress()
        self.model = model.to(device, memory_format=torch.channels_last)
        self.trained = split_model(self.model)[1]  # shares the model's modules
        self.loss = optimization.make_loss(settings, num_places, self._measure_descriptor()).to(device)
        self.miner = optimization.make_miner(settings)
        self.optimizer = optimization.make_optimizer(settings, [*self.model.parameters(), *self.loss.parameters()])
        self.scheduler = optimization.make_scheduler(settings, self.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @functools.cached_property
    def frozen(self) -> nn.Module:
        """The part of the model that is not trained, for inference; a copy, so it is made after `resume`."""
        frozen, _ = split_model(self.model)
        return nn.Identity() if frozen is None else prepare_for_inference(frozen, self.device)

    def step(self, inputs: torch.Tensor, places: torch.Tensor) -> tuple[float, float]:
        """One optimizer step; returns loss and share of trivial anchors.

        Args:
            inputs: images (B, 3, H, W) uint8, or their frozen features (B, C, h, w) floating point.
            places: (B,) int64.
        """
        with autocast(self.device, self.dtype):
            with torch.no_grad():
                features = inputs if inputs.is_floating_point() else self.frozen(normalize(inputs))
            descriptors = self.trained(features)  # (B, D) float32
        pairs = self.miner(descriptors, places) if self.miner else None
        loss = self.loss(descriptors, places, pairs)
        if not torch.isfinite(loss):
            advice = "lower the learning rate or try --set precision=float32. The last checkpoint is kept"
            raise FloatingPointError(f"the loss is {loss.item()}: {advice}")
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        with optimization.warm_up(self.optimizer, self.progress.step, self.settings.warmup_steps):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item(), share_of_trivial_anchors(pairs, len(places))

    def save(self, folder: Path) -> None:
        """Write a checkpoint into the run's folder."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        states |= {"progress": asdict(self.progress), "random": get_random_states()}
        save_checkpoint(folder, states | {"settings": self.settings.to_dict()})

    def resume(self, folder: Path) -> None:
        """Load the newest checkpoint of the run's folder, if any; one of other settings or model is a ValueError."""
        checkpoint = load_checkpoint(folder)
        if checkpoint is None:
            return
        if changes := list_changes(checkpoint["settings"], self.settings.to_dict()):
            raise ValueError(f"{folder} holds a run of other settings ({'; '.join(changes)}); choose another folder")
        try:
            for name, part in self._parts().items():
                # The state of an unused scaler is empty: the run began on a device of another precision.
                if checkpoint[name]:
                    part.load_state_dict(checkpoint[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"the checkpoint in {folder} is of another model: {error}") from None
        set_random_states(checkpoint["random"])
        self.progress = Progress(**checkpoint["progress"])

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "loss": self.loss, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"scheduler": self.scheduler} if self.scheduler else {})

    @torch.no_grad()
    def _measure_descriptor(self) -> int:
        """D, measured on one black image; a model that fails on it, or returns nothing, is a ValueError."""
        size = self.settings.image_size
        try:
            descriptor = self.model.eval()(torch.zeros(1, 3, size, size, device=self.device))  # (1, D)
        except RuntimeError as error:
            raise ValueError(f"the model can't compute a descriptor of {size} x {size} pixels: {error}") from error
        if not descriptor.shape[1]:
            raise ValueError("the model's descriptor is empty; check aggregator_options")
        return descriptor.shape[1]


def train(
    model: nn.Module,
    settings: Settings,
    table: ImageTable,
    folder: str | Path,
    validate: Callable[[nn.Module], optimization.Scores] | None = None,
    machine: Machine | None = None,
    on_batch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train a model, or resume from the checkpoint in the run's folder.

    Writes `checkpoint.pt` (by wall time and after each epoch), `history.csv` and `best.pt`. Ctrl-C finishes
    the step, saves and returns; a second Ctrl-C stops at once.

    Args:
        model: images to descriptors; trained in place.
        settings: batches, loss, optimization.
        table: the training photos.
        folder: of the run; made if it doesn't exist.
        validate: model -> {split: {k: percent}}, called after each epoch. R@1 of the first split chooses the best
            epoch and steers ReduceLROnPlateau.
        machine: device, workers, time between checkpoints.
        on_batch: called after each batch, before a checkpoint is due.

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
    check_training(settings, table, validate)
    folder.mkdir(parents=True, exist_ok=True)
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):  # some miners and aggregators may draw numbers
        set_seed(settings.seed)
    sampler = PlaceSampler(table.places, settings.num_places, settings.images_per_place, settings.seed)
    labels = torch.from_numpy(sampler.labels)
    transform = functools.partial(augment, settings=settings) if is_augmented(settings) else None
    on_cpu = device.type == "cpu"  # augmentation runs in the loader's processes on a CPU, else on the device
    trainer = Trainer(model, settings, int(labels.max()) + 1, device)
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
            model.train()
            sampler.set_epoch(epoch, progress.batch)
            last_save = last_batch = time.monotonic()
            for batch in progress.show_epoch(loader, settings.epochs, sampler.photos_per_epoch, machine.progress):
                inputs = batch.inputs.to(device, non_blocking=True)
                if transform and not on_cpu:
                    inputs = transform(inputs, batch.seed)
                places = labels[batch.rows].to(device)
                try:
                    loss, trivial = trainer.step(inputs, places)
                except FloatingPointError as error:
                    names = "\n  ".join(table.names[batch.rows.numpy()])
                    raise FloatingPointError(f"{error}. Photos of the batch:\n  {names}") from None
                now = time.monotonic()
                progress.add_batch(loss, trivial, len(places), seconds=now - last_batch)
                last_batch = now
                if on_batch:
                    on_batch(progress)
                if interrupted() or now - last_save > machine.save_every_s:
                    trainer.save(folder)
                    last_save = now
                if interrupted():
                    print(f"stopped in epoch {epoch + 1}, batch {progress.batch}; the same call resumes there")
                    return progress

            scores = validate(model) if validate else {}
            if progress.finish_epoch(trainer.optimizer.param_groups[0]["lr"], scores):
                best = {"state_dict": model.state_dict(), "epoch": epoch}
                write_atomically(folder / "best.pt", to_bytes(best))
            progress.write_history(folder / "history.csv")
            optimization.step_scheduler(trainer.scheduler, scores)
            trainer.save(folder)
            if interrupted():
                print(f"stopped after epoch {epoch + 1}; the same call resumes there")
                break
    return progress


def check_training(settings: Settings, table: ImageTable, validate: Callable | None) -> None:
    """Raise the ValueError that `train` with these arguments would end with, before it writes anything."""
    if settings.scheduler == "ReduceLROnPlateau" and validate is None:
        raise ValueError("ReduceLROnPlateau needs a validation split, and there is none (see val_splits)")
    optimization.check_options(settings)
    PlaceSampler(table.places, settings.num_places, settings.images_per_place, settings.seed)


def share_of_trivial_anchors(pairs: tuple[torch.Tensor, ...] | None, batch_size: int) -> float:
    """Share of a batch's photos for which the miner found no pair to learn from; 0 without a miner.

    `pairs` are indices into the batch: (anchors, positives, anchors, negatives) or (anchors, positives, negatives).
    """
    if pairs is None:
        return 0.0
    anchors = torch.cat([pairs[0], pairs[2]]) if len(pairs) == 4 else pairs[0]
    return 1.0 - len(torch.unique(anchors)) / batch_size


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
