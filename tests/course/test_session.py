"""The session of a notebook: photos are found or rendered, runs and figures are kept, errors say what to do."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot
from matplotlib.figure import Figure
from nbconvert import HTMLExporter
from PIL import Image

from vpr_lib.course import session as session_module
from vpr_lib.course.session import Session, open_session, show_table
from vpr_lib.data_roots import DataRoot
from vpr_lib.machine import Machine
from vpr_lib.prepare.packs import write_pack
from vpr_lib.settings import get_preset
from vpr_lib.trainer import Trainer


@pytest.fixture
def session(data_root, settings, machine, tmp_path):
    return Session("smoke", settings, DataRoot(data_root), tmp_path / "runs", tmp_path / "reports" / "smoke", machine)


def test_opens_on_the_preset_and_root_that_the_environment_names(data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VPR_PRESET", "photos")
    monkeypatch.setenv("VPR_DATA", str(data_root))
    monkeypatch.setenv("VPR_KEEP", str(tmp_path))
    session = open_session()
    assert (session.preset, session.settings, session.splits) == ("photos", get_preset("photos"), ["val"])
    assert session.data_root.folder == data_root
    assert (session.runs_dir, session.reports_dir) == (tmp_path / "runs", tmp_path / "reports" / "photos")
    assert "splits: val" in capsys.readouterr().out
    monkeypatch.delenv("VPR_KEEP")
    session = open_session("smoke")
    assert session.data_root.folder == data_root  # photos of one's own are not rendered over
    assert session.runs_dir == Path(__file__).parents[2] / "runs"  # of the checkout


@pytest.mark.parametrize(
    ("splits", "validation", "tests"), [(["val"], "val", ["val"]), (["val", "a", "b"], "val", ["a", "b"])]
)
def test_test_splits_are_those_that_are_not_for_validation(session, tmp_path, splits, validation, tests):
    for split in splits:
        for half in ("queries", "database"):
            (tmp_path / "root" / split / half).mkdir(parents=True)
            (tmp_path / "root" / split / half / "@1@2@10@S@@@@@@@@@@@.jpg").write_bytes(b"")
    session = replace(session, data_root=DataRoot(tmp_path / "root"))
    assert (session.validation, session.tests) == (validation, tests)


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


def test_missing_photos_are_an_error_with_the_command(tmp_path, monkeypatch):
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
        pack = tmp_path / "drive" / "xs" / f"{part}.zip"
        write_pack(data_root / part, pack, 32, progress=False, max_bytes=30_000)  # train in two files
    monkeypatch.setenv("VPR_KEEP", str(tmp_path / "drive"))
    monkeypatch.setenv("VPR_DATA", str(tmp_path / "local"))
    assert open_session("xs").splits == ["val"]
    names = ["train-001-of-002.zip", "train-002-of-002.zip", "val.zip"]
    assert sorted(p.name for p in (tmp_path / "local").iterdir()) == names


@pytest.mark.slow
def test_trains_once_and_evaluates(session, settings, capsys):
    variants = {"one": settings, "two": replace(settings, seed=1)}
    runs = session.train(variants)
    assert [run.settings for run in runs.values()] == list(variants.values())
    before = [(run.folder / "model.pt").stat().st_mtime_ns for run in runs.values()]
    capsys.readouterr()
    again = session.train(variants)
    assert [(run.folder / "model.pt").stat().st_mtime_ns for run in again.values()] == before
    assert "epoch 1" not in capsys.readouterr().out
    assert list(session.evaluate(runs, "val")) == ["one", "two"]


@pytest.mark.slow
def test_a_stopped_training_stops_the_cells_behind_it(session, settings, monkeypatch, press_ctrl_c):
    step = Trainer.step

    def press_stop(*args):
        press_ctrl_c()
        return step(*args)

    monkeypatch.setattr(Trainer, "step", press_stop)
    with pytest.raises(KeyboardInterrupt, match=r"one .*again"):
        session.train({"one": settings})
    monkeypatch.undo()
    assert session.train({"one": settings})["one"].complete


@pytest.mark.parametrize(("name", "kind", "file"), [("f", "png", "f.png"), ("f.jpg", "jpeg", "f.jpg")])
def test_a_shown_figure_is_the_saved_one(session, name, kind, file):
    figure = Figure((4, 2))
    figure.subplots().plot([1, 2])
    shown = session.show(figure, name, "a line")
    assert shown.data == (session.reports_dir / file).read_bytes()
    assert (shown.format, shown.width, shown.metadata) == (kind, 400, {"alt": "a line"})
    assert np.array(Image.open(session.reports_dir / file)).std() > 1


@pytest.mark.parametrize("name", ["f", "f.jpg"])
def test_the_description_of_a_figure_is_in_exported_html(session, name):
    figure = Figure((4, 2))
    figure.subplots()
    shown = session.show(figure, name, 'R@1 < "50"')
    data, metadata = InteractiveShell.instance().display_formatter.format(shown)
    output = nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("session.show(...)", outputs=[output])
    text, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    (image,) = BeautifulSoup(text, "html.parser").select(".jp-OutputArea img")
    assert image["alt"] == 'R@1 < "50"' and image["width"] == "400"
    assert base64.b64decode(image["src"].partition(",")[2]) == shown.data


def test_a_figure_of_pyplot_is_shown_once(session):
    pyplot.switch_backend("agg")
    session.show(pyplot.figure(), "f", "nothing")
    assert pyplot.get_fignums() == []


def test_an_exported_page_is_linked_from_the_folder_of_the_notebook(session, monkeypatch):
    page = session.reports_dir / "page of all & one.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>", encoding="utf-8")
    notebooks = session.runs_dir.parent / "work"
    notebooks.mkdir()
    monkeypatch.chdir(notebooks)
    (link,) = re.findall('<a href="([^"]+)" download>', session.link(page).data)
    assert link.startswith("../reports/smoke/") and Path(unquote(link)).samefile(page)
    assert "page of all &amp; one.html</a>" in session.link(str(page)).data


def test_drive_outside_of_colab_is_an_error(monkeypatch):
    monkeypatch.setenv("VPR_DRIVE", "1")
    with pytest.raises(ModuleNotFoundError, match="VPR_DRIVE"):
        open_session("smoke")


def test_a_table_is_shown_as_markdown():
    assert show_table([["run", "R@1"], ["GeM", "50.0"]]).data.splitlines()[2].split() == ["|", "GeM", "|", "50.0", "|"]


def test_strangers_are_training_photos_where_no_city_is_rendered(session):
    strangers = session.read_strangers()
    train = session.data_root.train
    assert len(strangers) == min(100, len(train)) and set(strangers.names) <= set(train.names)
    assert np.array_equal(strangers.names, session.read_strangers().names)


@pytest.mark.slow
def test_strangers_of_a_rendered_city_are_of_another_one(session, rendered_city, monkeypatch):
    monkeypatch.setattr(session_module, "NUM_STRANGERS", 7)
    monkeypatch.setitem(session_module.STRANGERS, "test_queries", 9)
    session = replace(session, data_root=DataRoot(rendered_city))
    strangers = session.read_strangers()
    folder = rendered_city.with_name(f"{rendered_city.name}-strangers")
    assert strangers.root == folder / "sf_test" / "queries" and len(strangers) == 7
    assert not set(strangers.names) & set(session.data_root.read_split("sf_test").queries.names)
    before = (folder / "city.json").stat().st_mtime_ns
    session.read_strangers()
    assert (folder / "city.json").stat().st_mtime_ns == before
