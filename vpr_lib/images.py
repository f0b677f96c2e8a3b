"""The photos of a folder or pack as one table: names, positions, places, headings, dates."""

import contextlib
import functools
import gc
import hashlib
import io
import os
import unicodedata
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import read_zip, seal_zip
from vpr_lib.file_names import PHOTO_SUFFIXES, PhotoName, parse_name
from vpr_lib.machine import count_cores
from vpr_lib.pack_files import list_files
from vpr_lib.stored_zip import FileEntry, is_photo, list_photos, read_member

LARGE = 20_000  # photos; checksums of so many or more in a folder are kept in a file


@dataclass(frozen=True)
class ImageTable:
    """Photos and what their names say, one row each, sorted by name."""

    root: Path  # the folder or pack (`.zip`, or the glob of its shards) the names are relative to
    shards: tuple[Path, ...]  # the files of a pack; of a folder, the folder itself
    names: np.ndarray  # (N,) str, POSIX paths below root
    utm: np.ndarray  # (N, 2) float64, meters east and north
    zones: np.ndarray  # (N,) str, UTM zone with its letter, "10S"; "" where unknown
    places: np.ndarray  # (N,) str, unique over cities ("sanfrancisco/00001_SanFrancisco"); "" where the name holds none
    headings: np.ndarray  # (N,) float64, degrees in [0, 360); NaN where unknown
    dates: np.ndarray  # (N,) datetime64[M]; NaT where unknown
    sizes: np.ndarray  # (N,) int64, bytes of each file
    offsets: np.ndarray  # (N,) int64, where each file's header starts in the pack; -1 in a folder
    packed_checksums: np.ndarray  # (N,) int64, `checksums` as the pack lists them; -1 in a folder
    shard_numbers: np.ndarray  # (N,) int32, which of `shards` holds each photo

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray | slice) -> "ImageTable":
        """The table of some rows: an index array, a boolean mask or a slice."""
        columns = fields(self)[2:]  # all but the root and shards
        return ImageTable(self.root, self.shards, *(getattr(self, column.name)[rows] for column in columns))

    @property
    def is_packed(self) -> bool:
        """Whether the photos lie in a pack."""
        return len(self) > 0 and self.offsets[0] >= 0

    def locate(self, row: int) -> Path:
        """The path of a row's photo; in a pack, the name in it follows the path of the pack's file."""
        return self.shards[self.shard_numbers[row]] / self.names[row]

    def read_bytes(self, row: int) -> bytes:
        """The undecoded file of one row; errors name it: FileNotFoundError if gone, ValueError if damaged in a pack."""
        if self.is_packed:
            shard = self.shards[self.shard_numbers[row]]
            columns = (self.offsets, self.sizes, self.packed_checksums)  # not names: workers share their memory
            try:
                return read_member(shard, *(int(column[row]) for column in columns))
            except ValueError as error:
                raise ValueError(f"{shard}: {self.names[row]} {error}") from None
        path = self.locate(row)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"photo {path} no longer exists; it did when its folder was listed") from None

    @functools.cached_property
    def checksums(self) -> np.ndarray:
        """(N,) int64, CRC-32 of each file: of a pack as it lists them, of a folder from reading all photos once."""
        return self.packed_checksums if self.is_packed or not len(self) else _read_checksums(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any photo's name or content, but not with the folder's path."""
        names = b"".join(os.fsencode(name) + b"\0" for name in self.names)
        return hashlib.sha256(self.sizes.tobytes() + self.checksums.tobytes() + names).hexdigest()[:16]


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

    Args:
        folder_or_zip: a pack of several shards is given as a glob, `root/train-*-of-003.zip`; a shard's own path reads
            its photos only.

    Raises:
        FileNotFoundError: there is no such folder or pack.
        ValueError: it holds no photo, a name holds no UTM coordinates, two names differ in their suffix only, or the
            shards of a pack are incomplete or do not belong together.
    """
    root = Path(folder_or_zip)
    if root.is_dir():
        shards = [root]
        photos = sorted(_list_folder(root))
    elif shards := list_files(root):
        photos = sorted(list_photos(shards))
    else:
        raise FileNotFoundError(f"no folder or pack at {root}; expected photos named @east@north@...@.jpg there")
    if not photos:
        raise ValueError(f"{root} holds no photos ({', '.join(PHOTO_SUFFIXES)})")
    names, sizes, offsets, checksums, numbers = zip(*photos, strict=True)
    _refuse_twins(root, names)
    parsed = [parse_name(name) for name in names]
    return ImageTable(
        root=root,
        shards=tuple(shards),
        names=np.array(names, dtype=object),
        utm=np.array([(photo.east_m, photo.north_m) for photo in parsed], dtype=np.float64),
        zones=np.array([photo.zone for photo in parsed]),
        places=np.array([_format_place(*pair) for pair in zip(names, parsed, strict=True)], dtype=object),
        headings=np.array([photo.heading_deg for photo in parsed], dtype=np.float64),
        dates=np.array([photo.date for photo in parsed], dtype="datetime64[M]"),
        sizes=np.array(sizes, dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64),
        packed_checksums=np.array(checksums, dtype=np.int64),
        shard_numbers=np.array(numbers, dtype=np.int32),
    )


def _format_place(name: str, parsed: PhotoName) -> str:
    """City (the first folder) and note: two cities may number their places alike, or even share a note."""
    city, slash, _ = name.partition("/")
    return f"{unicodedata.normalize('NFC', city)}/{parsed.note}" if parsed.note and slash else parsed.note


def _list_folder(root: Path, prefix: str = "") -> Iterator[FileEntry]:
    """The photos under `root / prefix`."""
    with os.scandir(root / prefix) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _list_folder(root, f"{prefix}{entry.name}/")
            elif is_photo(entry.name):
                yield FileEntry(prefix + entry.name, entry.stat().st_size)


def _refuse_twins(root: Path, names: tuple[str, ...]) -> None:
    """Raise a ValueError if two names are the same but for their suffix or the Unicode form of their letters."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name.rpartition(".")[0]), name)
        if other is not name:
            raise ValueError(f"{root} holds {other} and {name}, which would count as two photos; remove one")


def _read_checksums(table: ImageTable) -> np.ndarray:
    """(N,) int64, CRC-32 of the files in a folder.

    Those of a large folder are kept in a hidden file beside it, with each photo's size and times of change; the next
    call reads only what has changed since.
    """
    cache = table.root.with_name(f".{table.root.name}-checksums.npz")
    stats = [os.stat(table.root / name) for name in table.names] if len(table) >= LARGE else []
    stamps = np.array([(each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in stats])
    checksums = np.full(len(table), -1)
    names = hashlib.sha256(os.fsencode("\0".join(table.names))).hexdigest()
    if stats:
        with contextlib.suppress(OSError, ValueError, KeyError), np.load(read_zip(cache, "")) as saved:
            if str(saved["names"]) == names:
                checksums = np.where((saved["stamps"] == stamps).all(1), saved["checksums"], -1)
    missing = np.flatnonzero(checksums < 0)
    bar = tqdm(total=len(missing), unit="photo", desc="checksums", leave=False, delay=2)
    with ThreadPoolExecutor(2 * count_cores()) as pool, bar:
        for start in range(0, len(missing), 1000):
            rows = missing[start : start + 1000]
            checksums[rows] = list(pool.map(lambda row: zlib.crc32(table.read_bytes(row)), rows))
            bar.update(len(rows))
    if stats and len(missing):
        buffer = io.BytesIO()
        np.savez(buffer, names=names, stamps=stamps, checksums=checksums)
        with contextlib.suppress(OSError):  # a read-only or full disk: they are read again next time
            write_atomically(cache, seal_zip(buffer.getvalue()))
    return checksums
