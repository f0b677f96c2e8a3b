"""A data root: a folder with `train` and evaluation splits, each a folder or a pack.

<root>/train/<city>/*.jpg                            photos to train on
<root>/<split>/{database,queries}/**/*.jpg           photos to evaluate on
<root>/train.zip, <root>/<split>.zip                 the same as packs
<root>/train-001-of-003.zip, ...                     the same as packs of several shards
"""

import functools
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.checked_files import hash_text, read_json
from vpr_lib.images import ImageTable, read_images
from vpr_lib.pack_files import check_files, find_pack, name_pack
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
        self.fingerprint = functools.cache(self._fingerprint)

    @functools.cached_property
    def splits(self) -> list[str]:
        """Names of the evaluation splits, validation splits first."""
        return sorted(find_splits(self.folder), key=lambda split: (not is_validation(split), split))

    @functools.cached_property
    def train(self) -> ImageTable:
        """The training photos; raises what `find_part` and `read_images` raise."""
        return read_images(find_part(self.folder, "train"))

    def list_validation_splits(self, val_splits: Sequence[str] | None = None) -> list[str]:
        """The splits to choose settings and epochs on: those given, or all whose name is or ends in "val"."""
        return list(val_splits) if val_splits is not None else [split for split in self.splits if is_validation(split)]

    def _fingerprint(self, part: str) -> str:
        """16 hex digits that change with the name or content of any photo in `train` or in a split.

        The parts of a rendered city count by its settings as long as they hold the photos that were rendered.
        """
        if part == "train":
            tables = {part: self.train}
        else:
            tables = {f"{part}/{half}": table for half, table in self.read_split(part)._asdict().items()}
        city, rendered = self._rendered
        texts = []
        for name, table in tables.items():
            fingerprint, number = rendered.get(name, ("", 0))
            is_rendered = fingerprint == table.fingerprint
            if len(table) <= number and not (is_rendered or table.is_packed):  # more photos: some were added
                advice = f"python -m vpr_lib city --out {self.folder} restores them"
                warnings.warn(f"rendered photos in {table.root} were changed or lost; {advice}", stacklevel=4)
            texts.append(f"{city} {name}" if is_rendered else table.fingerprint)
        return hash_text(" ".join(texts))

    @functools.cached_property
    def _rendered(self) -> tuple[str, dict[str, tuple[str, int]]]:
        """Of a rendered city: version and settings; fingerprint and number of photos of each folder. Else empty."""
        path = self.folder / "city.json"
        if not path.is_file():
            return "", {}
        state = read_json(path, f"python -m vpr_lib city --out {self.folder} --force renders the city again")
        return json.dumps([state["version"], state["settings"]], sort_keys=True), state.get("fingerprints", {})


def open_data_root(data_root: str | Path | DataRoot) -> DataRoot:
    """A `DataRoot` as it is, or one of a folder."""
    return data_root if isinstance(data_root, DataRoot) else DataRoot(data_root)


def is_validation(split: str) -> bool:
    """Whether a split is for validation by its name: "val", "sf_val", "sf-val", but not "festival"."""
    return re.search(r"(^|[^a-z])val$", split, re.IGNORECASE) is not None


def find_part(data_root: str | Path, part: str) -> Path:
    """The folder `<root>/<part>` or the pack `<root>/<part>.zip`; where both exist, the pack, with a warning.

    Of a pack of several shards, it is the glob that `read_images` takes: `<root>/<part>-*-of-003.zip`.

    Raises:
        FileNotFoundError: the root or the part doesn't exist.
        ValueError: shards are missing, or several versions of the pack exist.
    """
    root = _check_exists(data_root)
    folder, pack = root / part, find_pack(root / f"{part}.zip")
    if not (folder.is_dir() or pack):
        names = ", ".join(sorted(path.name for path in root.iterdir())) or "nothing"
        raise FileNotFoundError(f"{root} has no {part}/ or {part}.zip; it holds {names}")
    if folder.is_dir() and pack:
        advice = "after a change to the folder, pack it again or remove the pack"
        warnings.warn(f"reading {pack}, not the folder {part}/ of the same name; {advice}", stacklevel=2)
    return pack or folder


def find_splits(data_root: str | Path) -> list[str]:
    """Sorted names of the evaluation splits; a damaged or incomplete pack is a ValueError."""
    root = _check_exists(data_root)
    folders = {path.name for path in root.iterdir() if (path / "database").is_dir()}
    packs = {name_pack(file) for file in check_files(root.glob("*.zip")) if _holds_database(file)}
    return sorted({*folders, *(pack.stem for pack in packs)})


def _holds_database(file: Path) -> bool:
    return any(member.filename.startswith("database/") for member in list_members(file))


def read_split(data_root: str | Path, split: str) -> Split:
    """Database and queries of an evaluation split.

    Raises:
        FileNotFoundError: the root or the split doesn't exist.
        ValueError: the split has no database or no queries, their positions are degrees, or they lie in different UTM
            zones. A split with several zones is a warning.
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
    _check_positions(path, tables)
    return Split(**tables)


def _check_positions(path: Path, tables: Mapping[str, ImageTable]) -> None:
    """Raise a ValueError, or warn, where distances between queries and database would mean nothing."""
    for half, table in tables.items():
        is_small = (np.abs(table.utm) <= 180).all(1)  # as latitude and longitude are, in either order
        if is_small.all() or (is_small.any() and np.abs(table.utm[~is_small]).max() > 10_000):
            example = f"for example {table.names[is_small][0]}; names begin with UTM east and north"
            raise ValueError(f"{path}/{half} has degrees where meters belong, {example}")
    zones = {half: {_parse_zone(zone) for zone in np.unique(table.zones) if zone} for half, table in tables.items()}
    database, queries = (zones[half] for half in Split._fields)
    listed = "; ".join(f"{half}: {', '.join(sorted(map(' '.join, zones[half])))}" for half in Split._fields)
    if database and queries and not any(_may_be_equal(a, b) for a in database for b in queries):
        raise ValueError(f"the halves of {path} lie in different UTM zones ({listed}); convert one to the other's zone")
    if not all(_may_be_equal(a, b) for a in database | queries for b in database | queries):
        text = f"{path} has photos in several UTM zones ({listed}), which are compared as if they were one"
        warnings.warn(text, stacklevel=4)


def _parse_zone(zone: str) -> tuple[str, str]:
    """Number and hemisphere: "10S" -> "10", "north" (bands from N on are north of the equator); "" where unknown."""
    match = re.fullmatch(r"0*([1-9]\d?)(?:\.0*)?([C-HJ-NP-X]?)", zone.upper())
    if not match:
        return zone, ""
    return match[1], ("north" if match[2] >= "N" else "south") if match[2] else ""


def _may_be_equal(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or "" in (one[1], other[1]))


def _check_exists(folder: str | Path) -> Path:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no data root at {folder}; expected a folder with train/<city>/*.jpg and splits")
    return Path(folder)
