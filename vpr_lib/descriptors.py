"""Model + photos -> float32 descriptors (N, D), computed batch by batch, saved by model and photos."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from vpr_lib.augmentation import normalize
from vpr_lib.backbones import fold_batchnorm
from vpr_lib.checked_files import check_array, hash_text, is_usable, open_array, write_array
from vpr_lib.devices import autocast, choose_device, choose_dtype, keep_freed_memory
from vpr_lib.identity import hash_module, hash_weights
from vpr_lib.images import ImageTable, read_images
from vpr_lib.loading import BatchRequest, FeatureDataset, PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.models import split_model
from vpr_lib.processes import (
    check_same,
    count_processes,
    gather_objects,
    get_rank,
    is_main,
    run_on_main,
    share_errors,
    share_rows,
    work_together,
)

PIXELS_PER_BATCH = 1_700_000  # largest number of pixels in a batch on a CPU
Dataset = PhotoDataset | FeatureDataset


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
            file is computed again; where nothing can be written, a warning says so. Of several processes, each
            computes its part; all see the folder.
        precision: "auto" (half precision where the device is faster with it), "float32", "bfloat16" or "float16".
        machine: device, workers and batch size.

    Returns:
        (N, D) float32 in the order of `read_images`. A photo that can't be read is a ValueError that names it.
    """
    with work_together():
        machine = machine or Machine()
        machine = replace(machine, progress=machine.progress and is_main())
        with share_errors():
            table = folder_or_zip if isinstance(folder_or_zip, ImageTable) else read_images(folder_or_zip)
            dataset = PhotoDataset(table, image_size)
        if cache_dir is None:
            return extract_from_dataset(model, dataset, precision, machine)
        dtype = choose_dtype(precision, choose_device(machine.device))
        key = f"{hash_module(model)}-{hash_weights(model)}-{table.fingerprint}-{dataset.image_size}-{dtype}"
        check_same({"model, photos or size": key})
        path = Path(cache_dir) / f"{hash_text(key)}.npy"
        try:
            return save_descriptors(path, model, dataset, precision, machine)
        except OSError as error:
            warnings.warn(f"descriptors can't be saved in {cache_dir} ({error})", stacklevel=2)
            return extract_from_dataset(model, dataset, precision, machine)


def save_descriptors(
    path: Path,
    model: nn.Module,
    dataset: Dataset,
    precision: str,
    machine: Machine,
    convert: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """As `extract_from_dataset`, but the descriptors are kept in a file, which the next call reads.

    Args:
        path: of the file; its name changes with all that changes the descriptors.
        convert: applied to the descriptors (B, D) of each batch, for example a whitening.

    Returns:
        float32 (N, D), memory-mapped if it is large.
    """
    if not run_on_main(lambda: is_usable(path, "the descriptors are computed again")):
        model = split_model(model)[1] if isinstance(dataset, FeatureDataset) else model
        finish = convert or (lambda descriptors: descriptors)
        outputs = (path, model, dataset, precision, machine, "descriptors")
        write_outputs(*outputs, lambda batch: finish(batch.float().numpy()))
    return open_array(path)


def extract_from_dataset(model: nn.Module, dataset: Dataset, precision: str, machine: Machine) -> np.ndarray:
    """As `extract_descriptors`, for an existing dataset, which may hold decoded photos or the model's features."""
    if isinstance(dataset, FeatureDataset):
        _, model = split_model(model)
    with share_errors():
        part = share_rows(len(dataset.table), choose_batch_size(dataset, machine))
        descriptors, start = np.empty((0, 0), dtype=np.float32), 0
        for batch in compute_outputs(model, dataset, precision, machine, "descriptors", part):
            if start == 0:
                descriptors = np.empty((part.stop - part.start, batch.shape[1]), dtype=np.float32)
            descriptors[start : start + len(batch)] = batch.float()
            start += len(batch)
    parts = gather_objects(descriptors)
    return descriptors if len(parts) == 1 else np.concatenate([rows for rows in parts if len(rows)])


def write_outputs(
    path: Path,
    model: nn.Module,
    dataset: Dataset,
    precision: str,
    machine: Machine,
    what: str,
    convert: Callable[[torch.Tensor], np.ndarray],
) -> None:
    """Write what `compute_outputs` yields as one array, each batch converted; an OSError if it can't be written.

    Each of several processes writes a file with its part, `<path>.part<rank>`; the main one joins them.
    """
    part = share_rows(len(dataset.table), choose_batch_size(dataset, machine))
    is_alone = count_processes() == 1
    run_on_main(lambda: _prepare_folder(path))
    with share_errors():
        batches = map(convert, compute_outputs(model, dataset, precision, machine, what, part))
        if part.stop > part.start:
            own = path if is_alone else path.with_name(f"{path.name}.part{get_rank():05}")
            write_array(own, part.stop - part.start, batches)
    if not is_alone:
        run_on_main(lambda: _join_parts(path, len(dataset.table)))


def _list_parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.part?????"))


def _prepare_folder(path: Path) -> None:
    """Make the folder of a file, and remove what killed processes left of its parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in _list_parts(path):
        file.unlink()


def _join_parts(path: Path, num_rows: int) -> None:
    files = _list_parts(path)
    for file in files:
        check_array(file, "start again")
    parts = [np.load(file, mmap_mode="r") for file in files]
    if sum(map(len, parts)) != num_rows:
        raise FileNotFoundError(f"not all parts of {path} are there; its folder must be on a disk all machines see")
    write_array(path, num_rows, (part[i : i + 1000] for part in parts for i in range(0, len(part), 1000)))
    for file in files:
        file.unlink()


def sample_local_features(
    backbone: nn.Module,
    table: ImageTable,
    image_size: int,
    seed: int,
    machine: Machine,
    num_photos: int = 500,
    per_photo: int = 100,
) -> np.ndarray:
    """Columns of the feature maps of some photos, for an aggregator's `initialize`.

    Args:
        backbone: normalized images (B, 3, H, W) to feature maps (B, C, h, w); it is not changed.
        table: the training photos.
        image_size: pixels.
        seed: of the choice of photos and positions.
        machine: device, workers and batch size.
        num_photos: photos to draw at most.
        per_photo: positions to draw of each photo at most.

    Returns:
        float32 (N, C), N <= num_photos * per_photo.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(table), min(num_photos, len(table)), replace=False))
    local_features = []
    dataset = PhotoDataset(table[rows], image_size)
    for maps in compute_outputs(backbone, dataset, "float32", machine, "local features"):
        for positions in maps.flatten(2).transpose(1, 2):  # (h * w, C) of each photo
            local_features.append(positions[rng.permutation(len(positions))[:per_photo]])
    return torch.cat(local_features).numpy()


def extract_from_images(
    model: nn.Module, images: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Descriptors (B, D) float32 of images (B, 3, H, W) uint8, by a model from `prepare_for_inference`."""
    return _forward(model, images, device, dtype).float().numpy()


def prepare_for_inference(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a model in eval mode and channels_last, its BatchNorm folded into the convolutions."""
    model = copy.deepcopy(model).eval().to(device, memory_format=torch.channels_last)
    return fold_batchnorm(model)


def compute_outputs(
    model: nn.Module, dataset: Dataset, precision: str, machine: Machine, what: str, part: slice = slice(None)
) -> Iterator[torch.Tensor]:
    """The model's output for each batch, on the CPU, in the order of the table; `what` names it in the progress bar.

    `part` limits it to some rows of the table.
    """
    device = choose_device(machine.device)
    dtype = choose_dtype(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    model = prepare_for_inference(model, device)
    rows = np.arange(len(dataset.table))[part]
    if not len(rows):
        return
    size = choose_batch_size(dataset, machine)
    requests = [BatchRequest(rows[start : start + size]) for start in range(0, len(rows), size)]
    with tqdm(total=len(rows), unit="photo", desc=what, disable=not machine.progress, leave=False) as bar:
        for batch in load_batches(dataset, requests, machine):
            outputs = _forward(model, batch.inputs, device, dtype)
            bar.update(len(outputs))
            yield outputs


def choose_batch_size(dataset: Dataset, machine: Machine) -> int:
    """64 photos; on a CPU 16 of 320 px: the outputs of larger batches don't stay in the processor's cache."""
    if machine.eval_batch_size:
        return machine.eval_batch_size
    if choose_device(machine.device).type != "cpu" or isinstance(dataset, FeatureDataset):
        return 64
    return min(64, max(1, PIXELS_PER_BATCH // math.prod(dataset.image_size)))


def _forward(model: nn.Module, inputs: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The output, on the CPU, for images (B, 3, H, W) uint8 or features (B, C, h, w)."""
    inputs = inputs.to(device, non_blocking=True)
    with torch.inference_mode(), autocast(device, dtype):
        return model(inputs if inputs.is_floating_point() else normalize(inputs)).cpu()
