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

from vpr_lib.file_names import PHOTO_SUFFIXES, parse_name
from vpr_lib.stored_zip import list_photos, read_member


@dataclass(frozen=True)
class ImageTable:
    """Photos and what their names say, one row each, sorted by name.

    Attributes:
        root: the folder or pack (`.zip`) the names are relative to.
        names: (N,) str, POSIX paths below root.
        utm: (N, 2) float64, meters east and north.
        places: (N,) str, unique over cities ("sanfrancisco/00001_SanFrancisco"); "" where the name holds none.
        headings: (N,) float64, degrees in [0, 360); NaN where unknown.
        dates: (N,) datetime64[M]; NaT where unknown.
        sizes: (N,) int64, bytes of each file.
        offsets: (N,) int64, where each file's header starts in the pack; -1 in a folder.
    """

    root: Path
    names: np.ndarray
    utm: np.ndarray
    places: np.ndarray
    headings: np.ndarray
    dates: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray | slice) -> "ImageTable":
        """The table of some rows: an index array, a boolean mask or a slice."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "root"}
        return ImageTable(self.root, **columns)

    def read_bytes(self, row: int) -> bytes:
        """The undecoded file of one row.

        Raises:
            FileNotFoundError: the photo or the pack no longer exists.
        """
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
        digest = hashlib.sha256(self.sizes.tobytes())
        for name in self.names:
            digest.update(name.encode() + b"\0")
        return digest.hexdigest()[:16]


def read_images(folder_or_zip: str | Path) -> ImageTable:
    """List the photos of a folder (and its subfolders) or of a pack.

    Args:
        folder_or_zip: a folder, or a `.zip` whose members are stored without compression.

    Returns:
        A table sorted by name.

    Raises:
        FileNotFoundError: there is no such folder or pack.
        ValueError: it holds no photo, or a name holds no UTM coordinates.
    """
    root = Path(folder_or_zip)
    with _paused_collector():
        return _read_table(root)


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


def _read_table(root: Path) -> ImageTable:
    if root.is_dir():
        names, sizes = _list_folder(root)
        offsets = [-1] * len(names)
    elif root.is_file():
        names, sizes, offsets = list_photos(root)
    else:
        raise FileNotFoundError(f"no folder or pack at {root}; expected photos named @east@north@...@.jpg there")
    if not names:
        raise ValueError(f"{root} holds no photos ({', '.join(PHOTO_SUFFIXES)})")
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    names = [names[i] for i in order]
    parsed = [parse_name(name) for name in names]
    return ImageTable(
        root=root,
        names=np.array(names, dtype=object),
        utm=np.array([(p.east_m, p.north_m) for p in parsed], dtype=np.float64),
        places=np.array([_format_place(name, p.note) for name, p in zip(names, parsed, strict=True)], dtype=object),
        headings=np.array([p.heading_deg for p in parsed], dtype=np.float64),
        dates=np.array([p.date for p in parsed], dtype="datetime64[M]"),
        sizes=np.array(sizes, dtype=np.int64)[order],
        offsets=np.array(offsets, dtype=np.int64)[order],
    )


def _format_place(name: str, note: str) -> str:
    """City folder and note: two cities may number their places alike, or even share a note."""
    return f"{name.rpartition('/')[0]}/{note}".lstrip("/") if note else ""


def _list_folder(root: Path) -> tuple[list[str], list[int]]:
    """Names below the root and sizes in bytes of its photos."""
    names = []
    sizes = []
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(f"{prefix}{entry.name}/")
                elif entry.name.lower().endswith(PHOTO_SUFFIXES):
                    names.append(prefix + entry.name)
                    sizes.append(entry.stat().st_size)
    return names, sizes
