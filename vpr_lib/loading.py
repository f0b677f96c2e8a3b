"""Rows of a table -> batches of photos or features, in worker processes or threads. All that is random has a seed."""

import contextlib
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from vpr_lib.devices import choose_device, choose_num_workers
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine, count_cores
from vpr_lib.photos import ImageSize, read_photo, read_size


class BatchRequest(NamedTuple):
    """The photos of one batch, and the seed of everything random done to them."""

    rows: np.ndarray  # (B,) int64, rows of the table
    seed: tuple[int, ...] = ()
    part: tuple[int, int] = (0, 0)  # of a batch that processes share: first position, and the whole batch's size


class Batch(NamedTuple):
    """A loaded batch."""

    inputs: torch.Tensor  # images (B, 3, H, W) uint8, or features (B, C, h, w) of `FeatureDataset`
    rows: torch.Tensor  # (B,) int64, rows of the table
    seed: tuple[int, ...]
    part: tuple[int, int] = (0, 0)


class PhotoDataset(torch.utils.data.Dataset):
    """Loads whole batches: `dataset[BatchRequest(rows, seed)]` -> `Batch`.

    Args:
        image_size: pixels, one number or (height, width).
        cache_gb: keep decoded photos in memory that workers share, if all of them fit into this; GB.
        transform: (images (B, 3, H, W) uint8, seed, part=...) -> images, applied to each batch.
    """

    def __init__(
        self, table: ImageTable, image_size: ImageSize, cache_gb: float = 0.0, transform: Callable | None = None
    ) -> None:
        self.table = table
        self.transform = transform
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        _warn_of_small_pack(table, self.image_size)
        shape = (len(table), 3, *self.image_size)
        fits = math.prod(shape) <= cache_gb * 1e9
        self.cache = _empty_images(*shape).share_memory_() if fits else None
        self.is_cached = torch.zeros(len(table), dtype=torch.bool).share_memory_() if fits else None

    def __getitem__(self, request: BatchRequest) -> Batch:
        images = _empty_images(len(request.rows), 3, *self.image_size)
        with _map_in_threads() as map_each:
            for image, loaded in zip(images, map_each(self.read, request.rows.tolist()), strict=True):
                image[:] = loaded
        if self.transform is not None:
            images = self.transform(images, request.seed, part=request.part)
        return Batch(images, torch.as_tensor(request.rows), request.seed, request.part)

    def read(self, row: int) -> torch.Tensor:
        """(3, H, W) uint8, from the cache where it holds the photo."""
        if self.cache is not None and self.is_cached[row]:
            return self.cache[row]
        image = torch.from_numpy(read_photo(self.table, row, self.image_size))
        if self.cache is not None:
            self.cache[row] = image
            self.is_cached[row] = True
        return image

    def fill_cache(self, progress: bool, rows: np.ndarray | slice = slice(None)) -> None:
        """Decode the photos of some rows that the cache doesn't hold yet."""
        rows = np.arange(len(self.table))[rows]
        rows = rows[~self.is_cached.numpy()[rows]].tolist()
        bar = tqdm(total=len(rows), unit="photo", desc="decoding", disable=not (progress and rows), leave=False)
        with _map_in_threads() as map_each, bar:
            for _ in map_each(self.read, rows):
                bar.update()


class FeatureDataset(torch.utils.data.Dataset):
    """Loads batches of features that were computed from photos, see `features.open_features`.

    Args:
        table: the photos.
        path: .npy file of (N, h, w, C), channels last, one row for each photo; it is memory-mapped.
        dtype: of the features; bfloat16 is stored as int16, which NumPy knows.
    """

    def __init__(self, table: ImageTable, path: Path, dtype: torch.dtype) -> None:
        self.table, self.path, self.dtype = table, path, dtype
        self.features = np.load(path, mmap_mode="r")

    def __reduce__(self) -> tuple:
        """A worker process opens the file itself."""
        return FeatureDataset, (self.table, self.path, self.dtype)

    def __getitem__(self, request: BatchRequest) -> Batch:
        features = torch.from_numpy(self.features[request.rows]).view(self.dtype)
        return Batch(features.movedim(-1, 1), torch.as_tensor(request.rows), request.seed, request.part)


@contextlib.contextmanager
def _map_in_threads() -> Iterator[Callable]:
    """`map` with a thread for each core, as Pillow decodes outside Python's lock; plain `map` in a worker process."""
    if torch.utils.data.get_worker_info() is not None:
        yield map
        return
    with ThreadPoolExecutor(count_cores()) as pool:
        yield pool.map


def _empty_images(*shape: int) -> torch.Tensor:
    """(B, 3, H, W) uint8, channels last: the memory order of decoded photos, and what all later steps read fastest."""
    return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)


def _warn_of_small_pack(table: ImageTable, image_size: tuple[int, int]) -> None:
    """Warn if a pack holds smaller photos than are asked for."""
    if not len(table) or table.offsets[0] < 0:
        return
    width, height = read_size(table, 0)
    wanted_height, wanted_width = image_size
    if width < wanted_width or height < wanted_height:
        sizes = f"have {width} x {height} pixels and are enlarged to {wanted_width} x {wanted_height}"
        advice = f"pack the originals again with --size {max(image_size)}, or train smaller"
        warnings.warn(f"the photos in {table.root} {sizes}; {advice}", stacklevel=3)


class _ReturnErrors(torch.utils.data.Dataset):
    """Returns an error instead of raising it: raised in a worker, it would arrive wrapped in the worker's traceback."""

    def __init__(self, dataset: PhotoDataset | FeatureDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, request: BatchRequest) -> Batch | Exception:
        try:
            return self.dataset[request]
        except (ValueError, OSError) as error:
            return error


class BatchLoader(torch.utils.data.DataLoader):
    """A `DataLoader` of `Batch`es; iterating raises what `read_photo` raises, also in a worker."""

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


def load_batches(
    dataset: PhotoDataset | FeatureDataset,
    requests: Iterable[BatchRequest],
    machine: Machine,
    start_method: str | None = None,
) -> BatchLoader:
    """Load batches in order: ahead of their use in worker processes, or when they are used, in threads.

    The latter on a CPU where photos are not augmented: a model takes longer than loading there, and a process that has
    forked workers copies the memory it writes to.

    Args:
        requests: a sampler or a list; iterated again each time the loader is.
        machine: number of processes, and the device; for CUDA, batches are loaded into pinned memory.
        start_method: of the processes; None: "fork" on Linux, whose workers share the table's memory, else the default.
    """
    device = choose_device(machine.device)
    num_workers = choose_num_workers(machine)
    if device.type == "cpu" and isinstance(dataset, FeatureDataset):
        num_workers = 0  # processes would only take cores from the training
    elif device.type == "cpu" and dataset.transform is None:
        if dataset.cache is not None:
            listed = [request.rows for request in requests] if isinstance(requests, list) else []  # a sampler takes all
            dataset.fill_cache(machine.progress, np.concatenate(listed) if listed else slice(None))
        num_workers = 0 if dataset.cache is not None or machine.num_workers < 0 else num_workers
    if start_method is None and sys.platform == "linux":
        start_method = "fork"
    return BatchLoader(
        _ReturnErrors(dataset),
        batch_size=None,
        sampler=requests,
        num_workers=num_workers,
        collate_fn=torch.nn.Identity(),  # the dataset returns whole batches
        pin_memory=device.type == "cuda",
        multiprocessing_context=start_method if num_workers else None,
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own: drawing from the global one would break the exact resume
    )


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training loop, which then saves
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the parent's says what became of the parent
    cv2.setNumThreads(0)  # OpenCV's thread pool doesn't survive a fork
