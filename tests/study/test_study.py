"""The study's runs, scenarios, recall of each kind of query, examples chosen by rule."""

import csv
import re

import numpy as np
import pytest
from conftest import make_root
from PIL import Image
from test_runs import count_trainings  # noqa: F401

from vpr_lib.aggregators import AGGREGATORS
from vpr_lib.analysis.examples import choose_examples, name_outcomes, read_example
from vpr_lib.analysis.scenarios import SCENARIOS, Label, label_lights, label_scenarios, read_labels, read_scenarios
from vpr_lib.data_roots import find_part, read_split
from vpr_lib.evaluation import compare_evaluations, compare_runs, evaluate_run
from vpr_lib.images import read_images
from vpr_lib.optimization import make_loss, make_miner
from vpr_lib.photos import read_thumbnail
from vpr_lib.runs import get_run
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings, get_preset, replace
from vpr_lib.statistics import bootstrap_interval, group_cells, recall_by_label
from vpr_lib.study import experiments as study_module
from vpr_lib.study import published
from vpr_lib.study.experiments import (
    count_steps,
    is_complete,
    learning_rates,
    list_distinct,
    plan_study,
    train_study,
    training_seconds,
    vary_batch_size,
    vary_loss,
    vary_warmup,
)


@pytest.fixture
def small(settings):
    return replace(settings, epochs=1, ks=(1, 5))


# Which runs


def test_the_study_is_the_published_one():
    plan = plan_study(Settings())
    assert list(plan["aggregators"]) == list(AGGREGATORS) == list(published.RECALLS)
    assert {(s.lr, s.weight_decay) for s in plan["grid"].values()} == set(published.GRID)
    assert {(s.aggregator, s.optimizer) for s in plan["grid"].values()} == {("ConvAP", "AdamW")}
    assert list(plan["optimizers"]) == list(published.OPTIMIZERS)
    sgd = plan["optimizers"]["SGD"]
    assert (sgd.aggregator, sgd.optimizer, sgd.lr, sgd.weight_decay) == ("MixVPR", "SGD", 0.05, 1e-3)
    assert [s.scheduler for s in plan["schedulers"].values()] == list(plan["schedulers"])
    with pytest.raises(ValueError, match=r"unknown part 'Fig\. 1'; valid: aggregators, grid"):
        plan_study(Settings(), ["Fig. 1"])


def test_experiments_beyond_the_study_change_one_thing_at_the_same_budget():
    base = replace(get_preset("mini"), num_places=8, warmup_steps=20)
    places = np.repeat([f"place {i}" for i in range(64)], base.images_per_place)
    budgets = set()
    for settings in vary_batch_size(base).values():
        sampler = PlaceSampler(places, settings.num_places, settings.images_per_place)
        budgets.add(sampler.photos_per_epoch * settings.epochs)
        # The same share of the steps is warmed up.
        assert settings.warmup_steps * settings.num_places == base.warmup_steps * base.num_places
    assert len(budgets) == 1
    assert [s.num_places for s in vary_batch_size(base).values()] == [4, 8, 16, 32]
    assert [s.warmup_steps for s in vary_warmup(base).values()] == [0, 20, 60]
    assert list(vary_warmup(replace(base, warmup_steps=0))) == ["0 steps"]
    for vary, fields in (
        (vary_batch_size, {"num_places", "warmup_steps", "aggregator"}),
        (vary_warmup, {"warmup_steps", "aggregator"}),
        (vary_loss, {"loss", "miner", "aggregator"}),
    ):
        variants = vary(base)
        assert replace(base, aggregator=next(iter(variants.values())).aggregator) in variants.values()
        for settings in variants.values():
            changed = {k for k, v in settings.to_dict().items() if v != base.to_dict()[k]}
            assert changed <= fields
            make_loss(settings, 8, 16)  # such a loss and miner there is
            make_miner(settings)


def test_figures_share_runs():
    plan = plan_study(Settings())
    mix = plan["aggregators"]["MixVPR"]
    assert mix == plan["optimizers"]["AdamW"] == plan["schedulers"]["MultiStepLR"]
    every = [settings for variants in plan.values() for settings in variants.values()]
    distinct = []  # by ==, the slow way: settings hold dicts and can't be hashed
    for settings in every:
        if settings not in distinct:
            distinct.append(settings)
    assert list(list_distinct(plan).values()) == distinct and len(distinct) == len(every) - 2
    assert len(list_distinct(plan_study(replace(Settings(), weight_decay=1e-3)))) == len(distinct) - 1
    assert len(list_distinct(plan_study(replace(Settings(), scheduler="CosineAnnealingLR")))) == len(distinct)


@pytest.mark.slow
def test_training_the_study_trains_each_run_once(small, data_root, tmp_path, machine, count_trainings):  # noqa: F811
    told = []
    parts = ["optimizers", "schedulers"]
    base = replace(small, epochs=2)
    runs = train_study(base, data_root, tmp_path, machine, parts, lambda part, runs: told.append((part, list(runs))))
    assert len(count_trainings) == 5 and is_complete(runs)  # 3 + 3, one of them shared
    assert runs["optimizers"]["AdamW"].folder == runs["schedulers"]["MultiStepLR"].folder
    assert told == [(part, list(runs[part])) for part in parts]
    assert train_study(base, data_root, tmp_path, machine, parts) == runs and len(count_trainings) == 5

    run = runs["optimizers"]["SGD"]
    rows = list(csv.DictReader((run.folder / "history.csv").read_text().splitlines()))
    assert [r["loss"] for r in run.history] == [float(r["loss"]) for r in rows] and len(rows) == 2
    steps, photos = count_steps(base, read_images(find_part(data_root, "train")))
    assert (steps, photos) == (3, 16)  # 8 places, 3 a batch, 2 photos of each
    assert training_seconds(run, photos) == pytest.approx(sum(photos / float(r["photos_per_s"]) for r in rows))


def test_an_interrupted_study_stops_and_says_so(small, data_root, tmp_path, machine, monkeypatch):
    calls = []

    def stop_at_the_second(settings, *args, **kwargs):
        calls.append(settings)
        run = get_run(settings, *args, **kwargs)
        if len(calls) == 2:
            (run.folder / "model.pt").unlink()
        return run

    monkeypatch.setattr(study_module, "get_run", stop_at_the_second)
    told = []
    runs = train_study(small, data_root, tmp_path, machine, ["aggregators"], lambda *args: told.append(args))
    assert len(calls) == 2 and not is_complete(runs) and not told
    assert list(runs["aggregators"]) == list(AGGREGATORS)[:2]


@pytest.mark.slow
def test_a_bar_over_all_runs_keeps_the_lines(small, data_root, tmp_path, machine, capsys):
    train_study(small, data_root, tmp_path, replace(machine, progress=True), ["optimizers"])
    printed = capsys.readouterr()
    assert "run 3 of 3, optimizers: SGD\n" in printed.out and "epoch 1: loss" in printed.out
    assert re.search(r"study: 100%.*3/3", printed.err)


def test_learning_rates_are_those_of_the_steps(small, data_root, tmp_path, machine, monkeypatch):
    import vpr_lib.training as training_module

    used = []
    real = training_module.warmed_up

    def watch(optimizer, step, warmup_steps):
        context = real(optimizer, step, warmup_steps)
        context.__enter__()
        used.append(optimizer.param_groups[0]["lr"])
        context.__exit__(None, None, None)
        return real(optimizer, step, warmup_steps)

    monkeypatch.setattr(training_module, "warmed_up", watch)
    settings = replace(small, epochs=3, milestones=(1, 2), gamma=0.5, warmup_steps=4)
    run = get_run(settings, data_root, tmp_path, machine=machine)
    assert learning_rates(run, 3).tolist() == pytest.approx(used) and len(used) == 9


# Scenarios


def write_labels(root, *lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / "scenarios.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return root


def test_reading_scenarios(tmp_path):
    assert read_scenarios(tmp_path) == {}
    write_labels(
        tmp_path, "query,scenario,detail", "a.jpg,occlusion,bus", '"b,1.jpg",illumination,night', "c.jpg,skyline,"
    )
    labels = read_labels(tmp_path)
    assert labels["b,1.jpg"] == Label("illumination", "night") and labels["c.jpg"].detail == ""
    assert read_scenarios(tmp_path) == {"a.jpg": "occlusion", "b,1.jpg": "illumination", "c.jpg": "skyline"}
    write_labels(tmp_path, "query,scenario", "a.jpg,ordinary", "a.jpg,ordinary")
    assert read_labels(tmp_path) == {"a.jpg": Label("ordinary")}
    assert list(SCENARIOS) == ["viewpoint", "repetitive", "skyline", "occlusion", "illumination", "ordinary"]


@pytest.mark.parametrize("lines, message", [
    (["query,scenario", "a.jpg,rain"], "unknown scenario in line 2 .* 'rain'; valid: viewpoint, repetitive"),
    (["query,scenario", "a.jpg"], "unknown scenario"),
    (["query,scenario", "a.jpg,skyline", "a.jpg,ordinary"], "a.jpg as skyline and as ordinary"),
    (["name,kind", "a.jpg,skyline"], "expected the header query,scenario,detail"),
    ([""], "expected the header"),
])  # fmt: skip
def test_bad_scenarios_are_told(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_labels(write_labels(tmp_path, *lines))


def test_labels_find_their_queries():
    labels = {
        "a.jpg": Label("illumination", "dusk"),
        "b.jpg": Label("ordinary", "night"),
        "c.jpg": Label("occlusion", "bus"),
    }
    names = ["queries/b.jpg", "x/y/c.jpg", "unknown.jpg", "a.jpg"]
    assert label_scenarios(names, labels).tolist() == ["ordinary", "occlusion", "", "illumination"]
    assert label_lights(names, labels).tolist() == ["night", "", "", "dusk"]


# Recall of each kind


def test_recall_by_label_is_a_loop_over_queries():
    draw = np.random.default_rng(0)
    hits, labels = draw.random(60) < 0.4, draw.choice(["", "a", "b"], 60)
    utm = draw.uniform(0, 200, (60, 2)) + [500_000, 4_000_000]
    found = recall_by_label(hits, labels, group_cells(utm))
    assert set(found) == {"a", "b"}
    for label, result in found.items():
        right = total = 0
        for hit, other in zip(hits, labels, strict=True):
            right, total = right + (other == label and hit), total + (other == label)
        assert (result["queries"], result["recall"]) == (total, pytest.approx(100 * right / total))
        assert result["interval"][0] <= result["recall"] <= result["interval"][1]
    lone = bootstrap_interval(hits[labels == "a"], group_cells(utm)[labels == "a"])
    assert found["a"]["interval"] == lone
    with pytest.raises(ValueError, match="expected one a query"):
        recall_by_label(hits, labels[1:])


def test_cells_are_25_m_squares():
    utm = np.array([[100.0, 0.0], [124.9, 24.9], [125.0, 0.0], [-0.1, 0.0], [110.0, 3.0]])
    cells = group_cells(utm)
    for i in range(5):
        for j in range(5):
            assert (cells[i] == cells[j]) == ((utm[i] // 25).tolist() == (utm[j] // 25).tolist())


@pytest.mark.slow
def test_comparing_evaluations_is_comparing_runs(small, data_root, tmp_path, machine):
    runs = {
        name: get_run(replace(small, aggregator=name), data_root, tmp_path, machine=machine) for name in ("AVG", "GeM")
    }
    evaluations = {name: {"val": evaluate_run(run, data_root, "val", machine)} for name, run in runs.items()}
    assert compare_evaluations(evaluations) == compare_runs(runs, data_root, ["val"], machine)


# Examples


def test_examples_are_chosen_by_rule():
    names = [f"q{i}" for i in range(40)]
    labels = ["a" if i % 2 else "b" for i in range(40)]
    rights = np.random.default_rng(1).random((40, 2)) < 0.6
    chosen = choose_examples(names, labels, rights)
    assert chosen == choose_examples(names, labels, rights[:, ::-1])  # which model is right plays no part
    assert list(chosen) == ["b", "a", "Fail cases"]
    for label in "ab":
        first, second = chosen[label]
        assert labels[first] == labels[second] == label and rights[first, 0] != rights[first, 1]
    assert not rights[chosen["Fail cases"]].any()
    assert len({i for indices in chosen.values() for i in indices}) == 6
    agree = choose_examples(names, labels, np.ones((40, 2), bool))
    assert "Fail cases" not in agree and all(len(indices) == 2 for indices in agree.values())
    shuffled = np.random.default_rng(2).permutation(40)  # the order of the rows plays no part
    again = choose_examples([names[i] for i in shuffled], [labels[i] for i in shuffled], rights[shuffled])
    assert {k: [names[shuffled[i]] for i in v] for k, v in again.items()} == {
        k: [names[i] for i in v] for k, v in chosen.items()
    }


def test_outcomes_in_words():
    outcomes = name_outcomes(("A", "B"), np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool))
    assert outcomes.tolist() == ["Both right", "Only A right", "Only B right", "Fail cases"]


def test_an_example_shows_the_first_photo_and_its_distance(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, machine=machine)
    found = evaluate_run(run, data_root, "val", machine)
    database, queries = read_split(data_root, "val")
    example = read_example(3, database, queries, {"GeM": found}, max_pixels=36)
    match = example.matches["GeM"]
    row = found.indices[3, 0]
    assert match.distance_m == pytest.approx(np.hypot(*(queries.utm[3] - database.utm[row])))
    assert match.right == (match.distance_m <= 25) and example.name == queries.names[3]
    assert match.photo.shape == (36, 36, 3) and (match.photo == read_thumbnail(database, row, 36)).all()


def test_thumbnails_keep_the_shape_and_stand_upright(tmp_path):
    root = make_root(tmp_path / "root")
    path = next((root / "val" / "queries").glob("*.jpg"))
    photo = Image.new("RGB", (200, 100), "red")
    photo.save(path)
    table = read_images(path.parent)
    row = list(table.names).index(path.name)
    assert read_thumbnail(table, row, 50).shape == (25, 50, 3)
    assert read_thumbnail(table, row, 900).shape == (100, 200, 3)  # never larger than it is
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    photo.save(path, exif=exif)
    assert read_thumbnail(read_images(path.parent), row, 50).shape == (50, 25, 3)
    path.write_bytes(b"no photo")
    with pytest.raises(ValueError, match="is not a readable photo"):
        read_thumbnail(read_images(path.parent), row, 50)
