"""Packs: the photos of a folder, resized once and stored in one plain zip, which is fast to copy and to decode."""

import filecmp
import io
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from vpr_lib.atomic_files import open_atomically
from vpr_lib.images import ImageTable, read_images
from vpr_lib.machine import count_cores
from vpr_lib.photos import read_photo
from vpr_lib.stored_zip import hash_directory, list_photos

QUALITY = 90  # of the JPEGs
MAX_PIXELS = 4096  # height and width
CHUNK_PHOTOS = 256  # photos resized at a time: limits the memory


def write_pack(
    folder: str | Path, pack: str | Path | None = None, image_size: int = 320, progress: bool = True
) -> Path:
    """Write the photos of a folder as one zip, resized to squares; one that is there and whole is kept.

    Args:
        folder: photos, in subfolders too: `ROOT/train`, or a split with `database` and `queries`.
        pack: the file, which appears when complete; None: the folder's name with `.zip`, read instead of the folder.
        image_size: pixels, height and width.

    Raises:
        ValueError: a photo is not readable (the message names it), or an argument is invalid.
    """
    folder = Path(folder)
    pack = folder.with_name(f"{folder.name}.zip") if pack is None else Path(pack)
    if pack.suffix.lower() != ".zip" or pack.is_dir() or not 1 <= image_size <= MAX_PIXELS:
        raise ValueError(f"{pack} at {image_size} px: expected a file that ends in .zip, and 1 to {MAX_PIXELS} px")
    table = read_images(folder)
    comment = f"{table.fingerprint} at {image_size} px, quality {QUALITY}, directory "
    if _is_intact(pack, comment):
        return pack
    with open_atomically(pack) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        photos = _resize_photos(table, image_size)
        for name, data in tqdm(photos, total=len(table), unit="photo", desc=str(pack), disable=not progress):
            archive.writestr(zipfile.ZipInfo(name), data)  # no date: equal photos give equal packs
        archive.comment = (comment + hash_directory(archive.infolist())).encode()
    return pack


def list_damaged(pack: Path) -> list[str]:
    """Names of the photos in a pack that have another content or name than its directory says.

    Raises:
        ValueError: the directory itself is damaged, or this is no pack.
    """
    damaged = []
    photos = list_photos(pack)
    with zipfile.ZipFile(pack) as archive:
        for photo in tqdm(photos, unit="photo", desc=f"checking {pack}", delay=2):
            try:
                is_intact = len(archive.read(photo.name)) == photo.size
            except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError):
                is_intact = False
            damaged += [] if is_intact else [photo.name]
    return damaged


def _is_intact(pack: Path, comment: str) -> bool:
    """Whether there is an undamaged pack whose comment begins with `comment`."""
    try:
        with zipfile.ZipFile(pack) as archive:
            return archive.comment.startswith(comment.encode()) and not list_damaged(pack)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


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
        OSError: too little space.
    """
    root, to = Path(data_root), Path(to)
    packs = sorted(root.glob("*.zip"))
    if not packs:
        raise FileNotFoundError(f"no packs (*.zip) in {root}; python -m vpr_lib pack {root}/train writes one")
    to.mkdir(parents=True, exist_ok=True)
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
