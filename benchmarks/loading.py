"""Photos/s that a core loads for training, the kit against the usual recipe, on the same photos in one run.

    python benchmarks/loading.py [--data FOLDER] [--image-size 320] [--photos 256] [--rounds 5]

The usual recipe: a file for each photo, Pillow decode, torchvision's Resize, RandAugment (3 operations), ToTensor and
Normalize, photo by photo. The kit: whole batches of uint8, from a pack or from files, augmented a batch at a time; with
a GPU, the GPU augments and a core only decodes. Each line is CPU time of one process with one thread, so a loaded
machine moves it less. Ratios are taken within a round.
"""

import argparse
import functools
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from core import UsualDataset, make_photos

from vpr_lib.augmentation import augment, normalize
from vpr_lib.images import read_images
from vpr_lib.loading import BatchRequest, PhotoDataset
from vpr_lib.prepare.packs import write_pack
from vpr_lib.settings import get_preset

BATCH_SIZE = 128  # 32 places x 4 photos, as published


def time_usual(table, size, rows):
    """CPU seconds a photo."""
    dataset = UsualDataset(table, size, augment=True)
    start = time.process_time()
    for first in range(0, len(rows), BATCH_SIZE):
        torch.stack([dataset[row][0] for row in rows[first : first + BATCH_SIZE]])
    return (time.process_time() - start) / len(rows)


def time_kit(table, size, rows, on_cpu):
    """CPU seconds a photo; everything, or what is left to a core where a GPU augments and normalizes."""
    settings = replace(get_preset("xs"), image_size=size)
    dataset = PhotoDataset(table, size, transform=functools.partial(augment, settings=settings) if on_cpu else None)
    start = time.process_time()
    for first in range(0, len(rows), BATCH_SIZE):
        photos = dataset[BatchRequest(rows[first : first + BATCH_SIZE], (0, first))]
        if on_cpu:
            normalize(photos.inputs)
    return (time.process_time() - start) / len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of photos; made-up ones of 512 px without it")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            make_photos(Path(folder), num_places=options.photos // 6 + 1)
        files = read_images(options.data or Path(folder))
        pack = read_images(write_pack(files.root, Path(folder) / "pack.zip", options.image_size, progress=False))
        rows = np.random.default_rng(0).permutation(len(files))[: options.photos]
        ways = {
            "usual recipe": lambda: time_usual(files, options.image_size, rows),
            "kit, files, all on the CPU": lambda: time_kit(files, options.image_size, rows, True),
            "kit, pack, all on the CPU": lambda: time_kit(pack, options.image_size, rows, True),
            "kit, files, augmented on a GPU": lambda: time_kit(files, options.image_size, rows, False),
            "kit, pack, augmented on a GPU": lambda: time_kit(pack, options.image_size, rows, False),
        }
        kilobytes = [table.sizes[rows].mean() / 1e3 for table in (files, pack)]
        print(
            f"{len(rows)} photos to {options.image_size} px, {kilobytes[0]:.0f} kB, {kilobytes[1]:.0f} kB in the pack"
        )
        rounds = [{name: way() for name, way in ways.items()} for _ in range(options.rounds + 1)][1:]
    for name in ways:
        rate = 1 / statistics.median(seconds[name] for seconds in rounds)
        ratios = [seconds["usual recipe"] / seconds[name] for seconds in rounds]
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"{name:32} {rate:7.0f} photos/s a core, ratio {statistics.median(ratios):5.2f} ({spread})")


if __name__ == "__main__":
    main()
