"""Run folders: when a run is trained, and when it is opened."""

import csv
import io
import json
import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from conftest import make_root, write_photo
from torch import nn

from vpr_lib import runs as runs_module
from vpr_lib.aggregators import AvgPool, ConvAP, GeM, MixVPR
from vpr_lib.checked_files import write_json
from vpr_lib.data_roots import DataRoot
from vpr_lib.evaluation import evaluate_run
from vpr_lib.models import build_model, save_model
from vpr_lib.optimization import DEFAULT_OPTIONS
from vpr_lib.run_folders import lock_folder, open_run
from vpr_lib.runs import get_run, train_all, train_run
from vpr_lib.settings import PRESETS, Settings, get_preset, replace


def count_trained(runs_dir):
    return len(list(runs_dir.glob("*/history.csv")))


def test_a_run_is_trained_once(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, machine=machine)
    assert run.complete and run.folder.name.startswith("GeM-AdamW-lr0.001-seed0-")
    assert len(run.folder.name.rsplit("-", 1)[1]) == 8
    written = (run.folder / "model.pt").stat().st_mtime_ns
    again = get_run(small, data_root, tmp_path, machine=replace(machine, eval_batch_size=2))  # how, not what
    assert again == run and (run.folder / "model.pt").stat().st_mtime_ns == written
    assert open_run(run.folder) == run
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(run.load_model()(images), open_run(run.folder).load_model()(images))


@pytest.mark.slow
def test_other_settings_or_photos_are_another_run(small, data_root, tmp_path, machine):
    shutil.copytree(data_root, tmp_path / "root")
    first = get_run(small, tmp_path / "root", tmp_path / "runs", machine=machine)
    assert get_run(small, data_root, tmp_path / "runs", machine=machine).folder == first.folder  # moved, not changed
    assert get_run(replace(small, gamma=0.5), data_root, tmp_path / "runs", machine=machine).folder != first.folder
    photo = next((tmp_path / "root" / "train").rglob("*.jpg"))
    photo.write_bytes(photo.read_bytes() + b"x")
    assert get_run(small, tmp_path / "root", tmp_path / "runs", machine=machine).folder != first.folder
    assert count_trained(tmp_path / "runs") == 3


@pytest.mark.slow
def test_a_data_root_is_listed_once(small, data_root, tmp_path, machine):
    root = DataRoot(make_root(tmp_path / "root"))
    run = get_run(small, root, tmp_path / "runs", machine=machine)
    shutil.rmtree(root.folder)  # nothing is listed or read again for a complete run
    assert get_run(small, root, tmp_path / "runs", machine=machine) == run


@pytest.mark.slow
def test_all_variants_are_trained_and_equal_ones_once(small, data_root, tmp_path, machine, capsys):
    variants = {"a": small, "b": replace(small, seed=1), "again": replace(small)}
    seen = []
    runs = train_all(variants, data_root, tmp_path, machine, on_run=lambda label, run: seen.append((label, run)))
    assert list(runs) == ["a", "b", "again"] and runs["a"] == runs["again"] != runs["b"]
    assert seen == list(runs.items()) and count_trained(tmp_path) == 2
    assert "run 2 of 2: b" in capsys.readouterr().out


def test_a_folder_of_another_run_is_refused_and_kept(small, data_root, tmp_path, machine):
    train_run(small, data_root, tmp_path / "run", machine=machine)
    before = (tmp_path / "run" / "model.pt").read_bytes()
    with pytest.raises(ValueError, match=r"lr is 0\.001 there, 0\.5 asked for"):
        train_run(replace(small, lr=0.5), data_root, tmp_path / "run", machine=machine)
    shutil.copytree(data_root, tmp_path / "root")
    next((tmp_path / "root" / "val").rglob("*.jpg")).unlink()
    with pytest.raises(ValueError, match="photos is"):
        train_run(small, tmp_path / "root", tmp_path / "run", machine=machine)
    assert (tmp_path / "run" / "model.pt").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="no run folder"):
        train_run(small, data_root, tmp_path / "mine", machine=machine)


def test_the_folder_of_a_run_may_be_the_present_one(small, data_root, tmp_path, machine, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train_run(small, data_root, ".", machine=machine).complete and (tmp_path / "model.pt").is_file()


class Max(nn.Module):
    def __init__(self, power=1.0):
        super().__init__()
        self.power = power

    def forward(self, x):
        return F.normalize(x.amax((2, 3)) ** self.power)


@pytest.mark.slow
def test_an_aggregator_from_a_cell(small, data_root, tmp_path, machine):
    run = get_run(small, data_root, tmp_path, Max(), machine)
    assert run.folder.name.startswith("Max-")
    assert get_run(small, data_root, tmp_path, Max(), machine).folder == run.folder
    evaluate_run(run, data_root, "val", machine)
    others = [get_run(small, data_root, tmp_path, a, machine) for a in (Max(2.0), AvgPool(normalize=False))]
    assert len({run.folder, *(other.folder for other in others)}) == 3
    with pytest.raises(ValueError, match="Max"):
        open_run(run.folder).load_model()
    assert open_run(run.folder, Max()).load_model()


@pytest.mark.slow
def test_an_edited_class_in_aggregators_is_another_run(small, data_root, tmp_path, machine, monkeypatch):
    class Edited(GeM):
        def forward(self, x):
            return super().forward(2 * x)

    first = get_run(small, data_root, tmp_path, machine=machine)
    monkeypatch.setitem(runs_module.Run.load_model.__globals__["AGGREGATORS"], "GeM", Edited)
    assert get_run(small, data_root, tmp_path, machine=machine).folder != first.folder
    with pytest.raises(ValueError, match="another version of GeM"):
        first.load_model()


@pytest.mark.slow
def test_random_weights_of_a_function_follow_the_seed(small, data_root, tmp_path, machine):
    def make():
        return ConvAP(64, 16, s1=4, s2=1)

    runs = [get_run(small, data_root, tmp_path, make, machine) for _ in range(2)]
    assert runs[0].folder == runs[1].folder
    for wrong in (None, ConvAP(64, 16, s1=1, s2=4)):
        with pytest.raises(ValueError, match="ConvAP"):
            open_run(runs[0].folder, wrong).load_model()
    assert open_run(runs[0].folder, make()).load_model()
    regions = get_run(small, data_root, tmp_path, lambda: MixVPR(64, 8, 8, row_init="regions"), machine)
    random = get_run(small, data_root, tmp_path, lambda: MixVPR(64, 8, 8), machine)
    assert regions.folder != random.folder


def test_a_kill_while_the_settings_are_written_blocks_nothing(small, data_root, tmp_path, machine):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json.4711.tmp").write_text("{")
    (tmp_path / "run" / ".training.lock").touch()
    assert train_run(small, data_root, tmp_path / "run", machine=machine).complete


def test_frozen_random_weights_are_a_warning(small, data_root, tmp_path, machine):
    with pytest.warns(UserWarning, match="random weights are frozen until conv1"):
        get_run(replace(small, freeze_until="conv1"), data_root, tmp_path, machine=machine)


def test_plateau_without_validation_is_an_error_before_the_training(small, data_root, tmp_path, machine):
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
        model = build_model(replace(small, seed=seed))
        save_model(tmp_path / "start.pt", model.state_dict(), small, epoch=0)
        settings = replace(small, weights=str(tmp_path / "start.pt"))
        folders.add(get_run(settings, data_root, tmp_path, machine=machine).folder)
    assert len(folders) == 2


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_weights(small, data_root, tmp_path, machine, monkeypatch, keep):
    settings = replace(small, epochs=3, keep=keep)
    seen = []

    def make_validator(*args):
        def validate(model):
            seen.append(model.backbone.model.conv1.weight.detach().clone())
            return {"val": {1: (10.0, 30.0, 20.0)[len(seen) - 1]}}

        return validate

    monkeypatch.setattr(runs_module, "make_validator", make_validator)
    run = train_run(settings, data_root, tmp_path / "run", machine=machine)
    kept = run.load_model().backbone.model.conv1.weight
    assert torch.equal(kept, seen[1 if keep == "best" else 2])


def test_settings_survive_json_and_hash_by_value():
    for preset in PRESETS:
        settings = get_preset(preset)
        assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(ValueError, match="unknown setting 'momentum'"):
        Settings.from_dict({"momentum": 0.9})


TYPOS = [
    {"lerning_rate": 1}, {"epochs": "two"}, {"optimizer": "adam"}, {"scheduler": "Step"}, {"keep": "beste"},
    {"backbone": "resnet81"}, {"weights": "imagnet"}, {"crop_after": "layer9"}, {"freeze_until": "layer9"},
    {"loss": "Loss"}, {"loss_options": {"alhpa": 1}}, {"loss_options": {"alpha": "x"}},
    {"miner": "Miner"}, {"miner_options": {"epsilom": 1}}, {"loss": "PNPLoss"},
    {"aggregator": "Gem"}, {"aggregator_options": {"Gem": {"p": 3}}}, {"aggregator_options": {"GeM": {"q": 3}}},
    {"aggregator_options": {"GeM": {"p": "x"}}}, {"aggregator_options": {"ConvAP": {"s3": 1}}},
    {"aggregator": "ConvAP", "aggregator_options": {"ConvAP": {"s1": 0}}},
    {"aggregator": "AVG", "weights": None, "freeze_until": "layer1"},  # nothing is trained
    {"images_per_place": 9}, {"val_splits": ("vall",)}, {"ks": (100,)}, {"scheduler": "ReduceLROnPlateau", "gamma": 1},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:random weights are frozen")
def test_a_typo_writes_nothing_and_blocks_no_folder(small, data_root, tmp_path, machine):
    for typo in TYPOS:
        with pytest.raises((ValueError, FileNotFoundError)):
            get_run(replace(small, **typo), data_root, tmp_path, machine=machine)
        assert not [*tmp_path.iterdir()], typo
    with pytest.raises(ValueError, match="'cuad'; valid: auto, "):
        get_run(small, data_root, tmp_path, machine=replace(machine, device="cuad"))
    with pytest.raises(ValueError, match="option of GeM 'q'"):
        train_run(replace(small, aggregator_options={"GeM": {"q": 3}}), data_root, tmp_path / "run", machine=machine)
    assert not [*tmp_path.iterdir()]
    assert train_run(small, data_root, tmp_path / "run", machine=machine).complete


def test_a_typo_is_found_before_the_first_of_several_runs(small, data_root, tmp_path, machine):
    for typo in ({"miner": "Miner"}, {"aggregator_options": {"GeM": {"q": 3}}}, {"aggregator": "Gem"}):
        with pytest.raises(ValueError, match="valid: "):
            train_all({"one": small, "two": replace(small, **typo)}, data_root, tmp_path, machine)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_run_of_other_photos_is_named_before_it_is_trained_anew(small, data_root, tmp_path, machine, capsys):
    shutil.copytree(data_root, tmp_path / "root")
    next((tmp_path / "root" / "train").rglob("*.jpg")).unlink()

    def train(settings, root, **parts):
        run = get_run(settings, root, tmp_path / "runs", machine=machine, **parts)
        return run, [line for line in capsys.readouterr().out.splitlines() if "other photos" in line]

    first, lines = train(small, data_root)
    assert lines == []
    assert train(replace(small, lr=0.1), tmp_path / "root")[1] == []  # other settings
    assert train(small, tmp_path / "root", aggregator=GeM())[1] == []  # other code
    second, lines = train(small, tmp_path / "root")
    assert len(lines) == 1 and str(first.folder) in lines[0] and "training anew" in lines[0]
    assert second.folder != first.folder and train(small, tmp_path / "root")[1] == []  # opened, not trained
    (second.folder / "model.pt").unlink()
    assert train(small, tmp_path / "root")[1] == []  # resumed
    (first.folder / "model.pt").unlink()
    shutil.rmtree(second.folder)
    assert train(small, tmp_path / "root")[1] == []  # the first isn't complete


@pytest.mark.slow
def test_a_folder_without_a_checkpoint_is_free(small, data_root, tmp_path, machine):
    """A rate too high for the first batch must not block it."""
    with pytest.raises(FloatingPointError):
        train_run(replace(small, lr=1e30, epochs=3), data_root, tmp_path / "run", machine=machine)
    assert (tmp_path / "run" / "settings.json").is_file()
    assert train_run(small, data_root, tmp_path / "run", machine=machine).complete


@pytest.mark.slow
def test_an_edited_settings_file_is_refused(small, data_root, tmp_path, machine):
    run = train_run(small, data_root, tmp_path / "run", machine=machine)
    path = run.folder / "settings.json"
    path.write_text(path.read_text().replace('"image_size": 32', '"image_size": 48'))
    for use in (lambda: open_run(run.folder), lambda: train_run(small, data_root, run.folder, machine=machine)):
        with pytest.raises(ValueError, match=r"settings\.json"):
            use()


@pytest.mark.slow
def test_weights_of_a_run_with_other_settings_are_refused(small, data_root, tmp_path, machine):
    first = train_run(small, data_root, tmp_path / "a", machine=machine)
    other = train_run(replace(small, lr=0.01), data_root, tmp_path / "b", machine=machine)
    shutil.copy(first.folder / "model.pt", other.folder)
    with pytest.raises(ValueError, match=r"lr is 0\.001 there, 0\.01 asked for"):
        other.load_model()


@pytest.mark.slow
def test_the_history_survives_in_the_weights_file(small, data_root, tmp_path, machine):
    settings = replace(small, epochs=2)
    run = train_run(settings, data_root, tmp_path / "run", machine=machine)
    with open(run.folder / "history.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert run.history == rows and [row["epoch"] for row in rows] == [1, 2]
    (run.folder / "history.csv").write_text("epoch\n")  # damaged
    assert run.history == rows
    (run.folder / "model.pt").unlink()  # as before its end
    assert run.history == rows


@pytest.mark.slow
def test_a_damaged_weights_file_is_named_and_written_again(small, data_root, tmp_path, machine):
    run = train_run(small, data_root, tmp_path / "run", machine=machine)
    path = run.folder / "model.pt"
    data = path.read_bytes()
    path.write_bytes(data[:20_000] + bytes([data[20_000] ^ 1]) + data[20_001:])
    for use in (run.load_model, lambda: run.history, lambda: evaluate_run(replace(run), data_root, "val", machine)):
        with pytest.raises(ValueError, match=r"model\.pt .*delete it"):
            use()
    path.unlink()
    assert train_run(small, data_root, run.folder, machine=machine).complete
    weights = (torch.load(io.BytesIO(each), weights_only=True)["state_dict"] for each in (data, path.read_bytes()))
    old, new = weights
    assert all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.slow
def test_a_lost_best_epoch_is_named(small, data_root, tmp_path, machine):
    settings = replace(small, keep="best")
    run = train_run(settings, data_root, tmp_path / "run", machine=machine)
    (run.folder / "model.pt").unlink()
    data = (run.folder / "best.pt").read_bytes()
    for damage in (lambda path: path.write_bytes(data[:-5]), lambda path: path.unlink()):
        damage(run.folder / "best.pt")
        with pytest.raises(ValueError, match=r"best\.pt .*remove .*run"):
            train_run(settings, data_root, run.folder, machine=machine)


@pytest.mark.slow
def test_one_process_at_a_time_trains_in_a_folder(small, data_root, tmp_path, machine):
    (tmp_path / "run").mkdir()
    with lock_folder(tmp_path / "run"), pytest.raises(OSError, match=f"process {os.getpid()} on "):
        train_run(small, data_root, tmp_path / "run", machine=machine)
    assert train_run(small, data_root, tmp_path / "run", machine=machine).complete  # the lock is gone
    assert not (tmp_path / "run" / "training.txt").exists()


@pytest.mark.slow
def test_a_rendered_city_is_known_by_its_settings(small, tmp_path, machine):
    """So a run is found where the photos' last bits differ, and isn't where photos were replaced."""
    folders = []
    for name, view in (("a", 1), ("b", 2)):  # other pixels, as if drawn on another machine
        root = make_root(tmp_path / name)
        photo = next((root / "train").rglob("*.jpg"))
        write_photo(photo, 0, view)
        listed = DataRoot(root)
        tables = {"train": listed.train, **{f"val/{k}": t for k, t in listed.read_split("val")._asdict().items()}}
        prints = {part: (table.fingerprint, len(table)) for part, table in tables.items()}
        write_json(root / "city.json", {"version": 3, "settings": {"seed": 0}, "fingerprints": prints})
        folders.append(get_run(small, root, tmp_path / "runs", machine=machine).folder)
    assert folders[0] == folders[1]
    write_photo(photo, 5)
    with pytest.warns(UserWarning, match="changed or lost"):
        assert get_run(small, root, tmp_path / "runs", machine=machine).folder != folders[0]


@pytest.mark.slow
def test_a_run_whose_weights_were_all_removed_is_trained_again(small, data_root, tmp_path, machine):
    """As the error of damaged checkpoints advises."""
    run = train_run(replace(small, val_splits=()), data_root, tmp_path / "run", machine=machine)
    evaluate_run(run, data_root, "val", machine)
    for path in run.folder.glob("*.pt"):
        path.unlink()
    assert train_run(run.settings, data_root, run.folder, machine=machine).complete


def test_settings_of_another_program_are_left_alone(small, data_root, tmp_path, machine):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"editor": "wide"}')
    with pytest.raises(ValueError, match=r"settings\.json"):
        train_run(small, data_root, tmp_path / "run", machine=machine)
    assert (tmp_path / "run" / "settings.json").read_text() == '{"editor": "wide"}'


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"ConvAP": {"out_channels": "a"}}, {"ConvAP": {"s1": 0}}])
def test_an_aggregator_that_cannot_work_is_an_error_without_a_traceback(small, data_root, tmp_path, machine, options):
    settings = replace(small, aggregator="ConvAP", aggregator_options=options)
    with pytest.raises(ValueError, match=r"ConvAP|descriptor"):
        train_run(settings, data_root, tmp_path / "run", machine=machine)


@pytest.mark.slow
def test_other_default_options_of_the_loss_are_another_run(small, data_root, tmp_path, machine, monkeypatch):
    first = get_run(small, data_root, tmp_path, machine=machine)
    monkeypatch.setitem(DEFAULT_OPTIONS, small.loss, {"alpha": 3.0})
    assert get_run(small, data_root, tmp_path, machine=machine).folder != first.folder
    with pytest.raises(ValueError, match="default options"):
        runs_module.train_run(small, data_root, first.folder, machine=machine)
