"""Ranked photos: exact, in chunks, from a file, and approximate."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vpr_lib.search import measure_overlap, search_database, search_sample, search_torch


def make_descriptors(num_rows, size=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def slow_search(database, queries, k):
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - database[None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


@pytest.mark.parametrize("how", ["faiss", "torch"])
@pytest.mark.parametrize("chunk_size", [1000, 50, 7])  # smaller than k, too
def test_search_against_a_sort(how, chunk_size):
    database, queries = make_descriptors(103), make_descriptors(9, seed=1)
    if how == "faiss":
        distances, indices = search_database(database, queries, 10, device="cpu", chunk_size=chunk_size)
    else:
        squared, indices = search_torch(database, queries, 10, "cpu", chunk_size)
        distances = np.sqrt(squared.clip(0))
    expected_distances, expected = slow_search(database, queries, 10)
    assert (indices == expected).all() and indices.dtype == np.int64
    np.testing.assert_allclose(distances, expected_distances, atol=1e-3)
    assert distances.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_database_in_a_file_is_searched_like_one_in_memory(tmp_path, dtype):
    database, queries = make_descriptors(203).astype(dtype), make_descriptors(9, seed=1)
    np.save(tmp_path / "d.npy", database)
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    found = search_database(mapped, queries, 10, device="cpu", chunk_size=32)
    np.testing.assert_array_equal(found[1], slow_search(database.astype(np.float32), queries, 10)[1])


def test_equal_photos_come_in_the_order_of_the_database():
    database = np.repeat(make_descriptors(4), 5, axis=0)  # chunks of 3 cut the groups
    indices = search_database(database, database[::5], 20, device="cpu", chunk_size=3)[1]
    for query, row in enumerate(indices):
        assert row[:5].tolist() == list(range(5 * query, 5 * query + 5))


def test_search_finds_the_photo_itself_at_distance_zero():
    database = np.eye(5, dtype=np.float32)
    distances, indices = search_database(database, database, 1, device="cpu")
    assert indices[:, 0].tolist() == [0, 1, 2, 3, 4] and distances.max() == 0


def test_search_errors():
    database, queries = np.zeros((4, 3), np.float32), np.zeros((2, 3), np.float32)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k = {k}, but the database has 4 photos"):
            search_database(database, queries, k)
    with pytest.raises(ValueError, match=r"expected \(N, D\) and \(Q, D\)"):
        search_database(database, queries[:, :2], 1)
    with pytest.raises(ValueError, match="unknown index 'ivff'; valid: exact, ivf"):
        search_database(database, queries, 1, index="ivff")
    for wrong in ({"chunk_size": 0}, {"chunk_size": -5}, {"nprobe": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            search_database(database, queries, 1, **wrong)


def test_what_is_not_a_number_is_never_found():
    database, queries = make_descriptors(12), make_descriptors(3, seed=1)
    database[5:] = np.nan  # in chunks of 5: all of the second and the third
    indices = search_database(database, queries, 7, device="cpu", chunk_size=5)[1]
    np.testing.assert_array_equal(indices[:, :5], slow_search(database[:5], queries, 5)[1])
    assert (indices[:, 5:] == -1).all()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_is_never_read_as_a_whole(tmp_path):
    """160 MB in a file, 330 as float32; measured is the peak of what the process itself holds (anonymous memory)."""
    database = np.lib.format.open_memmap(tmp_path / "d.npy", "w+", np.float16, (160_000, 512))
    database[:] = make_descriptors(1000, 512).astype(np.float16)[np.arange(160_000) % 1000]
    del database
    script = """
import sys, threading, numpy as np
from vpr_lib.search import search_database
def anonymous():
    return next(int(line.split()[1]) / 1e3 for line in open('/proc/self/status') if line.startswith('RssAnon'))
database = np.load(sys.argv[1], mmap_mode='r')
queries = np.asarray(database[:20], np.float32)
search_database(database[:1000], queries, 5, device='cpu')
before, peak, done = anonymous(), [0.0], threading.Event()
def watch():
    while not done.wait(0.005):
        peak.append(anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
indices = search_database(database, queries, 5, device='cpu', chunk_size=10_000)[1]
done.set()
watcher.join()
assert (indices[:, 0] == np.arange(20)).all(), indices[:, 0]
print(max(peak) - before, len(peak))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "d.npy")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    megabytes, samples = map(float, done.stdout.split())
    assert samples > 5 and megabytes < 150


# Approximate


def make_places(num_places, photos, size=32, seed=0):
    """Descriptors in clusters, as those of places are."""
    rng = np.random.default_rng(seed)
    rows = make_descriptors(num_places, size, seed).repeat(photos, axis=0)
    rows = rows + rng.normal(0, 0.05, rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_ivf_finds_nearly_what_an_exact_search_finds():
    database = make_places(2000, 6)
    queries = make_places(2000, 6)[::97]
    exact = search_database(database, queries, 5, device="cpu")
    found = search_database(database, queries, 5, index="ivf")
    overlap = measure_overlap(found[1], exact[1], (1, 5))
    assert overlap[1] > 95 and overlap[5] > 90
    right = found[1] == exact[1]
    np.testing.assert_allclose(found[0][right], exact[0][right], atol=1e-3)
    again = search_database(database, queries, 5, index="ivf")[1]
    np.testing.assert_array_equal(found[1], again)  # seeded
    fewer = measure_overlap(search_database(database, queries, 5, index="ivf", nprobe=1)[1], exact[1], (5,))
    assert fewer[5] < overlap[5]


def test_overlap_by_hand():
    exact = np.array([[1, 2, 3], [4, 5, 6]])
    found = np.array([[1, 3, 2], [9, 4, 8]])
    assert measure_overlap(found, exact, (1, 2, 3)) == {1: 50.0, 2: 50.0, 3: pytest.approx(200 / 3)}


def test_a_small_database_is_searched_exactly_and_that_is_said():
    database = make_descriptors(100)
    with pytest.warns(UserWarning, match=r"100 photos are too few for index ivf.*exact"):
        found = search_database(database, database[:4], 3, device="cpu", index="ivf")
    np.testing.assert_array_equal(found[1], search_database(database, database[:4], 3, device="cpu")[1])


def test_a_sample_of_queries_is_searched_exactly(monkeypatch):
    database = make_descriptors(300)
    expected = search_database(database, database, 2, device="cpu")[1]
    rows, indices = search_sample(database, database, 2, "cpu", max_queries=200)
    assert len(np.unique(rows)) == 200 and rows.tolist() != sorted(rows)
    np.testing.assert_array_equal(indices, expected[rows])
    monkeypatch.setattr("vpr_lib.search.SAMPLE_COMPARISONS", 300 * 120)  # as with a very large database
    assert len(search_sample(database, database, 2, "cpu")[0]) == 120


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_search_on_a_gpu():
    database, queries = make_descriptors(5000, 64), make_descriptors(50, 64, seed=1)
    found = search_database(database, queries, 5, "cuda", 512)[1]
    assert (found == search_database(database, queries, 5, "cpu")[1]).mean() > 0.999
