"""Table rows -> uint8 tensors: decoding and resizing, and nothing random but what a batch's seed says."""

import contextlib
import io
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from tqdm.auto import tqdm

from vpr_lib.devices import choose_device, choose_num_workers
from vpr_lib.settings import Machine, count_cores
from vpr_lib.table import ImageTable

# Channel statistics of ImageNet in [0, 1], which all published backbones were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Batch(NamedTuple):
    """Which photos to load together, and the seed of everything random about them."""

    rows: np.ndarray  # (B,) int64, rows of the table
    seed: tuple[int, ...] = ()


class Photos(NamedTuple):
    """A loaded batch."""

    images: torch.Tensor  # (B, 3, H, W) uint8
    rows: torch.Tensor  # (B,) int64, rows of the table
    seed: tuple[int, ...]


def decode(data: bytes, image_size: int | tuple[int, int]) -> np.ndarray:
    """Decode and resize one photo (bilinear, antialiased; the aspect ratio is not kept, as published).

    Args:
        data: the file's bytes, JPEG or PNG.
        image_size: pixels, one number for a square or (height, width).

    Returns:
        (3, H, W) uint8, RGB.

    Raises:
        ValueError: the bytes are no readable photo.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with open_photo(data) as photo:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8; twice the wanted size leaves the resize to do.
        photo.draft("RGB", (2 * width, 2 * height))
        photo = ImageOps.exif_transpose(photo).convert("RGB")
        return np.array(photo.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


@contextlib.contextmanager
def open_photo(data: bytes) -> Iterator[Image.Image]:
    """A photo's file, opened by Pillow; what Pillow finds wrong with it, then or later, is a ValueError."""
    try:
        with Image.open(io.BytesIO(data)) as photo:
            yield photo
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"is not a readable photo ({error}); copy it again or remove it") from None


def read_photo(table: ImageTable, row: int, image_size: int | tuple[int, int]) -> np.ndarray:
    """The photo of a row, decoded and resized; see `decode`.

    Raises:
        ValueError: it is not readable; the message names it.
    """
    data = table.read_bytes(row)
    try:
        return decode(data, image_size)
    except ValueError as error:  # only now: looking at a name would copy its memory into each worker
        raise ValueError(f"{table.root / table.names[row]} {error}") from None


def read_thumbnail(table: ImageTable, row: int, max_pixels: int) -> np.ndarray:
    """One photo to look at: its longer side at most `max_pixels`, the aspect ratio kept.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ValueError: it is not readable; the message names it.
    """
    width, height = read_size(table, row)
    scale = min(1.0, max_pixels / max(width, height))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return read_photo(table, row, size).transpose(1, 2, 0)


def read_size(table: ImageTable, row: int) -> tuple[int, int]:
    """Width and height of a photo in pixels, as it is to be looked at.

    Raises:
        ValueError: it is not readable; the message names it.
    """
    try:
        with open_photo(table.read_bytes(row)) as photo:
            on_its_side = photo.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return photo.size[::-1] if on_its_side else photo.size
    except ValueError as error:
        raise ValueError(f"{table.root / table.names[row]} {error}") from None


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

    def __getitem__(self, batch: Batch) -> Photos:
        images = empty_photos(len(batch.rows), 3, *self.image_size)
        for image, row in zip(images, batch.rows, strict=True):
            image[:] = self.read(int(row))
        if self.transform is not None:
            images = self.transform(images, batch.seed)
        return Photos(images, torch.as_tensor(batch.rows), batch.seed)

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

    def __getitem__(self, batch: Batch) -> Photos | Exception:
        try:
            return self.dataset[batch]
        except (ValueError, OSError) as error:
            return error


class BatchLoader:
    """Iterates a `DataLoader` of whole batches; raises what went wrong in its workers."""

    def __init__(self, loader: torch.utils.data.DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Photos]:
        for photos in self.loader:
            if isinstance(photos, Exception):
                raise photos
            yield photos


def load_batches(dataset: PhotoDataset, batches: Iterable[Batch], machine: Machine) -> BatchLoader:
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


def _as_loaded(photos: Photos | Exception) -> Photos | Exception:
    return photos  # the dataset gives whole batches


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training loop, which then saves
    cv2.setNumThreads(0)  # its thread pool doesn't survive the fork
