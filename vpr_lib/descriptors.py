"""Model + photos -> float32 descriptors (N, D), streamed in batches, cached by model and data."""

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vpr_lib.atomic_files import open_atomically
from vpr_lib.augmentation import normalize
from vpr_lib.backbones import ResNet
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.identity import fingerprint
from vpr_lib.images import ImageTable, read_images
from vpr_lib.loading import BatchRequest, PhotoDataset, load_batches
from vpr_lib.machine import Machine

MAPPED_BYTES = 2**30  # a cached file larger than this stays on the disk, and is memory-mapped


def extract_descriptors(
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
        cache_dir: keep the result here, and read it when the same model, photos and size come again. It is written
            batch by batch, and memory-mapped (read-only) when it exceeds 1 GiB: it may exceed the memory.
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
        write_descriptors(path, model, dataset, precision, machine)
    return np.load(path, mmap_mode="r" if path.stat().st_size > MAPPED_BYTES else None)


def extract_dataset(model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine) -> np.ndarray:
    """As `extract`, for a dataset that already stands (and may hold decoded photos)."""
    descriptors: np.ndarray | None = None
    for start, batch in describe_batches(model, dataset, precision, machine):
        if descriptors is None:
            descriptors = np.empty((len(dataset.table), batch.shape[1]), dtype=np.float32)
        descriptors[start : start + len(batch)] = batch
    return descriptors


def write_descriptors(path: Path, model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine) -> None:
    """`extract_dataset` into a .npy file; no more than a batch is in memory."""
    with open_atomically(path) as file:
        for start, batch in describe_batches(model, dataset, precision, machine):
            if start == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(dataset.table), batch.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch.astype("<f4", copy=False).tobytes())


def describe_batches(
    model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine
) -> Iterator[tuple[int, np.ndarray]]:
    """The first row of each batch and its descriptors (B, D) float32, in the order of the table."""
    device = choose_device(machine.device)
    dtype = choose_dtype(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    model = prepare_for_inference(model, device)
    rows = np.arange(len(dataset.table))
    batches = [
        BatchRequest(rows[i : i + machine.eval_batch_size]) for i in range(0, len(rows), machine.eval_batch_size)
    ]
    loader = load_batches(dataset, batches, machine)
    with tqdm(total=len(rows), unit="photo", desc="descriptors", disable=not machine.progress, leave=False) as bar:
        for photos in loader:
            output = describe_images(model, photos.images, device, dtype)
            bar.update(len(output))
            yield int(photos.rows[0]), output


def describe_images(
    model: nn.Module, images: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Descriptors (B, D) float32 of (B, 3, H, W) uint8, by a model from `prepare_for_inference`."""
    with torch.inference_mode(), autocast(device, dtype):
        return model(normalize(images.to(device, non_blocking=True))).float().cpu().numpy()


def prepare_for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy for inference: eval mode, channels_last, BatchNorm folded into the convolutions."""
    model = copy.deepcopy(model).eval().to(device, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, ResNet):
            module.fold_batchnorm()
    return model
