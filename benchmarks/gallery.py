"""Time and memory of the gallery on a split as large as sf_xs: 8,000 queries, 27,000 database photos.

    python benchmarks/gallery.py [--queries 8000] [--database 27000] [--steps 300] [--dir FOLDER]

Made-up positions in 1.5 x 1.5 km, and predictions of two made-up models, right for half of the queries; the photos are
hard links to 64 JPEGs of 640 x 480 pixels. Opening is measured from tables and predictions in memory; a step includes
the decoding of thumbnails seen for the first time, and suggestions. Memory is the resident set size (Linux only).
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vpr_lib.analysis.scenarios import SCENARIOS, Label
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import Evaluation
from vpr_lib.file_names import format_name
from vpr_lib.gallery import Gallery, View
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.tags import Tags
from vpr_lib.machine import Machine
from vpr_lib.recall import find_positives, recall_at_k
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings

K = 25
EXTENT_M = 1500  # about 24 positives a query


def write_split(folder, num_database, num_queries):
    """Hard links to a few photos under made-up names."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(64):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((640, 480))) + rng.normal(0, 12, (480, 640, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "photos" / f"{i}.jpg", quality=90)
    for half, count in (("database", num_database), ("queries", num_queries)):
        (folder / "split" / half).mkdir(parents=True)
        for i, (x, y) in enumerate(rng.random((count, 2)) * EXTENT_M):
            fields = {"east": f"{5e5 + x:.2f}", "north": f"{4e6 + y:.2f}", "pano": f"{half}{i}", "heading": i % 360}
            os.link(folder / "photos" / f"{i % 64}.jpg", folder / "split" / half / format_name(date="201604", **fields))


def make_evaluation(database, queries, seed):
    """Predictions: for about half of the queries that have one, a positive first; else photos from anywhere."""
    rng = np.random.default_rng(seed)
    positives = find_positives(database.utm, queries.utm)
    indices = rng.integers(0, len(database), (len(queries), K))
    for row in np.flatnonzero(rng.random(len(queries)) < 0.5):
        indices[row, : len(positives[row])] = positives[row][:K]
    distances = np.sort(rng.random((len(queries), K), dtype=np.float32), axis=1)
    return Evaluation("split", indices, distances, positives, queries.utm, recall_at_k(indices, positives, (1,)))


def read_rss_mb():
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(what, action, values):
    """Print how long an action takes for each value, and how much of a core's time."""
    times, cpu = [], time.process_time()
    for value in values:
        start = time.perf_counter()
        action(value)
        times.append(1000 * (time.perf_counter() - start))
    cpu = 1000 * (time.process_time() - cpu) / len(times)
    print(f"{what:<33} {np.median(times):9.0f} | {np.quantile(times, 0.95):6.0f} | {max(times):6.0f} | {cpu:8.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=8000)
    parser.add_argument("--database", type=int, default=27000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--dir", type=Path, help="where the made-up photos go (the system's temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        write_split(folder, options.database, options.queries)
        database, queries = read_split(folder, "split")
        evaluations = {f"model {seed}": make_evaluation(database, queries, seed) for seed in (1, 2)}
        labels = {name: Label(list(SCENARIOS)[i % len(SCENARIOS)]) for i, name in enumerate(queries.names)}
        runs = {name: Run(folder, Settings()) for name in evaluations}
        before = read_rss_mb()

        start = time.perf_counter()
        browser = Browser(database, queries, evaluations, labels, Tags(folder / "tags-split.csv", queries.names))
        gallery = Gallery(browser, runs, None, Machine())
        print(f"{len(queries):,} queries, {len(database):,} photos: opened in {time.perf_counter() - start:.2f} s")
        opened = read_rss_mb()

        print(f"{'milliseconds':<33} {'median':>9} | {'95%':>6} | {'most':>6} | {'CPU mean':>8}")
        views = [View(scenario, outcome=name) for scenario in SCENARIOS for name in ("all", "a_only", "both_wrong")]
        views += [View(order=order) for order in ("error_a", "similarity_b", "margin_a")] + [View(search="queries77")]
        measure("another selection", gallery.show, views)
        gallery.show(View())
        measure("next query, 5 photos a model", gallery.step, [1] * options.steps)
        stepped = read_rss_mb()
        gallery.show(replace(View(), num_shown=10, positives=True))
        measure("next query, 10 and the positives", gallery.step, [7] * options.steps)
        buttons = list(gallery.layout.tag_buttons.values())
        measure("a tag", lambda i: buttons[i % len(buttons)].click(), range(60))
        print(f"memory: {before:.0f} MB before, {opened:.0f} opened, {stepped:.0f} and {read_rss_mb():.0f} after steps")


if __name__ == "__main__":
    main()
