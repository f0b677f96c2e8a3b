"""Evaluating runs: what is computed, saved and read."""

import io
import shutil

import numpy as np
import pytest
from conftest import make_root, photo_name, write_photo

from vpr_lib.checked_files import seal_zip
from vpr_lib.data_roots import read_split
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.evaluation import compare_evaluations, evaluate_all, evaluate_run, read_evaluation
from vpr_lib.images import read_images
from vpr_lib.runs import get_run
from vpr_lib.settings import replace
from vpr_lib.statistics import bootstrap_interval, group_cells, paired_test
from vpr_lib.whitening import fit_whitening


@pytest.fixture
def run(small, data_root, tmp_path, machine):
    return get_run(small, data_root, tmp_path / "runs", machine=machine)


def test_evaluation_is_descriptors_search_and_recall(run, data_root, machine):
    with pytest.raises(FileNotFoundError, match=r"no predictions for the photos of val.*evaluate --run .* --split val"):
        read_evaluation(run, data_root, "val")
    evaluation = evaluate_run(run, data_root, "val", machine)
    database, queries = read_split(data_root, "val")
    model = run.load_model()
    d, q = (extract_descriptors(model, t, 32, machine=machine) for t in (database, queries))
    order = np.argsort(((q[:, None] - d[None]) ** 2).sum(2), axis=1)
    near = np.linalg.norm(queries.utm[:, None] - database.utm[None], axis=2) <= 25
    hits = {k: 100 * np.mean([near[i, order[i, :k]].any() for i in range(len(q))]) for k in (1, 5)}
    assert evaluation.recall == pytest.approx(hits)
    assert evaluation.to_dict()["queries"] == 6 and evaluation.to_dict()["without_positive"] == 0
    assert (evaluation.hits == near[np.arange(6), order[:, 0]]).all()


def test_predictions_are_saved_and_read(run, data_root, machine):
    evaluation = evaluate_run(run, data_root, "val", machine)
    (file,) = (run.folder / "predictions").iterdir()
    arrays = dict(np.load(file))
    np.savez(written := io.BytesIO(), **arrays | {"indices": np.full_like(arrays["indices"], -1)})
    file.write_bytes(seal_zip(written.getvalue()))
    assert evaluation.recall[5] > 0
    assert evaluate_run(run, data_root, "val", machine).recall[5] == 0  # read, not computed
    (run.folder / "model.pt").write_bytes((run.folder / "model.pt").read_bytes() + b" ")
    with pytest.raises(FileNotFoundError, match="no predictions"):  # another model
        read_evaluation(replace(run), data_root, "val")


def test_predictions_are_read_without_loading_the_model(run, data_root, machine):
    evaluation = evaluate_run(run, data_root, "val", machine)
    (run.folder / "settings.json").unlink()  # loading the model would need it
    assert read_evaluation(replace(run), data_root, "val").recall == evaluation.recall


@pytest.mark.slow
def test_evaluation_of_other_photos_is_not_read_from_the_cache(run, tmp_path, data_root, machine):
    before = evaluate_run(run, data_root, "val", machine)
    other = make_root(tmp_path / "other")
    write_photo(other / "val" / "queries" / photo_name(9e5, 9e5), 3)  # far from all others
    evaluation = evaluate_run(run, other, "val", machine)
    assert evaluation.num_queries == 7 and evaluation.num_without_positive == 1
    assert evaluation.recall[5] == pytest.approx(before.recall[5] * 6 / 7)  # a query without positive counts as missed


@pytest.mark.slow
def test_an_approximate_index_has_predictions_of_its_own(run, data_root, machine, monkeypatch):
    exact = evaluate_run(run, data_root, "val", machine)
    monkeypatch.setattr("vpr_lib.search.IVF_MIN_ROWS", 5)
    cpu = replace(machine, device="cpu")
    for _ in range(2):  # computed, then read
        approximate = evaluate_run(run, data_root, "val", cpu, "ivf")
        loss = approximate.search_loss
        assert loss.overlap == {1: 100.0, 12: 100.0}  # all 3 lists are searched
        assert loss.num_queries == 6 and loss.recall == loss.exact_recall == approximate.recall == exact.recall
        assert approximate.to_dict()["search_loss"]["overlap"] == {"1": 100.0, "12": 100.0}
    assert exact.search_loss is None and "search_loss" not in exact.to_dict()
    assert len(list((run.folder / "predictions").iterdir())) == 2


@pytest.mark.slow
def test_whitened_descriptors_have_predictions_of_their_own(run, data_root, machine, tmp_path):
    plain = evaluate_run(run, data_root, "val", machine)
    for _ in range(2):  # computed, then read
        whitened = evaluate_run(run, data_root, "val", machine, whiten=8)
        assert len(list((run.folder / "predictions").iterdir())) == 2
    model = run.load_model()
    tables = (read_images(data_root / "train"), *read_split(data_root, "val"))
    training, database, queries = (extract_descriptors(model, table, 32, machine=machine) for table in tables)
    whitening = fit_whitening(training, 8)
    distances = np.linalg.norm(whitening(queries)[:, None] - whitening(database)[None], axis=2)
    np.testing.assert_allclose(whitened.distances, np.sort(distances, axis=1), atol=1e-3)
    assert evaluate_run(run, data_root, "val", machine).distances.tolist() == plain.distances.tolist()
    assert read_evaluation(run, data_root, "val").distances.tolist() == plain.distances.tolist()
    shutil.copytree(data_root / "val", tmp_path / "root" / "val")
    with pytest.raises(FileNotFoundError, match=r"whitening is fitted on training photos, but .* has no train/"):
        evaluate_run(run, tmp_path / "root", "val", machine, whiten=8)
    with pytest.raises(ValueError, match="more than 32 training photos, there are 32"):
        evaluate_run(run, data_root, "val", machine, whiten=32)


@pytest.mark.slow
def test_a_large_training_set_is_sampled_to_fit_the_whitening(run, data_root, machine, monkeypatch):
    monkeypatch.setattr("vpr_lib.evaluation.MAX_WHITENING_PHOTOS", 9)
    assert evaluate_run(run, data_root, "val", machine, whiten=4).num_queries == 6
    with pytest.raises(ValueError, match="more than 9 training photos, there are 9"):
        evaluate_run(run, data_root, "val", machine, whiten=9)


@pytest.mark.slow
def test_ks_beyond_the_database_are_a_warning(small, data_root, tmp_path, machine):
    message = r"no recall at k = \[25\]: the database of val has 12 photos"
    with pytest.warns(UserWarning, match=message):
        run = get_run(replace(small, ks=(1, 10, 25)), data_root, tmp_path, machine=machine)
    with pytest.warns(UserWarning, match=message):
        assert set(evaluate_run(run, data_root, "val", machine).recall) == {1, 10}
    with pytest.warns(UserWarning, match="the last one is kept"):
        run = get_run(replace(small, ks=(25,), val_splits=()), data_root, tmp_path, machine=machine)
    with pytest.raises(ValueError, match="exceed the 12 photos"):
        evaluate_run(run, data_root, "val", machine)


@pytest.mark.slow
def test_an_unfinished_run_cannot_be_evaluated(run, small, data_root, tmp_path, machine):
    (run.folder / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.pt"):
        evaluate_run(run, data_root, "val", machine)
    assert get_run(small, data_root, tmp_path / "runs", machine=machine).complete  # from its checkpoint


@pytest.mark.slow
def test_comparisons_are_intervals_and_paired_tests(small, data_root, tmp_path, machine):
    names = ("AVG", "GeM")
    runs = {name: get_run(replace(small, aggregator=name), data_root, tmp_path, machine=machine) for name in names}
    evaluations = evaluate_all(runs, data_root, "val", machine)
    rows = compare_evaluations(evaluations)
    first, second = evaluations.values()
    assert rows["AVG"].p_value is None and rows["GeM"].p_value == paired_test(first.hits, second.hits)
    assert rows["GeM"].interval == bootstrap_interval(second.hits, group_cells(second.query_utm))
    assert rows["GeM"].recall == second.recall
    with pytest.raises(ValueError, match="other"):
        compare_evaluations({"a": first, "b": replace(second, split="other")})


@pytest.mark.slow
def test_damaged_predictions_are_computed_again(run, data_root, machine):
    evaluation = evaluate_run(run, data_root, "val", machine)
    (file,) = (run.folder / "predictions").iterdir()
    data = file.read_bytes()
    for damaged in (b"", data[:-7], data[:300] + bytes([data[300] ^ 1]) + data[301:]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=file.name):
            read_evaluation(run, data_root, "val")
        assert evaluate_run(run, data_root, "val", machine).recall == evaluation.recall
        assert file.stat().st_size == len(data)


@pytest.mark.slow
def test_predictions_of_another_image_size_precision_or_number_are_others(run, data_root, machine):
    evaluate_run(run, data_root, "val", machine)
    for changes in ({"image_size": 48}, {"precision": "bfloat16"}, {"ks": (1, 30)}):
        other = replace(run, settings=replace(run.settings, **changes))
        with pytest.raises(FileNotFoundError, match="no predictions"):
            read_evaluation(other, data_root, "val")
        with pytest.raises(ValueError, match=next(iter(changes))):  # the run was trained with other settings
            evaluate_run(other, data_root, "val", machine)


@pytest.mark.slow
def test_a_disk_that_takes_nothing_costs_no_result(run, data_root, machine):
    (run.folder / "predictions").write_text("a file in place of the folder")
    with pytest.warns(UserWarning, match="predictions"):
        assert evaluate_run(run, data_root, "val", machine).num_queries == 6


@pytest.mark.slow
def test_queries_that_are_database_photos_are_a_warning(run, tmp_path, machine):
    root = make_root(tmp_path / "root")
    database, queries = read_split(root, "val")
    for pano in "ab":  # two queries with one and the same picture
        shutil.copy(database.root / database.names[0], queries.root / photo_name(1e5, 4e6, pano=pano))
    with pytest.warns(UserWarning, match="2 queries of val are the same files"):
        evaluate_run(run, root, "val", machine)


@pytest.mark.slow
def test_an_index_is_built_once_and_checked(run, small, data_root, machine, monkeypatch, capsys):
    monkeypatch.setattr("vpr_lib.search.IVF_MIN_ROWS", 5)
    cpu = replace(machine, device="cpu")

    def evaluate():
        """With no saved predictions; what was printed, too."""
        shutil.rmtree(run.folder / "predictions", ignore_errors=True)
        return evaluate_run(run, data_root, "val", cpu, "ivf-sq8").indices, capsys.readouterr().out

    expected, printed = evaluate()
    assert "building index ivf-sq8 of 12 descriptors" in printed
    again, printed = evaluate()
    assert "building" not in printed
    np.testing.assert_array_equal(again, expected)
    (folder,) = (run.folder / "descriptors").glob("*.ivf-sq8")
    path = folder / "index.faiss"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    again, printed = evaluate()
    assert f"{path} is damaged" in printed and "building index" in printed
    np.testing.assert_array_equal(again, expected)

    other = get_run(replace(small, seed=1), data_root, run.folder.parent, machine=machine)
    evaluate_run(other, data_root, "val", cpu, "ivf-sq8")
    (others,) = (other.folder / "descriptors").glob("*.ivf-sq8")
    shutil.rmtree(folder)
    shutil.copytree(others, folder)
    with pytest.raises(ValueError, match=r"holds an index of .*it is built again"):
        evaluate()
