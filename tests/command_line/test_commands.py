"""The commands that train and evaluate, and the errors a user meets. The other commands are tested in their rooms."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import make_root, photo_name, write_photo

from vpr_lib.analysis.reranking import measure_areas, rerank_run
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import read_split
from vpr_lib.machine import Machine
from vpr_lib.run_folders import open_run

SMALL = ["--preset", "smoke", "--image-size", "32", "--epochs", "1"]
SMALL += ["--set", "crop_after=layer1", "--set", "num_workers=0", "--set", "device=cpu", "--set", "progress=false"]

CHANGES = ["--set", "milestones=3", "--set", "miner=None", "--set", 'loss_options={"alpha": 2}', "--set", "lr=1"]


@pytest.fixture(scope="module")
def run_folder(data_root, tmp_path_factory):
    """A run folder written by the command `train`."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = ["train", "--data", str(data_root), "--out", str(folder), "--aggregator", "ConvAP", *SMALL, *CHANGES]
    assert main(command) == 0
    return folder


def evaluate(run_folder, data_root, *options):
    command = ["evaluate", "--run", str(run_folder), "--data", str(data_root), "--split", "val"]
    return main([*command, "--set", "device=cpu", "--set", "num_workers=0", *options])


def test_train_writes_a_run_with_the_settings_of_the_command_line(run_folder):
    settings = open_run(run_folder).settings
    assert (settings.aggregator, settings.epochs, settings.image_size) == ("ConvAP", 1, 32)
    assert (settings.milestones, settings.miner, settings.lr) == ((3,), None, 1.0)
    assert settings.loss_options == {"alpha": 2} and settings.crop_after == "layer1"


def test_train_again_trains_nothing_and_other_settings_are_refused(run_folder, data_root, capsys):
    weights = (run_folder / "model.pt").stat().st_mtime_ns
    command = ["train", "--data", str(data_root), "--out", str(run_folder), *SMALL, *CHANGES]
    assert main([*command, "--aggregator", "ConvAP"]) == 0
    assert "val: R@1" in capsys.readouterr().out
    assert main([*command, "--aggregator", "AVG"]) == 1
    assert "aggregator is ConvAP there, AVG asked for" in capsys.readouterr().err
    assert (run_folder / "model.pt").stat().st_mtime_ns == weights


def test_evaluate_prints_and_writes_the_recalls(run_folder, data_root, tmp_path, capsys):
    assert evaluate(run_folder, data_root, "--json", str(tmp_path / "recall.json")) == 0
    result = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))
    assert (list(result), list(result["recall"])) == (["recall", "queries", "without_positive"], ["1", "5", "10"])
    assert (result["queries"], result["without_positive"]) == (6, 0)
    line = "  ".join(f"R@{k} {percent:.2f}" for k, percent in result["recall"].items())
    assert f"val: {line}  (6 queries, 0 of them without a positive" in capsys.readouterr().out


def test_evaluate_with_an_approximate_index_prints_its_loss(run_folder, data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vpr_lib.search.IVF_MIN_ROWS", 5)
    assert evaluate(run_folder, data_root, "--index", "ivf", "--json", str(tmp_path / "recall.json")) == 0
    loss = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))["search_loss"]
    out = capsys.readouterr().out
    assert list(loss["overlap"]) == ["1", "12"]  # 12 is the size of the database
    assert f"R@1 {loss['recall']['1']:.2f} ({loss['exact_recall']['1']:.2f})" in out
    for k, percent in loss["overlap"].items():
        assert f"index ivf found {percent:.1f}% of what an exact search has among its first {k}\n" in out


@pytest.mark.slow
def test_evaluate_whitens_descriptors(run_folder, data_root):
    results = []
    for options in ([], ["--whiten", "0"], ["--whiten", "4"]):
        assert evaluate(run_folder, data_root, *options) == 0
        results.append({path.name for path in (run_folder / "predictions").iterdir()})
    assert results[0] == results[1] < results[2]


def read_strictly(path):
    """JSON as other programs read it: NaN is no number there."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_evaluate_reranks_the_predictions_of_all_queries(run_folder, data_root, tmp_path, capsys):
    root, path = shutil.copytree(data_root, tmp_path / "root"), tmp_path / "recall.json"
    write_photo(root / "val" / "queries" / photo_name(9e6, 9e6), 3)  # far from all others
    assert evaluate(run_folder, root, "--rerank", "all", "--rerank-top", "7", "--json", str(path)) == 0
    result, out = read_strictly(path), capsys.readouterr().out
    machine = Machine(device="cpu", num_workers=0, progress=False)
    expected = rerank_run(open_run(run_folder), root, "val", "all", 7, machine=machine)
    for name, evaluation in (("recall", expected.after), ("recall_before", expected.before)):
        assert result[name] == {str(k): percent for k, percent in evaluation.recall.items()}
        assert "val: " + "  ".join(f"R@{k} {percent:.2f}" for k, percent in evaluation.recall.items()) in out
    assert result["seconds_per_query"] == expected.seconds_per_query > 0
    assert (result["queries"], result["without_positive"], result["verified"]) == (7, 1, 100)
    areas = measure_areas(expected, read_split(root, "val"))
    assert result["confidence"] == areas and 0 < min(areas.values()) <= 1
    assert "100.0% of the queries, 7 photos each" in out


@pytest.mark.slow
def test_evaluate_reranks_uncertain_queries(run_folder, data_root, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(data_root / "val", root / "test")
    write_photo(root / "test" / "queries" / photo_name(9e6, 9e6), 3)  # far from all others
    options = ["--split", "test", "--rerank", "adaptive", "--json", str(tmp_path / "recall.json")]
    options += ["--set", "progress=false"]
    assert evaluate(run_folder, root, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and str(root) in error and "validation split" in error
    assert not (tmp_path / "recall.json").exists()
    shutil.copytree(root / "test", root / "val")
    assert evaluate(run_folder, root, *options) == 0
    out = capsys.readouterr().out
    assert "chosen on val\n" in out and 0 <= read_strictly(tmp_path / "recall.json")["verified"] <= 100
    assert evaluate(run_folder, root, *options, "--split", "val") == 0
    assert "chosen on val: the recall on this split is too optimistic\n" in capsys.readouterr().out


def test_undefined_areas_are_null(run_folder, data_root, tmp_path):
    shutil.copytree(data_root / "val" / "database", tmp_path / "root" / "test" / "database")
    write_photo(tmp_path / "root" / "test" / "queries" / photo_name(9e6, 9e6), 3)  # far from all others
    path = tmp_path / "recall.json"
    with pytest.warns(UserWarning, match="wrong"):
        assert evaluate(run_folder, tmp_path / "root", "--split", "test", "--rerank", "all", "--json", str(path)) == 0
    result = read_strictly(path)
    names = ("similarity", "ratio", "spread", "inliers", "inliers_reranked")
    assert result["confidence"] == dict.fromkeys(names) and result["without_positive"] == 1


def test_evaluate_measures_confidence_without_reranking(run_folder, data_root, tmp_path, capsys):
    path = tmp_path / "recall.json"
    with pytest.warns(UserWarning, match="all 6 .* right"):
        assert evaluate(run_folder, data_root, "--rerank", "none", "--json", str(path)) == 0
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["recall"] == content["recall_before"] and content["seconds_per_query"] == 0
    assert list(content["confidence"]) == ["similarity", "ratio", "spread"] and content["verified"] == 0
    assert "verified" not in capsys.readouterr().out


def test_evaluate_has_three_ways_to_rerank(run_folder, data_root, capsys):
    with pytest.raises(SystemExit) as error:
        evaluate(run_folder, data_root, "--rerank", "some")
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert all(word in message for word in ("some", "none", "all", "adaptive"))


@pytest.mark.parametrize(("options", "offender"), [
    (["--rerank", "all", "--rerank-top", "13"], "13 predictions"),
    (["--rerank", "all", "--rerank-top", "0"], "0 predictions"),
    (["--rerank-top", "7"], "--rerank-top 7"),
    (["--nprobe", "8"], "--nprobe 8"),
    (["--rerank", "none", "--rerank-top", "7"], "--rerank-top 7"),
    (["--index", "ivff"], "'ivff'"),
    (["--whiten", "-1", "--set", "progress=false"], "-1 components"),
    (["--split", "test"], "test/"),
    (["--set", "lr=1"], "'lr'"),
    (["--run", "nowhere"], "nowhere"),
    (["--data", "nowhere"], "nowhere"),
])  # fmt: skip
def test_evaluate_names_what_is_wrong(run_folder, data_root, capsys, options, offender):
    assert evaluate(run_folder, data_root, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and offender in error


@pytest.mark.slow
def test_gallery_evaluates_runs_and_writes_their_page(run_folder, data_root, tmp_path, capsys):
    shutil.copytree(run_folder, tmp_path / "other")
    other = str(tmp_path / "other")
    command = ["gallery", "--data", str(data_root), "--split", "val", "--out", str(tmp_path / "new" / "page.html")]
    command += ["--queries", "4", "--set", "device=cpu", "--set", "num_workers=0"]
    for runs, title in (([other], "ConvAP"), ([str(run_folder), other], "run and other")):
        assert main([*command, "--runs", *runs]) == 0
        assert f"page: {tmp_path / 'new' / 'page.html'}" in capsys.readouterr().out
        text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
        assert f"<title>{title} on val</title>" in text
        names = read_split(data_root, "val")[1].names
        assert re.findall(r'"name":"(@[^"]+)"', text) == [names[row] for row in (0, 2, 3, 5)]
    assert main([*command, "--runs", other, other]) == 1 and "other" in capsys.readouterr().err
    assert main([*command, "--runs", *[str(run_folder), other] * 2]) == 1
    assert main([*command, "--runs", other, "--queries", "0"]) == 1 and "--queries 0" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_prints_and_writes_one_table(data_root, tmp_path, capsys):
    command = ["compare", "--data", str(data_root), "--out", str(tmp_path), *SMALL, "--aggregators", "AVG, GeM"]
    assert main(command) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["AVG", "GeM"]
    recalls = [[float(number) for number in row[1].split(" / ")] for row in rows[1:]]
    for folder in tmp_path.glob("*-AdamW-*"):
        (index,) = [i for i, row in enumerate(rows[1:]) if folder.name.startswith(row[0])]
        assert evaluate(folder, data_root, "--json", str(tmp_path / "recall.json")) == 0
        expected = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))["recall"]
        assert recalls[index] == pytest.approx([expected[k] for k in ("1", "5", "10")], abs=0.01)
    assert (tmp_path / "comparison-root-smoke.md").read_text(encoding="utf-8") in out
    assert "val: 6 queries, 0 of them without a positive" in out


def test_compare_reads_all_splits_before_it_trains(tmp_path, capsys):
    root = make_root(tmp_path / "root")
    shutil.copytree(root / "val" / "database", root / "later" / "database")
    command = ["compare", "--out", str(tmp_path / "runs"), *SMALL, "--data"]
    assert main([*command, str(root)]) == 1
    assert "later" in capsys.readouterr().err
    assert main([*command, str(root), "--set", "aggregator=AVG"]) == 1
    assert "--set aggregator" in capsys.readouterr().err
    shutil.rmtree(root / "later")
    shutil.rmtree(root / "val")
    assert main([*command, str(root)]) == 1
    assert str(root) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "offender"), [
    (["--preset", "tiny"], "'tiny'; valid: xs, photos, mini, smoke"),
    (["--aggregator", "mix"], "'mix'; valid: AVG, GeM, ConvAP, MixVPR"),
    (["--set", "learning_rate=1"], "'learning_rate'; valid: backbone"),
    (["--set", "lr"], "KEY=VALUE"),
    (["--set", "lr=fast"], "lr=fast"),
    (["--set", "lr=NaN"], "lr=NaN"),
    (["--set", "epochs=true"], "epochs=true"),
    (["--set", "warmup_steps=-5"], "warmup_steps is -5"),
    (["--set", "radius_m=0"], "radius_m is 0"),
    (["--set", "randaugment_magnitude=300"], "randaugment_magnitude is 300"),
    (["--set", "gamma=-1"], "gamma is -1"),
    (["--set", "milestones=[3, 1]"], "milestones"),
    (["--set", "eval_batch_size=-1"], "eval_batch_size is -1"),
    (["--set", "loss=Triplet"], "'Triplet'; valid: AngularLoss"),
    (["--set", "optimizer=adam"], "'adam'; valid: Adam, AdamW, SGD"),
    (["--set", "num_places=1"], "num_places is 1"),
    (["--set", "device=gpu"], "'gpu'; valid: auto, cpu"),
    (["--set", 'aggregator_options={"GEM": {"p": 1}}'], "'GEM'; valid: AVG"),
    (["--set", "images_per_place=9"], "9 photos"),
    (["--epochs", "0"], "epochs is 0"),
    (["--set", 'val_splits=["test"]'], "test/"),
    (["--data", "nowhere"], "nowhere"),
])  # fmt: skip
def test_train_names_what_is_wrong_in_one_line(data_root, tmp_path, capsys, options, offender):
    assert main(["train", "--data", str(data_root), "--out", str(tmp_path / "run"), *SMALL, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and offender in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_an_unreadable_photo_is_one_line_of_the_program(tmp_path):
    root = make_root(tmp_path / "root")
    for photo in (root / "train").rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    command = [sys.executable, "-m", "vpr_lib", "train", "--data", str(root), "--out", str(tmp_path / "run"), *SMALL]
    done = subprocess.run([*command, "--set", "num_workers=1"], capture_output=True, text=True)  # read by a process
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {root}") and ".jpg" in done.stderr


def test_the_parser_needs_neither_torch_nor_numpy():
    code = "import sys; from vpr_lib.command_line.parser import main; print({'torch', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_two_aggregators_for_one_training_are_refused(data_root, tmp_path, capsys):
    arguments = ["train", "--data", str(data_root), "--out", str(tmp_path / "run"), "--aggregator", "GeM"]
    assert main([*arguments, "--set", "aggregator=AVG"]) == 1
    assert "--set aggregator" in capsys.readouterr().err and not (tmp_path / "run").exists()
