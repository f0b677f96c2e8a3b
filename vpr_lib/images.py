"""The photos of a folder or pack as one table: names, positions, places, headings, dates."""

import contextlib
import functools
import gc
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vpr_lib.file_names import PHOTO_SUFFIXES, PhotoName, parse_name
from vpr_lib.stored_zip import list_photos, read_member


@dataclass(frozen=True)
class ImageTable:
    """Photos and what their names say, one row each, sorted by name."""

    root: Path  # the folder or pack (`.zip`) the names are relative to
    names: np.ndarray  # (N,) str, POSIX paths below root
    utm: np.ndarray  # (N, 2) float64, meters east and north
    places: np.ndarray  # (N,) str, unique over cities ("sanfrancisco/00001_SanFrancisco"); "" where the name holds none
    headings: np.ndarray  # (N,) float64, degrees in [0, 360); NaN where unknown
    dates: np.ndarray  # (N,) datetime64[M]; NaT where unknown
    sizes: np.ndarray  # (N,) int64, bytes of each file
    offsets: np.ndarray  # (N,) int64, where each file's header starts in the pack; -1 in a folder

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray | slice) -> "ImageTable":
        """The table of some rows: an index array, a boolean mask or a slice."""
        columns = fields(self)[1:]  # all but the root
        return ImageTable(self.root, *(getattr(self, column.name)[rows] for column in columns))

    def read_bytes(self, row: int) -> bytes:
        """The undecoded file of one row; if it no longer exists, a FileNotFoundError names it."""
        if self.offsets[row] >= 0:
            return read_member(self.root, int(self.offsets[row]), int(self.sizes[row]))
        path = self.root / self.names[row]
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"photo {path} no longer exists; it did when its folder was listed") from None

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any photo's name or size, but not with the folder's path."""
        names = b"".join(name.encode() + b"\0" for name in self.names)
        return hashlib.sha256(self.sizes.tobytes() + names).hexdigest()[:16]


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """No garbage collection within: with millions of small objects it takes long and frees nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_paused_collector()
def read_images(folder_or_zip: str | Path) -> ImageTable:
    """List the photos of a folder (and its subfolders) or of a pack (a `.zip` without compression).

    Raises:
        FileNotFoundError: there is no such folder or pack.
        ValueError: it holds no photo, or a name holds no UTM coordinates.
    """
    root = Path(folder_or_zip)
    if root.is_dir():
        photos = sorted(_list_folder(root))
    elif root.is_file():
        photos = sorted(list_photos(root))
    else:
        raise FileNotFoundError(f"no folder or pack at {root}; expected photos named @east@north@...@.jpg there")
    if not photos:
        raise ValueError(f"{root} holds no photos ({', '.join(PHOTO_SUFFIXES)})")
    names, sizes, offsets = zip(*photos, strict=True)
    parsed = [parse_name(name) for name in names]
    return ImageTable(
        root=root,
        names=np.array(names, dtype=object),
        utm=np.array([(photo.east_m, photo.north_m) for photo in parsed], dtype=np.float64),
        places=np.array([_format_place(*pair) for pair in zip(names, parsed, strict=True)], dtype=object),
        headings=np.array([photo.heading_deg for photo in parsed], dtype=np.float64),
        dates=np.array([photo.date for photo in parsed], dtype="datetime64[M]"),
        sizes=np.array(sizes, dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64),
    )


def _format_place(name: str, parsed: PhotoName) -> str:
    """City folder and note: two cities may number their places alike, or even share a note."""
    return f"{name.rpartition('/')[0]}/{parsed.note}".lstrip("/") if parsed.note else ""


def _list_folder(root: Path, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Name below the root and size in bytes of each photo under `root / prefix`, and -1 for an offset."""
    with os.scandir(root / prefix) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _list_folder(root, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(PHOTO_SUFFIXES):
                yield prefix + entry.name, entry.stat().st_size, -1
