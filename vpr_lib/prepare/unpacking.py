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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from tqdm.auto import tqdm

from vpr_lib.file_names import PHOTO_SUFFIXES, parse_name
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
    checksum: int | None = None  # CRC-32, in a zip


Plan = dict[str, dict[str, Member]]  # {split: {path below it: photo}}


def unpack_set(
    source: str | Path, root: str | Path, name: str, any_size: bool = False, delete: bool = False, origin: str = ""
) -> dict[str, manifest.SplitSummary]:
    """Unpack one set into a data root, which is created if missing; a later call continues an interrupted one.

    Args:
        source: a zip, or a folder with the set, whose photos become hard links, or copies on another disk.
        name: a key of `SETS`.
        any_size: accept other numbers of photos than the published ones.
        delete: remove the zip when its photos are in place and checked, or when it is damaged.
        origin: where the set came from, for the manifest; default: `source`.

    Returns:
        {split: its entry in the manifest}.

    Raises:
        ValueError: the zip is damaged or unsafe, photos are missing or wrong, or a split exists with other photos.
        OSError: too little space.
    """
    source, root, origin = Path(source), Path(root), origin or str(source)
    if "://" in origin:
        origin = re.sub(r"(?<=://)[^/@]*@|[?#].*", "", origin)  # without user, password and token
    check_choice("set", name, SETS)
    if not source.exists():
        raise FileNotFoundError(f"no archive or folder at {source}; expected {name} as a zip, or unpacked")
    staging = root / ".download" / name
    staging.mkdir(parents=True, exist_ok=True)
    summaries = {}
    # A second call waits until the first one ends.
    with FileLock(root / ".download" / "unpack.lock"), _explain_errors(source, root, delete):
        with nullcontext() if source.is_dir() else zipfile.ZipFile(source) as archive:
            plan, left_out = _plan_splits(_list_archive(archive) if archive else _list_folder(source), name)
            if left_out:
                print("left out:", ", ".join(f"{size:,} photos in {path}" for path, size in left_out.most_common(5)))
            for split, photos in plan.items():
                manifest.check_size(split, Counter(path.split("/")[0] for path in photos), any_size)
            missing = _find_missing(plan, root, staging)
            _check_space(source, root, [member.size for member in missing.values()])
            for target, member in tqdm(missing.items(), unit="photo", desc="unpacking"):
                _write_photo(archive or source, member.name, staging / target)
        if missing and hasattr(os, "sync"):  # not on Windows; a power cut after the renaming would leave empty photos
            os.sync()
        for split in plan:
            path = root / split if (root / split).exists() else staging / split
            summaries[split] = manifest.summarize_photos(path, name, origin)
            if path != root / split:
                os.replace(path, root / split)
        manifest.add_to_manifest(root, summaries)
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
        advice = "it was removed, run the same again to fetch it again" if delete else "fetch or copy it again"
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
        if re.search(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.($|[/\\])", name) or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(f"{archive.filename} holds {name!r}, outside of the data root; use another archive")
    return [Member(each.filename, each.file_size, each.CRC) for each in archive.infolist() if _is_photo(each.filename)]


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
            left_out["/".join(folders) or "."] += 1
            continue
        parse_name(member.name)  # raises where the name has no UTM coordinates
        path = "/".join(parts[start:])
        if path in plan[split]:
            raise ValueError(f"{member.name} and {plan[split][path].name} would both become {split}/{path}; remove one")
        plan[split][path] = member
    return plan, left_out


def _find_split(folders: list[str], name: str) -> tuple[str | None, int]:
    """Return the split of a photo in the archive of a set (None: not used), and where the path below it starts.

    The nearest folder above the city, `database` or `queries` that is named as a split decides; a set of one split
    needs no such folder.
    """
    halves = [i for i, folder in enumerate(folders) if folder in ("database", "queries")]
    start = halves[0] if halves else len(folders) - 1
    is_foreign = any(folder in SETS and folder != name for folder in folders)
    is_wrong_kind = bool(halves) == (name == "gsv_xs")  # only the training set has cities
    if is_foreign or is_wrong_kind or start < 0 or folders[start] in {*SPLIT_FOLDERS, *SETS}:
        return None, start
    named = [folder for folder in folders[:start] if folder in SPLIT_FOLDERS]
    default = next(iter(SETS[name])) if len(set(SETS[name].values())) == 1 else ""
    return SETS[name].get(named[-1] if named else default), start


def _find_missing(plan: Plan, root: Path, staging: Path) -> dict[str, Member]:
    """Return {path below `staging`: photo to write}; those an interrupted call left are kept, others removed."""
    missing: dict[str, Member] = {}
    for split, photos in plan.items():
        if (root / f"{split}.zip").exists():
            raise ValueError(f"{root} has {split} as a pack, {split}.zip; move it away, or choose another root")
        if (root / split).exists():
            present = {member.name: member.size for member in _list_folder(root / split)}
            if present != {path: member.size for path, member in photos.items()}:
                raise ValueError(f"{root / split} exists with other photos; move it away, or choose another root")
            continue
        missing |= {f"{split}/{path}": member for path, member in photos.items()}
        for staged in _list_folder(staging / split):
            path, member = staging / split / staged.name, photos.get(staged.name)
            if member and member.size == staged.size and member.checksum in (None, zlib.crc32(path.read_bytes())):
                del missing[f"{split}/{staged.name}"]
            else:
                path.unlink()  # never written to: it may be a hard link
    return missing


def _check_space(source: Path, root: Path, sizes: list[int]) -> None:
    needed, free = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes), shutil.disk_usage(root).free
    is_linked = source.is_dir() and source.stat().st_dev == root.stat().st_dev  # links take no space
    if needed > free and not is_linked:
        space = f"{len(sizes):,} photos need {needed / 1e9:.1f} GB, {root} has {free / 1e9:.1f} GB free"
        raise OSError(f"{space}; make room, or choose a root on another disk")


def _write_photo(source: zipfile.ZipFile | Path, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, zipfile.ZipFile):
        with source.open(name) as photo, open(target, "wb") as file:  # compares the checksum, too
            shutil.copyfileobj(photo, file)
        return
    try:
        os.link(os.path.realpath(source / name), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source / name, target)
