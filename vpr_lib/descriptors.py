"""Model + photos -> float32 descriptors (N, D), streamed in batches, cached by model and data."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vpr_lib.augment import normalise
from vpr_lib.backbones import ResNet
from vpr_lib.datasets import Batch, PhotoDataset, load_batches
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.files import open_atomically
from vpr_lib.model import fingerprint
from vpr_lib.settings import Machine
from vpr_lib.table import ImageTable, read_images


def extract(
    model: nn.Module,
    folder_or_zip: str | Path | ImageTable,
    image_size: int | tuple[int, int],
    cache_dir: str | Path | None = None,
    precision: str = "auto",
    machine: Machine | None = None,
) -> np.ndarray:
    """Descriptors of all photos.

    Args:
        model: maps normalised images (B, 3, H, W) to descriptors (B, D); it is not changed.
        folder_or_zip: photos, or their table.
        image_size: pixels, one number or (height, width).
        cache_dir: keep the result here, and read it when the same model, photos and size come again.
        precision: "auto" (bfloat16 where the processor is faster with it), "float32", "bfloat16" or "float16".
        machine: device, workers and batch size.

    Returns:
        (N, D) float32 in the order of `read_images`.

    Raises:
        ValueError: a photo can't be read; the message names it.
    """
    machine = machine or Machine()
    table = folder_or_zip if isinstance(folder_or_zip, ImageTable) else read_images(folder_or_zip)
    dataset = PhotoDataset(table, image_size)
    if cache_dir is None:
        return extract_dataset(model, dataset, precision, machine)
    dtype = choose_dtype(precision, choose_device(machine.device))
    key = f"{fingerprint(model)}-{table.fingerprint()}-{dataset.image_size}-{dtype}"
    path = Path(cache_dir) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as file:
            np.save(file, extract_dataset(model, dataset, precision, machine))
    return np.load(path)


@torch.inference_mode()
def extract_dataset(model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine) -> np.ndarray:
    """As `extract`, for a dataset that already stands (and may hold decoded photos)."""
    device = choose_device(machine.device)
    dtype = choose_dtype(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    model = prepare_for_inference(model, device)
    rows = np.arange(len(dataset.table))
    batches = [Batch(rows[i : i + machine.eval_batch_size]) for i in range(0, len(rows), machine.eval_batch_size)]
    descriptors: np.ndarray | None = None
    loader = load_batches(dataset, batches, machine)
    with tqdm(total=len(rows), unit="photo", desc="descriptors", disable=not machine.progress, leave=False) as bar:
        for photos in loader:
            images = normalise(photos.images.to(device, non_blocking=True))
            with autocast(device, dtype):
                output = model(images).float().cpu().numpy()
            if descriptors is None:
                descriptors = np.empty((len(rows), output.shape[1]), dtype=np.float32)
            descriptors[photos.rows] = output
            bar.update(len(output))
    return descriptors


def prepare_for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy for inference: eval mode, channels_last, BatchNorm folded into the convolutions."""
    model = copy.deepcopy(model).eval().to(device, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, ResNet):
            module.fold_batchnorm()
    return model
