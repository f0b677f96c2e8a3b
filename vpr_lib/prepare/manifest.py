"""A data root -> what its splits hold, against the published sizes and against `manifest.json` from when they came."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vpr_lib.atomic_files import write_atomically
from vpr_lib.data_roots import find_part, find_splits
from vpr_lib.images import ImageTable, read_images

PUBLISHED_SIZES = {  # as `count_photos` says it
    "train": "23 cities, 529,506 photos",  # of about 62,000 places
    "sf_val": "8,015 database, 7,993 queries",
    "sf_test": "27,191 database, 1,000 queries",
    "tokyo_test": "12,771 database, 315 queries",
}
MANIFEST = "manifest.json"
SAMPLE = 16  # photos of a split that are decoded: enough to notice a set of broken ones

Entry = dict[str, Any]  # of one split


class RootCheck(NamedTuple):
    """What `check_root` found."""

    splits: dict[str, Entry]  # those in order
    missing: list[str]
    problems: list[str]


def check_root(root: str | Path, splits: Iterable[str] = (), any_size: bool = False) -> RootCheck:
    """Compare the splits of a data root with its manifest; new ones with the published sizes, then note them there.

    Args:
        root: the data root.
        splits: those to look at; none: all that are there, and the published ones unless `any_size`.
        any_size: accept new splits of any size.

    Raises:
        FileNotFoundError: no such root.
        ValueError: the manifest can't be read.
    """
    root = Path(root)
    there = find_splits(root)
    if (root / "train").is_dir() or (root / "train.zip").is_file():
        there.insert(0, "train")
    known, report = read_manifest(root), RootCheck({}, [], [])
    for split in splits or dict.fromkeys([*there, *([] if any_size else PUBLISHED_SIZES)]):
        if split not in there:
            report.missing.append(split)
            continue
        try:
            report.splits[split] = _check_split(find_part(root, split), known.get(split), any_size)
        except (ValueError, OSError) as error:
            report.problems.append(f"{split}: {error}")
    write_manifest(root, report.splits)
    return report


def _check_split(path: Path, known: Entry | None, any_size: bool) -> Entry:
    entry, split = summarize_photos(read_images(path)), path.stem
    found, published = count_photos(split, entry["photos"]), PUBLISHED_SIZES.get(split)
    if known is None:
        if published not in (None, found) and not any_size:
            raise ValueError(f"found {found}, published are {published}; --any-size accepts that")
        return entry
    # A pack's photos were resized: their numbers agree, their bytes can't.
    if entry["photos"] != known["photos"] or (path.is_dir() and entry["fingerprint"] != known["fingerprint"]):
        raise ValueError(
            f"found {found}, but {MANIFEST} says {count_photos(split, known['photos'])}, or other ones; move {path} "
            f"away and fetch it again. If you changed it on purpose, delete {MANIFEST}"
        )
    return known


def count_photos(split: str, photos: Mapping[str, int]) -> str:
    """The numbers that are published of a split, from the photos of its cities or halves: "12 database, 3 queries"."""
    if not photos:
        return "nothing"
    counts = {"cities": len(photos), "photos": sum(photos.values())} if split == "train" else photos
    return ", ".join(f"{counts[what]:,} {what}" for what in sorted(counts))


def summarize_photos(table: ImageTable) -> Entry:
    """Numbers, bytes and fingerprint of a split's photos, some of which are decoded.

    Raises:
        ValueError: one of them is no readable photo; the message names it.
    """
    for row in np.unique(np.linspace(0, len(table) - 1, SAMPLE).astype(int)):
        try:
            Image.open(io.BytesIO(table.read_bytes(row))).load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{table.root / table.names[row]} is not a readable photo ({error})") from None
    photos, sizes = Counter(), Counter()
    for name, size in zip(table.names, table.sizes, strict=True):
        part = name.split("/")[0]  # a city, database or queries
        photos[part] += 1
        sizes[part] += int(size)
    return {
        "photos": dict(photos),
        "bytes": dict(sizes),
        "places": len(set(table.places) - {""}),
        "fingerprint": table.fingerprint,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_manifest(root: Path) -> dict[str, Entry]:
    """What was noted of the splits of a data root; nothing where there is no manifest.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return json.loads((root / MANIFEST).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{root / MANIFEST} is no JSON ({error}); delete it, the next check writes it anew") from None


def write_manifest(root: Path, entries: Mapping[str, Entry]) -> None:
    """Note splits; what is noted of the same photos is kept, its date too."""
    known = read_manifest(root)
    new = {split: e for split, e in entries.items() if known.get(split, {}).get("fingerprint") != e["fingerprint"]}
    if new:
        write_atomically(root / MANIFEST, json.dumps(known | new, indent=2).encode() + b"\n")
