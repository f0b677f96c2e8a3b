"""Check the splits of a data root against the published sizes and against its `manifest.json`."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.checked_files import DamagedFile, read_json, write_json
from vpr_lib.data_roots import find_part, find_splits
from vpr_lib.images import read_images
from vpr_lib.pack_files import find_files, list_files
from vpr_lib.photos import read_photo
from vpr_lib.prepare.packs import list_damaged

PUBLISHED_SIZES = {  # as `format_counts` writes them
    "train": "23 cities, 529,506 photos",  # of about 62,000 places
    "sf_val": "8,015 database, 7,993 queries",
    "sf_test": "27,191 database, 1,000 queries",
    "tokyo_test": "12,771 database, 315 queries",
}
MANIFEST = "manifest.json"
NUM_DECODED = 16  # photos of a split that are decoded, enough to notice a broken set


@dataclass(frozen=True)
class SplitSummary:
    """What the manifest stores about one split."""

    photos: dict[str, int]  # city, `database` or `queries` -> number of photos
    bytes: dict[str, int]  # city, `database` or `queries` -> size
    places: int
    fingerprint: str  # of the names, sizes and contents of the photos
    date: str  # when it was unpacked or first checked, ISO 8601
    set: str = ""  # gsv_xs, sf_xs or tokyo_xs
    source: str = ""  # address or path it came from


class RootCheck(NamedTuple):
    """Result of `check_root`."""

    splits: dict[str, SplitSummary]  # splits without a problem
    missing: list[str]
    problems: list[str]


def check_root(root: str | Path, splits: Iterable[str] = (), any_size: bool = False) -> RootCheck:
    """Compare splits with the manifest; those that it does not list, with the published sizes, then add them to it.

    Args:
        splits: default: all in the root, and the published ones unless `any_size`.
        any_size: accept any size of a split that the manifest does not list.
    """
    root = Path(root)
    present = find_splits(root)
    if (root / "train").is_dir() or find_files(root / "train.zip"):
        present.insert(0, "train")
    splits = dict.fromkeys(splits or [*present, *([] if any_size else PUBLISHED_SIZES)])
    known = read_manifest(root)
    check = RootCheck({}, [split for split in splits if split not in present], [])
    for split in [split for split in splits if split in present]:
        try:
            check.splits[split] = _check_split(split, find_part(root, split), known.get(split), any_size)
        except (ValueError, OSError) as error:
            check.problems.append(str(error))
    try:
        add_to_manifest(root, check.splits)
    except OSError as error:
        warnings.warn(f"the next check starts from the published sizes again: {error}", stacklevel=2)
    return check


def _check_split(split: str, path: Path, known: SplitSummary | None, any_size: bool) -> SplitSummary:
    problems = []
    for file in [] if path.is_dir() else list_files(path):
        if damaged := list_damaged(file):
            names = ", ".join(damaged[:3]) + (f", ... ({len(damaged)} in all)" if len(damaged) > 3 else "")
            problems.append(f"{file} is damaged: {names}")
    if problems:
        raise ValueError(f"{'; '.join(problems)}; copy or make the pack again")
    summary = summarize_photos(path)
    if known is None:
        check_size(split, summary.photos, any_size)
    # The photos of a pack were resized: only their number can be compared.
    elif summary.photos != known.photos or (path.is_dir() and summary.fingerprint != known.fingerprint):
        size, expected = (format_counts(split, photos) for photos in (summary.photos, known.photos))
        found = f"{path} has {size}, {MANIFEST} lists {expected} (if equal: other names or contents)"
        advice = f"move it away and fetch it again, or delete {MANIFEST} if you changed it on purpose"
        raise ValueError(f"{found}; {advice}")
    return known or summary


def check_size(split: str, photos: Mapping[str, int], any_size: bool) -> None:
    """Raise ValueError if a split has another size than published, or, with `any_size`, lacks a half."""
    size = format_counts(split, photos)
    expected = PUBLISHED_SIZES.get(split, "a database and queries")
    is_whole = len(photos) > (0 if split == "train" else 1)
    if not is_whole or (split in PUBLISHED_SIZES and size != expected and not any_size):
        raise ValueError(f"{split} has {size}; expected {expected}. --any-size accepts other numbers of photos")


def format_counts(split: str, photos: Mapping[str, int]) -> str:
    """Size of a split as text, "12 database, 3 queries", from {city, `database` or `queries`: number of photos}."""
    if not photos:
        return "nothing"
    counts = {"cities": len(photos), "photos": sum(photos.values())} if split == "train" else photos
    return ", ".join(f"{counts[key]:,} {key}" for key in sorted(counts))


def summarize_photos(path: Path, name: str = "", source: str = "") -> SplitSummary:
    """Count the photos of a split and decode a sample of them; one that is not readable is a ValueError."""
    table = read_images(path)
    for row in np.unique(np.linspace(0, len(table) - 1, NUM_DECODED).astype(int)):
        read_photo(table, row, 32)
    folders = np.array([name.split("/")[0] for name in table.names])  # cities, or database and queries
    return SplitSummary(
        photos=dict(Counter(folders.tolist())),
        bytes={str(folder): int(table.sizes[folders == folder].sum()) for folder in np.unique(folders)},
        places=len(set(table.places) - {""}),
        fingerprint=table.fingerprint,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        set=name,
        source=source,
    )


def read_manifest(root: Path) -> dict[str, SplitSummary]:
    """The manifest of a data root, {split: its entry}; one that is damaged or of an older form is a ValueError."""
    path, advice = root / MANIFEST, "delete it, the next check writes a new one"
    try:
        return {split: SplitSummary(**entry) for split, entry in read_json(path, advice).items()}
    except FileNotFoundError:
        return {}
    except TypeError as error:
        raise DamagedFile(path, error, advice) from None


def add_to_manifest(root: Path, summaries: Mapping[str, SplitSummary]) -> None:
    """Add splits to the manifest of a data root; an entry of the same photos is kept with its date."""
    known = read_manifest(root)
    fingerprints = {split: summary.fingerprint for split, summary in known.items()}
    changed = {split: new for split, new in summaries.items() if new.fingerprint != fingerprints.get(split)}
    if changed:
        entries = {split: asdict(summary) for split, summary in (known | changed).items()}
        write_json(root / MANIFEST, entries)
