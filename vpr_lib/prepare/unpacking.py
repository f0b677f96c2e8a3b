"""Unpack the course's reduced sets into the splits of a data root.

    gsv_xs/train/<city>/*.jpg                   -> train/<city>/*.jpg
    sf_xs/{val,test}/{database,queries}/*.jpg   -> sf_val/..., sf_test/...
    tokyo_xs/test/{database,queries}/*.jpg      -> tokyo_test/...

A set is a zip or a folder, with one folder level more or less than above. A split is written below `.download` and
moved to its place when it is complete. What a zip says is not trusted: see `archives.list_archive` for what is refused.
"""

import errno
import os
import re
import shutil
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from vpr_lib.file_names import parse_name
from vpr_lib.options import check_choice
from vpr_lib.prepare import manifest
from vpr_lib.prepare.archives import Member, check_others, copy_photo, is_copy, list_archive, list_folder

# {set: {folder in its archive: split}}; an unpacked data root is a valid source, too: its folders are named as splits.
SETS = {
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "sf_val": "sf_val", "test": "sf_test", "sf_test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test", "tokyo_test": "tokyo_test"},
}
SPLIT_FOLDERS = {folder for folders in SETS.values() for folder in folders}
BLOCK_BYTES = 4096  # a file takes whole blocks of a disk

Plan = dict[str, dict[str, Member]]  # {split: {path below it: photo}}


def unpack_set(
    source: str | Path, root: str | Path, name: str, any_size: bool = False, delete: bool = False, origin: str = ""
) -> dict[str, manifest.SplitSummary]:
    """Unpack one set into a data root, which is created if missing; a later call continues an interrupted one.

    Args:
        source: a zip, or a folder with the set, whose photos become hard links, or copies on another disk.
        name: a key of `SETS`.
        any_size: accept other numbers of photos than the published ones.
        delete: remove the zip when its photos are in place and checked, or when it is damaged or unsafe.
        origin: where the set came from, for the manifest; default: `source`.

    Returns:
        {split: its entry in the manifest}.

    Raises:
        ValueError: the zip is damaged or unsafe, photos are missing, wrong or would become one file on some disks, a
            split exists with other photos, or a link is in the way.
        OSError: too little space.
    """
    source, root, origin = Path(source), Path(root), origin or str(source)
    if "://" in origin:
        origin = re.sub(r"(?<=://)[^/@]*@|[?#].*", "", origin)  # without user, password and token
    check_choice("set", name, SETS)
    if not source.exists():
        raise FileNotFoundError(f"no archive or folder at {source}; expected {name} as a zip, or unpacked")
    manifest.read_manifest(root)  # a damaged one must stop the call before the work
    staging = _make_staging(root, name)
    summaries = {}
    # A second call waits until the first one ends.
    with FileLock(root / ".download" / "unpack.lock"), _explain_errors(source, root, delete):
        with nullcontext() if source.is_dir() else zipfile.ZipFile(source) as archive:
            plan, left_out = _plan_splits(list_archive(archive) if archive else list_folder(source), name)
            if archive:
                check_others(archive, (member for photos in plan.values() for member in photos.values()))
            if left_out:
                print("left out:", ", ".join(f"{size:,} photos in {path}" for path, size in left_out.most_common(5)))
            for split, photos in plan.items():
                manifest.check_size(split, Counter(path.split("/")[0] for path in photos), any_size)
            missing = _find_missing(plan, archive or source, root, staging)
            _check_space(source, root, [member.size for member in missing.values()])
            for target, member in tqdm(missing.items(), unit="photo", desc="unpacking"):
                copy_photo(archive or source, member, staging / target)
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


def _make_staging(root: Path, name: str) -> Path:
    staging = root / ".download" / name
    if staging.resolve() != root.resolve() / ".download" / name:
        raise ValueError(f"{staging} is a link, or lies behind one; remove the link")
    staging.mkdir(parents=True, exist_ok=True)
    return staging


@contextmanager
def _explain_errors(source: Path, root: Path, delete: bool) -> Iterator[None]:
    """Add what to do next to the errors of a damaged zip and of a full disk."""
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
        raise ValueError(f"{source} can't be unpacked ({error}); make a plain zip of it") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(f"the disk of {root} is full; make room and run the same again to continue") from None
        if isinstance(error, OSError) and (error.errno, error.filename) != (errno.EINVAL, None):
            raise  # that one: a damaged zip made zipfile seek to before its start
        if delete:
            source.unlink()
        advice = "it was removed, run the same again to fetch it again" if delete else "fetch it again"
        raise ValueError(f"{source} is damaged or unsafe ({error}); {advice}, or use another one") from None


def _plan_splits(members: Iterable[Member], name: str) -> tuple[Plan, Counter[str]]:
    """Return which photos make up each split of a set, and {folder: number of photos left out}."""
    plan: Plan = {split: {} for split in SETS[name].values()}
    left_out: Counter[str] = Counter()
    taken: dict[str, tuple[str, str]] = {}
    for member in members:
        *folders, _ = parts = member.name.split("/")
        split, start = _find_split(folders, name)
        if split is None:
            left_out["/".join(folders) or "."] += 1
            continue
        parse_name(member.name)  # raises where the name has no UTM coordinates
        path = "/".join(parts[start:])
        _claim_path(taken, f"{split}/{path}", member.name)
        plan[split][path] = member
    return plan, left_out


def _claim_path(taken: dict[str, tuple[str, str]], path: str, name: str) -> None:
    """Add a path and its folders to `taken`; a ValueError if they are a file or other folders there, on any disk.

    Disks of Windows and macOS may take names for equal that differ in case or in how an accent is encoded.

    Args:
        taken: {path as such a disk compares it: (path as written, with a / after a folder; the photo's name)}.
    """
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        is_folder = depth < len(parts)
        written = "/".join(parts[:depth]) + "/" * is_folder
        key = unicodedata.normalize("NFC", written.rstrip("/").casefold())
        first_written, first_name = taken.setdefault(key, (written, name)) if is_folder else taken.get(key, ("", ""))
        if first_name and (first_written != written or not is_folder):
            raise ValueError(f"{name} and {first_name} would both become {path} on some disks; remove one")
    taken[key] = (path, name)


def _find_split(folders: list[str], name: str) -> tuple[str | None, int]:
    """Return the split of a photo in the archive of a set (None: not used), and where the path below it starts.

    The nearest folder above the city, `database` or `queries` that is named as a split decides; a set of one split
    needs no such folder.
    """
    halves = [i for i, folder in enumerate(folders) if folder in ("database", "queries")]
    start = halves[0] if halves else len(folders) - 1
    is_foreign = any((folder in SETS and folder != name) or folder.startswith(".") for folder in folders)
    is_wrong_kind = bool(halves) == (name == "gsv_xs")  # only the training set has cities
    if is_foreign or is_wrong_kind or start < 0 or folders[start] in {*SPLIT_FOLDERS, *SETS}:
        return None, start
    named = [folder for folder in folders[:start] if folder in SPLIT_FOLDERS]
    default = next(iter(SETS[name])) if len(set(SETS[name].values())) == 1 else ""
    return SETS[name].get(named[-1] if named else default), start


def _find_missing(plan: Plan, source: zipfile.ZipFile | Path, root: Path, staging: Path) -> dict[str, Member]:
    """Return {path below `staging`: photo to write}; those an interrupted call left are kept, others removed."""
    missing: dict[str, Member] = {}
    for split, photos in plan.items():
        if (root / f"{split}.zip").exists():
            raise ValueError(f"{root} has {split} as a pack, {split}.zip; move it away, or choose another root")
        if os.path.lexists(root / split):
            _compare_photos(root / split, photos, source)
            continue
        missing |= {f"{split}/{path}": member for path, member in photos.items()}
        staged = list(list_folder(staging / split, accept_links=False)) if (staging / split).exists() else []
        for name in tqdm([member.name for member in staged], unit="photo", desc="comparing", delay=2):
            if name in photos and is_copy(staging / split / name, source, photos[name]):
                del missing[f"{split}/{name}"]
            else:
                (staging / split / name).unlink()  # never written to: it may be a hard link
    for folder in {(staging / target).parent for target in missing}:
        if not folder.resolve().is_relative_to(staging.resolve()):
            raise ValueError(f"{folder} leads out of {staging}; remove {staging}")
    return missing


def _compare_photos(folder: Path, photos: dict[str, Member], source: zipfile.ZipFile | Path) -> None:
    """Raise ValueError if a split that exists holds other photos."""
    present = {member.name for member in list_folder(folder)} if folder.is_dir() else set()
    different = sorted(present ^ set(photos))
    for path in tqdm(() if different else photos, unit="photo", desc=f"comparing {folder}", delay=2):
        if not is_copy(folder / path, source, photos[path]):
            different = [path]
            break
    if different:
        advice = "move it away, or choose another root"
        raise ValueError(f"{folder} exists with other photos, for example {different[0]}; {advice}")


def _check_space(source: Path, root: Path, sizes: list[int]) -> None:
    needed, free = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes), shutil.disk_usage(root).free
    is_linked = source.is_dir() and source.stat().st_dev == root.stat().st_dev  # links take no space
    if needed > free and not is_linked:
        space = f"{len(sizes):,} photos need {needed / 1e9:.1f} GB, {root} has {free / 1e9:.1f} GB free"
        raise OSError(f"{space}; make room, or choose a root on another disk")
