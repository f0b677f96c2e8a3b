"""A data root: a folder with `train` and evaluation splits, each a folder or a pack.

<root>/train/<city>/*.jpg                            photos to train on
<root>/<split>/{database,queries}/**/*.jpg           photos to evaluate on
<root>/train.zip, <root>/<split>.zip                 the same as packs
"""

import functools
import hashlib
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.images import ImageTable, read_images


class Split(NamedTuple):
    """The two halves of an evaluation split."""

    database: ImageTable
    queries: ImageTable


class DataRoot:
    """A data root whose photos are listed once, when they are first needed.

    Args:
        folder: of the root. A new `DataRoot` sees changes to its photos, this one doesn't.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        _check_exists(self.folder)
        self.read_split = functools.cache(functools.partial(read_split, self.folder))  # name -> Split

    @functools.cached_property
    def splits(self) -> list[str]:
        """Names of the evaluation splits, validation splits first."""
        return sorted(find_splits(self.folder), key=lambda split: (not _is_validation(split), split))

    @functools.cached_property
    def train(self) -> ImageTable:
        """The training photos; raises what `find_part` and `read_images` raise."""
        return read_images(find_part(self.folder, "train"))

    def list_validation_splits(self, val_splits: Sequence[str] | None = None) -> list[str]:
        """The splits to choose settings and epochs on: those given, or all whose name ends in "val"."""
        return list(val_splits) if val_splits is not None else [s for s in self.splits if _is_validation(s)]

    def fingerprint(self, splits: Sequence[str]) -> str:
        """16 hex digits that change with any name or size of the photos in `train` and in these splits."""
        tables = [self.train, *(table for split in splits for table in self.read_split(split))]
        return hashlib.sha256("".join(table.fingerprint for table in tables).encode()).hexdigest()[:16]


def open_data_root(data_root: str | Path | DataRoot) -> DataRoot:
    """A `DataRoot` as it is, or one of a folder."""
    return data_root if isinstance(data_root, DataRoot) else DataRoot(data_root)


def find_part(data_root: str | Path, part: str) -> Path:
    """Path of `train` or of a split: the folder `<root>/<part>` or the pack `<root>/<part>.zip`.

    Where both exist, the pack is read, with a warning.

    Raises:
        FileNotFoundError: the root or the part doesn't exist.
    """
    root = Path(data_root)
    _check_exists(root)
    folder = root / part
    pack = root / f"{part}.zip"
    if not (folder.is_dir() or pack.is_file()):
        names = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise FileNotFoundError(f"{root} has no {part}/ or {part}.zip; it holds {names}")
    if folder.is_dir() and pack.is_file():
        warnings.warn(
            f"reading {pack}, not the folder {part}/ beside it; after a change to the folder, pack it again or remove "
            "the pack",
            stacklevel=2,
        )
    return pack if pack.is_file() else folder


def find_splits(data_root: str | Path) -> list[str]:
    """Sorted names of the evaluation splits.

    Raises:
        FileNotFoundError: the root doesn't exist.
        ValueError: a pack is damaged.
    """
    root = Path(data_root)
    _check_exists(root)
    folders = {path.name for path in root.iterdir() if (path / "database").is_dir()}
    return sorted(folders | {path.stem for path in root.glob("*.zip") if _is_split(path)})


def read_split(data_root: str | Path, split: str) -> Split:
    """Database and queries of an evaluation split.

    Raises:
        FileNotFoundError: the root or the split doesn't exist.
        ValueError: the split has no database or no queries.
    """
    path = find_part(data_root, split)
    if path.is_dir():
        halves = [path / half for half in Split._fields]
        photos = [read_images(half) if half.is_dir() else [] for half in halves]
    else:
        table = read_images(path)
        starts = [f"{half}/" for half in Split._fields]
        photos = [table[np.array([name.startswith(start) for name in table.names])] for start in starts]
    for half, table in zip(Split._fields, photos, strict=True):
        if not len(table):
            raise ValueError(f"split {path} has no {half}/; it needs database/ and queries/ with photos")
    return Split(*photos)


def _check_exists(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"no data root at {folder}; expected a folder with train/<city>/*.jpg and splits")


def _is_validation(split: str) -> bool:
    return split.endswith("val")


def _is_split(pack: Path) -> bool:
    try:
        with zipfile.ZipFile(pack) as archive:
            return any(name.startswith("database/") for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{pack} is no complete zip file ({error}); make or copy the pack again") from None
