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
from vpr_lib.pack_files import find_files
from vpr_lib.prepare import manifest
from vpr_lib.prepare.archives import check_unused, copy_photo, is_copy, list_archive, list_folder
from vpr_lib.stored_zip import FileEntry

# {set: {folder in its archive: split}}; an unpacked data root is a valid source, too: its folders are named as splits.
SETS = {
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "sf_val": "sf_val", "test": "sf_test", "sf_test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test", "tokyo_test": "tokyo_test"},
}
SPLIT_FOLDERS = {folder for folders in SETS.values() for folder in folders}
BLOCK_BYTES = 4096  # a file takes whole blocks of a disk

Plan = dict[str, dict[str, FileEntry]]  # {split: {path below it: photo}}


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
                check_unused(archive, {photo.name for photos in plan.values() for photo in photos.values()})
            if left_out:
                print("left out:", ", ".join(f"{size:,} photos in {path}" for path, size in left_out.most_common(5)))
            for split, photos in plan.items():
                manifest.check_size(split, Counter(path.split("/")[0] for path in photos), any_size)
            missing = _find_missing(plan, archive or source, root, staging)
            _check_space(source, root, [photo.size for photo in missing.values()])
            for target, photo in tqdm(missing.items(), unit="photo", desc="unpacking"):
                copy_photo(archive or source, photo, staging / target)
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


def _plan_splits(listed: Iterable[FileEntry], name: str) -> tuple[Plan, Counter[str]]:
    """Return which photos make up each split of a set, and {folder: number of photos left out}."""
    plan: Plan = {split: {} for split in SETS[name].values()}
    left_out: Counter[str] = Counter()
    spellings: dict[str, str] = {}
    for photo in listed:
        *folders, _ = parts = photo.name.split("/")
        split, start = _find_split(folders, name)
        if split is None:
            left_out["/".join(folders) or "."] += 1
            continue
        parse_name(photo.name)  # raises where the name has no UTM coordinates
        path = "/".join(parts[start:])
        other = plan[split][path].name if path in plan[split] else _find_other_spelling(spellings, f"{split}/{path}")
        if other:
            raise ValueError(f"{photo.name} and {other} would both become {split}/{path} on some disks; remove one")
        plan[split][path] = photo
    return plan, left_out


def _find_other_spelling(spellings: dict[str, str], path: str) -> str:
    """Add a path and the folders in it to `spellings`; another path there that some disks take for equal, or "".

    Names may differ in case or in how an accent is encoded, which disks of Windows and macOS ignore; and a file can't
    have the name of a folder.

    Args:
        spellings: {name as such disks compare it: as written, a folder with a slash at its end}.
    """
    slashes = [i for i, character in enumerate(path) if character == "/"]
    for written in (*(path[: i + 1] for i in slashes), path):
        key = unicodedata.normalize("NFC", written.removesuffix("/").casefold())
        if spellings.setdefault(key, written) != written:
            return spellings[key]
    return ""


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


def _find_missing(plan: Plan, source: zipfile.ZipFile | Path, root: Path, staging: Path) -> dict[str, FileEntry]:
    """Return {path below `staging`: photo to write}; those an interrupted call left are kept, others removed."""
    missing: dict[str, FileEntry] = {}
    for split, photos in plan.items():
        if files := find_files(root / f"{split}.zip"):
            raise ValueError(f"{root} has {split} as a pack, {files[0].name}; move it away, or choose another root")
        if os.path.lexists(root / split):
            _compare_photos(root / split, photos, source)
            continue
        missing |= {f"{split}/{path}": photo for path, photo in photos.items()}
        staged = list(list_folder(staging / split, accept_links=False)) if os.path.lexists(staging / split) else []
        for name in tqdm([photo.name for photo in staged], unit="photo", desc="comparing", delay=2):
            if name in photos and is_copy(staging / split / name, source, photos[name]):
                del missing[f"{split}/{name}"]
            else:
                (staging / split / name).unlink()  # never written to: it may be a hard link
    return missing


def _compare_photos(folder: Path, photos: dict[str, FileEntry], source: zipfile.ZipFile | Path) -> None:
    """Raise ValueError if a split that exists holds other photos."""
    present = {photo.name for photo in list_folder(folder)} if folder.is_dir() else set()
    bar = tqdm(photos.items(), unit="photo", desc=f"comparing {folder}", delay=2)
    different = sorted(present ^ {*photos})
    different = different or [path for path, photo in bar if not is_copy(folder / path, source, photo)]
    if different:
        example = f"for example {different[0]}"
        raise ValueError(f"{folder} exists with other photos, {example}; move it away, or choose another root")


def _check_space(source: Path, root: Path, sizes: list[int]) -> None:
    needed, free = sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in sizes), shutil.disk_usage(root).free
    is_linked = source.is_dir() and source.stat().st_dev == root.stat().st_dev  # links take no space
    if needed > free and not is_linked:
        space = f"{len(sizes):,} photos need {needed / 1e9:.1f} GB, {root} has {free / 1e9:.1f} GB free"
        raise OSError(f"{space}; make room, or choose a root on another disk")
