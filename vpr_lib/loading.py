"""Table rows -> uint8 tensors: decoding and resizing, and nothing random but what a batch's seed says."""

import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from vpr_lib.devices import choose_device, choose_num_workers
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine, count_cores
from vpr_lib.photos import read_photo, read_size

# Channel statistics of ImageNet in [0, 1], which all published backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BatchRequest(NamedTuple):
    """Which photos to load together, and the seed of everything random about them."""

    rows: np.ndarray  # (B,) int64, rows of the table
    seed: tuple[int, ...] = ()


class Batch(NamedTuple):
    """A loaded batch."""

    images: torch.Tensor  # (B, 3, H, W) uint8
    rows: torch.Tensor  # (B,) int64, rows of the table
    seed: tuple[int, ...]


class PhotoDataset(torch.utils.data.Dataset):
    """Loads whole batches: `dataset[Batch(rows, seed)]` -> `Photos`.

    Args:
        table: the photos.
        image_size: pixels, one number or (height, width).
        cache_gb: keep decoded photos in memory shared between workers if all of them fit into this.
        transform: (images (B, 3, H, W) uint8, the batch's seed) -> images, applied to each batch.
    """

    def __init__(
        self,
        table: ImageTable,
        image_size: int | tuple[int, int],
        cache_gb: float = 0.0,
        transform: Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor] | None = None,
    ) -> None:
        self.table = table
        self.transform = transform
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        shape = (len(table), 3, *self.image_size)
        check_pack_size(table, self.image_size)
        self.cache = self.cached = None
        if np.prod(shape, dtype=np.float64) <= cache_gb * 1e9:
            self.cache = empty_photos(*shape).share_memory_()
            self.cached = torch.zeros(len(table), dtype=torch.bool).share_memory_()

    def __getitem__(self, batch: BatchRequest) -> Batch:
        images = empty_photos(len(batch.rows), 3, *self.image_size)
        for image, row in zip(images, batch.rows, strict=True):
            image[:] = self.read(int(row))
        if self.transform is not None:
            images = self.transform(images, batch.seed)
        return Batch(images, torch.as_tensor(batch.rows), batch.seed)

    def read(self, row: int) -> torch.Tensor:
        """(3, H, W) uint8, from the cache where it holds the photo."""
        if self.cache is not None and self.cached[row]:
            return self.cache[row]
        image = torch.from_numpy(read_photo(self.table, row, self.image_size))
        if self.cache is not None:
            self.cache[row] = image
            self.cached[row] = True
        return image

    def fill_cache(self, progress: bool) -> None:
        """Decode what the cache doesn't hold yet. Threads will do: Pillow works outside Python's lock."""
        rows = np.flatnonzero(~self.cached.numpy()).tolist()
        if not rows:
            return
        with (
            ThreadPoolExecutor(count_cores()) as pool,
            tqdm(total=len(rows), unit="photo", desc="decoding", disable=not progress, leave=False) as bar,
        ):
            for _ in pool.map(self.read, rows):
                bar.update()


def empty_photos(*shape: int) -> torch.Tensor:
    """(B, 3, H, W) uint8 in the memory order of decoded photos, channels last, which all that follows reads fastest."""
    return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)


def check_pack_size(table: ImageTable, image_size: tuple[int, int]) -> None:
    """Warn where a pack was made of smaller photos than are asked for."""
    if len(table) and table.offsets[0] >= 0:
        width, height = read_size(table, 0)
        if width < image_size[1] or height < image_size[0]:
            warnings.warn(
                f"the photos in {table.root} have {width} x {height} pixels and are enlarged to {image_size[1]} x "
                f"{image_size[0]}; pack the originals again with --size {max(image_size)}, or train smaller",
                stacklevel=3,
            )


class _ErrorsAsItems(torch.utils.data.Dataset):
    """Hands errors over as items: raised in a worker, they would arrive wrapped in its traceback."""

    def __init__(self, dataset: PhotoDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, batch: BatchRequest) -> Batch | Exception:
        try:
            return self.dataset[batch]
        except (ValueError, OSError) as error:
            return error


class BatchLoader:
    """Iterates a `DataLoader` of whole batches; raises what went wrong in its workers."""

    def __init__(self, loader: torch.utils.data.DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for photos in self.loader:
            if isinstance(photos, Exception):
                raise photos
            yield photos


def load_batches(dataset: PhotoDataset, batches: Iterable[BatchRequest], machine: Machine) -> BatchLoader:
    """Load batches in order: ahead of their use, in processes of their own, or on a CPU from memory if all fit into it.

    Args:
        dataset: what to load from.
        batches: a sampler, or a list of batches; iterated anew each time the loader is.
        machine: says how many processes, and the device; for CUDA, photos are loaded into pinned memory.

    Returns:
        An iterable of `Photos`; raises as `PhotoDataset.read` does.
    """
    on_cpu = choose_device(machine.device).type == "cpu"
    if on_cpu and dataset.cache is not None and dataset.transform is None:
        dataset.fill_cache(machine.progress)  # processes would only take the cores from the training
        num_workers = 0
    else:
        num_workers = choose_num_workers(machine)
    loader = torch.utils.data.DataLoader(
        _ErrorsAsItems(dataset),
        batch_size=None,
        sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_loaded,
        pin_memory=choose_device(machine.device).type == "cuda",
        # Forked workers share the table's pages; elsewhere than on Linux forking isn't safe.
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        persistent_workers=num_workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own: iterating must not draw from the global one, or a resume would differ
    )
    return BatchLoader(loader)


def _as_loaded(photos: Batch | Exception) -> Batch | Exception:
    return photos  # the dataset gives whole batches


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training loop, which then saves
    cv2.setNumThreads(0)  # its thread pool doesn't survive the fork
