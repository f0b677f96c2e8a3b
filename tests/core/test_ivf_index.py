"""Approximate search: what each kind of index finds, and its folder on disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vpr_lib import index_folders
from vpr_lib.checked_files import DamagedFile, write_array
from vpr_lib.index_folders import build_index, open_index
from vpr_lib.ivf_index import build_ivf, get_ivf, search_index
from vpr_lib.search import measure_overlap, search_database

pytestmark = pytest.mark.slow  # each index takes a second
KINDS = ["ivf", "ivf-sq8", "ivf-pq"]
NUM_PLACES, PHOTOS, SIZE = 400, 5, 24
BLOCK_BYTES = 30_000  # the index of the descriptors below is merged from several blocks


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
    in_blocks = build_index(database, tmp_path / "blocks", kind, chunk_size=300, block_bytes=BLOCK_BYTES)
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
    assert get_ivf(index).code_size == code_bytes


def test_large_descriptors_are_projected_before_the_pca(monkeypatch):
    monkeypatch.setattr("vpr_lib.ivf_index.PCA_MAX_DIMENSIONS", 50)
    monkeypatch.setattr("vpr_lib.ivf_index.PQ_MAX_DIMENSIONS", 40)
    rows = np.random.default_rng(0).normal(size=(2000, 72)).astype(np.float32)
    index = build_ivf(rows, "ivf-pq")
    assert get_ivf(index).d == 40
    assert (search_index(index, rows, rows[::40], 1, nprobe=1000)[1][:, 0] == np.arange(0, 2000, 40)).all()


def test_candidates_are_ranked_by_their_descriptors():
    """Codes can't tell photos apart that are as similar as these."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, SIZE)).repeat(30, axis=0)
    rows = (rows + rng.normal(0, 1e-3, rows.shape)).astype(np.float32)
    expected = np.argsort(slow_distances(rows, rows[::31], [slice(None)] * 59), axis=1)[:, :3]
    index = build_ivf(rows, "ivf-pq")
    assert measure_overlap(index.search(rows[::31], 3)[1], expected, (3,))[3] < 95
    distances, indices = search_index(index, rows, rows[::31], 3)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, slow_distances(rows, rows[::31], indices), atol=1e-6)


def test_equal_photos_come_in_the_order_of_the_database(database):
    rows = database[::PHOTOS].repeat(PHOTOS, axis=0)
    for kind in KINDS:
        distances, indices = search_index(build_ivf(rows, kind), rows, rows[::50], PHOTOS)
        np.testing.assert_array_equal(indices, np.arange(0, len(rows), 50)[:, None] + np.arange(PHOTOS))
        assert (distances == 0).all()


def test_many_queries_are_ranked_in_parts(database, folders, monkeypatch):
    index = open_index(folders["ivf-pq"], database, "ivf-pq")
    whole = search_index(index, database, database, 7)
    monkeypatch.setattr("vpr_lib.ivf_index._SEARCH_PAIRS", 500)  # ten queries
    monkeypatch.setattr("vpr_lib.ivf_index._SEARCH_BYTES", 9000)  # 46 pairs
    parts = search_index(index, database, database, 7)
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_array_equal(parts[0], whole[0])
    distances, indices = search_index(index, database, database[:0], 7)
    assert distances.shape == indices.shape == (0, 7)


@pytest.mark.parametrize("block_bytes", [2**30, BLOCK_BYTES])
@pytest.mark.parametrize("kind", KINDS)
def test_two_builds_give_equal_files(database, tmp_path, kind, block_bytes):
    names = ("first", "second", "other")
    for name, chunk_size, seed in zip(names, (65536, 300, 65536), (0, 0, 1), strict=True):
        build_index(database, tmp_path / name, kind, chunk_size, seed, block_bytes)
    first, second, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in names)
    assert first == second and first["index.faiss"] != other["index.faiss"]


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


def test_a_view_of_a_mapped_file_is_not_taken_for_the_file(database, tmp_path):
    write_array(tmp_path / "sealed.npy", len(database), np.array_split(database, 3))
    np.save(tmp_path / "plain.npy", database)
    sealed = np.load(tmp_path / "sealed.npy", mmap_mode="r")
    folder = build_index(sealed, tmp_path / "index", "ivf-sq8")
    for array in (np.load(tmp_path / "plain.npy", mmap_mode="r"), np.load(tmp_path / "sealed.npy", mmap_mode="r+")):
        open_index(folder, array, "ivf-sq8")
    for view in (sealed[:-1], sealed[::-1], sealed.reshape(1000, 48), sealed.view(np.int32)):
        with pytest.raises(ValueError, match="holds an index of"):
            open_index(folder, view, "ivf-sq8")


@pytest.mark.parametrize("block_bytes", [2**30, BLOCK_BYTES])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_never_found(database, tmp_path, kind, block_bytes):
    broken = database.copy()
    broken[::9, 2], broken[4::9, 0] = np.nan, np.inf
    index = open_index(build_index(broken, tmp_path / "index", kind, block_bytes=block_bytes), broken, kind)
    queries = broken[[1, 10, 0, 4]]  # the last two aren't finite
    distances, indices = search_index(index, broken, queries, 1900, nprobe=1000)
    finite = np.flatnonzero(np.isfinite(broken).all(axis=1))
    for found in indices[:2]:
        np.testing.assert_array_equal(np.sort(found[: len(finite)]), finite)
    assert (indices[:2, len(finite) :] == -1).all() and (indices[2:] == -1).all()
    np.testing.assert_array_equal(np.isinf(distances), indices == -1)


def test_too_few_rows_to_train_on():
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"255 .* needs 256"):
        build_ivf(rows[:255], "ivf-pq")
    rows[:290] = np.nan
    with pytest.raises(ValueError, match=r"10 of 300 .* finite"):
        build_ivf(rows, "ivf")


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
    with pytest.raises(ValueError, match="index of 2000 descriptors, but 1999"):
        search_index(index, database[:-1], queries, 1)
    with pytest.raises(ValueError, match=r"'ivf-pr'.*valid: ivf, ivf-sq8, ivf-pq"):
        build_ivf(database, "ivf-pr")


# The folder


@pytest.mark.parametrize("in_blocks", [False, True])
def test_every_damage_is_noticed(database, folders, tmp_path, in_blocks):
    folder = folders["ivf-pq"]
    if in_blocks:
        folder = build_index(database, tmp_path / "blocks", "ivf-pq", block_bytes=BLOCK_BYTES)
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


@pytest.mark.parametrize("block_bytes", [2**30, BLOCK_BYTES])
@pytest.mark.parametrize("kind", KINDS)
def test_the_space_asked_for_is_what_is_used(database, tmp_path, monkeypatch, kind, block_bytes):
    usage, peak = shutil.disk_usage(tmp_path), [0]

    def watch(function):
        def watched(*args, **options):
            result = function(*args, **options)
            peak[0] = max(peak[0], sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
            return result

        return watched

    def build(free):
        monkeypatch.setattr(index_folders.shutil, "disk_usage", lambda path: usage._replace(free=free))
        shutil.rmtree(build_index(database, tmp_path / "index", kind, block_bytes=block_bytes))

    monkeypatch.setattr(index_folders, "_write_index", watch(index_folders._write_index))
    monkeypatch.setattr(index_folders.subprocess, "run", watch(subprocess.run))  # merges
    build(usage.free)
    assert peak[0] > 0
    with pytest.raises(OSError, match="GB free"):
        build(peak[0] - 1)
    build(3 * peak[0])  # not far too much


SCRIPT = """
import os, resource, signal
import numpy as np
from vpr_lib import index_folders
"""


def test_what_a_killed_build_left_is_removed(database, tmp_path):
    np.save(tmp_path / "d.npy", database)
    script = f"""{SCRIPT}
index_folders.write_json = lambda *args: os.kill(os.getpid(), signal.SIGTERM)
index_folders.build_index(np.load("d.npy"), "index", "ivf-pq", block_bytes={BLOCK_BYTES})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert done.returncode
    assert len(os.listdir(tmp_path)) == 2 and not (tmp_path / "index").exists()
    open_index(build_index(database, tmp_path / "index", "ivf"), database, "ivf")
    assert sorted(os.listdir(tmp_path)) == ["d.npy", "index"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("block_bytes", [2**30, BLOCK_BYTES])
def test_a_disk_that_fills_up_is_an_oserror(database, tmp_path, block_bytes):
    """With small blocks, only the merged lists are too large, which faiss writes in a process of its own."""
    np.save(tmp_path / "d.npy", database)
    script = f"""{SCRIPT}
resource.setrlimit(resource.RLIMIT_FSIZE, ({BLOCK_BYTES + 10_000},) * 2)
try:
    index_folders.build_index(np.load("d.npy"), "index", "ivf-sq8", block_bytes={block_bytes})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout and ("merged" in done.stdout) == (block_bytes == BLOCK_BYTES)
    assert os.listdir(tmp_path) == ["d.npy"]
