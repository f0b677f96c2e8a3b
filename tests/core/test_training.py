"""The training loop and its resume: whatever stops a run, the same weights come out."""

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from vpr_lib import trainer
from vpr_lib.checkpoints import NEWEST, PREVIOUS, load_checkpoint, save_checkpoint
from vpr_lib.images import read_images
from vpr_lib.models import build_model
from vpr_lib.settings import replace
from vpr_lib.training import train


@pytest.fixture
def table(data_root):
    return read_images(data_root / "train")


def fixed_scores(*recalls):
    """A validation that returns these R@1s, one an epoch."""
    values = iter(recalls)
    return lambda model: {"val": {1: next(values), 5: 100.0}}


def run(settings, table, folder, machine, validate=None, aggregator=None, on_batch=None):
    model = build_model(settings, aggregator)
    return train(model, settings, table, folder, validate, machine, on_batch), model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_learns_and_writes_its_history(settings, table, tmp_path, machine):
    settings = replace(settings, epochs=6, lr=1e-3, randaugment_ops=0)
    progress, _ = run(settings, table, tmp_path, machine, fixed_scores(1, 2, 3, 4, 5, 6))
    assert progress.epoch == 6 and progress.step == 18
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == list("123456")
    assert rows[5]["val R@1"] == "6" and rows[5]["val R@5"] == "100.0"
    losses = [float(row["loss"]) for row in rows]
    assert min(losses[3:]) < losses[0]
    assert all(0 <= float(row["trivial_anchors"]) <= 1 for row in rows)


@pytest.mark.slow
def test_the_weights_are_a_function_of_the_settings(settings, table, tmp_path, machine):
    first = run(settings, table, tmp_path / "a", machine)[1]
    assert same(first, run(settings, table, tmp_path / "b", machine)[1])
    with_workers = replace(machine, num_workers=2, cache_gb=0.0)
    assert same(first, run(settings, table, tmp_path / "c", with_workers)[1])
    assert not same(first, run(replace(settings, seed=1), table, tmp_path / "d", machine)[1])


SCRIPT = """
import sys, torch
from pathlib import Path
from dataclasses import replace
from vpr_lib.machine import Machine
from vpr_lib.settings import Settings
from vpr_lib.models import build_model
from vpr_lib.images import read_images
from vpr_lib.training import train
import json
torch.set_num_threads(1)
settings = Settings.from_dict(json.loads(sys.argv[1]))
machine = Machine(device="cpu", num_workers=1, progress=False, save_every_s=0.0)
model = build_model(settings)
validate = lambda model: {"val": {1: float(sum(p.sum() for p in model.parameters()))}}
progress = train(model, settings, read_images(sys.argv[2]), sys.argv[3], validate, machine)
torch.save(model.state_dict(), sys.argv[3] + ".final")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(settings, table, tmp_path):
    """`kill -9` at moments spread over the run, in mid-save too, as there is a save after each batch."""
    settings = replace(settings, epochs=8, optimizer="Adam", scheduler="CosineAnnealingLR", warmup_steps=7)
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(settings.to_dict()), str(table.root)]
    subprocess.run([*arguments, str(tmp_path / "whole")], check=True)
    killed, waits = 0, np.random.default_rng(0).uniform(0.0, 0.2, 2)
    for wait in waits:
        process = subprocess.Popen([*arguments, str(tmp_path / "killed")])
        deadline = time.monotonic() + 60
        before = marks(tmp_path / "killed")
        while process.poll() is None and marks(tmp_path / "killed") == before and time.monotonic() < deadline:
            time.sleep(0.01)  # until it has made some headway
        time.sleep(wait)
        killed += process.poll() is None
        process.kill()
        process.wait()
        if (tmp_path / "killed.final").exists():
            break
    assert killed
    subprocess.run([*arguments, str(tmp_path / "killed")], check=True)
    final = [torch.load(tmp_path / f"{name}.final", weights_only=True) for name in ("whole", "killed")]
    assert same(*final)
    ends = [load_checkpoint(tmp_path / name) for name in ("whole", "killed")]
    assert same(ends[0]["optimizer"]["state"][0], ends[1]["optimizer"]["state"][0])
    times = ("seconds", "photos_per_s")
    histories = [[{k: v for k, v in r.items() if k not in times} for r in e["progress"]["history"]] for e in ends]
    assert histories[0] == histories[1] and len(histories[0]) == 8
    assert ends[0]["progress"]["best_epoch"] == ends[1]["progress"]["best_epoch"]


def marks(folder):
    path = folder / NEWEST
    return path.stat().st_mtime_ns if path.exists() else 0


class Stop(BaseException):
    """Ends a training between two batches, as a crash would."""


def stop_at(step):
    def on_batch(progress):
        if progress.step == step:
            raise Stop

    return on_batch


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5])
def test_a_run_stopped_within_an_epoch_resumes_with_the_next_batch(settings, table, tmp_path, machine, step):
    whole, weights = run(settings, table, tmp_path / "whole", machine)
    with pytest.raises(Stop):
        run(settings, table, tmp_path / "stopped", replace(machine, save_every_s=0.0), on_batch=stop_at(step))
    batches = []
    resumed, again = run(
        settings, table, tmp_path / "stopped", machine, on_batch=lambda p: batches.append((p.epoch, p.batch))
    )
    assert same(weights, again)
    expected = [(epoch, batch) for epoch in range(2) for batch in range(1, 4)]
    assert batches == expected[step - 1 :]  # each batch once; the one that was not saved is repeated
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]


@pytest.mark.slow
def test_random_numbers_of_the_model_itself_resume_too(settings, table, tmp_path, machine):
    def dropout():
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))

    weights = run(settings, table, tmp_path / "whole", machine, aggregator=dropout())[1]
    machine = replace(machine, save_every_s=0.0, num_workers=1)
    with pytest.raises(Stop):
        run(settings, table, tmp_path / "stopped", machine, aggregator=dropout(), on_batch=stop_at(5))
    assert same(weights, run(settings, table, tmp_path / "stopped", machine, aggregator=dropout())[1])


@pytest.mark.slow
def test_a_finished_run_is_not_trained_further(settings, table, tmp_path, machine):
    first, weights = run(settings, table, tmp_path, machine, fixed_scores(50, 40))
    again, same_weights = run(settings, table, tmp_path, machine, fixed_scores())
    assert again == first and same(weights, same_weights)
    assert (again.best_score, again.best_epoch) == (50, 0)


@pytest.mark.parametrize("num_places, step", [(3, 4), (8, 1)])  # within the second epoch; in an epoch of one batch
def test_ctrl_c_saves_and_returns(settings, table, tmp_path, machine, capsys, press_ctrl_c, num_places, step):
    settings = replace(settings, num_places=num_places)
    weights = run(settings, table, tmp_path / "whole", machine)[1]

    def interrupt(progress):
        if progress.step == step:
            press_ctrl_c()

    progress, _ = run(settings, table, tmp_path / "stopped", machine, on_batch=interrupt)
    assert (progress.step, progress.batch, len(progress.history)) == (step, 1, progress.epoch)
    assert f"stopped in epoch {progress.epoch + 1}, batch 1" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same(weights, run(settings, table, tmp_path / "stopped", machine)[1])


@pytest.mark.slow
def test_a_run_resumes_on_a_device_of_another_precision(settings, table, tmp_path, machine, monkeypatch):
    """Begun in bfloat16 on one GPU, continued in float16, with a scaler, on another; and back."""
    for number, (first, second) in enumerate([("bfloat16", "float16"), ("float16", "float32")]):
        folder = tmp_path / str(number)
        monkeypatch.setattr(trainer, "choose_dtype", lambda *args, name=first: getattr(torch, name))
        run(settings, table, folder, machine)
        shutil.copy(folder / PREVIOUS, folder / NEWEST)  # the end of the first epoch
        monkeypatch.setattr(trainer, "choose_dtype", lambda *args, name=second: getattr(torch, name))
        assert run(settings, table, folder, machine)[0].epoch == 2


def test_a_loss_that_is_no_number_names_the_photos(settings, table, tmp_path, machine):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x.mean((2, 3)) * self.scale * (torch.nan if self.training else 1.0)

    with pytest.raises(FloatingPointError, match="loss is nan") as error:
        run(replace(settings, miner=None), table, tmp_path, machine, aggregator=Broken())
    named = [name for name in table.names if name in str(error.value)]
    assert len(named) == settings.num_places * settings.images_per_place


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(settings, table, tmp_path, machine, damage):
    _, weights = run(settings, table, tmp_path, machine)
    newest = tmp_path / NEWEST
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1  # one bit, in the weights
    newest.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        progress, again = run(settings, table, tmp_path, machine)
    assert progress.epoch == settings.epochs and same(weights, again)
    (tmp_path / PREVIOUS).write_bytes(b"")
    newest.write_bytes(b"")
    with pytest.raises(ValueError, match="all checkpoints"), pytest.warns(UserWarning):
        run(settings, table, tmp_path, machine)


def test_a_kill_between_writing_and_renaming_loses_nothing(tmp_path):
    save_checkpoint(tmp_path, {"step": 1})
    save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 2}
    (tmp_path / NEWEST).rename(tmp_path / "checkpoint.new.pt")  # written, and not yet in its place
    assert load_checkpoint(tmp_path) == {"step": 2}
    (tmp_path / "checkpoint.new.pt").unlink()
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_a_full_disk_keeps_the_checkpoint_before(settings, table, tmp_path, machine):
    progress, _ = run(settings, table, tmp_path, machine)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = (tmp_path / NEWEST).read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # files may not grow beyond this
    try:
        with pytest.raises(OSError, match="can't be written"):
            save_checkpoint(tmp_path, {"big": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / NEWEST).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))
    assert load_checkpoint(tmp_path)["progress"] == asdict(progress)


@pytest.mark.slow
def test_a_checkpoint_of_another_model_or_other_settings_is_refused(settings, table, tmp_path, machine):
    run(settings, table, tmp_path, machine)
    with pytest.raises(ValueError, match=r"lr is 0\.001 there, 0\.1 asked for"):
        run(replace(settings, lr=0.1), table, tmp_path, machine)

    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, x):
            return self.linear(x.mean((2, 3)))

    with pytest.raises(ValueError, match="of another model"):
        run(settings, table, tmp_path, machine, aggregator=Other())


def test_the_best_weights_are_kept(settings, table, tmp_path, machine):
    settings = replace(settings, epochs=3)
    seen = []

    def validate(model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"val": {1: (10.0, 30.0, 20.0)[len(seen) - 1]}, "test": {1: float(len(seen))}}

    progress, _ = run(settings, table, tmp_path, machine, validate)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (progress.best_epoch, best["epoch"], progress.best_score) == (1, 1, 30.0)
    assert same(best["state_dict"], seen[1]) and not same(best["state_dict"], seen[2])


def test_frozen_stages_stay_as_they_were(settings, table, tmp_path, machine):
    settings = replace(settings, crop_after="layer2", freeze_until="layer1", weight_decay=0.1)
    before = {k: v.clone() for k, v in build_model(settings).state_dict().items()}
    _, after = run(settings, table, tmp_path, machine)
    changed = {k.split(".")[2] for k in before if "backbone" in k and not torch.equal(before[k], after[k])}
    assert changed == {"layer2"}


@pytest.mark.slow
def test_a_loss_with_weights_of_its_own_trains_them_and_resumes(settings, table, tmp_path, machine):
    settings = replace(settings, loss="ProxyAnchorLoss", miner=None)
    weights = run(settings, table, tmp_path / "a", machine)[1]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copy(tmp_path / "b" / PREVIOUS, tmp_path / "b" / NEWEST)  # the end of the first epoch
    assert same(weights, run(settings, table, tmp_path / "b", machine)[1])
    state = load_checkpoint(tmp_path / "a")["loss"]
    assert state["proxies"].shape == (8, 64)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains(settings, table, tmp_path, machine, precision):
    progress, weights = run(replace(settings, precision=precision, epochs=1), table, tmp_path, machine)
    assert progress.epoch == 1
    assert all(torch.isfinite(w).all() for w in weights.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
def test_training_on_a_gpu(settings, table, tmp_path, machine, precision):
    progress, weights = run(replace(settings, precision=precision), table, tmp_path, replace(machine, device="cuda"))
    assert progress.epoch == 2 and all(torch.isfinite(w).all() for w in weights.values())
