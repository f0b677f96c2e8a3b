"""Photos/s through training, and how much of it is waiting for photos.

    python benchmarks/epoch.py [--data FOLDER_OR_PACK] [--image-size 320] [--places 32] [--workers 2,16] [--compile]

Trains ResNet-18 cropped after layer3 with MixVPR, conv1..layer2 frozen, 4 photos of each place, RandAugment with 3
operations, with the kit's own loop. Photos come from a pack of the training's size (made here if a folder is given) and
are decoded in each epoch. The first epoch starts the workers and warms up; the second one is timed. Without --data,
photos are made up. With a GPU, it augments them.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from core import make_photos

from vpr_lib import training
from vpr_lib.devices import choose_device, choose_dtype, choose_num_workers
from vpr_lib.images import read_images
from vpr_lib.loading import load_batches
from vpr_lib.machine import Machine
from vpr_lib.models import build_model
from vpr_lib.prepare.packs import write_pack
from vpr_lib.settings import get_preset


class Waiting:
    """Sums the time the training waits for batches, in each epoch."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        self.seconds, photos = 0.0, iter(self.loader)
        while True:
            start = time.perf_counter()
            batch = next(photos, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def time_epoch(settings, table, machine, compiled):
    """Photos/s, and the share of the time that is waiting."""
    loaders = []

    def load(*arguments):
        loaders.append(Waiting(load_batches(*arguments)))
        return loaders[0]

    training.load_batches = load
    model = build_model(settings)
    with tempfile.TemporaryDirectory() as folder:
        model = torch.compile(model) if compiled else model
        row = training.train(model, replace(settings, epochs=2), table, folder, machine=machine).history[-1]
    photos = settings.num_places * settings.images_per_place * (len(set(table.places)) // settings.num_places)
    return row["photos_per_s"], loaders[0].seconds / (photos / row["photos_per_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="training photos, a folder or a pack")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--places", type=int, default=32, help="places a batch, 4 photos each")
    parser.add_argument("--batches", type=int, default=8, help="batches an epoch")
    parser.add_argument("--workers", default="-1", help="numbers of loader processes; -1 is what the kit chooses")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model, too")
    options = parser.parse_args()
    device = choose_device("auto")
    with tempfile.TemporaryDirectory() as folder:
        photos = options.data
        if photos is None:
            make_photos(Path(folder), num_places=options.places * options.batches)
            photos = Path(folder) / "train"
        if photos.is_dir():
            photos = write_pack(photos, Path(folder) / "train.zip", options.image_size, progress=False)
        table = read_images(photos)
        names = sorted(set(table.places))[: options.places * options.batches]
        table = table[[place in set(names) for place in table.places]]
        settings = replace(
            get_preset("xs"), weights=None, image_size=options.image_size, num_places=options.places, keep="last"
        )
        name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        print(f"{name}, {choose_dtype('auto', device)}, {options.places} x 4 photos of {options.image_size} px a batch")
        for workers in map(int, options.workers.split(",")):
            machine = Machine(num_workers=workers, cache_gb=0.0, progress=False, save_every_s=1e9)
            for compiled in (False, True) if options.compile else (False,):
                rate, waiting = time_epoch(settings, table, machine, compiled)
                what = f"{choose_num_workers(machine)} workers{', compiled' if compiled else ''}"
                print(f"{what}: {rate:.0f} photos/s, {waiting:.1%} of the time waiting for photos", flush=True)


if __name__ == "__main__":
    main()
