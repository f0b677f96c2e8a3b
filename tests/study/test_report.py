"""The report: one page that holds what it says, made once."""

import csv
import os
from html.parser import HTMLParser

import pytest
from conftest import make_root, write_photo
from test_runs import SMOKE, count_trainings  # noqa: F401

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.command_line.parser import main
from vpr_lib.figures import html_page as page_module
from vpr_lib.figures.html_page import Picture, Section, Table, Text, write_page

EVIL = "<script>alert('x')&"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.images, self.tags, self.links, self.text, self.rows = path, [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.images += [attrs] if tag == "img" else []
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        self.rows += [[]] if tag == "tr" else []

    def handle_data(self, data):
        self.text.append(data)
        if data.strip() and self.tags[-1] in ("td", "th"):
            self.rows[-1].append(data)

    def check(self):
        assert self.images and all(image["alt"].strip() for image in self.images)
        for link in self.links:
            assert link.startswith("data:image/") or (self.path.parent / link).is_file(), link
        assert "script" not in self.tags


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Split `sf_val`, split `home` with a query whose name is no good HTML, labels for most queries."""
    root = make_root(tmp_path_factory.mktemp("data") / "root")
    (root / "val").rename(root / "sf_val")
    other = make_root(root.parent / "other")
    (other / "val").rename(root / "home")
    queries = sorted((root / "home" / "queries").glob("*.jpg"))
    queries[0].rename(queries[0].with_name(queries[0].name.replace("p2", EVIL)))
    names = sorted(path.name for path in (root / "home" / "queries").glob("*.jpg"))
    with open(root / "scenarios.csv", "w", newline="") as file:
        csv.writer(file).writerows([["query", "scenario", "detail"]])
        labels = [
            ("skyline", ""),
            ("skyline", ""),
            ("illumination", "night"),
            ("illumination", "day"),
            ("ordinary", ""),
        ]
        csv.writer(file).writerows([[name, *label] for name, label in zip(names, labels, strict=False)])
    write_photo(root / "contact_sheet.png", 1)
    return root


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """The report's folders, made once for the tests below."""
    work = tmp_path_factory.mktemp("work")
    command = ["report", "--data", str(root), "--out", str(work / "out"), "--runs", str(work / "runs"), "--epochs", "1"]
    assert main([*command, *SMOKE]) == 0
    return command, work


@pytest.mark.slow
def test_the_page_shows_the_study(made, root):
    _, work = made
    page = Page(work / "out" / "index.html")
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
    runs = [row for row in page.rows if row[-1].replace(".", "").isdigit() and "runs/" in row[1]]
    assert len(runs) == len(list((work / "runs").iterdir()))
    assert any(row[0] == "aggregators: MixVPR; optimizers: AdamW; schedulers: MultiStepLR" for row in runs)
    assert str(root.parent) not in text and str(work) not in text and "epochs = 1" in text


@pytest.mark.slow
def test_names_are_escaped(made):
    _, work = made
    raw = (work / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in raw and "&lt;script&gt;alert(&#x27;x&#x27;)&amp;" in raw
    assert EVIL in "".join(Page(work / "out" / "index.html").text)  # and a reader sees the name as it is


@pytest.mark.slow
def test_a_second_report_trains_and_predicts_nothing(made, monkeypatch, capsys, count_trainings):  # noqa: F811
    from vpr_lib import evaluation as runs_module

    command, work = made
    monkeypatch.setattr(runs_module, "predict", None)
    (work / "out" / "index.html").unlink()
    assert main([*command, *SMOKE]) == 0 and not count_trainings
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"page: {work / 'out' / 'index.html'}" and "| MixVPR" in printed
    Page(work / "out" / "index.html").check()


@pytest.mark.slow
def test_a_root_without_scenarios_or_published_names(data_root, tmp_path, capsys):
    command = ["report", "--data", str(data_root), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert (
        main([*command, *SMOKE, "--epochs", "1", "--set", "val_splits=[]", "--set", "keep=last"]) == 0
    )  # and without a validation split
    page = Page(tmp_path / "out" / "index.html")
    page.check()
    text = " ".join(page.text)
    for gap in ("No scenarios.csv", "No published numbers for val", "Fig. 2, Fig. 3 and the schedulers are left out"):
        assert gap in text
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"fig1_recall", "fig4_loss", "fig5_examples"}
    assert "outcome (this data root names no scenarios)" in text
    assert "published" not in page.rows[1][1]


def test_bad_roots_and_settings_are_told_before_the_training(data_root, tmp_path, capsys):
    command = ["report", "--data", str(data_root), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert main([*command, *SMOKE, "--set", "ks=[5]"]) == 1
    assert "the report shows R@1" in capsys.readouterr().err
    assert main([*command, *SMOKE, "--set", "aggregator=AVG"]) == 1
    assert "--set aggregator would do nothing" in capsys.readouterr().err
    root = make_root(tmp_path / "root")
    (root / "scenarios.csv").write_text("query,scenario\na.jpg,rain\n")
    assert main(["report", "--data", str(root), *command[3:], *SMOKE]) == 1
    assert "'rain'; valid: viewpoint" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_interrupted_report_keeps_its_page(data_root, tmp_path, monkeypatch):
    from vpr_lib.study import experiments as study_module

    real = study_module.get_run

    def stop_after_the_first_part(settings, *args, **kwargs):
        run = real(settings, *args, **kwargs)
        if settings.weight_decay == 0.01:
            (run.folder / "model.pt").unlink()
        return run

    monkeypatch.setattr(study_module, "get_run", stop_after_the_first_part)
    command = ["report", "--data", str(data_root), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert main([*command, *SMOKE, "--epochs", "1"]) == 130
    text = " ".join(Page(tmp_path / "out" / "index.html").text)
    assert "Still training: 4 of 12 runs are shown." in text


def test_large_pictures_are_linked(tmp_path, monkeypatch):
    path = tmp_path / "a b#1.png"
    write_photo(path, 1)
    sections = [Section("One & two", [Picture(path, 'says "hi"', "<b>"), Table([["a"], ["<i>"]]), Text("1 < 2")])]
    one_file = Page(write_page(tmp_path / "index.html", "<t>", sections))
    one_file.check()
    assert one_file.images[0]["src"].startswith("data:image/png;base64,") and one_file.images[0]["alt"] == 'says "hi"'
    monkeypatch.setattr(page_module, "EMBED_BYTES", os.path.getsize(path))  # base64 is a third longer
    linked = Page(write_page(tmp_path / "index.html", "<t>", sections))
    assert linked.images[0]["src"] == "a%20b%231.png"
    assert not {"b", "i", "t"} & set(linked.tags) and "1 < 2" in linked.text
