"""TODO-DOC data_roots."""

import warnings
import zipfile
from pathlib import Path

import numpy as np

from vpr_lib.images import ImageTable, read_images


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
