"""What the notebooks share: photos found or made, runs kept, figures saved, and what is told where one is missing."""

import io
import time
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from matplotlib.figure import Figure
from PIL import Image

from vpr_lib.course import session as lab_module
from vpr_lib.course.session import Session, find_home, open_session
from vpr_lib.machine import Machine
from vpr_lib.prepare.packs import write_pack
from vpr_lib.runs import train_run
from vpr_lib.settings import get_preset


@pytest.fixture
def lab(data_root, settings, machine, tmp_path):
    return Session("smoke", settings, data_root, tmp_path / "runs", tmp_path / "reports" / "smoke", machine)


def test_opens_on_the_preset_and_root_that_the_environment_names(data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VPR_PRESET", "photos")
    monkeypatch.setenv("VPR_DATA", str(data_root))
    monkeypatch.setenv("VPR_KEEP", str(tmp_path))
    found = open_session()
    assert (found.preset, found.settings, found.data_root) == ("photos", get_preset("photos"), data_root)
    assert (found.runs_dir, found.reports_dir) == (tmp_path / "runs", tmp_path / "reports" / "photos")
    assert found.splits == ["val"]
    assert "splits: val" in capsys.readouterr().out
    assert open_session("smoke").data_root == data_root  # a root of one's own is not drawn over


def test_home_is_the_checkout():
    assert find_home() == Path(__file__).parents[2]


def test_validation_comes_first(lab, monkeypatch):
    monkeypatch.setattr(lab_module, "find_splits", lambda root: ["a_test", "sf_test", "sf_val"])
    assert lab.splits == ["sf_val", "a_test", "sf_test"]


@pytest.mark.slow
def test_a_rendered_preset_renders_its_city_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VPR_DATA", str(tmp_path / "city"))
    machine = Machine(device="cpu", progress=False)
    assert open_session("smoke", machine).splits == ["sf_val", "sf_test", "tokyo_test"]
    assert "rendering the city" in capsys.readouterr().out
    before = (tmp_path / "city" / "city.json").stat().st_mtime_ns
    open_session("smoke", machine)
    assert "rendering" not in capsys.readouterr().out
    assert (tmp_path / "city" / "city.json").stat().st_mtime_ns == before


def test_missing_photos_are_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("VPR_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"\./data_download\.sh xs"):
        open_session("xs")
    with pytest.raises(FileNotFoundError, match="set VPR_DATA to the folder of a data root"):
        open_session("photos")
    with pytest.raises(ValueError, match="valid: xs, photos, mini, smoke"):
        open_session("midi")


def test_packs_kept_on_drive_are_copied(data_root, tmp_path, monkeypatch):
    for part in ("train", "val"):
        (tmp_path / "drive" / "xs").mkdir(parents=True, exist_ok=True)
        write_pack(data_root / part, tmp_path / "drive" / "xs" / f"{part}.zip", 32, progress=False)
    monkeypatch.setenv("VPR_KEEP", str(tmp_path / "drive"))
    monkeypatch.setenv("VPR_DATA", str(tmp_path / "local"))
    assert open_session("xs").splits == ["val"]
    assert sorted(p.name for p in (tmp_path / "local").iterdir()) == ["train.zip", "val.zip"]


@pytest.mark.slow
def test_trains_once_and_evaluates(lab, settings, capsys):
    variants = {"one": settings, "two": replace(settings, seed=1)}
    runs = lab.train(variants)
    assert [run.settings for run in runs.values()] == list(variants.values())
    before = [(run.folder / "model.pt").stat().st_mtime_ns for run in runs.values()]
    capsys.readouterr()
    again = lab.train(variants)
    assert [(run.folder / "model.pt").stat().st_mtime_ns for run in again.values()] == before
    assert "epoch 1" not in capsys.readouterr().out
    assert list(lab.evaluate(runs, "val")) == ["one", "two"]


def test_a_stopped_training_stops_the_cells_behind_it(lab, settings, monkeypatch):
    stopped = type("Stopped", (), {"complete": False})()
    monkeypatch.setattr(lab_module, "get_run", lambda *args, **kwargs: stopped)
    with pytest.raises(KeyboardInterrupt, match="run the cell again"):
        lab.train({"one": settings})


@pytest.mark.slow
def test_a_run_folder_of_another_preset_is_refused(data_root, settings, machine, tmp_path):
    train_run(replace(settings, epochs=1), data_root, tmp_path / "run", machine=machine)
    with pytest.raises(ValueError, match="image_size is 32 there, 96 asked for"):
        train_run(get_preset("mini"), data_root, tmp_path / "run", machine=machine)


@pytest.mark.parametrize(("name", "kind", "file"), [("f", "png", "f.png"), ("f.jpg", "jpeg", "f.jpg")])
def test_a_shown_figure_is_the_saved_one(lab, name, kind, file):
    figure = Figure((4, 2))
    figure.subplots().plot([1, 2])
    shown = lab.show(figure, name, "a line")
    data = (lab.reports_dir / file).read_bytes()
    assert shown.data == data
    assert shown.format == kind
    assert (shown.width, shown.metadata) == (400, {"alt": "a line"})
    assert np.array(Image.open(io.BytesIO(data))).std() > 1


def test_a_figure_of_pyplot_is_shown_once(lab):
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, _ = pyplot.subplots()
    lab.show(figure, "f", "axes")
    assert pyplot.get_fignums() == []


TRAIN = """
import os
from dataclasses import replace
from vpr_lib.lab import open_lab
from vpr_lib.settings import Machine
lab = open_lab("smoke", Machine(device="cpu", num_workers=0, save_every_s=0, progress=False))
settings = replace(lab.settings, aggregator="GeM", image_size=32, crop_after="layer1", epochs=40)
run = lab.train({"GeM": settings})["GeM"]
"""


@pytest.mark.slow
def test_a_kernel_that_is_restarted_in_mid_training_goes_on(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("VPR_DATA", str(data_root))
    monkeypatch.setenv("VPR_KEEP", str(tmp_path))
    manager, client = start_new_kernel()
    try:
        client.execute(TRAIN)
        wait_until(lambda: any(len(p.read_text().splitlines()) > 3 for p in tmp_path.glob("runs/*/history.csv")))
        manager.restart_kernel(now=True)  # as the menu's entry does: the process is killed
        assert not list(tmp_path.glob("runs/*/model.pt"))
        client.wait_for_ready(timeout=60)
        said = []
        reply = client.execute_interactive(TRAIN, timeout=120, output_hook=lambda m: said.append(m["content"]))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", said
    text = "".join(content.get("text", "") for content in said)
    epochs = [int(line.split()[1].rstrip(":")) for line in text.splitlines() if line.startswith("epoch ")]
    assert 3 <= epochs[0] < 40  # the epoch under way, or the one whose end was not saved yet
    assert epochs == list(range(epochs[0], 41))
    (history,) = tmp_path.glob("runs/*/history.csv")
    assert len(history.read_text().splitlines()) == 41


def wait_until(true, limit_s=60):
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < limit_s
        time.sleep(0.01)
