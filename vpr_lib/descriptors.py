"""Model + photos -> float32 descriptors (N, D), computed batch by batch, saved by model and photos."""

import copy
import io
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vpr_lib.atomic_files import open_atomically
from vpr_lib.augmentation import normalize
from vpr_lib.backbones import ResNet
from vpr_lib.checked_files import hash_text
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.identity import hash_module, hash_weights
from vpr_lib.images import ImageTable, read_images
from vpr_lib.loading import BatchRequest, PhotoDataset, load_batches
from vpr_lib.machine import Machine

MAPPED_BYTES = 2**30  # a saved file larger than this is memory-mapped instead of read
CHECKSUM_BYTES = 4  # at the end of a saved file, after the array: NumPy doesn't read them


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
        model: maps normalized images (B, 3, H, W) to descriptors (B, D); it is not changed.
        folder_or_zip: photos, or their table.
        image_size: pixels, one number or (height, width).
        cache_dir: folder to save the result in; the same model, photos, size and precision then read it. It is written
            batch by batch, and memory-mapped (read-only) if it exceeds 1 GiB, so it may exceed the memory. A damaged
            file is computed again; where nothing can be written, a warning says so.
        precision: "auto" (half precision where the device is faster with it), "float32", "bfloat16" or "float16".
        machine: device, workers and batch size.

    Returns:
        (N, D) float32 in the order of `read_images`. A photo that can't be read is a ValueError that names it.
    """
    machine = machine or Machine()
    table = folder_or_zip if isinstance(folder_or_zip, ImageTable) else read_images(folder_or_zip)
    dataset = PhotoDataset(table, image_size)
    if cache_dir is None:
        return extract_from_dataset(model, dataset, precision, machine)
    dtype = choose_dtype(precision, choose_device(machine.device))
    key = f"{hash_module(model)}-{hash_weights(model)}-{table.fingerprint}-{dataset.image_size}-{dtype}"
    path = Path(cache_dir) / f"{hash_text(key)}.npy"
    if path.is_file() and not _is_undamaged(path):
        print(f"{path} is damaged: the descriptors are computed again", flush=True)
        path.unlink()
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_descriptors(path, model, dataset, precision, machine)
        except OSError as error:
            warnings.warn(f"descriptors can't be saved in {cache_dir} ({error})", stacklevel=2)
            return extract_from_dataset(model, dataset, precision, machine)
    return np.load(path, mmap_mode="r" if path.stat().st_size > MAPPED_BYTES else None)


def extract_from_dataset(model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine) -> np.ndarray:
    """As `extract_descriptors`, for an existing dataset, which may hold decoded photos."""
    descriptors: np.ndarray | None = None
    for start, batch in _extract_batches(model, dataset, precision, machine):
        if descriptors is None:
            descriptors = np.empty((len(dataset.table), batch.shape[1]), dtype=np.float32)
        descriptors[start : start + len(batch)] = batch
    return descriptors


def extract_from_images(
    model: nn.Module, images: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Descriptors (B, D) float32 of images (B, 3, H, W) uint8, by a model from `prepare_for_inference`."""
    with torch.inference_mode(), autocast(device, dtype):
        return model(normalize(images.to(device, non_blocking=True))).float().cpu().numpy()


def prepare_for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a model in eval mode and channels_last, its BatchNorm folded into the convolutions."""
    model = copy.deepcopy(model).eval().to(device, memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, ResNet):
            module.fold_batchnorm()
    return model


def _extract_batches(
    model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine
) -> Iterator[tuple[int, np.ndarray]]:
    """First row and descriptors (B, D) float32 of each batch, in the order of the table."""
    device = choose_device(machine.device)
    dtype = choose_dtype(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    model = prepare_for_inference(model, device)
    rows = np.arange(len(dataset.table))
    starts = range(0, len(rows), machine.eval_batch_size)
    requests = [BatchRequest(rows[start : start + machine.eval_batch_size]) for start in starts]
    with tqdm(total=len(rows), unit="photo", desc="descriptors", disable=not machine.progress, leave=False) as bar:
        for batch in load_batches(dataset, requests, machine):
            descriptors = extract_from_images(model, batch.images, device, dtype)
            bar.update(len(descriptors))
            yield int(batch.rows[0]), descriptors


def _write_descriptors(path: Path, model: nn.Module, dataset: PhotoDataset, precision: str, machine: Machine) -> None:
    """`extract_from_dataset` into a .npy file that ends with its CRC-32, with no more than a batch in memory."""
    checksum = 0
    with open_atomically(path) as file:
        for start, batch in _extract_batches(model, dataset, precision, machine):
            data = batch.astype("<f4", copy=False).tobytes()
            if start == 0:
                header = io.BytesIO()
                shape = (len(dataset.table), batch.shape[1])
                np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
                data = header.getvalue() + data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        file.write(checksum.to_bytes(CHECKSUM_BYTES, "little"))


def _is_undamaged(path: Path) -> bool:
    """Whether a file of `_write_descriptors` ends with the checksum of all before it."""
    checksum, left = 0, path.stat().st_size - CHECKSUM_BYTES
    with open(path, "rb") as file:
        while data := file.read(max(0, min(left, 2**24))):
            checksum = zlib.crc32(data, checksum)
            left -= len(data)
        return left == 0 and file.read() == checksum.to_bytes(CHECKSUM_BYTES, "little")
