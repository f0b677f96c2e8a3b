"""A data root: a folder with `train` and evaluation splits, each a folder or a pack.

<root>/train/<city>/*.jpg                            photos to train on
<root>/<split>/{database,queries}/**/*.jpg           photos to evaluate on
<root>/train.zip, <root>/<split>.zip                 the same as packs
"""

import functools
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.images import ImageTable, read_images
from vpr_lib.stored_zip import list_members


class Split(NamedTuple):
    """The two halves of an evaluation split."""

    database: ImageTable
    queries: ImageTable


class DataRoot:
    """A data root whose photos are listed once, when they are first needed; a new `DataRoot` sees changes to them."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = _check_exists(folder)
        self.read_split = functools.cache(functools.partial(read_split, self.folder))  # name -> Split

    @functools.cached_property
    def splits(self) -> list[str]:
        """Names of the evaluation splits, validation splits first."""
        return sorted(find_splits(self.folder), key=lambda split: (not split.endswith("val"), split))

    @functools.cached_property
    def train(self) -> ImageTable:
        """The training photos; raises what `find_part` and `read_images` raise."""
        return read_images(find_part(self.folder, "train"))

    def list_validation_splits(self, val_splits: Sequence[str] | None = None) -> list[str]:
        """The splits to choose settings and epochs on: those given, or all whose name ends in "val"."""
        return list(val_splits) if val_splits is not None else [split for split in self.splits if split.endswith("val")]

    def fingerprint(self, splits: Sequence[str]) -> str:
        """16 hex digits that change with any name or size of the photos in `train` and in these splits."""
        tables = [self.train, *(table for split in splits for table in self.read_split(split))]
        return hashlib.sha256("".join(table.fingerprint for table in tables).encode()).hexdigest()[:16]


def open_data_root(data_root: str | Path | DataRoot) -> DataRoot:
    """A `DataRoot` as it is, or one of a folder."""
    return data_root if isinstance(data_root, DataRoot) else DataRoot(data_root)


def find_part(data_root: str | Path, part: str) -> Path:
    """The folder `<root>/<part>` or the pack `<root>/<part>.zip`; where both exist, the pack, with a warning.

    Raises:
        FileNotFoundError: the root or the part doesn't exist.
    """
    root = _check_exists(data_root)
    folder, pack = root / part, root / f"{part}.zip"
    if not (folder.is_dir() or pack.is_file()):
        names = ", ".join(sorted(path.name for path in root.iterdir())) or "nothing"
        raise FileNotFoundError(f"{root} has no {part}/ or {part}.zip; it holds {names}")
    if folder.is_dir() and pack.is_file():
        advice = "after a change to the folder, pack it again or remove the pack"
        warnings.warn(f"reading {pack}, not the folder {part}/ of the same name; {advice}", stacklevel=2)
    return pack if pack.is_file() else folder


def find_splits(data_root: str | Path) -> list[str]:
    """Sorted names of the evaluation splits; a damaged pack is a ValueError."""
    root = _check_exists(data_root)
    folders = {path.name for path in root.iterdir() if (path / "database").is_dir()}
    packs = [pack for pack in root.glob("*.zip") if any(m.filename.startswith("database/") for m in list_members(pack))]
    return sorted({*folders, *(pack.stem for pack in packs)})


def read_split(data_root: str | Path, split: str) -> Split:
    """Database and queries of an evaluation split.

    Raises:
        FileNotFoundError: the root or the split doesn't exist.
        ValueError: the split has no database or no queries.
    """
    path = find_part(data_root, split)
    if path.is_dir():
        tables = {half: read_images(path / half) if (path / half).is_dir() else () for half in Split._fields}
    else:
        both = read_images(path)
        tables = {half: both[np.array([name.startswith(f"{half}/") for name in both.names])] for half in Split._fields}
    for half, table in tables.items():
        if not len(table):
            raise ValueError(f"split {path} has no {half}/; it needs database/ and queries/ with photos")
    return Split(**tables)


def _check_exists(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no data root at {folder}; expected a folder with train/<city>/*.jpg and splits")
    return Path(folder)
