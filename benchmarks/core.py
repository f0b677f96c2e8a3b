"""Training step and evaluation of the kit against the usual recipe, on the same photos in one run.

    python benchmarks/core.py [--data ROOT] [--image-size 320] [--places 8] [--rounds 3]

The usual recipe: a file for each photo, Pillow decode, torchvision's Resize, RandAugment, ToTensor and Normalize photo
by photo in loader processes; float32, contiguous; queries described one at a time. Model: ResNet-18 cropped after
layer3, MixVPR; everything trained, or conv1..layer2 frozen as published, or a frozen part whose features the kit has
stored (without augmentation; computing them is not counted). Both train on batches of the same size and
evaluate the same files. It prints seconds and their ratio; ratios are what to quote, as machines differ and are shared.
"""

import argparse
import contextlib
import functools
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from pytorch_metric_learning import losses, miners

from vpr_lib.augmentation import IMAGENET_MEAN, IMAGENET_STD, is_augmented
from vpr_lib.data_roots import read_split
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.images import read_images
from vpr_lib.machine import Machine
from vpr_lib.models import build_model
from vpr_lib.recall import find_positives, recall_at_k
from vpr_lib.samplers import PlaceSampler
from vpr_lib.search import search_database
from vpr_lib.settings import get_preset
from vpr_lib.training import train

KS = (1, 5, 10, 25)
NUM_PLACES = 120  # made up: 480 photos to train on, 120 database photos, 120 queries


def make_photos(root, num_places=24, photos=6, size=512):
    """JPEGs of 512 x 512, 30 to 50 KB as street photos are: places of soft blocks, views with noise."""
    for place in range(num_places):
        blocks = np.random.default_rng(place).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        soft = np.asarray(Image.fromarray(blocks).resize((size, size), Image.Resampling.BICUBIC), dtype=np.int16)
        for view in range(photos):
            noise = np.random.default_rng((place, view)).normal(0, 6, soft.shape)
            part = "train/city" if view < 4 else ("val/database", "val/queries")[view - 4]
            name = f"@{1000 * place + view}@4000000@10@S@@@p{view}@@@@@@201501@{place:05}_City@.jpg"
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8)).save(path, quality=85)


class UsualDataset(torch.utils.data.Dataset):
    """A photo at a time, through Pillow."""

    def __init__(self, table, size, augment):
        steps = [T.Resize((size, size), interpolation=T.InterpolationMode.BILINEAR)]
        steps += [T.RandAugment(num_ops=3, interpolation=T.InterpolationMode.BILINEAR)] if augment else []
        self.transform = T.Compose([*steps, T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
        self.paths = [table.root / name for name in table.names]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        return self.transform(Image.open(self.paths[row]).convert("RGB")), row


def usual_training(settings, table, steps):
    """Seconds a step, the first one (warm-up) left out."""
    model = build_model(settings)
    sampler = PlaceSampler(table.places, settings.num_places, settings.images_per_place)
    batches = [batch.rows.tolist() for batch in sampler][:steps]
    loader = torch.utils.data.DataLoader(
        UsualDataset(table, settings.image_size, is_augmented(settings)), batch_sampler=batches, num_workers=2
    )
    loss_fn = losses.MultiSimilarityLoss(alpha=1, beta=50, base=0)
    miner = miners.MultiSimilarityMiner(epsilon=0.1)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)
    labels = torch.from_numpy(sampler.labels)
    ends = []
    for images, rows in loader:
        descriptors = model(images)
        places = labels[rows]
        loss = loss_fn(descriptors, places, miner(descriptors, places))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return float(np.mean(np.diff(ends)))


def kit_training(settings, table):
    """Seconds a step of the kit's loop, the first epoch (which starts the workers) left out."""
    model = build_model(settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        progress = train(model, replace(settings, epochs=2), table, Path(folder) / "run", machine=MACHINE)
    return settings.num_places * settings.images_per_place / progress.history[-1]["photos_per_s"]


@torch.no_grad()
def usual_descriptors(model, table, size, batch_size):
    loader = torch.utils.data.DataLoader(UsualDataset(table, size, False), batch_size=batch_size, num_workers=2)
    return torch.cat([model(images) for images, _ in loader]).numpy()


def usual_evaluation(model, database, queries, size):
    """From files to predictions; queries come one at a time, as their sizes may differ."""
    database_descriptors = usual_descriptors(model, database, size, 16)
    query_descriptors = usual_descriptors(model, queries, size, 1)
    index = faiss.IndexFlatL2(database_descriptors.shape[1])
    index.add(database_descriptors)
    return index.search(query_descriptors, KS[-1] if len(database) >= KS[-1] else len(database))[1]


def kit_evaluation(model, database, queries, size, precision="auto"):
    extract = functools.partial(extract_descriptors, model, image_size=size, precision=precision, machine=MACHINE)
    return search_database(extract(database), extract(queries), min(KS[-1], len(database)), device="cpu")[1]


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def report(what, usual, kit):
    ratios = np.divide(usual, kit).tolist()
    print(
        f"{what}: usual {statistics.median(usual):.2f} s, kit {statistics.median(kit):.2f} s, "
        f"ratio {statistics.median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        flush=True,
    )


def leave_one_out(descriptors, table):
    """Recall of every photo against all others: finer steps than a small split has."""
    indices = search_database(descriptors, descriptors, KS[-1] + 1, device="cpu")[1]
    others = np.stack([row[row != i][: KS[-1]] for i, row in enumerate(indices)])
    positives = [rows[rows != i] for i, rows in enumerate(find_positives(table.utm, table.utm))]
    return recall_at_k(others, positives, KS)


# Without the cache of decoded photos: sets of the size that 320 px is for don't fit into it.
MACHINE = Machine(device="cpu", progress=False, cache_gb=0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data root with train and val; made-up photos without it")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--places", type=int, default=8, help="places a batch, 4 photos each")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            make_photos(Path(folder), num_places=NUM_PLACES)
        root = options.data or Path(folder)
        settings = replace(get_preset("xs"), weights=None, image_size=options.image_size, num_places=options.places)
        steps = 5
        train_table = read_images(root / "train")
        wanted = np.unique(train_table.places)[: steps * options.places]
        train_table = train_table[np.isin(train_table.places.astype(str), wanted.astype(str))]
        database, queries = read_split(root, "val")
        print(f"{torch.get_num_threads()} threads, {options.image_size} px, {options.places} x 4 photos a batch")

        trainings = {
            "training step, everything trained": replace(settings, freeze_until=None),
            "training step, frozen until layer2": replace(settings, freeze_until="layer2"),
            "training step, frozen until layer2, no augmentation": replace(settings, randaugment_ops=0),
            "training step, frozen until layer3.0, no augmentation, 96 px": replace(
                settings, freeze_until="layer3.0", randaugment_ops=0, image_size=96
            ),
        }
        for what, training in trainings.items():
            usual, kit = [], []
            for _ in range(options.rounds):
                usual.append(usual_training(training, train_table, steps))
                kit.append(kit_training(training, train_table))
            report(what, usual, kit)

        model = build_model(settings).eval()
        usual, kit = [], []
        for _ in range(options.rounds):
            usual.append(timed(usual_evaluation, model, database, queries, options.image_size)[0])
            kit.append(timed(kit_evaluation, model, database, queries, options.image_size)[0])
        report(f"evaluation of {len(database)} + {len(queries)} photos", usual, kit)

        if options.data is None:  # made-up places have one database photo each
            return
        exact = leave_one_out(usual_descriptors(model, database, options.image_size, 16), database)
        fast = leave_one_out(extract_descriptors(model, database, options.image_size, machine=MACHINE), database)
        for k in KS:
            print(f"R@{k}, every database photo against the others: float32 {exact[k]:.2f}, kit {fast[k]:.2f}")
        print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
