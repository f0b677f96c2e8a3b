"""Frozen features: what the frozen part of a model makes of photos, computed once for all runs that share it.

They lie beside the run folders, in `features/`: a memory-mapped file for each frozen part (with its weights), set of
photos, image size and precision.
"""

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vpr_lib.augmentation import is_augmented
from vpr_lib.checked_files import DamagedFile, hash_text, read_array, write_array
from vpr_lib.descriptors import compute_outputs
from vpr_lib.devices import choose_device, choose_dtype
from vpr_lib.identity import hash_code, hash_weights
from vpr_lib.images import ImageTable
from vpr_lib.loading import FeatureDataset, PhotoDataset
from vpr_lib.machine import Machine
from vpr_lib.models import FrozenPart, split_model
from vpr_lib.settings import Settings


def open_features(
    model: nn.Module, settings: Settings, table: ImageTable, runs_dir: Path, machine: Machine, what: str = "photos"
) -> FeatureDataset | None:
    """The frozen features of photos: read from their file, or computed and written.

    Where the files exceed `machine.features_gb`, those that were not used for the longest time are deleted.

    Args:
        model: its frozen part computes the features.
        settings: image size, precision, augmentation.
        table: the photos.
        runs_dir: folder of the runs; the features lie in its folder `features`.
        machine: device, largest size of all files together.
        what: name of the photos in the line that is printed before features are computed.

    Returns:
        The features in the order of the table. None if nothing is frozen, if photos are augmented, or if the file would
        exceed `machine.features_gb` or can't be written, which is a warning.
    """
    frozen, _ = split_model(model)
    if frozen is None or is_augmented(settings) or not machine.features_gb:
        return None
    dtype = choose_dtype(settings.precision, choose_device(machine.device))
    backbone = frozen.backbone
    key = (hash_code(type(backbone)), backbone.name, backbone.standardize, backbone.blocks[: backbone.num_frozen])
    key += (hash_weights(nn.ModuleList(backbone.frozen)), table.fingerprint, settings.image_size, dtype)
    path = runs_dir / "features" / f"{hash_text(str(key))}.npy"
    try:
        if path.is_file():
            os.utime(path)  # used now
            return FeatureDataset(table, read_array(path, "it is made again", mapped=True), dtype)
    except (OSError, DamagedFile) as error:
        print(error, flush=True)
    size = _measure(frozen, settings.image_size, dtype) * len(table)
    about = f"frozen features (up to {settings.freeze_until}) of {len(table):,} {what}, {size / 1e6:,.0f} MB"
    if size > machine.features_gb * 1e9:
        limit = f"more than features_gb = {machine.features_gb:g} allows"
        print(f"{about}: {limit}; every run computes them from the photos", flush=True)
        return None
    print(f"{about}: computed once, in {runs_dir.resolve().name}/features/{path.name}", flush=True)
    dataset = PhotoDataset(table, settings.image_size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, machine.features_gb * 1e9 - size)
        outputs = compute_outputs(frozen, dataset, settings.precision, machine, "features")
        write_array(path, len(table), (_to_numpy(batch, dtype) for batch in outputs))
        return FeatureDataset(table, read_array(path, "", mapped=True), dtype)
    except OSError as error:
        warnings.warn(f"frozen features can't be kept ({error}); every run computes them from the photos", stacklevel=2)
        return None


def _to_numpy(features: torch.Tensor, dtype: torch.dtype) -> np.ndarray:
    """(B, C, h, w) -> (B, h, w, C), in the memory order that convolutions read fastest; bfloat16 as int16."""
    features = features.to(dtype).permute(0, 2, 3, 1).contiguous()
    return (features.view(torch.int16) if dtype == torch.bfloat16 else features).numpy()


@torch.no_grad()
def _measure(frozen: FrozenPart, image_size: int, dtype: torch.dtype) -> int:
    """Bytes of one photo's features."""
    image = torch.zeros(1, 3, image_size, image_size, device=next(frozen.parameters()).device)
    return math.prod(frozen(image).shape) * dtype.itemsize


def _make_room(folder: Path, allowed: float) -> None:
    """Delete the files that were not used for the longest time until the others have at most `allowed` bytes."""
    files = sorted(_list_files(folder), reverse=True)
    for _, size, path in files:
        allowed -= size
        if allowed < 0:
            path.unlink(missing_ok=True)


def _list_files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, bytes and path of each feature file."""
    for path in folder.glob("*.npy"):
        status = path.stat()
        yield status.st_mtime, status.st_size, path
