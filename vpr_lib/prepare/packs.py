"""A folder of photos -> a pack: one plain stored zip with the same names, resized once, so that training needn't.

Half a million small files take hours to copy, one file copies at full speed; and a photo of the training's size decodes
several times faster than one that must be resized.
"""

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

AHEAD = 256  # photos resized ahead of the one being written: bounds the memory


def write_pack(
    folder: str | Path, pack: str | Path | None = None, image_size: int = 320, quality: int = 90, progress: bool = True
) -> Path:
    """Write the photos of a folder as one zip, squeezed to squares as training sees them.

    Args:
        folder: photos, in subfolders too: `ROOT/train`, or a split with `database` and `queries`.
        pack: the file to write; None is the folder's name with `.zip`, which takes the folder's place in a data root.
        image_size: pixels, height and width.
        quality: of the JPEGs, 1 to 95; a photo named `.png` stays a PNG.
        progress: show a bar.

    Returns:
        The pack; it has its name only when it is complete. One made of these photos at this size is left alone.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a photo can't be read (the message names it), or a size or name is wrong.
        OSError: it can't be written.
    """
    folder = Path(folder)
    pack = folder.with_name(f"{folder.name}.zip") if pack is None else Path(pack)
    if pack.suffix.lower() != ".zip" or image_size < 1 or not 1 <= quality <= 95:
        raise ValueError(f"{pack} at {image_size} px, quality {quality}: expected a .zip, 1 px or more, 1 to 95")
    table = read_images(folder)
    made_of = f"{table.fingerprint} at {image_size} px, quality {quality}".encode()
    if read_comment(pack) == made_of:
        return pack
    with open_atomically(pack) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = made_of
        photos = resize_all(table, image_size, quality)
        for name, data in tqdm(photos, total=len(table), unit="photo", desc=str(pack), disable=not progress):
            archive.writestr(zipfile.ZipInfo(name), data)  # without a date: equal photos give equal packs
    return pack


def read_comment(pack: Path) -> bytes:
    """What a pack says it is made of; b"" where there is no whole pack."""
    if not (pack.is_file() and zipfile.is_zipfile(pack)):
        return b""
    with zipfile.ZipFile(pack) as archive:
        return archive.comment


def resize_all(table: ImageTable, image_size: int, quality: int) -> Iterator[tuple[str, bytes]]:
    """Name and resized file of each photo, in the table's order."""

    def resize(row: int) -> tuple[str, bytes]:
        name, buffer = str(table.names[row]), io.BytesIO()
        photo = Image.fromarray(read_photo(table, row, image_size).transpose(1, 2, 0))
        photo.save(buffer, "PNG" if name.lower().endswith(".png") else "JPEG", quality=quality)
        return name, buffer.getvalue()

    with ThreadPoolExecutor(count_cores()) as pool:  # threads will do: Pillow works outside Python's lock
        for start in range(0, len(table), AHEAD):
            yield from pool.map(resize, range(start, min(start + AHEAD, len(table))))


def copy_packs(data_root: str | Path, to: str | Path, progress: bool = True) -> Path:
    """Copy the packs of a data root, and its `scenarios.csv`, to a disk that is nearer: in Colab, from Drive.

    Args:
        data_root: folder with `train.zip`, `<split>.zip`.
        to: folder on the local disk; made if need be. What is there already, of the same size, is not copied again.
        progress: show a bar.

    Returns:
        `to`, a data root.

    Raises:
        FileNotFoundError: the root holds no pack.
        OSError: too little space.
    """
    root, to = Path(data_root), Path(to)
    packs = sorted(root.glob("*.zip"))
    if not packs:
        raise FileNotFoundError(f"no packs (*.zip) in {root}; python -m vpr_lib pack {root}/train makes one")
    to.mkdir(parents=True, exist_ok=True)
    files = [path for path in (*packs, root / "scenarios.csv") if path.is_file()]
    todo = [path for path in files if not is_copy(path, to / path.name)]
    needed, free = sum(path.stat().st_size for path in todo), shutil.disk_usage(to).free
    if needed > free:
        raise OSError(f"{len(todo)} packs need {needed / 1e9:.1f} GB, {to} has {free / 1e9:.1f} GB free")
    with tqdm(total=needed, unit="B", unit_scale=True, desc=f"to {to}", disable=not progress) as bar:
        for path in todo:
            with open(path, "rb") as source, open_atomically(to / path.name) as target:
                while chunk := source.read(1 << 22):
                    target.write(chunk)
                    bar.update(len(chunk))
            shutil.copystat(path, to / path.name)
    return to


def is_copy(source: Path, copy: Path) -> bool:
    """Whether a file is there already: as large, and not older."""
    return copy.is_file() and (s := source.stat()).st_size == (c := copy.stat()).st_size and c.st_mtime >= s.st_mtime
