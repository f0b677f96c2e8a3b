"""Trains the starter weights: a ResNet-18 trunk, from scratch, on a larger rendered city.

python -m vpr_lib.city.pretrain --data FOLDER --out FILE     renders, trains, writes the file; resumes where it stopped
"""

import argparse
import sys
from dataclasses import replace

import torch

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checkpoints import to_bytes
from vpr_lib.city.render import write_city
from vpr_lib.city.views import CitySettings
from vpr_lib.machine import Machine
from vpr_lib.runs import train_run
from vpr_lib.settings import Settings

# `data/mini` has seed 0, so it has none of these cities. It has more dim photos and more varied cameras.
CITY = CitySettings(
    seed=777, size=128, cities=24, places=3000, photos_per_place=8, val_database=200, val_queries=100, test_database=32,
    test_queries=6, tokyo_database=32, tokyo_places=2, dim_share=0.4, difficulty=1.3,
)  # fmt: skip
# Without augmentation: with it, eight epochs on these 24,000 photos learned no more than two epochs without.
TRAINING = Settings(
    weights=None, freeze_until=None, standardize=True, aggregator="ConvAP", image_size=96, num_places=16,
    randaugment_ops=0, scheduler="CosineAnnealingLR", warmup_steps=50, epochs=16, keep="last",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Render, train and write the backbone in float16 with torchvision's names; 130 if it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/pretrain", help="where the photos are rendered (data/pretrain)")
    parser.add_argument("--run", default="runs/pretrain", help="the run folder (runs/pretrain)")
    parser.add_argument("--out", required=True, help="the weights file to write")
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs)
    options = parser.parse_args(arguments)
    write_city(options.data, CITY)
    run = train_run(replace(TRAINING, epochs=options.epochs), options.data, options.run, machine=Machine(cache_gb=2.0))
    if not run.complete:
        return 130
    state = run.load_model().backbone.model.state_dict()
    trunk = to_bytes({key: value.half() if value.is_floating_point() else value for key, value in state.items()})
    write_atomically(options.out, trunk)
    print(f"{options.out}: {len(trunk) / 1e6:.1f} MB; torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
