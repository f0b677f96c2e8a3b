"""The starter weights: train a ResNet-18 trunk from scratch on a far larger rendered city.

python -m vpr_lib.city.pretrain --data FOLDER --out FILE     renders, trains, writes; goes on where it was stopped
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checkpoints import to_bytes
from vpr_lib.city.render import write_city
from vpr_lib.city.views import CitySettings
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run
from vpr_lib.runs import train_run
from vpr_lib.settings import Settings

# Seeds of `data/mini` start at 0, so none of these cities is in it. More dim photos and bolder cameras than there.
CITY = CitySettings(
    seed=777,
    size=128,
    cities=24,
    places=3000,
    photos_per_place=8,
    val_database=200,
    val_queries=100,
    test_database=32,
    test_queries=6,
    tokyo_database=32,
    tokyo_places=2,
    dim_share=0.4,
    difficulty=1.3,
)
TRAINING = Settings(
    weights=None,
    freeze_until=None,
    standardize=True,
    aggregator="ConvAP",
    image_size=96,
    num_places=16,
    # 24,000 photos differ enough: with two operations and crops, eight epochs learned no more than two do without.
    randaugment_ops=0,
    scheduler="CosineAnnealingLR",
    warmup_steps=50,
    epochs=16,
    keep="last",
)


def save_trunk(run: Run, path: str | Path) -> Path:
    """Write a run's trunk as `weights="city"` reads it: float16, torchvision's names."""
    state = run.load_model().backbone.model.state_dict()
    trunk = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    write_atomically(Path(path), to_bytes(trunk))
    return Path(path)


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
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
    print(f"{save_trunk(run, options.out)}: {Path(options.out).stat().st_size / 1e6:.1f} MB; torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
