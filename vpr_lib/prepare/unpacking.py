"""The archives of the course's reduced sets -> splits of one data root.

    gsv_xs/train/<city>/*.jpg                   -> train/<city>/*.jpg
    sf_xs/{val,test}/{database,queries}/*.jpg   -> sf_val/..., sf_test/...
    tokyo_xs/test/{database,queries}/*.jpg      -> tokyo_test/...

A set comes as a zip or as a folder, with one folder level more or less. A split has its name only when it is whole;
until then it grows in `.download`.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from vpr_lib.file_names import PHOTO_SUFFIXES, parse_name
from vpr_lib.images import read_images
from vpr_lib.options import check_choice
from vpr_lib.prepare.manifest import PUBLISHED_SIZES, Entry, count_photos, summarize_photos, write_manifest

# {set: {folder in its archive: split}}; a data root is a source, too, and there splits have their own names.
SETS = {
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "sf_val": "sf_val", "test": "sf_test", "sf_test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test", "tokyo_test": "tokyo_test"},
}
FOLDERS = {folder for folders in SETS.values() for folder in folders}
BLOCK = 4096  # bytes; a file takes whole blocks of a disk


class Member(NamedTuple):
    """A photo in a zip or folder."""

    name: str
    size: int  # bytes


Members = Mapping[str, Member]  # by their path below a split, a city or a half


def unpack(
    source: str | Path,
    root: str | Path,
    name: str,
    any_size: bool = False,
    delete: bool = False,
    origin: str | None = None,
    progress: bool = True,
) -> dict[str, Entry]:
    """Lay out one set in a data root; goes on where it was stopped.

    Args:
        source: a zip, or a folder with the set; a folder's photos become hard links, or copies on another disk.
        root: the data root; made if it isn't there.
        name: gsv_xs, sf_xs or tokyo_xs.
        any_size: accept other numbers of photos than the published ones.
        delete: remove the zip once its photos are in place and checked, or when it is damaged.
        origin: where the source came from, for the manifest.
        progress: say what is left out, and show a bar.

    Returns:
        {split: its entry in the manifest}.

    Raises:
        FileNotFoundError: no such source.
        ValueError: the zip is damaged or would write elsewhere; photos are missing, unreadable or badly named; a split
            is there already and holds other photos.
        OSError: too little space.
    """
    source, root = Path(source), Path(root)
    check_choice("set", name, SETS)
    if not source.exists():
        raise FileNotFoundError(f"no archive or folder at {source}; expected {name} as a zip, or unpacked")
    staging = root / ".download" / name
    staging.mkdir(parents=True, exist_ok=True)
    with open(root / ".download" / "unpack.lock", "w") as lock, _explain_errors(source, root, delete):
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second call waits, then finds everything in place
        with nullcontext() if source.is_dir() else zipfile.ZipFile(source) as archive:
            members = list_folder(source) if archive is None else list_archive(archive)
            plan, left_out = plan_splits(members, name)
            if left_out and progress:
                print("not used here, left out:", ", ".join(f"{n:,} photos in {f}" for f, n in left_out.most_common(5)))
            check_plan(plan, source, any_size)
            parts = _find_missing_parts(plan, root, staging)
            _check_space(source, root, parts)
            _write_parts(archive or source, parts, sum(map(len, plan.values())), progress)
        entries = {}
        for split in plan:
            there = (root / split).is_dir()
            entries[split] = {"set": name, "source": _hide_secrets(origin or str(source))}
            entries[split] |= summarize_photos(read_images((root if there else staging) / split))
            if not there:
                os.replace(staging / split, root / split)
        write_manifest(root, entries)
        shutil.rmtree(staging, ignore_errors=True)
    if delete and source.is_file():
        source.unlink()
    return entries


@contextmanager
def _explain_errors(source: Path, root: Path, delete: bool) -> Iterator[None]:
    """Say what to do about a damaged zip and a full disk."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        if delete:
            source.unlink()
        advice = "it is removed, run the same again to fetch it anew" if delete else "fetch or copy it again"
        raise ValueError(f"{source} is damaged or no zip ({error}); {advice}") from None
    except (NotImplementedError, RuntimeError) as error:  # a rare compression, a password
        raise ValueError(f"{source} can't be unpacked ({error}); make a plain zip of it") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"the disk of {root} is full; make room and run the same again, it goes on from there") from None


def list_archive(archive: zipfile.ZipFile) -> list[Member]:
    """The photos of a zip.

    Raises:
        ValueError: a member, photo or not, leads out of the folder or is a link.
    """
    for member in archive.infolist():
        name = member.filename
        outside = ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name)
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(
                f"{archive.filename} holds {name!r}, which leads out of the data root; nothing was unpacked. "
                "No archive of these sets has that: get it elsewhere"
            )
    return [Member(m.filename, m.file_size) for m in archive.infolist() if _is_photo(m.filename)]


def list_folder(folder: Path) -> list[Member]:
    """The photos of a folder and its subfolders, hidden ones apart."""
    members = []
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(path).relative_to(folder)
        members += [Member((below / f).as_posix(), os.stat(f"{path}/{f}").st_size) for f in files if _is_photo(f)]
    return members


def _is_photo(name: str) -> bool:
    # macOS puts a "._name.jpg" that is no photo beside each photo of its zips.
    return name.lower().endswith(PHOTO_SUFFIXES) and not name.rpartition("/")[2].startswith("._")


def plan_splits(members: Iterable[Member], name: str) -> tuple[dict[str, dict[str, Member]], Counter[str]]:
    """Where each photo of a set goes.

    Args:
        members: the photos of a zip or folder.
        name: the set.

    Returns:
        {split: {path below it: member}} for each split of the set, and {folder: how many of its photos aren't used}.

    Raises:
        ValueError: two photos would have one path, or a name has no UTM coordinates.
    """
    plan: dict[str, dict[str, Member]] = {split: {} for split in SETS[name].values()}
    left_out: Counter[str] = Counter()
    for member in members:
        split, path = find_place(member.name, name)
        if split is None:
            left_out[member.name.removesuffix(path).rstrip("/") or "."] += 1
            continue
        parse_name(member.name)
        if path in plan[split]:
            raise ValueError(f"{member.name} and {plan[split][path].name} would both become {split}/{path}")
        plan[split][path] = member
    return plan, left_out


def find_place(path: str, name: str) -> tuple[str, str] | tuple[None, str]:
    """Split and path below it of a photo in the archive of a set; None for one that isn't used.

    A photo lies in a city, or in a half (`database`, `queries`). Of the folders above, the nearest with the name of a
    split says which; a set of one split may do without.
    """
    *folders, _ = parts = path.split("/")
    halves = [number for number, folder in enumerate(folders) if folder in ("database", "queries")]
    if name == "gsv_xs":
        start = len(folders) - 1
        used = not halves and start >= 0 and folders[start] not in {*FOLDERS, *SETS}
    else:
        start = halves[0] if halves else 0
        used = bool(halves)
    splits = SETS[name]
    named = [folder for folder in folders[:start] if folder in FOLDERS]
    split = splits.get(named[-1]) if named else next(iter(splits.values())) if len({*splits.values()}) == 1 else None
    other_set = any(folder in SETS and folder != name for folder in folders)
    return (split if used and not other_set else None), "/".join(parts[start:])


def check_plan(plan: Mapping[str, Members], source: Path, any_size: bool) -> None:
    """Compare a source with the published sizes, before half a million photos are written.

    Raises:
        ValueError: a split is missing, or of another size unless `any_size`.
    """
    for split, photos in plan.items():
        parts = Counter(path.split("/")[0] for path in photos)
        found, published = count_photos(split, parts), PUBLISHED_SIZES[split]
        if not photos or (split != "train" and len(parts) < 2):
            raise ValueError(f"{source} has {found} for {split}; expected {published}")
        if found != published and not any_size:
            raise ValueError(f"{source} has {found} for {split}; published are {published}. --any-size accepts that")


def _find_missing_parts(plan: Mapping[str, Members], root: Path, staging: Path) -> dict[Path, dict[str, Member]]:
    """{folder of a city or half: its photos} still to write; half-written ones are removed."""
    missing = {}
    for split, photos in plan.items():
        if (root / f"{split}.zip").exists():
            raise ValueError(f"{root} has {split} as a pack, {split}.zip; move it away, or choose another root")
        if (root / split).exists():
            if not _holds(root / split, photos):
                raise ValueError(f"{root / split} is there, with other photos; move it away, or choose another root")
            continue
        parts: dict[Path, dict[str, Member]] = {}
        for path, member in photos.items():
            part, _, below = path.partition("/")
            parts.setdefault(staging / split / part, {})[below] = member
        for folder in (staging / split).iterdir() if (staging / split).is_dir() else ():
            if folder not in parts or not _holds(folder, parts[folder]):
                shutil.rmtree(folder)
        missing |= {folder: members for folder, members in parts.items() if not folder.is_dir()}
    return missing


def _holds(folder: Path, photos: Members) -> bool:
    return dict(list_folder(folder)) == {path: member.size for path, member in photos.items()}


def _check_space(source: Path, root: Path, parts: Mapping[Path, Members]) -> None:
    if source.is_dir() and source.stat().st_dev == root.stat().st_dev:
        return  # links take no space
    sizes = [member.size for photos in parts.values() for member in photos.values()]
    needed, free = sum(-(-size // BLOCK) * BLOCK for size in sizes), shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            f"{len(sizes):,} photos need {needed / 1e9:.1f} GB more, {root} has {free / 1e9:.1f} GB free; "
            "make room, or choose a root on another disk"
        )


def _write_parts(source: zipfile.ZipFile | Path, parts: Mapping[Path, Members], total: int, progress: bool) -> None:
    """Write cities and halves; each has its name only when it is whole, so a stop costs one of them at most."""
    done = total - sum(map(len, parts.values()))
    with tqdm(total=total, initial=done, unit="photo", desc="unpacking", disable=not progress) as bar:
        for folder, photos in parts.items():
            partial = folder.with_name(f"{folder.name}.part")
            for path, member in photos.items():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                _write_photo(source, member.name, partial / path)
                bar.update()
            os.sync()  # on the disk before it has its name, or a power cut leaves empty photos
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


def _hide_secrets(origin: str) -> str:
    """An address without the user, password or token in it."""
    return re.sub(r"(?<=://)[^/@]*@|[?#].*", "", origin) if "://" in origin else origin
