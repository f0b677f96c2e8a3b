"""The study: which runs it consists of, training them, and what is taken from them for its figures.

A part of the study varies one thing: `vary_*(base) -> {label: Settings}`. Parts may share a run; it is trained once.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from tqdm.contrib import DummyTqdmFile

from vpr_lib.aggregators import AGGREGATORS
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.options import check_choice
from vpr_lib.run_folders import Run
from vpr_lib.runs import get_run
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings


def vary_aggregator(base: Settings) -> dict[str, Settings]:
    """Fig. 1, 4 and 5: every aggregator there is; four, unless one was added."""
    return {name: replace(base, aggregator=name) for name in AGGREGATORS}


def vary_rate_and_decay(base: Settings) -> dict[str, Settings]:
    """Fig. 2: learning rate x weight decay, ConvAP with AdamW."""
    base = replace(base, aggregator="ConvAP", optimizer="AdamW")
    return {
        f"lr {lr:g}, weight decay {decay:g}": replace(base, lr=lr, weight_decay=decay)
        for decay in (0.01, 0.001)
        for lr in (0.01, 0.001)
    }


def vary_optimizer(base: Settings) -> dict[str, Settings]:
    """Fig. 3: MixVPR with AdamW and Adam as the base says, and with SGD as MixVPR's authors used it."""
    base = replace(base, aggregator="MixVPR")
    return {
        "AdamW": replace(base, optimizer="AdamW"),
        "Adam": replace(base, optimizer="Adam"),
        "SGD": replace(base, optimizer="SGD", lr=0.05, weight_decay=1e-3),
    }


def vary_scheduler(base: Settings) -> dict[str, Settings]:
    """MixVPR with each schedule of the learning rate; milestones, factor and patience are the base's."""
    names = ("MultiStepLR", "CosineAnnealingLR", "ReduceLROnPlateau")
    return {name: replace(base, aggregator="MixVPR", scheduler=name) for name in names}


# Beyond the published study: notebook 03's experiments, each with the same photos seen as the base.


def vary_warmup(base: Settings) -> dict[str, Settings]:
    """MixVPR without warm-up, with the base's, and with three times as long a one."""
    base = replace(base, aggregator="MixVPR")
    lengths = dict.fromkeys((0, base.warmup_steps, 3 * base.warmup_steps))
    return {f"{steps} steps": replace(base, warmup_steps=steps) for steps in lengths}


def vary_batch_size(base: Settings) -> dict[str, Settings]:
    """ConvAP with half, twice and four times the places a batch; more places, fewer steps, the same share warmed up."""
    base = replace(base, aggregator="ConvAP")
    variants = {}
    for factor in (0.5, 1, 2, 4):
        num_places = max(2, int(base.num_places * factor))
        warmup_steps = base.warmup_steps * base.num_places // num_places
        variants[f"{num_places} places"] = replace(base, num_places=num_places, warmup_steps=warmup_steps)
    return variants


def vary_loss(base: Settings) -> dict[str, Settings]:
    """ConvAP with other losses, on the base's mined pairs or on all pairs.

    Margins and temperatures are the defaults of pytorch-metric-learning; SupConLoss is made for all pairs.
    """
    base = replace(base, aggregator="ConvAP")
    return {
        base.loss: base,
        f"{base.loss}, all pairs": replace(base, miner=None),
        "ContrastiveLoss": replace(base, loss="ContrastiveLoss"),
        "TripletMarginLoss": replace(base, loss="TripletMarginLoss"),
        "SupConLoss, all pairs": replace(base, loss="SupConLoss", miner=None),
    }


STUDY: dict[str, Callable[[Settings], dict[str, Settings]]] = {
    "aggregators": vary_aggregator,
    "grid": vary_rate_and_decay,
    "optimizers": vary_optimizer,
    "schedulers": vary_scheduler,
}

Runs = dict[str, dict[str, Run]]  # part of the study -> label -> run


def plan_study(base: Settings, parts: Sequence[str] | None = None) -> dict[str, dict[str, Settings]]:
    """The settings of every run, by part and label.

    Args:
        base: what the parts vary.
        parts: names in `STUDY`; None is all of them.

    Raises:
        ValueError: no such part; the message lists the valid ones.
    """
    return {part: STUDY[check_choice("part", part, STUDY)](base) for part in (STUDY if parts is None else parts)}


def list_distinct(plan: Mapping[str, Mapping[str, Settings]]) -> dict[str, Settings]:
    """What there is to train, in order: {name of the settings: settings}; equal settings are one run."""
    return {name_settings(settings): settings for variants in plan.values() for settings in variants.values()}


def name_settings(settings: Settings) -> str:
    """A string that is the same for equal settings."""
    return json.dumps(settings.to_dict(), sort_keys=True)


def train_study(
    base: Settings,
    data_root: str | Path,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    parts: Sequence[str] | None = None,
    on_part: Callable[[str, dict[str, Run]], None] | None = None,
) -> Runs:
    """Train the study's runs one after another, or read those that are there.

    Args:
        base: what the parts vary.
        data_root: folder with `train` and evaluation splits.
        runs_dir: where runs are kept.
        machine: device, workers, progress bars.
        parts: names in `STUDY`; None is all of them.
        on_part: called with a part's name and runs as soon as all of them are complete.

    Returns:
        {part: {label: run}}. If Ctrl-C stopped a training, its run is the last one there and is not complete
        (see `is_complete`); the same call goes on.
    """
    machine = machine or Machine()
    plan = plan_study(base, parts)
    total = len(list_distinct(plan))
    made: dict[str, Run] = {}
    runs: Runs = {}
    with bar_of_runs(total, machine) as bar:
        for part, variants in plan.items():
            runs[part] = {}
            for label, settings in variants.items():
                name = name_settings(settings)
                if name not in made:
                    print(f"run {len(made) + 1} of {total}, {part}: {label}", flush=True)
                    made[name] = get_run(settings, data_root, runs_dir, machine=machine)
                    bar.update(made[name].complete)
                runs[part][label] = made[name]
                if not made[name].complete:
                    return runs
            if on_part:
                on_part(part, runs[part])
    return runs


def is_complete(runs: Runs) -> bool:
    """Whether `train_study` went to its end."""
    return all(run.complete for variants in runs.values() for run in variants.values())


@contextlib.contextmanager
def bar_of_runs(total: int, machine: Machine) -> Iterator[tqdm]:
    """A bar over all runs, with time left; each epoch's own bar is below it, and printed lines go above both."""
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc="study", unit="run", disable=not machine.progress))
        if machine.progress:
            stack.enter_context(contextlib.redirect_stdout(DummyTqdmFile(sys.stdout)))
        yield bar


# What the figures take from runs.


def count_steps(settings: Settings, table: ImageTable) -> tuple[int, int]:
    """Optimizer steps and photos of one epoch over a training set."""
    sampler = PlaceSampler(table.places, settings.num_places, settings.images_per_place, settings.seed)
    return len(sampler), sampler.photos_per_epoch


def learning_rates(run: Run, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of each optimizer step of a run: what the scheduler said, times the warm-up.

    Returns:
        (epochs * steps_per_epoch,) float64.
    """
    scheduled = np.repeat([row["lr"] for row in run.history], steps_per_epoch)
    steps = np.arange(1, len(scheduled) + 1)
    return scheduled * np.minimum(1.0, steps / max(1, run.settings.warmup_steps))


def training_seconds(run: Run, photos_per_epoch: int) -> float:
    """How long a run trained, validation not counted."""
    return sum(photos_per_epoch / row["photos_per_s"] for row in run.history)
