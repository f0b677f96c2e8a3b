"""Packs: the photos of a folder, resized once and stored in plain zips, which are fast to copy and to decode."""

import contextlib
import filecmp
import io
import itertools
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from vpr_lib.atomic_files import TemporaryFiles, open_atomically
from vpr_lib.images import ImageTable, read_images
from vpr_lib.machine import count_cores
from vpr_lib.pack_files import check_files, find_files, list_files, name_glob, name_pack, name_shard
from vpr_lib.photos import read_photo
from vpr_lib.stored_zip import hash_directory, list_photos, read_origin

QUALITY = 90  # of the JPEGs
MAX_PIXELS = 4096  # height and width
CHUNK_PHOTOS = 256  # photos resized at a time: limits the memory
_DIRECTORY = "directory "  # in a zip's comment, before 16 hex digits of `hash_directory`


def write_pack(
    folder: str | Path,
    pack: str | Path | None = None,
    image_size: int = 320,
    progress: bool = True,
    max_bytes: float = 4e9,
) -> Path:
    """Write the photos of a folder as one zip or several, resized to squares; a pack that is there and whole is kept.

    Files that an earlier call wrote of the same photos, in another number, are removed.

    Args:
        folder: photos, in subfolders too: `ROOT/train`, or a split with `database` and `queries`.
        pack: the file, which appears when complete; None: the folder's name with `.zip`, read instead of the folder.
        image_size: pixels, height and width.
        max_bytes: of a file. Photos that need more go, in the table's order, into shards `train-001-of-003.zip`, ...;
            these appear when the last one is complete. The default is below the largest file of a FAT32 disk.

    Returns:
        What `read_images` takes: the pack's path, or of shards the glob `train-*-of-003.zip`.

    Raises:
        ValueError: a photo is not readable or takes more than `max_bytes` (the message names it), an argument is
            invalid, or files of other photos are there that would be read as this pack.
    """
    folder = Path(folder)
    pack = folder.with_name(f"{folder.name}.zip") if pack is None else Path(pack)
    is_name = pack.suffix.lower() == ".zip" and not pack.is_dir() and name_pack(pack) == pack
    if not (is_name and 1 <= image_size <= MAX_PIXELS and max_bytes >= 1):
        expected = f"expected a file that ends in .zip, not a shard, 1 to {MAX_PIXELS} px, and at least a byte"
        raise ValueError(f"{pack} at {image_size} px, {max_bytes} bytes a file: {expected}")
    _refuse_foreign(pack)
    table = read_images(folder)
    whole = f"{table.fingerprint} at {image_size} px, quality {QUALITY}, "
    origins = (f"{whole}{len(table)} photos in all, {max_bytes:.0f} bytes a file, ", whole)
    files = _find_intact(pack, origins, max_bytes)
    if not files:
        photos = _resize_photos(table, image_size)
        photos = tqdm(photos, total=len(table), unit="photo", desc=str(pack), disable=not progress)
        files = _write_files(pack, iter(photos), len(table), origins, max_bytes)
    _remove_others(pack, files, table.fingerprint)
    return name_glob(files[0])


def _refuse_foreign(pack: Path) -> None:
    """Raise a ValueError if there are shards of this name that `write_pack` did not write."""
    files = find_files(pack)
    own = {name_glob(file) for file in files if read_origin(file)}  # one of the shards may be damaged
    for file in files:
        if file != pack and name_glob(file) not in own and zipfile.is_zipfile(file):
            raise ValueError(f"{file} was made by another program and would be read as {pack.stem}; move it away")


def _find_intact(pack: Path, origins: tuple[str, str], max_bytes: float) -> list[Path]:
    """The files of an undamaged pack of the same photos and settings; [] if there is none."""
    for path in dict.fromkeys(map(name_glob, find_files(pack))):
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile):
            files = list_files(path)
            is_same = {read_origin(file) for file in files} == {origins[path == pack]}
            is_small = max(file.stat().st_size for file in files) <= max_bytes
            if is_same and is_small and list_photos(files) and not any(map(list_damaged, files)):
                return files
    return []


def _write_files(
    pack: Path, photos: Iterator[tuple[str, bytes]], num_photos: int, origins: tuple[str, str], max_bytes: float
) -> list[Path]:
    """Write a pack as one file or as shards, which appear when all are complete; arguments as of `_fill_zip`."""
    number, left = 0, next(photos)
    with TemporaryFiles(pack) as temporary:
        while left:
            with temporary.open_next() as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                left = _fill_zip(archive, itertools.chain([left], photos), num_photos, origins, max_bytes)
                members = archive.infolist()
                origin = origins[len(members) == num_photos]
                archive.comment = f"{origin}{_DIRECTORY}{hash_directory(members)}".encode()
            number += 1
        files = [pack] if number == 1 else [name_shard(pack, i + 1, number) for i in range(number)]
        temporary.rename(files)
    return files


def _fill_zip(
    archive: zipfile.ZipFile,
    photos: Iterator[tuple[str, bytes]],
    num_photos: int,
    origins: tuple[str, str],
    max_bytes: float,
) -> tuple[str, bytes] | None:
    """Write photos, as (name, file), into a zip until it is full; return the first that didn't fit, or None.

    Args:
        num_photos: in all.
        origins: how the zip's comment begins if it holds some of the photos, and if it holds all.
    """
    directory = 0  # bytes of the entries that the zip's directory will have
    for name, data in photos:
        start, length, number = archive.start_dir, len(name.encode()), len(archive.infolist()) + 1
        end = start + 30 + length + len(data)  # 30: a header without its name
        directory += 46 + length + (12 if start > zipfile.ZIP64_LIMIT else 0)
        is_large = max(start, end, directory) > zipfile.ZIP64_LIMIT or number > zipfile.ZIP_FILECOUNT_LIMIT
        comment = len(origins[number == num_photos]) + len(_DIRECTORY) + 16
        needed = end + directory + (98 if is_large else 22) + comment
        if needed > max_bytes:
            if number == 1:
                raise ValueError(f"{name} alone takes {needed:,} of {max_bytes:,.0f} bytes a file; allow larger files")
            return name, data
        archive.writestr(zipfile.ZipInfo(name), data)  # no date: equal photos give equal packs
    return None


def list_damaged(pack: Path) -> list[str]:
    """Names of the photos in a pack that have another content or name than its directory says.

    Raises:
        ValueError: the directory itself is damaged, or this is no pack.
    """
    damaged = []
    photos = list_photos([pack])
    with zipfile.ZipFile(pack) as archive:
        for photo in tqdm(photos, unit="photo", desc=f"checking {pack}", delay=2):
            try:
                is_intact = len(archive.read(photo.name)) == photo.size
            except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError):
                is_intact = False
            damaged += [] if is_intact else [photo.name]
    return damaged


def _remove_others(pack: Path, files: list[Path], fingerprint: str) -> None:
    """Remove what `write_pack` wrote of the same photos in other files; files of other photos are a ValueError."""
    others = [file for file in find_files(pack) if file not in files]
    own = [file for file in others if read_origin(file).startswith(f"{fingerprint} at ")]
    for file in own:
        file.unlink()
    if foreign := [str(file) for file in others if file not in own]:
        conflict = f"{', '.join(foreign)} would be read as {pack.stem}, too, and are damaged or hold other photos"
        raise ValueError(f"{name_glob(files[0])} is complete, but {conflict}; remove them")


def _resize_photos(table: ImageTable, image_size: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the resized file of each photo, in the table's order."""

    def resize(row: int) -> tuple[str, bytes]:
        name = str(table.names[row])
        buffer = io.BytesIO()
        photo = Image.fromarray(read_photo(table, row, image_size).transpose(1, 2, 0))  # (H, W, 3)
        photo.save(buffer, "PNG" if name.lower().endswith(".png") else "JPEG", quality=QUALITY)
        return name, buffer.getvalue()

    with ThreadPoolExecutor(count_cores()) as pool:  # threads suffice: Pillow releases Python's global lock
        for start in range(0, len(table), CHUNK_PHOTOS):
            yield from pool.map(resize, range(start, min(start + CHUNK_PHOTOS, len(table))))


def copy_packs(data_root: str | Path, to: str | Path, progress: bool = True) -> Path:
    """Copy the packs of a data root and its `scenarios.csv` to a faster disk, for example from Drive in Colab.

    Args:
        to: folder on the local disk; created if missing. Files copied earlier are kept.

    Raises:
        FileNotFoundError: the root has no pack.
        ValueError: shards are missing, or `to` holds shards of an older version of a pack.
        OSError: too little space.
    """
    root, to = Path(data_root), Path(to)
    packs = check_files(root.glob("*.zip"))
    if not packs:
        raise FileNotFoundError(f"no packs (*.zip) in {root}; python -m vpr_lib pack {root}/train writes one")
    to.mkdir(parents=True, exist_ok=True)
    check_files({*to.glob("*.zip"), *(to / pack.name for pack in packs)})
    names = [path.name for path in [*packs, *root.glob("scenarios.csv*")]]
    _, different, absent = filecmp.cmpfiles(root, to, names)  # compares contents only where dates differ
    missing = [root / name for name in different + absent]
    needed, free = sum(path.stat().st_size for path in missing), shutil.disk_usage(to).free
    if needed > free:
        raise OSError(f"{len(missing)} packs need {needed / 1e9:.1f} GB, {to} has {free / 1e9:.1f} GB free; make room")
    with tqdm(total=needed, unit="B", unit_scale=True, desc=f"to {to}", disable=not progress) as bar:
        for path in missing:
            with open(path, "rb") as source, open_atomically(to / path.name) as target:
                while chunk := source.read(1 << 22):  # bytes
                    target.write(chunk)
                    bar.update(len(chunk))
            shutil.copystat(path, to / path.name)
    return to
