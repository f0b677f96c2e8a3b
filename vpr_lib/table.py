"""A folder or pack of photos -> `ImageTable`. File names carry the truth; this is their only parser.

    @UTM_east@UTM_north@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg

Every field but the two UTM coordinates may be empty. In a training set the note is `<place>_<City>`.
"""

import contextlib
import functools
import gc
import hashlib
import math
import mmap
import os
import re
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
FIELDS = (
    *("east", "north", "zone", "letter", "lat", "lon", "pano", "tile", "heading", "pitch", "roll", "height"),
    *("date", "note"),
)
EMPTY = [""] * len(FIELDS)


class PhotoName(NamedTuple):
    """What a photo's file name says. Missing fields: "" for note and zone, NaN for heading, NaT for date."""

    east_m: float
    north_m: float
    heading_deg: float  # 0 <= heading < 360; some names hold 398
    date: np.datetime64  # month resolution
    note: str
    zone: str  # of UTM, with its letter: "10S"


@dataclass(frozen=True)
class ImageTable:
    """Photos and what their names say, one row each, sorted by name.

    Attributes:
        root: the folder or pack (`.zip`) the names are relative to.
        names: (N,) str, POSIX paths below root.
        utm: (N, 2) float64, metres east and north.
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
        """The file of one row, undecoded.

        Raises:
            FileNotFoundError: the photo or the pack is gone.
        """
        if self.offsets[row] >= 0:
            return _read_packed(self.root, int(self.offsets[row]), int(self.sizes[row]))
        path = self.root / self.names[row]
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"photo {path} is gone since the folder was read") from None

    def fingerprint(self) -> str:
        """16 hex digits that change with any photo's name or size; where the folder lies doesn't matter."""
        digest = hashlib.sha256(self.sizes.tobytes())
        for name in self.names:
            digest.update(name.encode() + b"\0")
        return digest.hexdigest()[:16]


def parse_name(name: str) -> PhotoName:
    """Read the fields of one photo's name; folders before it are ignored, `@` in them too.

    Raises:
        ValueError: the name has no UTM coordinates.
    """
    stem = name[name.rfind("/") + 1 :].rpartition(".")[0]
    found = stem.split("@")[1:] + EMPTY
    try:
        east, north = float(found[0]), float(found[1])
    except ValueError:
        east = north = math.nan
    if not (math.isfinite(east) and math.isfinite(north)):
        raise ValueError(f"{name}: no UTM coordinates; expected a name like @544050.17@4174706.96@10@S@...@.jpg")
    try:
        heading = float(found[8] or "nan") % 360.0
    except ValueError:
        heading = math.nan
    return PhotoName(east, north, heading, _parse_month(found[12]), found[13], found[2] + found[3])


def format_name(suffix: str = ".jpg", **fields: object) -> str:
    """A photo's file name in the convention.

    Args:
        suffix: of the file.
        fields: any of `FIELDS`, as they are to be written; the others stay empty.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown fields {', '.join(unknown)}; valid: {', '.join(FIELDS)}")
    texts = [str(fields.get(field, "")).replace("@", "-").replace("/", "-") for field in FIELDS]
    return "@" + "@".join(texts) + "@" + suffix


@functools.lru_cache(maxsize=4096)  # half a million photos are of a few hundred months
def _parse_month(timestamp: str) -> np.datetime64:
    """`201104`, `20110423` or `2011-04-23` -> 2011-04; anything else is unknown."""
    match = re.match(r"(\d{4})[-_]?(0[1-9]|1[0-2])", timestamp)
    return np.datetime64("-".join(match.groups()) if match else "NaT", "M")


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
    """No garbage collection: it would look through the millions of small objects again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_table(root: Path) -> ImageTable:
    if root.is_dir():
        names, sizes, offsets = _list_folder(root)
    elif root.is_file():
        names, sizes, offsets = _list_pack(root)
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
        places=np.array([_place(n, p.note) for n, p in zip(names, parsed, strict=True)], dtype=object),
        headings=np.array([p.heading_deg for p in parsed], dtype=np.float64),
        dates=np.array([p.date for p in parsed], dtype="datetime64[M]"),
        sizes=np.array(sizes, dtype=np.int64)[order],
        offsets=np.array(offsets, dtype=np.int64)[order],
    )


def _place(name: str, note: str) -> str:
    """City folder and note: two cities may number their places alike, or even share a note."""
    return f"{name.rpartition('/')[0]}/{note}".lstrip("/") if note else ""


def _list_folder(root: Path) -> tuple[list[str], list[int], list[int]]:
    names, sizes = [], []
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
    return names, sizes, [-1] * len(names)


def _list_pack(root: Path) -> tuple[list[str], list[int], list[int]]:
    try:
        with zipfile.ZipFile(root) as pack:
            members = [m for m in pack.infolist() if m.filename.lower().endswith(PHOTO_SUFFIXES)]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{root} is no complete zip file ({error}); make or copy the pack again") from None
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{root}: {member.filename} is compressed; a pack is a plain stored zip (zip -0)")
    names = [m.filename for m in members]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{root} holds {twice} twice; make the pack again")
    return names, [m.file_size for m in members], [m.header_offset for m in members]


def _read_packed(pack: Path, header_offset: int, size: int) -> bytes:
    stat = os.stat(pack)
    view = _map_pack(pack, stat.st_mtime_ns, stat.st_size)
    # A stored member: a 30-byte header that ends with the lengths of name and extra field, both, the data.
    name_length, extra_length = struct.unpack_from("<HH", view, header_offset + 26)
    start = header_offset + 30 + name_length + extra_length
    return view[start : start + size]


@functools.lru_cache(maxsize=16)
def _map_pack(pack: Path, mtime_ns: int, size: int) -> mmap.mmap:
    with open(pack, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def find_part(data_root: str | Path, part: str) -> Path:
    """Where a part of a data root lies: the folder `<root>/<part>` or the pack `<root>/<part>.zip`.

    Where both are there, the pack is read, with a warning: it was made of the folder, to be read in its place.

    Args:
        data_root: folder with `train` and evaluation splits.
        part: "train", or the name of a split.

    Raises:
        FileNotFoundError: the root or the part isn't there.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(f"no data root at {root}; expected a folder with train/<city>/*.jpg and splits")
    folder, pack = root / part, root / f"{part}.zip"
    if not (folder.is_dir() or pack.is_file()):
        found = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise FileNotFoundError(f"{root} has no {part}/ or {part}.zip; it holds {found}")
    if folder.is_dir() and pack.is_file():
        warnings.warn(
            f"{pack} is read, not the folder {part}/ beside it; after a change to the folder, pack it again or remove "
            "the pack",
            stacklevel=2,
        )
    return pack if pack.is_file() else folder


def find_splits(data_root: str | Path) -> list[str]:
    """Names of the evaluation splits of a data root: folders with `database` and `queries`, and packs."""
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(f"no data root at {root}; expected a folder with train/<city>/*.jpg and splits")
    folders = {p.name for p in root.iterdir() if (p / "database").is_dir()}
    return sorted(folders | {p.stem for p in root.glob("*.zip") if _is_split(p)})


def _is_split(pack: Path) -> bool:
    try:
        with zipfile.ZipFile(pack) as archive:
            return any(name.startswith("database/") for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{pack} is no complete zip file ({error}); make or copy the pack again") from None


def read_split(data_root: str | Path, split: str) -> tuple[ImageTable, ImageTable]:
    """The database and the queries of an evaluation split.

    Raises:
        FileNotFoundError: the root or the split isn't there.
        ValueError: the split has no database or no queries.
    """
    path = find_part(data_root, split)
    if path.is_dir():
        for half in ("database", "queries"):
            if not (path / half).is_dir():
                raise ValueError(f"split {path} has no {half}/; it needs database/ and queries/ with photos")
        return read_images(path / "database"), read_images(path / "queries")
    table = read_images(path)
    halves = []
    for half in ("database", "queries"):
        mask = np.array([name.startswith(f"{half}/") for name in table.names])
        if not mask.any():
            raise ValueError(f"pack {path} has no photos under {half}/; it needs database/ and queries/")
        halves.append(table[mask])
    return halves[0], halves[1]
