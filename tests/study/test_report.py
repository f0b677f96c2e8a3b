"""The report: one page that shows the whole study."""

import csv
from dataclasses import replace

import pytest
from conftest import ParsedPage, make_root, write_photo

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.data_roots import DataRoot
from vpr_lib.machine import Machine
from vpr_lib.settings import get_preset
from vpr_lib.study import experiments
from vpr_lib.study.report import make_report

EVIL = "<script>alert('x')&"
BASE = replace(get_preset("smoke"), image_size=32, crop_after="layer1", epochs=1, ks=(1, 5, 10))
MACHINE = Machine(device="cpu", num_workers=0, progress=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Split `sf_val`, split `home` with a query whose name must be escaped, labels for most queries."""
    root = make_root(tmp_path_factory.mktemp("data") / "root")
    (root / "val").rename(root / "sf_val")
    other = make_root(root.parent / "other")
    (other / "val").rename(root / "home")
    queries = sorted((root / "home" / "queries").glob("*.jpg"))
    queries[0].rename(queries[0].with_name(queries[0].name.replace("p2", EVIL)))
    names = sorted(path.name for path in (root / "home" / "queries").glob("*.jpg"))
    scenarios = ["skyline", "skyline", "illumination", "illumination", "ordinary"]
    details = ["", "", "night", "day", ""]
    with open(root / "scenarios.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["query", "scenario", "detail"])
        csv.writer(file).writerows(zip(names, scenarios, details, strict=False))
    write_photo(root / "contact_sheet.png", 1)
    return root


@pytest.fixture(scope="module")
def work(root, tmp_path_factory):
    """The folders of a complete report, `out` and `runs`."""
    work = tmp_path_factory.mktemp("work")
    assert make_report(BASE, root, work / "out", work / "runs", MACHINE, "smoke")
    return work


@pytest.mark.slow
def test_the_page_shows_the_study(work, root):
    page = ParsedPage(work / "out" / "index.html")
    page.check()
    files = {path.name for path in (work / "out").iterdir()}
    assert {"fig1_recall.png", "fig2_grid.png", "fig3_optimizers.png", "fig4_loss.png", "schedulers.png"} <= files
    assert {"scenario_home.png", "light_home.png", "fig5_examples.png", "contact_sheet.png"} <= files
    assert len(page.images) == len(files) - 1 and not any(name.endswith(".tmp") for name in files)
    mix = next(row for row in page.rows if row[0] == "MixVPR")
    assert mix[2] == "78.83 / 89.77 / 93.06"  # beside ours on sf_val
    text = " ".join(page.text)
    assert "No published numbers for home" in text and "Still training" not in text
    assert "sf_val is the validation split" in text
    assert ["home", "testing", "12", "6", "0"] in page.rows
    assert any(row[:2] == [SCENARIOS["skyline"], "2"] for row in page.rows)
    lights = [row[:2] for row in page.rows if row[0] in ("day", "night")]
    assert lights == [["day", "1"], ["night", "1"]] * 2  # sf_val holds the same queries
    runs = [row for row in page.rows if row[1].startswith("runs/")]
    assert {row[1] for row in runs} == {f"runs/{path.name}" for path in (work / "runs").iterdir()}
    assert any(row[0] == "aggregators: MixVPR; optimizers: AdamW; schedulers: MultiStepLR" for row in runs)
    assert str(root.parent) not in text and str(work) not in text and "epochs = 1" in text


@pytest.mark.slow
def test_sections_are_in_the_order_of_the_figures(work):
    text = " ".join(ParsedPage(work / "out" / "index.html").text)
    titles = [
        "Photos of",
        "How to read",
        "Fig. 1: ",
        "Fig. 2: ",
        "Fig. 3: ",
        "Fig. 4: ",
        "Schedulers",
        "Recall of each",
    ]
    places = [text.index(f" {title}") for title in [*titles, "Fig. 5: ", "Runs ", "Settings "]]
    assert places == sorted(places)


@pytest.mark.slow
def test_names_are_escaped(work):
    raw = (work / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in raw and "&lt;script&gt;alert(&#x27;x&#x27;)&amp;" in raw
    assert EVIL in "".join(ParsedPage(work / "out" / "index.html").text)  # a reader sees the name as it is


def list_written(work):
    """Models and predictions, with the times at which they were written."""
    files = [*work.glob("runs/*/model.pt"), *work.glob("runs/*/predictions/*")]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_second_report_trains_and_predicts_nothing(work, root, capsys):
    before = list_written(work)
    (work / "out" / "index.html").unlink()
    page = make_report(BASE, root, work / "out", work / "runs", MACHINE)
    assert list_written(work) == before and len(before) == 12 + 2 * 4 + 8  # 4 on both splits, 8 on sf_val only
    ParsedPage(page).check()
    printed = capsys.readouterr().out.splitlines()
    titles = [printed[i - 2] for i, line in enumerate(printed) if line.startswith("| R@")]
    kinds = [f"{split}, by {kind}" for split in ("sf_val", "home") for kind in ("scenario", "light")]
    assert titles[:7] == ["Fig. 1, ours beside the published", "sf_val", "home", *kinds]
    assert [title.split(",")[0] for title in titles[7:]] == ["ConvAP", "MixVPR", "MixVPR"]  # as parts are complete
    table = printed[printed.index(titles[0]) + 2 :][:6]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row for row in cells if "---" not in row[0]] == ParsedPage(page).rows[3:8]


@pytest.mark.slow
def test_a_root_without_scenarios_published_names_and_validation_split(data_root, tmp_path):
    page = ParsedPage(make_report(replace(BASE, val_splits=(), keep="last"), data_root, tmp_path, tmp_path, MACHINE))
    page.check()
    text = " ".join(page.text)
    for gap in ("No scenarios.csv", "No published numbers for val", "Fig. 2, Fig. 3 and the schedulers are left out"):
        assert gap in text
    assert {path.stem for path in tmp_path.glob("*.png")} == {"fig1_recall", "fig4_loss", "fig5_examples"}
    assert "outcome (this data root names no scenarios)" in text
    assert "published" not in page.rows[2][1]


def test_bad_roots_and_settings_are_reported_before_the_training(data_root, tmp_path):
    with pytest.raises(ValueError, match="R@1"):
        make_report(replace(BASE, ks=(5,)), data_root, tmp_path / "out", tmp_path / "runs", MACHINE)
    root = make_root(tmp_path / "root")
    (root / "scenarios.csv").write_text("query,scenario\na.jpg,rain\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'rain'"):
        make_report(BASE, root, tmp_path / "out", tmp_path / "runs", MACHINE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no evaluation split"):
        make_report(BASE, tmp_path / "empty", tmp_path / "out", tmp_path / "runs", MACHINE)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_interrupted_report_keeps_its_page(root, work, tmp_path, monkeypatch):
    real = experiments.train_all

    def train_five(variants, *arguments):
        return real(dict(list(variants.items())[:5]), *arguments)

    monkeypatch.setattr(experiments, "train_all", train_five)
    assert make_report(BASE, DataRoot(root), tmp_path, work / "runs", MACHINE) is None
    text = " ".join(ParsedPage(tmp_path / "index.html").text)
    assert "Still training: 4 of 12 runs are shown." in text and "Fig. 1" in text
