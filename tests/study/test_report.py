"""The report: one page that shows the whole study."""

import csv
import math
from dataclasses import replace
from itertools import combinations

import pytest
from conftest import ParsedPage, make_root, photo_name, write_photo
from PIL import Image

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import DataRoot
from vpr_lib.evaluation import read_evaluation
from vpr_lib.machine import Machine
from vpr_lib.run_folders import open_run
from vpr_lib.settings import get_preset
from vpr_lib.study import experiments
from vpr_lib.study.published import CODE
from vpr_lib.study.report import make_report

EVIL = "<script>alert('x')&"
BASE = replace(get_preset("smoke"), image_size=32, crop_after="layer1", epochs=1, ks=(1, 5, 10))
MACHINE = Machine(device="cpu", num_workers=0, progress=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Split `sf_val` of 18 queries, split `home` of 6 with one whose name must be escaped, labels for most queries."""
    root = make_root(tmp_path_factory.mktemp("data") / "root")
    (root / "val").rename(root / "sf_val")
    other = make_root(root.parent / "other")
    (other / "val").rename(root / "home")
    queries = sorted((root / "home" / "queries").glob("*.jpg"))
    queries[0].rename(queries[0].with_name(queries[0].name.replace("p2", EVIL)))
    names = sorted(path.name for path in (root / "home" / "queries").glob("*.jpg"))
    more = [(place, view) for place in range(100, 106) for view in (3, 4)]
    for place, view in more:
        name = photo_name(1000 * place + 5 * view, 4e6, 90, "201608", pano=f"p{view}")
        write_photo(root / "sf_val" / "queries" / name, place, view)
        names.append(name)
        if view == 4:  # hard: half of the photo's contrast is another place's
            path, other = root / "sf_val" / "queries" / name, root.parent / "other.jpg"
            write_photo(other, 100 + (place + 1) % 6)
            Image.blend(Image.open(path), Image.open(other), 0.5).save(path, quality=90)
    scenarios = ["skyline", "skyline", "illumination", "illumination", "ordinary", "viewpoint"]
    scenarios += ["skyline"] * len(more)
    details = ["", "", "night", "day", *[""] * (len(more) + 2)]
    with open(root / "scenarios.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["query", "scenario", "detail"])
        csv.writer(file).writerows(zip(names, scenarios, details, strict=True))
    write_photo(root / "contact_sheet.png", 1)
    return root


@pytest.fixture(scope="module")
def work(root, tmp_path_factory):
    """The folders of a complete report, `out` and `runs`; in place of a gallery, it has a text file."""
    work = tmp_path_factory.mktemp("work")

    def make_gallery(runs, data_root, split, rows, path):
        path.write_text(f"{list(runs)} {data_root.folder == root} {split} {rows.tolist()}", encoding="utf-8")

    assert make_report(BASE, root, work / "out", work / "runs", MACHINE, "smoke", make_gallery)
    return work


@pytest.mark.slow
def test_the_page_shows_the_study(work, root):
    page = ParsedPage(work / "out" / "index.html")
    page.check(CODE)
    files = {path.name for path in (work / "out").iterdir()}
    assert {"fig1_recall.png", "fig2_grid.png", "fig3_optimizers.png", "fig4_loss.png", "schedulers.png"} <= files
    assert {"scenario_sf_val.png", "fig5_examples.png", "contact_sheet.png"} <= files
    assert len(page.images) == len(files) - 2 and not any(name.endswith(".tmp") for name in files)
    mix = next(row for row in page.rows if row[0] == "MixVPR")
    assert mix[2] == "78.83 / 89.77 / 93.06"  # beside ours on sf_val
    text = " ".join(page.text)
    assert "No published numbers for home" in text and "Still training" not in text
    assert "sf_val is the validation split" in text
    assert ["home", "testing", "12", "6", "0"] in page.rows and ["sf_val", "choosing", "12", "18", "0"] in page.rows
    assert any(row[:2] == [SCENARIOS["skyline"], "2"] for row in page.rows)
    lights = [row[:2] for row in page.rows if row[0] in ("day", "night")]
    assert lights == [["day", "1"], ["night", "1"]] * 2  # sf_val holds the same queries
    runs = [row for row in page.rows if row[1].startswith("runs/")]
    assert {row[1] for row in runs} == {f"runs/{path.name}" for path in (work / "runs").iterdir()}
    assert any(row[:2] == ["MixVPR", "5"] for row in page.rows)  # runs, with the time of training
    assert any(row[0] == "aggregators: MixVPR; optimizers: AdamW; schedulers: MultiStepLR" for row in runs)
    assert str(root.parent) not in text and str(work) not in text and "epochs = 1" in text


@pytest.mark.slow
def test_the_result_comes_first_and_the_machine_last(work):
    page = ParsedPage(work / "out" / "index.html")
    title, *headings = page.headings
    assert title == "AVG, GeM, ConvAP and MixVPR compared on root"
    numbers = [heading.partition(":")[0] for heading in headings if heading.startswith("Fig.")]
    assert numbers == ["Fig. 1", "Fig. 2", "Fig. 3", "Fig. 4", "Fig. 5"] and headings[-1] == "Times and machine"
    raw = (work / "out" / "index.html").read_text(encoding="utf-8")
    places = [raw.index(part) for part in ("On home, ", "<table", "<img", "gallery-home.html", "<nav", "<h2")]
    assert places == sorted(places)
    assert len([link for link in page.links if link.startswith("#")]) == len(headings)


@pytest.mark.slow
def test_few_queries_are_not_plotted(work):
    """home has 6 queries, sf_val has 18: of these, 13 show a skyline."""
    page = ParsedPage(work / "out" / "index.html")
    files = {path.stem for path in (work / "out").iterdir()}
    assert "scenario_sf_val" in files and not {"scenario_home", "light_home", "light_sf_val"} & files
    text = " ".join(page.text)
    assert "home has 6 queries" in text and "sf_val has 18 queries" not in text
    (curves,) = (image["alt"] for image in page.images if "recall against k of AVG" in image["alt"])
    assert "sf_val" in curves and "home" not in curves
    assert "The other 5 queries" in text


@pytest.mark.slow
def test_the_grid_is_tested_in_one_factor_at_a_time(work, root):
    page = ParsedPage(work / "out" / "index.html")
    start = next(i for i, row in enumerate(page.rows) if row[0] == "changed")
    rows = {tuple(row[:2]): row[2:] for row in page.rows[start + 1 : start + 5]}
    grid = [run for run in map(open_run, (work / "runs").glob("ConvAP-*")) if run.settings.weight_decay >= 0.001]
    assert len(grid) == 4
    expected = {}
    for first, second in combinations(sorted(grid, key=lambda run: (-run.settings.weight_decay, -run.settings.lr)), 2):
        (lr, decay), (other_lr, other_decay) = ((run.settings.lr, run.settings.weight_decay) for run in (first, second))
        if lr == other_lr:
            key = (f"weight decay {decay:g} to {other_decay:g}", f"learning rate {lr:g}")
        elif decay == other_decay:
            key = (f"learning rate {lr:g} to {other_lr:g}", f"weight decay {decay:g}")
        else:
            continue
        before, after = (read_evaluation(run, root, "sf_val").hits for run in (first, second))
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        fewer, number = min(lost, won), lost + won
        p_value = min(1, 2 * sum(math.comb(number, i) for i in range(fewer + 1)) / 2**number)
        points = 100 * (after.mean() - before.mean())
        expected[key] = [f"{100 * before.mean():.1f} to {100 * after.mean():.1f}", f"{points:+.1f}", f"{p_value:.2g}"]
    assert rows == expected and len(expected) == 4


@pytest.mark.slow
def test_the_gallery_shows_two_models_on_a_test_split(work):
    made = (work / "out" / "gallery-home.html").read_text(encoding="utf-8")
    assert made == f"['MixVPR', 'ConvAP'] True home {list(range(6))}"


@pytest.mark.slow
def test_the_command_writes_the_gallery(work, root, tmp_path):
    changes = ["image_size=32", "crop_after=layer1", "epochs=1", "num_workers=0", "device=cpu", "progress=false"]
    command = ["report", "--data", str(root), "--preset", "smoke", "--out", str(tmp_path), "--runs", str(work / "runs")]
    before = list_written(work)
    assert main([*command, *(part for change in changes for part in ("--set", change))]) == 0
    assert list_written(work) == before
    ParsedPage(tmp_path / "index.html").check(CODE)
    gallery = (tmp_path / "gallery-home.html").read_text(encoding="utf-8")
    assert "MixVPR and ConvAP on home" in gallery and '"name":"@100010.00@' in gallery


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
    ParsedPage(page).check(CODE)
    printed = capsys.readouterr().out.splitlines()
    heads = [i for i, line in enumerate(printed) if line.startswith(("| R@", "| changed"))]
    titles = [printed[i - 2] for i in heads[2:]]  # those of the first two tables are their columns
    kinds = [f"{split}, by {kind}" for split in ("sf_val", "home") for kind in ("scenario", "light")]
    assert titles[:6] == ["sf_val", "home", *kinds]
    assert [title.split()[0] for title in titles[6:]] == ["ConvAP", "MixVPR,", "MixVPR,"]  # as parts are complete
    table = printed[heads[0] :][:6]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row for row in cells if "---" not in row[0]] == ParsedPage(page).rows[:5]


@pytest.mark.slow
def test_a_root_without_scenarios_published_names_and_validation_split(data_root, tmp_path):
    page = ParsedPage(make_report(replace(BASE, val_splits=(), keep="last"), data_root, tmp_path, tmp_path, MACHINE))
    page.check(CODE)
    text = " ".join(page.text)
    for gap in ("No scenarios.csv", "No published numbers for val", "Fig. 2, Fig. 3 and the schedulers are left out"):
        assert gap in text
    assert {path.stem for path in tmp_path.glob("*.png")} == {"fig4_loss", "fig5_examples"}  # val has 6 queries
    assert "outcome (this data root names no scenarios)" in text
    assert page.rows[0] == ["R@1 / 10 / 25 in percent", "val"]


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
