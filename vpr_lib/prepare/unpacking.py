"""Unpack the course's reduced sets into the splits of a data root.

    gsv_xs/train/<city>/*.jpg                   -> train/<city>/*.jpg
    sf_xs/{val,test}/{database,queries}/*.jpg   -> sf_val/..., sf_test/...
    tokyo_xs/test/{database,queries}/*.jpg      -> tokyo_test/...

A set is a zip or a folder, with one folder level more or less than above. A split is written below `.download` and
moved to its place when it is complete.
"""

import errno
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from tqdm.auto import tqdm

from vpr_lib.file_names import PHOTO_SUFFIXES, parse_name
from vpr_lib.images import read_images
from vpr_lib.options import check_choice
from vpr_lib.prepare import manifest

# {set: {folder in its archive: split}}; an unpacked data root is a valid source, too: its folders are named as splits.
SETS = {
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "sf_val": "sf_val", "test": "sf_test", "sf_test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test", "tokyo_test": "tokyo_test"},
}
SPLIT_FOLDERS = {folder for folders in SETS.values() for folder in folders}
BLOCK_BYTES = 4096  # a file takes whole blocks of a disk


class Member(NamedTuple):
    """A photo in a zip or folder."""

    name: str
    size: int  # bytes


Members = dict[str, Member]  # by their path below a city, `database` or `queries`
Plan = dict[str, dict[str, Members]]  # {split: {city, `database` or `queries`: its photos}}


def unpack_set(
    source: str | Path,
    root: str | Path,
    name: str,
    any_size: bool = False,
    delete: bool = False,
    origin: str | None = None,
    progress: bool = True,
) -> dict[str, manifest.SplitSummary]:
    """Unpack one set into a data root; a later call continues an interrupted one.

    Args:
        source: a zip, or a folder with the set, whose photos become hard links, or copies on another disk.
        root: the data root; created if missing.
        name: gsv_xs, sf_xs or tokyo_xs.
        any_size: accept other numbers of photos than the published ones.
        delete: remove the zip when its photos are in place and checked, or when it is damaged.
        origin: where the set came from, for the manifest; default: `source`.
        progress: show a bar, and print which photos are left out.

    Returns:
        {split: its entry in the manifest}.

    Raises:
        FileNotFoundError: the source does not exist.
        ValueError: the zip is damaged or unsafe, photos are missing or wrong, or a split exists with other photos.
        OSError: too little space.
    """
    source = Path(source)
    root = Path(root)
    check_choice("set", name, SETS)
    if not source.exists():
        raise FileNotFoundError(f"no archive or folder at {source}; expected {name} as a zip, or unpacked")
    staging = root / ".download" / name
    staging.mkdir(parents=True, exist_ok=True)
    summaries = {}
    # A second call waits, then finds all splits in place.
    with FileLock(root / ".download" / "unpack.lock"), _explain_errors(source, root, delete):
        with nullcontext() if source.is_dir() else zipfile.ZipFile(source) as archive:
            plan, left_out = _plan_splits(_list_archive(archive) if archive else _list_folder(source), name)
            if left_out and progress:
                print("left out:", ", ".join(f"{n:,} photos in {folder}" for folder, n in left_out.most_common(5)))
            _check_plan(plan, source, any_size)
            missing = _find_missing_folders(plan, root, staging)
            _check_space(source, root, missing)
            _write_folders(archive or source, missing, progress)
        for split in plan:
            path = root / split if (root / split).exists() else staging / split
            summary = manifest.summarize_photos(read_images(path))
            summaries[split] = replace(summary, set=name, source=_remove_secrets(origin or str(source)))
            if path != root / split:
                os.replace(path, root / split)
        manifest.write_manifest(root, summaries)
        shutil.rmtree(staging, ignore_errors=True)
    if delete and source.is_file():
        source.unlink()
    return summaries


@contextmanager
def _explain_errors(source: Path, root: Path, delete: bool) -> Iterator[None]:
    """Add what to do next to the errors of a damaged zip and of a full disk."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        if delete:
            source.unlink()
        advice = "it was removed, run the same again to fetch it anew" if delete else "fetch or copy it again"
        raise ValueError(f"{source} is damaged or not a zip ({error}); {advice}") from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
        raise ValueError(f"{source} can't be unpacked ({error}); make a plain zip of it") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"the disk of {root} is full; make room and run the same again to continue") from None


def _list_archive(archive: zipfile.ZipFile) -> list[Member]:
    """List the photos of a zip, after a check that no member is a link or would be written outside of the root."""
    for member in archive.infolist():
        name = member.filename
        outside = ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name)
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{archive.filename} holds {name!r}, which leads out of the data root; get it elsewhere")
    return [Member(m.filename, m.file_size) for m in archive.infolist() if _is_photo(m.filename)]


def _list_folder(folder: Path) -> list[Member]:
    """List the photos of a folder and its subfolders, without hidden ones."""
    members = []
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(path).relative_to(folder)
        members += [Member((below / f).as_posix(), os.stat(f"{path}/{f}").st_size) for f in files if _is_photo(f)]
    return members


def _is_photo(name: str) -> bool:
    # macOS adds a "._name.jpg", which is not a photo, beside each photo of its zips.
    return name.lower().endswith(PHOTO_SUFFIXES) and not name.rpartition("/")[2].startswith("._")


def _plan_splits(members: Iterable[Member], name: str) -> tuple[Plan, Counter[str]]:
    """Return which photos make up each split of a set, and {folder: number of photos left out}."""
    plan: Plan = {split: {} for split in SETS[name].values()}
    left_out: Counter[str] = Counter()
    for member in members:
        *folders, _ = parts = member.name.split("/")
        split, start = _find_split(folders, name)
        if split is None:
            named = [i for i, folder in enumerate(folders) if folder in SPLIT_FOLDERS]
            left_out["/".join(folders[: named[-1] + 1] if named else folders) or "."] += 1
            continue
        parse_name(member.name)  # raises where the name has no UTM coordinates
        photos = plan[split].setdefault(parts[start], {})
        path = "/".join(parts[start + 1 :])
        if path in photos:
            raise ValueError(f"{member.name} and {photos[path].name} would both become {split}/{parts[start]}/{path}")
        photos[path] = member
    return plan, left_out


def _find_split(folders: list[str], name: str) -> tuple[str | None, int]:
    """Return the split of a photo in the archive of a set (None: not used), and where the path below it starts.

    A photo lies in a city, or in `database` or `queries`. The nearest folder above that is named as a split decides;
    a set with only one split may do without.
    """
    halves = [i for i, folder in enumerate(folders) if folder in ("database", "queries")]
    if name == "gsv_xs":
        start = len(folders) - 1
        is_used = not halves and start >= 0 and folders[start] not in {*SPLIT_FOLDERS, *SETS}
    else:
        start = halves[0] if halves else 0
        is_used = bool(halves)
    if not is_used or any(folder in SETS and folder != name for folder in folders):
        return None, start
    named = [folder for folder in folders[:start] if folder in SPLIT_FOLDERS]
    if not named and len(set(SETS[name].values())) == 1:
        named = list(SETS[name])
    return (SETS[name].get(named[-1]) if named else None), start


def _check_plan(plan: Plan, source: Path, any_size: bool) -> None:
    """Compare the plan with the published sizes, before half a million photos are written."""
    for split, folders in plan.items():
        counts = {folder: len(photos) for folder, photos in folders.items()}
        if not counts or (split != "train" and len(counts) < 2):
            size = manifest.format_counts(split, counts)
            raise ValueError(f"{source} has {size} for {split}; expected {manifest.PUBLISHED_SIZES[split]}")
        if not any_size:
            manifest.check_size(split, counts)


def _find_missing_folders(plan: Plan, root: Path, staging: Path) -> dict[Path, Members]:
    """Return {folder to write: its photos}; remove incomplete folders of an interrupted call."""
    missing: dict[Path, Members] = {}
    for split, folders in plan.items():
        if (root / f"{split}.zip").exists():
            raise ValueError(f"{root} has {split} as a pack, {split}.zip; move it away, or choose another root")
        if (root / split).exists():
            whole = {f"{folder}/{path}": photos[path] for folder, photos in folders.items() for path in photos}
            if not _holds(root / split, whole):
                raise ValueError(f"{root / split} exists with other photos; move it away, or choose another root")
            continue
        for path in (staging / split).glob("*"):
            if path.name not in folders or not _holds(path, folders[path.name]):
                shutil.rmtree(path)
        targets = {staging / split / folder: photos for folder, photos in folders.items()}
        missing |= {target: photos for target, photos in targets.items() if not target.is_dir()}
    return missing


def _holds(folder: Path, photos: Members) -> bool:
    sizes = {member.name: member.size for member in _list_folder(folder)}
    return sizes == {path: member.size for path, member in photos.items()}


def _check_space(source: Path, root: Path, missing: Mapping[Path, Members]) -> None:
    sizes = [member.size for photos in missing.values() for member in photos.values()]
    needed = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes)
    free = shutil.disk_usage(root).free
    is_linked = source.is_dir() and source.stat().st_dev == root.stat().st_dev  # links take no space
    if needed > free and not is_linked:
        space = f"{len(sizes):,} photos need {needed / 1e9:.1f} GB, {root} has {free / 1e9:.1f} GB free"
        raise OSError(f"{space}; make room, or choose a root on another disk")


def _write_folders(source: zipfile.ZipFile | Path, missing: Mapping[Path, Members], progress: bool) -> None:
    """Write each folder as `<name>.part` and rename it when complete: an interruption costs at most one folder."""
    total = sum(map(len, missing.values()))
    with tqdm(total=total, unit="photo", desc="unpacking", disable=not progress) as bar:
        for folder, photos in missing.items():
            partial = folder.with_name(f"{folder.name}.part")
            for path, member in photos.items():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                _write_photo(source, member.name, partial / path)
                bar.update()
            if hasattr(os, "sync"):  # not on Windows; a power cut after the renaming would leave empty photos
                os.sync()
            os.replace(partial, folder)


def _write_photo(source: zipfile.ZipFile | Path, name: str, target: Path) -> None:
    if isinstance(source, zipfile.ZipFile):
        with source.open(name) as photo, open(target, "wb") as file:  # compares the checksum, too
            shutil.copyfileobj(photo, file)
        return
    try:
        os.link(os.path.realpath(source / name), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source / name, target)


def _remove_secrets(origin: str) -> str:
    """Remove user, password and token from an address."""
    return re.sub(r"(?<=://)[^/@]*@|[?#].*", "", origin) if "://" in origin else origin
