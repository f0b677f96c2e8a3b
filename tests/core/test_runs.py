"""Run folders and the command line."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_root, photo_name, write_photo
from torch import nn

from vpr_lib import runs as runs_module
from vpr_lib.aggregators import AvgPool, ConvAP, GeM, MixVPR
from vpr_lib.command_line.commands import apply_changes
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import read_split
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.evaluation import compare_runs, evaluate_run, read_predictions
from vpr_lib.machine import Machine
from vpr_lib.models import build_model, load_model, save_model
from vpr_lib.run_folders import open_run
from vpr_lib.runs import get_run, train_run
from vpr_lib.settings import PRESETS, Settings, get_preset, replace


@pytest.fixture
def count_trainings(monkeypatch):
    calls = []
    real = runs_module.train
    monkeypatch.setattr(runs_module, "train", lambda *args: calls.append(1) or real(*args))
    return calls


@pytest.fixture
def small(settings):
    return replace(settings, epochs=1, ks=(1, 5))


def test_a_run_is_made_once_and_read_ever_after(small, data_root, tmp_path, machine, count_trainings):
    run = get_run(small, data_root, tmp_path, machine=machine)
    assert run.complete and run.folder.name.startswith("GeM-AdamW-lr0.001-seed0-")
    assert len(run.folder.name.rsplit("-", 1)[1]) == 8
    again = get_run(small, data_root, tmp_path, machine=replace(machine, eval_batch_size=2))  # how, not what
    assert again == run and len(count_trainings) == 1
    assert open_run(run.folder) == run
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(run.load_model()(images), open_run(run.folder).load_model()(images))


def test_other_settings_or_photos_are_another_run(small, data_root, tmp_path, machine, count_trainings):
    shutil.copytree(data_root, tmp_path / "root")
    first = get_run(small, tmp_path / "root", tmp_path / "runs", machine=machine)
    assert get_run(small, data_root, tmp_path / "runs", machine=machine).folder == first.folder  # moved, not changed
    assert get_run(replace(small, gamma=0.5), data_root, tmp_path / "runs", machine=machine).folder != first.folder
    photo = next((tmp_path / "root" / "train").rglob("*.jpg"))
    photo.write_bytes(photo.read_bytes() + b"x")
    assert get_run(small, tmp_path / "root", tmp_path / "runs", machine=machine).folder != first.folder
    assert len(count_trainings) == 3


def test_a_folder_of_another_run_is_refused_and_kept(small, data_root, tmp_path, machine):
    train_run(small, data_root, tmp_path / "run", machine=machine)
    before = (tmp_path / "run" / "model.pt").read_bytes()
    with pytest.raises(ValueError, match=r"lr is 0\.001 there, 0\.5 asked for"):
        train_run(replace(small, lr=0.5), data_root, tmp_path / "run", machine=machine)
    shutil.copytree(data_root, tmp_path / "root")
    next((tmp_path / "root" / "val").rglob("*.jpg")).unlink()
    with pytest.raises(ValueError, match="data is"):
        train_run(small, tmp_path / "root", tmp_path / "run", machine=machine)
    assert (tmp_path / "run" / "model.pt").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="no run folder"):
        train_run(small, data_root, tmp_path / "mine", machine=machine)


class Max(nn.Module):
    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def forward(self, x):
        return F.normalize(x.amax((2, 3)) ** self.power)


@pytest.mark.slow
def test_an_aggregator_from_a_cell(small, data_root, tmp_path, machine, count_trainings):
    run = get_run(small, data_root, tmp_path, Max(), machine)
    assert run.folder.name.startswith("Max-")
    assert get_run(small, data_root, tmp_path, Max(), machine).folder == run.folder and len(count_trainings) == 1
    evaluate_run(run, data_root, "val", machine)
    others = [get_run(small, data_root, tmp_path, a, machine) for a in (Max(2.0), AvgPool(normalise=False), AvgPool())]
    assert len({run.folder, *(other.folder for other in others)}) == 4
    with pytest.raises(ValueError, match="unknown aggregator 'Max'"):
        open_run(run.folder).load_model()
    assert open_run(run.folder, Max()).load_model()


class Helped(nn.Module):
    """An aggregator whose forward leans on a helper, a list and a default."""

    def __init__(self, weights=(1.0, 2.0)):
        super().__init__()
        self.weights = list(weights)

    def helper(self, x, scale=1.0):
        return x.mean((2, 3)) * self.weights[0] * scale

    def forward(self, x):
        return F.normalize(self.helper(x))


def other_helper():
    class Other(Helped):
        def helper(self, x, scale=1.0):
            return x.amax((2, 3)) * self.weights[0] * scale

    Other.__name__ = "Helped"
    return Other()


@pytest.mark.parametrize("one, other", [
    (lambda: GeM(3.0), lambda: GeM(1.0)),
    (Helped, lambda: Helped((1.0, 3.0))),
    (Helped, other_helper),
    (lambda: MixVPR(64, 8, 8, row_init="random"), lambda: MixVPR(64, 8, 8, row_init="regions")),
])  # fmt: skip
def test_instances_that_differ_are_other_runs(small, data_root, tmp_path, machine, monkeypatch, one, other):
    monkeypatch.setattr(runs_module, "train_run", lambda settings, root, folder, *rest: folder)
    folders = [get_run(small, data_root, tmp_path, make, machine) for make in (one, one, other)]
    assert folders[0] == folders[1] != folders[2]  # a function's random weights follow the seed, too


@pytest.mark.slow
def test_a_builtin_trained_as_an_instance_is_not_rebuilt_with_defaults(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, lambda: ConvAP(64, 16, s1=4, s2=1), machine)
    assert evaluate_run(run, data_root, "val", machine)
    for wrong in (None, ConvAP(64, 16, s1=1, s2=4)):
        with pytest.raises(ValueError, match=r"that differs from this one|another model"):
            open_run(run.folder, wrong).load_model()
    assert open_run(run.folder, ConvAP(64, 16, s1=4, s2=1)).load_model()


def test_a_kill_while_the_settings_are_written_blocks_nothing(small, data_root, tmp_path, machine):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json.tmp").write_text("{")
    assert train_run(small, data_root, tmp_path / "run", machine=machine).complete


def test_random_weights_that_are_frozen_are_said(small, data_root, tmp_path, machine):
    with pytest.warns(UserWarning, match="random weights are frozen until conv1"):
        get_run(replace(small, freeze_until="conv1"), data_root, tmp_path, machine=machine)


def test_plateau_without_validation_is_told_before_the_training(small, data_root, tmp_path, machine):
    settings = replace(small, scheduler="ReduceLROnPlateau", val_splits=())
    with pytest.raises(ValueError, match="needs a validation split"):
        get_run(settings, data_root, tmp_path, machine=machine)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_run_leaves_the_instance_untrained(small, data_root, tmp_path, machine):
    aggregator = GeM()
    run = get_run(small, data_root, tmp_path, aggregator, machine)
    assert aggregator.p.item() == 3.0 and run.load_model().aggregator.p.item() != 3.0


@pytest.mark.slow
def test_other_starting_weights_are_another_run(small, data_root, tmp_path, machine):
    folders = set()
    for seed in (1, 2):
        save_model(build_model(replace(small, seed=seed)), small, tmp_path / "start.pt")
        settings = replace(small, weights=str(tmp_path / "start.pt"))
        folders.add(get_run(settings, data_root, tmp_path, machine=machine).folder)
    assert len(folders) == 2


@pytest.mark.slow
def test_editing_the_cell_makes_another_run(small, data_root, tmp_path, machine):
    class Mean(nn.Module):
        def forward(self, x):
            return F.normalize(x.mean((2, 3)))

    first = Mean()

    class Mean(nn.Module):
        def forward(self, x):
            return F.normalize(x.mean((2, 3)) + x.amax((2, 3)))

    folders = {get_run(small, data_root, tmp_path, a, machine).folder for a in (first, Mean())}
    assert len(folders) == 2


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_weights(small, data_root, tmp_path, machine, monkeypatch, keep):
    settings = replace(small, epochs=3, keep=keep)
    seen = []

    def validator(*args):
        def validate(model):
            seen.append(model.backbone.model.conv1.weight.detach().clone())
            return {"val": {1: (10.0, 30.0, 20.0)[len(seen) - 1]}}

        return validate

    monkeypatch.setattr(runs_module, "make_validator", validator)
    run = train_run(settings, data_root, tmp_path / "run", machine=machine)
    kept = run.load_model().backbone.model.conv1.weight
    assert torch.equal(kept, seen[1 if keep == "best" else 2])


def test_evaluation_is_descriptors_search_and_recall(small, data_root, tmp_path, machine, monkeypatch):
    run = get_run(small, data_root, tmp_path, machine=machine)
    database, queries = read_split(data_root, "val")
    with pytest.raises(FileNotFoundError, match=r"no predictions for the photos of val.*evaluate --run .* --split val"):
        read_predictions(run, data_root, "val", database, queries)
    found = evaluate_run(run, data_root, "val", machine)
    model = run.load_model()
    d, q = (extract_descriptors(model, t, 32, machine=machine) for t in (database, queries))
    order = np.argsort(((q[:, None] - d[None]) ** 2).sum(2), axis=1)
    near = np.linalg.norm(queries.utm[:, None] - database.utm[None], axis=2) <= 25
    hits = {k: 100 * np.mean([near[i, order[i, :k]].any() for i in range(len(q))]) for k in (1, 5)}
    assert found.recall == pytest.approx(hits)
    assert found.to_dict()["queries"] == 6 and found.to_dict()["without_positive"] == 0
    assert (found.hits == near[np.arange(6), order[:, 0]]).all()

    monkeypatch.setattr(runs_module, "predict", None)  # the second time, predictions are read
    assert evaluate_run(run, data_root, "val", machine).recall == found.recall
    assert read_predictions(run, data_root, "val", database, queries).recall == found.recall


def test_evaluation_of_other_photos_is_not_read_from_the_cache(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path / "runs", machine=machine)
    before = evaluate_run(run, data_root, "val", machine)
    other = make_root(tmp_path / "other")
    far = other / "val" / "queries" / photo_name(9e5, 9e5)
    write_photo(far, 3)
    found = evaluate_run(run, other, "val", machine)
    assert len(found.positives) == 7 and found.to_dict()["without_positive"] == 1
    assert found.recall[5] == pytest.approx(before.recall[5] * 6 / 7)  # the one nobody can find counts as missed


@pytest.mark.slow
def test_ks_beyond_the_database_are_said(small, data_root, tmp_path, machine):
    message = r"no recall at k = \[25\]: the database of val has 12 photos"
    with pytest.warns(UserWarning, match=message):
        run = get_run(replace(small, ks=(1, 10, 25)), data_root, tmp_path, machine=machine)
    with pytest.warns(UserWarning, match=message):
        assert set(evaluate_run(run, data_root, "val", machine).recall) == {1, 10}
    with pytest.warns(UserWarning, match="the last one is kept"):
        run = get_run(replace(small, ks=(25,), val_splits=()), data_root, tmp_path, machine=machine)
    with pytest.raises(ValueError, match="exceed the 12 photos"), pytest.warns(UserWarning):
        evaluate_run(run, data_root, "val", machine)


def test_an_unfinished_run_cannot_be_evaluated(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, machine=machine)
    (run.folder / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.pt"):
        evaluate_run(run, data_root, "val", machine)
    assert get_run(small, data_root, tmp_path, machine=machine).complete  # from its checkpoint


@pytest.mark.slow
def test_compare_runs_says_what_differs(small, data_root, tmp_path, machine):
    both = {n: get_run(replace(small, aggregator=n), data_root, tmp_path, machine=machine) for n in ("AVG", "GeM")}
    results = compare_runs(both, data_root, ["val"], machine)
    assert results["AVG"]["val"]["p_value"] is None and 0 < results["GeM"]["val"]["p_value"] <= 1
    low, high = results["GeM"]["val"]["interval"]
    assert low <= results["GeM"]["val"]["recall"][1] <= high


# The command line

SMOKE = ["--preset", "smoke", "--image-size", "32", "--set", "progress=false", "--set", "num_workers=0"]
SMOKE += ["--set", "crop_after=layer1", "--set", "ks=[1,5,10]"]


def test_train_and_evaluate(data_root, tmp_path, capsys):
    run = str(tmp_path / "run")
    command = ["train", "--data", str(data_root), "--out", run, "--aggregator", "ConvAP", "--epochs", "1", *SMOKE]
    assert main(command) == 0
    assert "val: R@1" in capsys.readouterr().out
    assert open_run(run).settings.aggregator == "ConvAP" and open_run(run).settings.epochs == 1
    assert main(command) == 0  # reads it
    evaluate = ["evaluate", "--run", run, "--data", str(data_root), "--split", "val", "--json", str(tmp_path / "r")]
    assert main(evaluate) == 0
    found = json.loads((tmp_path / "r").read_text())
    assert set(found) == {"recall", "queries", "without_positive"} and set(found["recall"]) == {"1", "5", "10"}
    assert (found["queries"], found["without_positive"]) == (6, 0)
    assert load_model(tmp_path / "run" / "model.pt")[1].image_size == 32


@pytest.mark.slow
def test_evaluation_with_an_approximate_index_says_what_it_lost(
    small, data_root, tmp_path, machine, monkeypatch, capsys
):
    run = get_run(small, data_root, tmp_path, machine=machine)
    exact = evaluate_run(run, data_root, "val", machine)
    monkeypatch.setattr("vpr_lib.search.IVF_MIN_ROWS", 5)
    command = ["evaluate", "--run", str(run.folder), "--data", str(data_root), "--split", "val", "--set", "device=cpu"]
    assert main([*command, "--index", "ivf", "--json", str(tmp_path / "r")]) == 0
    assert "index ivf found 100.0% of what an exact search has among its first 1\n" in capsys.readouterr().out
    found = json.loads((tmp_path / "r").read_text())
    assert found["overlap"] == {"1": 100.0, "12": 100.0}  # 3 lists, and 32 would be looked at
    assert found["recall"] == {str(k): v for k, v in exact.recall.items()} and "overlap" not in exact.to_dict()
    assert len(list((run.folder / "predictions").iterdir())) == 2  # neither is read for the other
    monkeypatch.setattr(runs_module, "predict", None)
    assert evaluate_run(run, data_root, "val", machine, "ivf").overlap == {1: 100.0, 12: 100.0}
    assert main([*command, "--index", "ivff"]) == 1
    assert "unknown index 'ivff'; valid: exact, ivf" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_prints_the_table(data_root, tmp_path, capsys):
    command = ["compare", "--data", str(data_root), "--out", str(tmp_path), "--epochs", "1", *SMOKE]
    assert main([*command, "--aggregators", "AVG,MixVPR"]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert rows[0][:2] == ["R@k in percent", "val R@1 / 5 / 10"]
    assert [row[0] for row in rows[1:]] == ["AVG", "MixVPR"]
    for row in rows[1:]:
        assert all(0 <= float(number) <= 100 for number in row[1].split(" / "))
    assert "6 queries, 0 of them without a positive" in out
    assert (tmp_path / "comparison-root-smoke.md").read_text() in out


@pytest.mark.slow
def test_the_module_runs_as_a_program(tmp_path):
    command = [sys.executable, "-m", "vpr_lib", "train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no data root at") and "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments, message", [
    (["--preset", "tiny"], "unknown preset 'tiny'; valid: xs, photos, mini, smoke"),
    (["--aggregator", "mix"], "unknown aggregator 'mix'; valid: AVG, GeM, ConvAP, MixVPR"),
    (["--set", "learning_rate=1"], "unknown --set key 'learning_rate'; valid: backbone,"),
    (["--set", "lr"], "expected KEY=VALUE"),
    (["--set", "lr=fast"], "--set lr=fast: expected float"),
    (["--set", "lr=null"], "expected float"),
    (["--set", "weights=5"], "expected str or NoneType"),
    (["--set", "epochs=true"], "expected int"),
    (["--set", "epochs=2.5"], "expected int"),
    (["--set", "loss=Triplet"], "unknown loss 'Triplet'; valid: AngularLoss"),
    (["--set", "optimizer=adam"], "valid: Adam, AdamW, SGD"),
    (["--set", "scheduler=Step"], "valid: MultiStepLR, CosineAnnealingLR, ReduceLROnPlateau"),
    (["--set", "keep=first"], "valid: best, last"),
    (["--set", "precision=int8"], "valid: auto, float32, bfloat16, float16"),
    (["--set", "num_places=1"], "needs at least 2"),
    (["--set", "ks=[]"], "expected ranks of 1 or more"),
    (["--set", "ks=[0,1]"], "expected ranks of 1 or more"),
    (["--set", "device=gpu"], "unknown device 'gpu'; valid: auto, cpu"),
    (["--set", 'aggregator_options={"GEM": {"p": 1}}'], "unknown aggregator in aggregator_options 'GEM'; valid: AVG"),
    (["--set", 'aggregator_options={"GeM": 1}'], "expected {argument: value}"),
    (["--set", "images_per_place=9"], "0 places have 9 photos or more"),
    (["--epochs", "0"], "must be positive"),
    (["--set", 'val_splits=["test"]'], "has no test/"),
])  # fmt: skip
def test_bad_arguments_are_one_clear_line(data_root, tmp_path, capsys, arguments, message):
    assert main(["train", "--data", str(data_root), "--out", str(tmp_path / "run"), *SMOKE, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_bad_data_roots(tmp_path, capsys):
    assert main(["compare", "--data", str(tmp_path), "--out", str(tmp_path / "o"), *SMOKE]) == 1
    assert "no evaluation split" in capsys.readouterr().err
    root = make_root(tmp_path / "root")
    photos = sorted((root / "train").rglob("*.jpg"))
    broken = photos[0]
    for photo in photos:
        photo.write_bytes(b"no photo")
    assert main(["train", "--data", str(root), "--out", str(tmp_path / "run"), *SMOKE]) == 1
    assert "is not a readable photo" in capsys.readouterr().err
    broken.rename(broken.with_name("holiday.jpg"))
    assert main(["train", "--data", str(root), "--out", str(tmp_path / "run2"), *SMOKE]) == 1
    assert "holiday.jpg: no UTM" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(tmp_path / "run2"), "--data", str(root), "--split", "val"]) == 1
    assert "no run at" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_in_a_loader_process_is_one_clear_line_too(tmp_path):
    root = make_root(tmp_path / "root")
    for photo in (root / "train").rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    command = [sys.executable, "-m", "vpr_lib", "train", "--data", str(root), "--out", str(tmp_path / "run"), *SMOKE]
    done = subprocess.run([*command, "--set", "num_workers=1"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {root}") and "is not a readable photo" in done.stderr


def test_compare_looks_at_all_splits_before_it_trains(data_root, tmp_path, capsys):
    root = make_root(tmp_path / "root")
    shutil.copytree(root / "val" / "database", root / "later" / "database")
    assert main(["compare", "--data", str(root), "--out", str(tmp_path / "o"), *SMOKE]) == 1
    assert "later has no queries/" in capsys.readouterr().err
    assert main(["compare", "--data", str(data_root), "--out", str(tmp_path / "o"), *SMOKE, "--set", "aggregator=AVG"])
    assert "--set aggregator would do nothing" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_set_reaches_settings_and_machine():
    changes = [
        "lr=1",
        "milestones=[3,4]",
        "weights=null",
        "device=cpu",
        'loss_options={"alpha": 2}',
        "freeze_until=conv1",
    ]
    settings, machine = apply_changes(Settings(), changes)
    assert (settings.lr, settings.milestones, settings.weights, settings.freeze_until) == (1.0, (3, 4), None, "conv1")
    one_split = apply_changes(Settings(), ["val_splits=sf_val", "milestones=7", "miner=None"])[0]
    assert (one_split.val_splits, one_split.milestones, one_split.miner) == (("sf_val",), (7,), None)
    assert settings.loss_options == {"alpha": 2} and machine == Machine(device="cpu")
    with pytest.raises(ValueError, match="valid: device, num_workers"):
        apply_changes(Settings(), ["lr=1"], machine_only=True)


def test_settings_survive_json_and_hash_by_value():
    for preset in PRESETS:
        settings = get_preset(preset)
        assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(ValueError, match="unknown setting 'momentum'"):
        Settings.from_dict({"momentum": 0.9})
