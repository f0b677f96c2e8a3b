"""The study: the settings of its runs, and their training.

A part of the study varies one thing: `vary_*(base) -> {label: Settings}`. Parts may share a run, which is trained once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.aggregators import STUDY_AGGREGATORS
from vpr_lib.data_roots import DataRoot
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.options import check_choice
from vpr_lib.run_folders import Run
from vpr_lib.runs import train_all
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings


def vary_aggregator(base: Settings) -> dict[str, Settings]:
    """Fig. 1, 4 and 5: the four aggregators of the study."""
    return {name: replace(base, aggregator=name) for name in STUDY_AGGREGATORS}


def vary_rate_and_decay(base: Settings) -> dict[str, Settings]:
    """Fig. 2: learning rate x weight decay, ConvAP with AdamW."""
    base = replace(base, aggregator="ConvAP", optimizer="AdamW")
    return {
        f"lr {lr:g}, weight decay {decay:g}": replace(base, lr=lr, weight_decay=decay)
        for decay in (0.01, 0.001)
        for lr in (0.01, 0.001)
    }


def vary_optimizer(base: Settings) -> dict[str, Settings]:
    """Fig. 3: MixVPR with AdamW and Adam at the base's rate, and with SGD as MixVPR's authors used it."""
    base = replace(base, aggregator="MixVPR")
    return {
        "AdamW": replace(base, optimizer="AdamW"),
        "Adam": replace(base, optimizer="Adam"),
        "SGD": replace(base, optimizer="SGD", lr=0.05, weight_decay=1e-3),
    }


def vary_scheduler(base: Settings) -> dict[str, Settings]:
    """MixVPR with each schedule of the learning rate; milestones, factor and patience are those of the base."""
    base = replace(base, aggregator="MixVPR")
    return {name: replace(base, scheduler=name) for name in ("MultiStepLR", "CosineAnnealingLR", "ReduceLROnPlateau")}


# Experiments of notebook 03 beyond the published study; each of them sees as many photos as the base.
def vary_warmup(base: Settings) -> dict[str, Settings]:
    """MixVPR without warm-up, with that of the base, and with one three times as long."""
    base = replace(base, aggregator="MixVPR")
    lengths = dict.fromkeys((0, base.warmup_steps, 3 * base.warmup_steps))
    return {f"{steps} steps": replace(base, warmup_steps=steps) for steps in lengths}


def vary_batch_size(base: Settings) -> dict[str, Settings]:
    """ConvAP with 0.5, 1, 2 and 4 times the places in a batch; the warm-up covers the same share of the steps."""
    base = replace(base, aggregator="ConvAP")
    return {
        f"{size} places": replace(base, num_places=size, warmup_steps=base.warmup_steps * base.num_places // size)
        for size in (max(2, int(base.num_places * factor)) for factor in (0.5, 1, 2, 4))
    }


def vary_loss(base: Settings) -> dict[str, Settings]:
    """ConvAP with the base's loss and others (options of `DEFAULT_OPTIONS`), on mined pairs or on all."""
    base = replace(base, aggregator="ConvAP")
    return {
        base.loss: base,
        f"{base.loss}, all pairs": replace(base, miner=None),
        "ContrastiveLoss": replace(base, loss="ContrastiveLoss"),
        "TripletMarginLoss": replace(base, loss="TripletMarginLoss"),
        "SupConLoss, all pairs": replace(base, loss="SupConLoss", miner=None),  # meant for all pairs
    }


STUDY: dict[str, Callable[[Settings], dict[str, Settings]]] = {
    "aggregators": vary_aggregator,
    "grid": vary_rate_and_decay,
    "optimizers": vary_optimizer,
    "schedulers": vary_scheduler,
}

Runs = dict[str, dict[str, Run]]  # {part of the study: {label: run}}


class EpochSize(NamedTuple):
    """Size of an epoch over a training set, see `count_steps`."""

    steps: int  # optimizer steps
    photos: int


def plan_study(base: Settings, parts: Sequence[str] | None = None) -> dict[str, dict[str, Settings]]:
    """The settings of every run, {part: {label: settings}}, for some or all keys of `STUDY`."""
    return {part: STUDY[check_choice("part", part, STUDY)](base) for part in (STUDY if parts is None else parts)}


def train_study(
    base: Settings,
    data_root: str | Path | DataRoot,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    parts: Sequence[str] | None = None,
    on_part: Callable[[str, dict[str, Run]], None] | None = None,
) -> Runs:
    """Train the runs of some or all parts of the study, or open those that exist; see `plan_study` and `get_run`.

    `on_part` is called with a part's name and runs as soon as all of them are complete. If Ctrl-C stopped a training,
    its run and later ones are not in the result; the same call resumes it.
    """
    plan = plan_study(base, parts)
    variants = {f"{part}: {label}": own for part, by_label in plan.items() for label, own in by_label.items()}
    runs: Runs = {part: {} for part in plan}

    def add_run(name: str, run: Run) -> None:
        part, label = name.split(": ", 1)
        runs[part][label] = run
        if on_part and len(runs[part]) == len(plan[part]):
            on_part(part, runs[part])

    train_all(variants, data_root, runs_dir, machine, add_run)
    return runs


def count_steps(settings: Settings, table: ImageTable) -> EpochSize:
    """Size of one epoch over a training set."""
    sampler = PlaceSampler(table.places, settings.num_places, settings.images_per_place, settings.seed)
    return EpochSize(len(sampler), sampler.photos_per_epoch)


def learning_rates(run: Run, steps_per_epoch: int) -> np.ndarray:
    """(epochs * steps_per_epoch,) float64: learning rate of each step, the scheduler's times the warm-up factor."""
    scheduled = np.repeat([row["lr"] for row in run.history], steps_per_epoch)
    steps = np.arange(1, len(scheduled) + 1)
    return scheduled * np.minimum(1.0, steps / max(1, run.settings.warmup_steps))
