"""Which runs the study consists of, and their training."""

import numpy as np
import pytest
import torch

from vpr_lib.aggregators import STUDY_AGGREGATORS
from vpr_lib.data_roots import DataRoot
from vpr_lib.optimization import make_loss, make_miner, make_optimizer, make_scheduler, step_scheduler, warm_up
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings, get_preset, replace
from vpr_lib.study import experiments, published
from vpr_lib.study.experiments import (
    count_steps,
    learning_rates,
    plan_study,
    train_study,
    vary_batch_size,
    vary_loss,
    vary_warmup,
)


def test_the_study_is_the_published_one():
    plan = plan_study(Settings())
    assert list(plan["aggregators"]) == list(STUDY_AGGREGATORS) == list(published.RECALLS)
    assert {(s.lr, s.weight_decay) for s in plan["grid"].values()} == set(published.GRID)
    assert {(s.aggregator, s.optimizer) for s in plan["grid"].values()} == {("ConvAP", "AdamW")}
    assert list(plan["optimizers"]) == list(published.OPTIMIZERS)
    sgd = plan["optimizers"]["SGD"]
    assert (sgd.aggregator, sgd.optimizer, sgd.lr, sgd.weight_decay) == ("MixVPR", "SGD", 0.05, 1e-3)
    assert [s.scheduler for s in plan["schedulers"].values()] == list(plan["schedulers"])
    assert plan["aggregators"]["MixVPR"] == plan["optimizers"]["AdamW"] == plan["schedulers"]["MultiStepLR"]
    with pytest.raises(ValueError, match=r"Fig\. 1.*aggregators, grid"):
        plan_study(Settings(), ["Fig. 1"])


def test_experiments_beyond_the_study_change_one_thing_and_see_as_many_photos():
    base = replace(get_preset("mini"), num_places=8, warmup_steps=20)
    places = np.repeat([f"place {i}" for i in range(64)], base.images_per_place)
    num_photos = set()
    for settings in vary_batch_size(base).values():
        sampler = PlaceSampler(places, settings.num_places, settings.images_per_place)
        num_photos.add(sampler.photos_per_epoch * settings.epochs)
        # The same share of the steps is warmed up.
        assert settings.warmup_steps * settings.num_places == base.warmup_steps * base.num_places
    assert len(num_photos) == 1
    assert [s.num_places for s in vary_batch_size(base).values()] == [4, 8, 16, 32]
    assert [s.warmup_steps for s in vary_warmup(base).values()] == [0, 20, 60]
    assert list(vary_warmup(replace(base, warmup_steps=0))) == ["0 steps"]
    for vary, varied in (
        (vary_batch_size, {"num_places", "warmup_steps", "aggregator"}),
        (vary_warmup, {"warmup_steps", "aggregator"}),
        (vary_loss, {"loss", "miner", "aggregator"}),
    ):
        variants = vary(base)
        assert replace(base, aggregator=next(iter(variants.values())).aggregator) in variants.values()
        for settings in variants.values():
            assert {key for key, value in settings.to_dict().items() if value != base.to_dict()[key]} <= varied
            make_loss(settings, 8, 16)  # raises if there is no such loss
            make_miner(settings)


def slow_learning_rates(settings, steps_per_epoch):
    """The learning rate at each step of a training loop without a model."""
    optimizer = make_optimizer(settings, [torch.nn.Parameter(torch.zeros(1))])
    scheduler = make_scheduler(settings, optimizer)
    rates = []
    for epoch in range(settings.epochs):
        for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
            with warm_up(optimizer, step, settings.warmup_steps):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
        step_scheduler(scheduler, {"val": {1: 0.0}})
    return rates


@pytest.mark.slow
def test_parts_share_runs_and_are_reported_when_complete(settings, data_root, tmp_path, machine):
    base = replace(settings, epochs=2, milestones=(1,), gamma=0.5, warmup_steps=4)
    parts = ["optimizers", "schedulers"]
    reported = []
    root = DataRoot(data_root)
    runs = train_study(base, root, tmp_path, machine, parts, lambda part, runs: reported.append((part, list(runs))))
    assert {part: list(by_label) for part, by_label in runs.items()} == plan_labels(base, parts)
    assert reported == [(part, list(runs[part])) for part in parts]
    assert len(list(tmp_path.iterdir())) == 5  # 3 + 3, one of them shared
    assert runs["optimizers"]["AdamW"] == runs["schedulers"]["MultiStepLR"]
    assert count_steps(base, root.train) == (3, 16)  # 8 places, 3 in a batch, 2 photos of each
    run = runs["schedulers"]["MultiStepLR"]
    assert learning_rates(run, 3).tolist() == pytest.approx(slow_learning_rates(run.settings, 3))


def plan_labels(base, parts):
    return {part: list(variants) for part, variants in plan_study(base, parts).items()}


@pytest.mark.slow
def test_after_an_interruption_only_complete_runs_are_returned(settings, data_root, tmp_path, machine, monkeypatch):
    real = experiments.train_all

    def train_two(variants, *arguments):
        return real(dict(list(variants.items())[:2]), *arguments)

    monkeypatch.setattr(experiments, "train_all", train_two)
    reported = []
    base = replace(settings, epochs=1)
    runs = train_study(base, data_root, tmp_path, machine, None, lambda part, runs: reported.append(part))
    assert list(runs["aggregators"]) == list(STUDY_AGGREGATORS)[:2] and not runs["grid"] and not reported
