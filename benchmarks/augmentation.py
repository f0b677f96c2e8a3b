"""RandAugment in the loader: the kit's (OpenCV) and torchvision's v2, on Pillow images and on tensors, batch by batch.

python benchmarks/augmentation.py --data ROOT          train/ of that root; CPU time of one core, decoding included
"""

import argparse
import functools
import time

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from vpr_lib.augmentation import randaugment
from vpr_lib.data_roots import find_part
from vpr_lib.images import read_images
from vpr_lib.loading import PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.samplers import PlaceSampler


def with_opencv(images, seed, num_ops, part):
    return randaugment(images, seed, num_ops, part=part)


def with_pillow(images, seed, num_ops, part):
    transform = v2.RandAugment(num_ops, 9, interpolation=InterpolationMode.BILINEAR)
    photos = [transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)


def with_tensors(images, seed, num_ops, part):
    transform = v2.RandAugment(num_ops, 9, interpolation=InterpolationMode.BILINEAR)
    return torch.stack([transform(image) for image in images])


def measure(table, image_size, transform, num_batches):
    """CPU milliseconds a photo."""
    loader = load_batches(
        PhotoDataset(table, image_size, transform=transform),
        list(PlaceSampler(table.places, 16, 4))[:num_batches],
        Machine(device="cpu", num_workers=0, progress=False),
    )
    start, count = time.process_time(), 0
    for batch in loader:
        count += len(batch.rows)
    return 1000 * (time.process_time() - start) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data root")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = read_images(find_part(options.data, "train"))
    ways = {"no augmentation": None, "OpenCV": with_opencv, "v2, Pillow": with_pillow, "v2, tensors": with_tensors}
    for image_size, num_ops in ((320, 3), (96, 1)):
        times = {name: [] for name in ways}
        for _ in range(options.rounds):  # in turn, so that other load on the machine affects all of them
            for name, way in ways.items():
                transform = functools.partial(way, num_ops=num_ops) if way else None
                times[name].append(measure(table, image_size, transform, options.batches))
        reference = np.median(times["OpenCV"])
        for name, values in times.items():
            median = np.median(values)
            print(f"{image_size} px, {num_ops} ops: {name:15} {median:.2f} ms a photo, {median / reference:.2f}")


if __name__ == "__main__":
    main()
