"""Frozen features: the output of a model's frozen part for each photo, computed once for all runs that share it.

They lie beside the run folders, in `frozen_features/`: a memory-mapped file for each frozen part (with its weights),
set of photos, image size, precision and kind of device.
"""

import contextlib
import functools
import math
import os
import re
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vpr_lib.atomic_files import STALE_S
from vpr_lib.augmentation import is_augmented, normalize
from vpr_lib.backbones import FrozenPart
from vpr_lib.checked_files import hash_text, is_usable
from vpr_lib.descriptors import write_outputs
from vpr_lib.devices import choose_device, choose_dtype
from vpr_lib.identity import hash_code, hash_module, hash_weights
from vpr_lib.images import ImageTable
from vpr_lib.loading import FeatureDataset, PhotoDataset
from vpr_lib.machine import Machine
from vpr_lib.models import get_last_frozen, split_model
from vpr_lib.photos import decode
from vpr_lib.processes import run_on_main
from vpr_lib.settings import Settings

FOLDER = "frozen_features"
_OURS = re.compile(r"[0-9a-f]{16}\.npy(\..*)?")  # our files, and what a killed process left of one


def open_features(
    model: nn.Module, settings: Settings, table: ImageTable, runs_dir: Path, machine: Machine, what: str = "photos"
) -> FeatureDataset | None:
    """The frozen features of photos: read from their file, or computed and written.

    If there is no room, files that were not used for an hour are deleted, the oldest first.

    Args:
        model: its frozen part computes the features.
        settings: image size, precision, augmentation.
        table: the photos.
        runs_dir: folder of the runs; the features lie in its folder `FOLDER`.
        machine: device, largest size of all files together.
        what: name of the photos in the line that is printed before features are computed.

    Returns:
        The features in the order of the table. None if nothing is frozen, if photos are augmented, if the files would
        exceed `machine.features_gb`, or if the file can't be written, which is a warning.

    Raises:
        ValueError, FileNotFoundError: a photo can't be read.
    """
    frozen, _ = split_model(model)
    if frozen is None or is_augmented(settings) or not machine.features_gb:
        return None
    device = choose_device(machine.device)
    dtype = choose_dtype(settings.precision, device)
    key = (_describe(frozen), table.fingerprint, settings.image_size, dtype, device.type)
    path = runs_dir / FOLDER / f"{hash_text(str(key))}.npy"
    if run_on_main(lambda: _is_usable(path)):
        return FeatureDataset(table, path, dtype)
    size = _measure(frozen, settings.image_size, dtype) * len(table)
    about = f"frozen features (up to {get_last_frozen(model)}) of {len(table):,} {what}, {size / 1e6:,.0f} MB"
    if not run_on_main(lambda: _make_room(path.parent, machine.features_gb * 1e9 - size)):
        _print_once(f"{about}: more than features_gb = {machine.features_gb:g} allows; every run reads the photos")
        return None
    print(f"{about}: computing them once, into {runs_dir.resolve().name}/{FOLDER}/{path.name}", flush=True)
    dataset = PhotoDataset(table, settings.image_size)
    convert = functools.partial(_to_numpy, dtype=dtype)
    try:
        write_outputs(path, frozen, dataset, settings.precision, machine, "features", convert)
        return FeatureDataset(table, path, dtype)
    except FileNotFoundError:  # of a photo
        raise
    except OSError as error:
        warnings.warn(f"frozen features can't be kept ({error}); every run reads the photos", stacklevel=2)
        return None


def _describe(frozen: FrozenPart) -> tuple:
    """What a photo's features depend on: the frozen part's code, structure and weights, and how photos are read."""
    return (hash_code(normalize), hash_code(decode), hash_module(frozen), hash_weights(frozen))


def _is_usable(path: Path) -> bool:
    """Whether a file is there and undamaged; a damaged one is deleted."""
    usable = is_usable(path, "it is computed again")
    with contextlib.suppress(OSError):  # there is none, or the folder can only be read
        os.utime(path) if usable else path.unlink()  # used now
    return usable


def _to_numpy(features: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    """(B, C, h, w) -> (B, h, w, C), in the memory order that convolutions read fastest; bfloat16 as int16."""
    features = features.to(dtype).movedim(1, -1).contiguous()  # a transformer's tokens have three dimensions
    return (features.view(torch.int16) if dtype == torch.bfloat16 else features).numpy()


@torch.no_grad()
def _measure(frozen: FrozenPart, image_size: int, dtype: torch.dtype) -> int:
    """Bytes of one photo's features."""
    image = torch.zeros(1, 3, image_size, image_size, device=next(frozen.parameters()).device)
    return math.prod(frozen(image).shape) * dtype.itemsize


def _make_room(folder: Path, allowed: float) -> bool:
    """Delete files that were not used for long, the oldest first, until the others have at most `allowed` bytes."""
    files = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # another process may have deleted it
            status = path.stat()
            if _OURS.fullmatch(path.name):
                files.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in files) - allowed
    old = sorted(file for file in files if file[0] < time.time() - STALE_S)
    if excess > sum(size for _, size, _ in old):
        return False
    for _, size, path in old:
        if excess > 0:
            print(f"deleting {path}: it was not used for long, and there must be room for others", flush=True)
            with contextlib.suppress(OSError):
                path.unlink()
            excess -= size
    return True


@functools.cache
def _print_once(line: str) -> None:
    print(line, flush=True)
