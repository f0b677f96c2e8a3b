"""Packs: the photos of a folder, resized once and stored in one plain zip, which is fast to copy and to decode."""

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

CHUNK_PHOTOS = 256  # photos resized at a time: limits the memory
CHUNK_BYTES = 1 << 22  # bytes copied at a time


def write_pack(
    folder: str | Path, pack: str | Path | None = None, image_size: int = 320, quality: int = 90, progress: bool = True
) -> Path:
    """Write the photos of a folder as one zip, resized to squares; a pack of the same photos and size is kept.

    Args:
        folder: photos, in subfolders too: `ROOT/train`, or a split with `database` and `queries`.
        pack: the file to write; None: the folder's name with `.zip`, which is read instead of the folder.
        image_size: pixels, height and width.
        quality: of the JPEGs, 1 to 95; a photo named `.png` stays a PNG.
        progress: show a progress bar.

    Returns:
        The path of the pack; the file appears only when it is complete.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: a photo is not readable (the message names it), or an argument is invalid.
    """
    folder = Path(folder)
    pack = folder.with_name(f"{folder.name}.zip") if pack is None else Path(pack)
    if pack.suffix.lower() != ".zip" or image_size < 1 or not 1 <= quality <= 95:
        raise ValueError(f"{pack} at {image_size} px, quality {quality}: expected a .zip, 1 px or more, 1 to 95")
    table = read_images(folder)
    comment = f"{table.fingerprint} at {image_size} px, quality {quality}".encode()
    if _read_comment(pack) == comment:
        return pack
    with open_atomically(pack) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = comment
        photos = _resize_photos(table, image_size, quality)
        for name, data in tqdm(photos, total=len(table), unit="photo", desc=str(pack), disable=not progress):
            archive.writestr(zipfile.ZipInfo(name), data)  # no date: equal photos give equal packs
    return pack


def _read_comment(pack: Path) -> bytes:
    """Comment of a pack, which says what it was made of; empty if there is no valid zip."""
    if not (pack.is_file() and zipfile.is_zipfile(pack)):
        return b""
    with zipfile.ZipFile(pack) as archive:
        return archive.comment


def _resize_photos(table: ImageTable, image_size: int, quality: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the resized file of each photo, in the table's order."""

    def resize(row: int) -> tuple[str, bytes]:
        name = str(table.names[row])
        buffer = io.BytesIO()
        photo = Image.fromarray(read_photo(table, row, image_size).transpose(1, 2, 0))  # (H, W, 3)
        photo.save(buffer, "PNG" if name.lower().endswith(".png") else "JPEG", quality=quality)
        return name, buffer.getvalue()

    with ThreadPoolExecutor(count_cores()) as pool:  # threads suffice: Pillow releases Python's global lock
        for start in range(0, len(table), CHUNK_PHOTOS):
            yield from pool.map(resize, range(start, min(start + CHUNK_PHOTOS, len(table))))


def copy_packs(data_root: str | Path, to: str | Path, progress: bool = True) -> Path:
    """Copy the packs of a data root and its `scenarios.csv` to a faster disk, for example from Drive in Colab.

    Args:
        data_root: folder with `train.zip`, `<split>.zip`.
        to: folder on the local disk; created if missing. Files copied earlier are kept.
        progress: show a progress bar.

    Returns:
        `to`, a data root.

    Raises:
        FileNotFoundError: the root has no pack.
        OSError: too little space.
    """
    root = Path(data_root)
    to = Path(to)
    files = sorted(root.glob("*.zip"))
    if not files:
        raise FileNotFoundError(f"no packs (*.zip) in {root}; python -m vpr_lib pack {root}/train writes one")
    if (root / "scenarios.csv").is_file():
        files.append(root / "scenarios.csv")
    to.mkdir(parents=True, exist_ok=True)
    missing = [path for path in files if not _is_copied(path, to / path.name)]
    needed = sum(path.stat().st_size for path in missing)
    free = shutil.disk_usage(to).free
    if needed > free:
        raise OSError(f"{len(missing)} packs need {needed / 1e9:.1f} GB, {to} has {free / 1e9:.1f} GB free")
    with tqdm(total=needed, unit="B", unit_scale=True, desc=f"to {to}", disable=not progress) as bar:
        for path in missing:
            with open(path, "rb") as source, open_atomically(to / path.name) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    bar.update(len(chunk))
            shutil.copystat(path, to / path.name)
    return to


def _is_copied(source: Path, copy: Path) -> bool:
    """Whether `copy` exists, has the same size and is not older."""
    if not copy.is_file():
        return False
    before = source.stat()
    after = copy.stat()
    return after.st_size == before.st_size and after.st_mtime >= before.st_mtime
