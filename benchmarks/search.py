"""Time, memory and loss of a search as the database grows: exact, and with each kind of index on disk.

    python benchmarks/search.py [--rows 100000 1000000 5000000] [--kinds exact ivf ivf-sq8 ivf-pq] [--dir FOLDER]

Made-up descriptors: 1,024 numbers, unit norm, whose variance falls with the dimension as trained descriptors' does, as
1/i. Half of the rows are places with 10 photos each; the queries are further photos of such places. The other half are
distractors, single photos of places that no query shows; one in five of these looks like one of the places.

Each size and kind runs in a process of its own on the CPU, from a memory-mapped file. R@1 and R@25: percent of the
queries with a photo of their place among the first 1 and 25. Overlap: percent of the exact first 1 and first 25 that
the index finds. Memory, from Linux's /proc, is what the process itself holds (anonymous: Python, torch and faiss
included), without mapped files, whose pages the system takes back when needed. Files are in the page cache as far as
they fit.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from vpr_lib.checked_files import write_array
from vpr_lib.index_folders import build_index, open_index
from vpr_lib.ivf_index import INDEXES, IVF_NPROBE, search_index
from vpr_lib.search import measure_overlap, search_database

SIZE = 1024
K = 25
PHOTOS = 10  # of a place
CHUNK = 20_000  # rows made at a time
LOOK_ALIKE = 0.5  # how far look-alikes are from their place, in standard deviations of places
SPREAD = np.arange(1, SIZE + 1, dtype=np.float32) ** -0.5  # standard deviation of each dimension
NPROBES = (8, IVF_NPROBE, 128)
COLUMNS = ("rows", "index", "nprobe", "build s", "search ms/query", "disk GB", "memory GB", "R@1", "R@25", "overlap")


def draw(rng, number):
    return SPREAD * rng.standard_normal((number, SIZE), dtype=np.float32)


def take_photos(rng, places, farthest):
    """A photo of each place; some are farther from it than others."""
    scale = rng.uniform(0.3, farthest, (len(places), 1)).astype(np.float32)
    photos = places + scale * draw(rng, len(places))
    return photos / np.linalg.norm(photos, axis=1, keepdims=True)


def make_chunk(start, num_rows, num_queries):
    """Rows from `start` on, queries of some of their places, and the first row of each query's place."""
    rng = np.random.default_rng(start)
    count = min(CHUNK, num_rows - start)
    places = draw(rng, count // 2 // PHOTOS)
    distractors = draw(rng, count - PHOTOS * len(places))
    similar = len(distractors) // 5
    distractors[:similar] = places[rng.integers(len(places), size=similar)] + LOOK_ALIKE * distractors[:similar]
    rows = [take_photos(rng, places.repeat(PHOTOS, axis=0), 1.0), take_photos(rng, distractors, 1.0)]
    chosen = rng.integers(len(places), size=num_queries)
    return np.concatenate(rows), take_photos(rng, places[chosen], 1.5), start + PHOTOS * chosen


def write_files(folder, num_rows, num_queries):
    """database.npy and queries.npz."""
    starts = range(0, num_rows, CHUNK)
    shares = [len(part) for part in np.array_split(np.arange(num_queries), len(starts))]
    queries, truth = [], []

    def make_all():
        with ThreadPoolExecutor(2) as pool:
            for group in range(0, len(starts), 8):  # limits the memory
                jobs = zip(starts[group : group + 8], shares[group : group + 8], strict=True)
                for rows, asked, place in pool.map(lambda job: make_chunk(job[0], num_rows, job[1]), jobs):
                    queries.append(asked)
                    truth.append(place)
                    yield rows

    write_array(folder / "database.npy", num_rows, make_all())
    np.savez(folder / "queries.npz", queries=np.concatenate(queries), truth=np.concatenate(truth))


def run_search(folder, kind):
    """The child's work: a JSON row for each nprobe into <kind>.json, and exact.npy."""
    peak, done = [0.0], threading.Event()
    threading.Thread(target=watch_memory, args=(peak, done), daemon=True).start()
    database = np.load(folder / "database.npy", mmap_mode="r")
    files = np.load(folder / "queries.npz")
    queries, truth = files["queries"], files["truth"]
    rows = []
    if kind != "exact":
        start = time.perf_counter()
        build_index(database, folder / kind, kind)
        build_s = time.perf_counter() - start
        index = open_index(folder / kind, database, kind)
        search_index(index, database, queries[:10], K)  # reads what every search needs
    for nprobe in (None,) if kind == "exact" else NPROBES:
        start = time.perf_counter()
        if kind == "exact":
            indices = search_database(database, queries, K, device="cpu")[1]
            np.save(folder / "exact.npy", indices)
        else:
            indices = search_index(index, database, queries, K, nprobe)[1]
        seconds = time.perf_counter() - start
        right = (indices >= truth[:, None]) & (indices < truth[:, None] + PHOTOS)
        row = {"nprobe": nprobe or "", "search ms/query": f"{1000 * seconds / len(queries):.1f}"}
        row |= {f"R@{k}": f"{100 * right[:, :k].any(1).mean():.1f}" for k in (1, K)}
        if kind != "exact" and (folder / "exact.npy").exists():
            overlap = measure_overlap(indices, np.load(folder / "exact.npy"), (1, K))
            row["overlap"] = " / ".join(f"{overlap[k]:.1f}" for k in (1, K))
        rows.append(row)
    done.set()
    files = [folder / "database.npy"] if kind == "exact" else [*(folder / kind).iterdir()]
    disk = sum(path.stat().st_size for path in files) / 1e9
    for row in rows:
        row |= {"disk GB": f"{disk:.2f}", "memory GB": f"{max(peak):.1f}", "build s": ""}
    if kind != "exact":
        rows[0]["build s"] = f"{build_s:.0f}"
    (folder / f"{kind}.json").write_text(json.dumps(rows))


def watch_memory(peak, done):
    """Append the GB of anonymous memory of this process, until done."""
    while not done.wait(0.02):
        lines = Path("/proc/self/status").read_text().splitlines()
        peak[0] = max(peak[0], *(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("RssAnon")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--kinds", nargs="+", default=INDEXES, choices=INDEXES)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dir", type=Path, help="where the files go, on a disk (the system's temporary folder)")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {options.queries} queries, {SIZE} numbers, k = {K}", flush=True)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for num_rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.dir) as name:
            folder = Path(name)
            needed, free = 2.3 * num_rows * SIZE * 4, shutil.disk_usage(folder).free
            if free < needed:
                sys.exit(f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free in {folder}; choose another --dir")
            write_files(folder, num_rows, options.queries)
            for kind in options.kinds:
                process = multiprocessing.get_context("spawn").Process(target=run_search, args=(folder, kind))
                process.start()
                process.join()
                if process.exitcode:
                    sys.exit(f"the search with index {kind} failed with exit code {process.exitcode}")
                for row in json.loads((folder / f"{kind}.json").read_text()):
                    row |= {"rows": f"{num_rows:,}", "index": kind}
                    print(f"| {' | '.join(str(row.get(column, '')) for column in COLUMNS)} |", flush=True)
                shutil.rmtree(folder / kind, ignore_errors=True)


if __name__ == "__main__":
    main()
