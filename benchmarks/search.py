"""How time and memory of a search grow with the database, exact and with inverted lists.

    python benchmarks/search.py [--rows 10000 100000 1000000] [--queries 1000] [--nprobe 32] [--dir FOLDER]

Made-up descriptors: 1,024 numbers, unit norm, 10 photos of each place, whose variance falls with the dimension as
trained descriptors' does (1/i). They are written to a file, and so in the page cache, before a child process of its
own, one for each size and index, maps that file and searches it on the CPU. Overlap: percent of the exact first 1 and
first 25 that the inverted lists find. Peak memory, from Linux's /proc: RSS counts the mapped file's pages, which
the system takes back when it needs them; anonymous memory is what the search itself holds, Python and torch included.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from vpr_lib.search import IVF_NPROBE, build_ivf, measure_overlap, search_database, search_ivf

SIZE = 1024
K = 25
PHOTOS = 10  # of a place
CHUNK = 50_000  # rows made at a time
SPREAD = np.arange(1, SIZE + 1, dtype=np.float32) ** -0.5  # standard deviation of each dimension
FORMAT = "{:>9} | {:>7} | {:>9} | {:>10} | {:>9} | {:>10} | {:>21} | {:>19}"


def make_descriptors(rng, places):
    """A photo of each place."""
    photos = places + 0.5 * SPREAD * rng.standard_normal(places.shape, dtype=np.float32)
    return photos / np.linalg.norm(photos, axis=1, keepdims=True)


def write_files(folder, num_rows, num_queries):
    """database.npy and queries.npy; the queries are other photos of places in the database."""
    database = np.lib.format.open_memmap(folder / "database.npy", "w+", np.float32, (num_rows, SIZE))
    queries = np.empty((num_queries, SIZE), np.float32)
    starts = range(0, num_rows, CHUNK)
    for start, rows in zip(starts, np.array_split(np.arange(num_queries), len(starts)), strict=True):
        rng = np.random.default_rng(start)
        count = min(CHUNK, num_rows - start)
        places = SPREAD * rng.standard_normal((-(-count // PHOTOS), SIZE), dtype=np.float32)
        database[start : start + count] = make_descriptors(rng, places.repeat(PHOTOS, axis=0)[:count])
        queries[rows] = make_descriptors(rng, places[rng.integers(len(places), size=len(rows))])
    database.flush()
    np.save(folder / "queries.npy", queries)


def search_once(folder, index, nprobe):
    """The child's work: seconds and indices into <index>.npz."""
    database, queries = np.load(folder / "database.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    start = time.perf_counter()
    built = build_ivf(database) if index == "ivf" else None
    ready = time.perf_counter()
    _, rows = search_ivf(built, queries, K, nprobe) if built else search_database(database, queries, K, device="cpu")
    end = time.perf_counter()
    np.savez(folder / f"{index}.npz", build_s=ready - start, search_s=end - ready, indices=rows)


def measure(folder, index, nprobe):
    """What `search_once` wrote, and the peaks (RSS, anonymous) in GB of the process that ran it."""
    process = multiprocessing.get_context("spawn").Process(target=search_once, args=(folder, index, nprobe))
    process.start()
    peaks = {"VmHWM": 0.0, "RssAnon": 0.0}
    while process.is_alive():
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]) * 1024 / 1e9)
        time.sleep(0.01)
    if process.exitcode:
        sys.exit(f"the search with index {index} failed with exit code {process.exitcode}")
    return dict(np.load(folder / f"{index}.npz")), "{VmHWM:.2f} / {RssAnon:.2f}".format(**peaks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--nprobe", type=int, default=IVF_NPROBE, help="lists each query is compared with")
    parser.add_argument("--dir", type=Path, help="where the files go, on a disk (the system's temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        needed, free = max(options.rows) * SIZE * 4, shutil.disk_usage(folder).free
        if free < 1.1 * needed:
            sys.exit(f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free in {folder}; choose another --dir")
        print(
            f"{torch.get_num_threads()} threads, {options.queries} queries, {SIZE}-D, k = {K}, nprobe {options.nprobe}"
        )
        print(
            FORMAT.format("rows", "file GB", "exact s", "ivf build", "ivf s", "overlap %", "exact RSS / anon GB", "ivf")
        )
        for num_rows in options.rows:
            write_files(folder, num_rows, options.queries)
            exact, exact_gb = measure(folder, "exact", options.nprobe)
            ivf, ivf_gb = measure(folder, "ivf", options.nprobe)
            overlap = measure_overlap(ivf["indices"], exact["indices"], (1, K))
            seconds = [f"{value:.2f}" for value in (exact["search_s"], ivf["build_s"], ivf["search_s"])]
            shares = " / ".join(f"{overlap[k]:.1f}" for k in (1, K))
            file_gb = f"{num_rows * SIZE * 4 / 1e9:.2f}"
            print(FORMAT.format(f"{num_rows:,}", file_gb, *seconds, shares, exact_gb, ivf_gb), flush=True)


if __name__ == "__main__":
    main()
