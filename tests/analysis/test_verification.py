"""Verification of predictions: the inliers of a plain loop, kept on disk, whatever happens to the files."""

import io
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import photo_name
from PIL import Image
from textured_photos import draw_wall, write_split

from vpr_lib.analysis import verification
from vpr_lib.analysis.local_features import MAX_PIXELS, LocalFeatures, count_inliers, extract_sift
from vpr_lib.analysis.verification import FOLDER, read_inliers, verify_predictions
from vpr_lib.checked_files import seal_zip
from vpr_lib.data_roots import Split, read_split
from vpr_lib.photos import read_thumbnail
from vpr_lib.prepare.packs import write_pack

# Each query's own wall is a database photo, and most pairs show different walls.
INDICES = np.array([[3, 0, -1, 1], [1, 4, 0, -1], [-1, -1, 2, -1]])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verification")
    write_split(folder / "val", queries=[0, 1, 2], database=[0, 1, 2, 3, 4])
    return folder


@pytest.fixture(scope="module")
def photos(root):
    return read_split(root, "val")


def verify_slowly(photos, indices, extract=extract_sift, matcher=count_inliers):
    database, queries = (
        [extract(read_thumbnail(table, row, MAX_PIXELS)) for row in range(len(table))] for table in photos
    )
    inliers = np.full(indices.shape, -1)
    for query, row in enumerate(indices):
        for rank, index in enumerate(row):
            if index >= 0:
                inliers[query, rank] = matcher(queries[query], database[index])
    return inliers


@pytest.fixture(scope="module")
def expected(photos):
    inliers = verify_slowly(photos, INDICES)
    assert min(inliers[0, 1], inliers[1, 0], inliers[2, 2]) > 30 > 20 > inliers[0, 0]
    return inliers


@pytest.fixture
def verify(photos, tmp_path, machine, monkeypatch):
    """Verifies predictions with their files in tmp_path; `computed` holds the pairs that were not read."""
    jobs = verification._run_jobs

    def verify(indices=INDICES, photos=photos, **options):
        return verify_predictions(photos, indices, tmp_path, "val", machine=machine, **options)

    def run_jobs(*args):
        for result in jobs(*args):
            verify.computed += [divmod(key, len(photos.database)) for key in result.keys.tolist()]
            yield result
            if len(verify.computed) >= verify.stop_after:
                raise KeyboardInterrupt

    verify.computed, verify.stop_after = [], np.inf
    monkeypatch.setattr(verification, "_run_jobs", run_jobs)
    return verify


def list_pairs(indices):
    return [(query, index) for query, row in enumerate(indices.tolist()) for index in sorted(row) if index >= 0]


def find_files(folder):
    """The files of pairs, and those of features."""
    files = sorted((folder / FOLDER).glob("*/*"))
    return [[path for path in files if path.name.startswith("pairs-") == is_pairs] for is_pairs in (True, False)]


def test_inliers_are_those_of_a_plain_loop(verify, expected):
    result = verify()
    np.testing.assert_array_equal(result.inliers, expected)
    assert result.inliers.dtype == np.int64
    assert sorted(verify.computed) == list_pairs(INDICES)


def test_predictions_that_do_not_exist_are_not_verified(verify, photos, tmp_path):
    for indices in (np.full((3, 2), -1), np.zeros((3, 0), dtype=np.int64)):
        result = verify(indices)
        np.testing.assert_array_equal(result.inliers, np.full(indices.shape, -1))
        assert result.seconds.tolist() == [0, 0, 0]
    assert verify.computed == [] and not (tmp_path / FOLDER).exists()


def test_seconds_are_those_of_verified_queries(verify, monkeypatch):
    result = verify(np.where([[True], [False], [True]], INDICES, -1))
    assert result.seconds.dtype == np.float64
    assert (result.seconds > 0).tolist() == [True, False, True]
    monkeypatch.setattr(verification, "read_thumbnail", None)  # what follows needs no photo
    assert verify(np.where([[True], [False], [True]], INDICES, -1)).seconds.tolist() == result.seconds.tolist()
    fewer = verify(np.array([[-1], [-1], [2]])).seconds
    assert fewer[:2].tolist() == [0, 0] and fewer[2] == result.seconds[2]


def test_seconds_are_those_of_the_querys_features_and_of_its_pairs(verify, monkeypatch):
    """Features of a database photo are computed once, before there are queries."""
    clock = [0.0]

    def extract(photo):
        clock[0] += 100

    def match(first, second):
        clock[0] += 1
        return 5

    monkeypatch.setattr(verification, "time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic))
    assert verify(extract=extract, matcher=match).seconds.tolist() == [103, 103, 101]


def test_what_was_verified_is_read(verify, expected, photos, tmp_path):
    np.testing.assert_array_equal(read_inliers(photos, INDICES, tmp_path, "val"), np.full((3, 4), -1))
    first = verify()
    verify.computed.clear()
    second = verify()
    assert verify.computed == []
    np.testing.assert_array_equal(second.inliers, first.inliers)
    np.testing.assert_array_equal(second.seconds, first.seconds)
    np.testing.assert_array_equal(read_inliers(photos, INDICES[:, ::-1], tmp_path, "val"), expected[:, ::-1])


def test_other_predictions_compute_what_is_missing(verify, photos, tmp_path):
    first = verify()
    verify.computed.clear()
    others = np.array([[0, 4], [2, 1], [-1, 0]])
    known = read_inliers(photos, others, tmp_path, "val")
    assert [pair for pair in list_pairs(others) if pair not in list_pairs(INDICES)] == [(0, 4), (1, 2), (2, 0)]
    assert (known < 0).tolist() == [[False, True], [True, False], [True, True]]
    result = verify(others)
    assert sorted(verify.computed) == [(0, 4), (1, 2), (2, 0)]
    np.testing.assert_array_equal(result.inliers, verify_slowly(photos, others))
    np.testing.assert_array_equal(read_inliers(photos, INDICES, tmp_path, "val"), first.inliers)  # still known


def test_a_pair_that_is_asked_for_twice_is_computed_once(verify, expected):
    result = verify(np.array([[1, 1], [4, 4], [-1, -1]]))
    assert verify.computed == [(0, 1), (1, 4)]
    assert result.inliers[:, 0].tolist() == result.inliers[:, 1].tolist() == [*expected[[0, 1], [3, 1]], -1]


def test_an_interruption_keeps_what_is_finished(verify, expected, photos, tmp_path):
    verify.stop_after = 4  # the pairs of the first query, and of the second
    with pytest.raises(KeyboardInterrupt):
        verify()
    finished = np.array([[True], [True], [False]])
    known = read_inliers(photos, INDICES, tmp_path, "val")
    np.testing.assert_array_equal(known, np.where(finished, expected, -1))
    verify.computed.clear()
    verify.stop_after = np.inf
    np.testing.assert_array_equal(verify().inliers, expected)
    assert verify.computed == [(2, 2)]


def test_pairs_are_saved_from_time_to_time(verify, photos, tmp_path, monkeypatch):
    """A killed process does not come to its end."""
    monkeypatch.setattr(verification, "SAVE_EVERY_S", 0.0)
    write, known = verification.write_atomically, []

    def record(path, data):
        write(path, data)
        known.append(int((read_inliers(photos, INDICES, tmp_path, "val") >= 0).sum()))

    monkeypatch.setattr(verification, "write_atomically", record)
    verify()
    assert list(dict.fromkeys(known)) == [0, 3, 6, 7]  # after each query


def flip(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


DAMAGES = (flip, lambda data: data[:-7], lambda data: b"", lambda data: b"text" * 99)


def test_damaged_pairs_are_verified_again(verify, expected, photos, tmp_path, capsys):
    verify()
    (path,), _ = find_files(tmp_path)
    data = path.read_bytes()
    for damage in DAMAGES:
        path.write_bytes(damage(data))
        verify.computed.clear()
        capsys.readouterr()
        np.testing.assert_array_equal(verify().inliers, expected)
        assert sorted(verify.computed) == list_pairs(INDICES)
        assert path.name in capsys.readouterr().out
        np.testing.assert_array_equal(read_inliers(photos, INDICES, tmp_path, "val"), expected)


def test_damaged_features_are_computed_again(verify, expected, tmp_path):
    verify()
    (pairs,), features = find_files(tmp_path)
    contents = [dict(np.load(path)) for path in features]
    for number, path in enumerate(features):
        path.write_bytes(DAMAGES[number % len(DAMAGES)](path.read_bytes()))
    pairs.unlink()
    np.testing.assert_array_equal(verify().inliers, expected)
    for path, content in zip(features, contents, strict=True):
        assert all(np.array_equal(np.load(path)[name], content[name]) for name in LocalFeatures._fields)


def test_features_are_read_where_they_are_known(verify, expected, tmp_path, monkeypatch):
    verify()
    (pairs,), features = find_files(tmp_path)
    assert len(features) == 3 + 5
    pairs.unlink()
    monkeypatch.setattr(verification, "read_thumbnail", None)
    np.testing.assert_array_equal(verify().inliers, expected)


def test_features_of_a_file_are_used_and_not_only_checked(verify, tmp_path):
    verify()
    (pairs,), features = find_files(tmp_path)
    pairs.unlink()
    for path in features:
        arrays = dict(np.load(path))
        np.savez(written := io.BytesIO(), **arrays | {name: arrays[name][:0] for name in LocalFeatures._fields})
        path.write_bytes(seal_zip(written.getvalue()))
    assert verify().inliers.max() == 0


def test_a_photo_that_was_changed_is_verified_again(verify, root, expected, tmp_path):
    verify()
    verify.computed.clear()
    changed = read_split(shutil.copytree(root, tmp_path / "root"), "val")
    (changed.database.root / changed.database.names[1]).write_bytes(changed.database.read_bytes(3))
    changed = read_split(tmp_path / "root", "val")
    inliers = verify(photos=changed).inliers
    assert sorted(verify.computed) == list_pairs(INDICES)
    is_changed = INDICES == 1
    np.testing.assert_array_equal(inliers[~is_changed], expected[~is_changed])
    assert inliers[1, 0] < 20 < expected[1, 0]
    assert len(find_files(tmp_path)[1]) == 3 + 5  # features are of contents: the copy has those of its original


def test_splits_of_the_same_photos_share_features_and_not_pairs(verify, photos, tmp_path, machine, monkeypatch):
    verify()
    monkeypatch.setattr(verification, "read_thumbnail", None)
    swapped = Split(photos.queries, photos.database)
    indices = np.array([[2], [1], [0], [-1], [-1]])
    verify.computed.clear()
    inliers = verify_predictions(swapped, indices, tmp_path, "swapped", machine=machine).inliers
    assert len(verify.computed) == 3 and len(find_files(tmp_path)[0]) == 2
    assert inliers[1, 0] > 30 > 20 > inliers[0, 0]


def spoil(photos, half, row):
    table = photos._asdict()[half]
    path = table.root / table.names[row]
    path.write_text("no photo")
    return path


@pytest.fixture
def own_photos(root, tmp_path):
    """A copy of the photos that a test may change."""
    return read_split(shutil.copytree(root, tmp_path / "own"), "val")


@pytest.mark.parametrize(("half", "row"), [("queries", 1), ("database", 4)])
def test_an_unreadable_photo_is_named(verify, own_photos, half, row, tmp_path, expected):
    path = spoil(own_photos, half, row)
    with pytest.raises(ValueError, match=path.name):
        verify(photos=own_photos)
    known = read_inliers(own_photos, INDICES, tmp_path, "val")
    np.testing.assert_array_equal(known[0], expected[0])  # the queries before it are kept
    assert (known[1:] < 0).all()


def test_a_photo_that_is_gone_is_named(verify, own_photos):
    path = spoil(own_photos, "database", 2)
    assert own_photos.database.fingerprint
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        verify(photos=own_photos)


def test_a_folder_that_is_a_file_costs_no_result(verify, expected, tmp_path):
    (tmp_path / FOLDER).write_text("a file in place of the folder")
    with pytest.warns(UserWarning, match=FOLDER):
        result = verify()
    np.testing.assert_array_equal(result.inliers, expected)
    assert (result.seconds > 0).all()


def test_a_full_disk_costs_no_result(verify, expected, photos, tmp_path, monkeypatch):
    def refuse(path, data):
        raise OSError(28, f"{path} can't be written")

    monkeypatch.setattr(verification, "write_atomically", refuse)
    with pytest.warns(UserWarning, match="pairs-val-"):
        np.testing.assert_array_equal(verify().inliers, expected)
    assert find_files(tmp_path) == [[], []]


def test_pairs_of_a_folder_that_can_only_be_read_are_read(verify, expected, monkeypatch):
    verify()
    monkeypatch.setattr(verification, "write_atomically", None)
    np.testing.assert_array_equal(verify().inliers, expected)


def test_an_own_matcher_and_own_features_run_here_and_write_nothing(verify, photos, tmp_path, machine):
    seen = []

    def extract(photo):
        seen.append(photo.shape)
        return float(photo.mean())

    def match(first, second):
        return round(abs(first - second))

    result = verify_predictions(photos, INDICES, tmp_path, "val", extract, match, replace(machine, num_workers=2))
    assert seen == [(120, 120, 3)] * 8  # each photo once, in this process
    np.testing.assert_array_equal(result.inliers, verify_slowly(photos, INDICES, extract, match))
    assert (result.seconds > 0).all() and not (tmp_path / FOLDER).exists()
    seen.clear()
    verify(extract=extract, matcher=match)
    assert len(seen) == 8  # nothing was kept in memory, as `extract` may have changed


def test_an_own_matcher_takes_the_default_features(verify, photos, tmp_path):
    verify()
    files = find_files(tmp_path)
    smaller = verify(matcher=lambda first, second: min(len(first.points), len(second.points))).inliers
    np.testing.assert_array_equal(
        smaller, verify_slowly(photos, INDICES, matcher=lambda *pair: min(len(each.points) for each in pair))
    )
    assert find_files(tmp_path) == files
    half = LocalFeatures._make(each[:0] for each in extract_sift(draw_wall(0)))
    assert verify(extract=lambda photo: half).inliers.max() == 0 and verify().inliers.max() > 30


@pytest.fixture
def packed(root, tmp_path):
    (tmp_path / "packs").mkdir()
    write_pack(root / "val", tmp_path / "packs" / "val.zip", 100, progress=False)
    return read_split(tmp_path / "packs", "val")


def test_a_pack_gives_the_inliers_of_its_photos(verify, packed):
    inliers = verify(photos=packed).inliers
    np.testing.assert_array_equal(inliers, verify_slowly(packed, INDICES))
    assert packed.database.is_packed and inliers[1, 0] > 30


@pytest.mark.slow
def test_two_processes_give_the_same(photos, packed, own_photos, expected, tmp_path, machine, monkeypatch):
    slow = verify_slowly(packed, INDICES)
    monkeypatch.setattr(verification, "read_thumbnail", None)  # here, but not in other processes
    two = replace(machine, num_workers=2)
    result = verify_predictions(photos, INDICES, tmp_path / "folder", "val", machine=two)
    np.testing.assert_array_equal(result.inliers, expected)
    assert (result.seconds > 0).all() and [len(files) for files in find_files(tmp_path / "folder")] == [1, 8]

    inliers = verify_predictions(packed, INDICES, tmp_path / "pack", "val", machine=two).inliers
    np.testing.assert_array_equal(inliers, slow)

    verify_predictions(photos, INDICES, tmp_path / "other", "val", machine=two)  # by processes that know the photos
    assert [len(files) for files in find_files(tmp_path / "other")] == [1, 8]

    path = spoil(own_photos, "database", 2)
    with pytest.raises(ValueError, match=path.name):
        verify_predictions(own_photos, INDICES, tmp_path / "spoiled", "val", machine=two)


def test_large_photos_are_reduced(tmp_path, machine):
    for half in ("queries", "database"):
        (tmp_path / "val" / half).mkdir(parents=True)
        Image.fromarray(draw_wall(0, 500)[:400]).save(tmp_path / "val" / half / photo_name(0, 4e6, pano=half))
    large, first = read_split(tmp_path, "val"), np.zeros((1, 1), dtype=np.int64)
    shapes = []
    verify_predictions(large, first, tmp_path, "val", lambda photo: shapes.append(photo.shape), lambda *_: 1, machine)
    assert {*shapes} == {(round(MAX_PIXELS * 0.8), MAX_PIXELS, 3)}
