"""Approximate search: what each kind of index finds, and its folder on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vpr_lib import index_folders
from vpr_lib.checked_files import DamagedFile, write_array
from vpr_lib.index_folders import build_index, open_index
from vpr_lib.ivf_index import build_ivf, search_index
from vpr_lib.search import measure_overlap, search_database

pytestmark = pytest.mark.slow  # each index takes a second
KINDS = ["ivf", "ivf-sq8", "ivf-pq"]
NUM_PLACES, PHOTOS, SIZE = 400, 5, 24


def make_places(seed):
    """Photos of places, near each other, PHOTOS of each."""
    places = np.random.default_rng(0).normal(size=(NUM_PLACES, SIZE)).repeat(PHOTOS, axis=0)
    rows = places + np.random.default_rng(seed).normal(0, 0.3, places.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def database():
    return make_places(1)


@pytest.fixture(scope="module")
def queries():
    return make_places(2)[::7]


@pytest.fixture(scope="module")
def folders(database, tmp_path_factory):
    """{kind: index}, to be copied before it is changed."""
    root = tmp_path_factory.mktemp("index")
    return {kind: build_index(database, root / kind, kind) for kind in KINDS}


def slow_distances(database, queries, indices):
    return np.array(
        [np.linalg.norm(database[rows].astype(float) - q, axis=1) for q, rows in zip(queries, indices, strict=True)]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_nearly_what_an_exact_search_finds(database, queries, folders, kind):
    exact = search_database(database, queries, 5, device="cpu")[1]
    index = open_index(folders[kind], database, kind)
    distances, indices = search_index(index, database, queries, 5)
    overlap = measure_overlap(indices, exact, (1, 5))
    assert overlap[1] > 97 and overlap[5] > 95
    assert distances.dtype == np.float32 and indices.dtype == np.int64
    np.testing.assert_allclose(distances, slow_distances(database, queries, indices), atol=1e-6)  # exact, not of codes
    assert (np.diff(distances, axis=1) >= 0).all()
    fewer = search_index(index, database, queries, 5, nprobe=1)[1]
    assert measure_overlap(fewer, exact, (5,))[5] < overlap[5]


@pytest.mark.parametrize("kind", KINDS)
def test_all_lists_and_all_candidates_are_an_exact_search(database, queries, folders, kind):
    expected = search_database(database, queries, 5, device="cpu")
    index = open_index(folders[kind], database, kind)
    found = search_index(index, database, queries, 5, nprobe=1000, candidates=len(database))
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_in_memory_and_one_of_several_blocks_find_the_same(database, queries, folders, tmp_path, kind):
    expected = search_index(open_index(folders[kind], database, kind), database, queries, 5)
    in_blocks = build_index(database, tmp_path / "blocks", kind, chunk_size=300, block_bytes=30_000)
    moved = in_blocks.rename(tmp_path / "moved")
    for index in (build_ivf(database, kind), open_index(moved, database, kind)):
        assert index.ntotal == len(database)
        found = search_index(index, database, queries, 5)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[0], expected[0])
    text = "".join(path.read_bytes().decode("latin-1") for path in moved.iterdir())
    assert str(tmp_path) not in text  # no path in it
    assert {path.name for path in moved.iterdir()} == {"index.faiss", "lists.ivfdata", "settings.json"}


def test_codes_are_as_small_as_said(folders):
    read = {kind: json.loads((folder / "settings.json").read_text()) for kind, folder in folders.items()}
    assert {kind: settings["code_bytes"] for kind, settings in read.items()} == {
        "ivf": 2 * SIZE, "ivf-sq8": SIZE, "ivf-pq": SIZE,
    }  # fmt: skip
    assert all(settings["lists"] == 44 and settings["rows"] == 2000 for settings in read.values())


@pytest.mark.parametrize("size, code_bytes", [(256, 128), (131, 65)])
def test_product_quantization_takes_any_number_of_dimensions(size, code_bytes):
    rows = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    index = build_ivf(rows, "ivf-pq")
    indices = search_index(index, rows, rows[:20], 1, nprobe=32)[1]
    assert (indices[:, 0] == np.arange(20)).all() and index.sa_code_size() <= code_bytes + 8
    import faiss

    assert faiss.downcast_index(faiss.extract_index_ivf(index)).code_size == code_bytes


def test_rows_of_a_file_and_in_half_precision(database, queries, folders, tmp_path):
    write_array(tmp_path / "d.npy", len(database), [database])
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    folder = build_index(mapped, tmp_path / "index", "ivf")
    expected = search_index(open_index(folders["ivf"], database, "ivf"), database, queries, 5)
    for rows in (mapped, database):  # the same descriptors, wherever they are
        if rows is mapped:
            found = search_index(open_index(folder, rows, "ivf"), rows, queries, 5)
            np.testing.assert_array_equal(found[1], expected[1])
    half = database.astype(np.float16)
    found = search_index(build_ivf(half), half, queries, 5)
    assert measure_overlap(found[1], expected[1], (5,))[5] > 99


def test_rows_that_are_not_finite_are_never_found(database, queries):
    broken = database.copy()
    broken[::10], broken[5::10] = np.nan, np.inf
    indices = search_index(build_ivf(broken), broken, queries, 5, nprobe=1000)[1]
    assert (indices % 5 != 0)[indices >= 0].all() and (indices >= 0).all()


def test_lists_with_too_few_rows_give_no_prediction(database, queries, folders):
    index = open_index(folders["ivf"], database, "ivf")
    distances, indices = search_index(index, database, queries, 300, nprobe=1)
    assert (indices[:, -1] == -1).all() and np.isinf(distances[indices < 0]).all()
    assert np.isfinite(distances[indices >= 0]).all() and (indices[:, 0] >= 0).all()


def test_wrong_arguments_are_named(database, queries, folders):
    index = open_index(folders["ivf"], database, "ivf")
    for arguments, text in (
        ((database, queries[:, :3], 5), "expected"), ((database, queries, 0), "k = 0"),
        ((database, queries, 2001), "k = 2001"), ((database, queries, 5, 0), "nprobe = 0"),
        ((database, queries, 5, 1, 0), "candidates = 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            search_index(index, *arguments)
    with pytest.raises(ValueError, match=r"'ivf-pr'.*valid: ivf, ivf-sq8, ivf-pq"):
        build_ivf(database, "ivf-pr")


# The folder


@pytest.mark.parametrize("in_blocks", [False, True])
def test_every_damage_is_noticed(database, folders, tmp_path, in_blocks):
    folder = folders["ivf-pq"]
    if in_blocks:
        folder = build_index(database, tmp_path / "blocks", "ivf-pq", block_bytes=30_000)
    rng = np.random.default_rng(0)
    for path in folder.iterdir():
        size = path.stat().st_size
        for place in [0, size - 1, *rng.integers(size, size=20)]:
            copy = shutil.copytree(folder, tmp_path / "copy")
            data = bytearray(path.read_bytes())
            data[place] ^= 1 << rng.integers(8)
            (copy / path.name).write_bytes(data)
            if path.name == "settings.json" and chr(data[place]).isspace():
                shutil.rmtree(copy)
                continue  # white space
            with pytest.raises(ValueError, match=path.name):
                open_index(copy, database, "ivf-pq")
            shutil.rmtree(copy)
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / path.name).write_bytes(path.read_bytes()[:-3])
        with pytest.raises(DamagedFile, match=path.name):
            open_index(copy, database, "ivf-pq")
        shutil.rmtree(copy)


def test_an_index_of_other_descriptors_is_refused(database, folders):
    other = database.copy()
    other[3, 4] += 1e-3
    for wrong in (other, database[:-1], database[::-1]):
        with pytest.raises(ValueError, match="holds an index of"):
            open_index(folders["ivf"], np.ascontiguousarray(wrong), "ivf")
    with pytest.raises(ValueError, match="ivf-pq"):
        open_index(folders["ivf"], database, "ivf-pq")
    with pytest.raises(FileNotFoundError, match="no index in"):
        open_index(folders["ivf"].parent, database, "ivf")


def test_too_little_space_is_an_error_before_anything_is_written(database, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(index_folders.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(OSError, match=r"the index needs .* GB free"):
        build_index(database, tmp_path / "index", "ivf")
    assert not [*tmp_path.iterdir()]


def test_a_build_that_fails_leaves_nothing_and_the_old_index(database, queries, folders, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(folders["ivf"], tmp_path / "index"))

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(index_folders, "_write_index", fail)
    with pytest.raises(OSError, match="disk full"):
        build_index(database, folder, "ivf")
    assert [*tmp_path.iterdir()] == [folder]
    assert search_index(open_index(folder, database, "ivf"), database, queries, 1)[1].shape == (len(queries), 1)
    with pytest.raises(ValueError, match="other files"):
        build_index(database, tmp_path, "ivf")


def test_what_a_killed_build_left_is_removed(database, tmp_path):
    import os
    import platform

    left = tmp_path / f"index.{platform.node()[:12]}.999999999.tmp"
    left.mkdir()
    (left / "block0.faiss").write_bytes(b"half")
    build_index(database, tmp_path / "index", "ivf")
    assert os.listdir(tmp_path) == ["index"]
