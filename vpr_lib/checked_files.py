"""Files that tell whether they are damaged: JSON, zips, CSV and arrays with a checksum.

Reading a damaged file is a `DamagedFile` error that names it and says what to do.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vpr_lib.atomic_files import open_atomically, write_atomically

MAPPED_BYTES = 2**30  # an array in a file larger than this is memory-mapped instead of read
_KEY = "sha256"  # of the checksum in a JSON file
_CRC_BYTES = 4  # at the end of an array's file: NumPy doesn't read them


class DamagedFile(ValueError):
    """A file isn't what was written; the message names it and says what to do."""

    def __init__(self, path: str | Path, reason: object, advice: str) -> None:
        super().__init__(f"{path} is damaged or was changed by hand ({reason}); {advice}")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically, with a checksum of its content under the key `sha256`."""
    text = json.dumps({**content, _KEY: _hash_json(content)}, indent=2)
    write_atomically(path, text.encode() + b"\n")


def read_json(path: str | Path, advice: str) -> dict[str, Any]:
    """Read what `write_json` wrote, without the checksum.

    Raises:
        DamagedFile: it holds something else; `advice` ends the message.
        FileNotFoundError: it doesn't exist.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        checksum = content.pop(_KEY)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise DamagedFile(path, f"no JSON with a checksum: {error}", advice) from None
    if checksum != _hash_json(content):
        raise DamagedFile(path, "its checksum is wrong", advice)
    return content


def _hash_json(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_text(text: str) -> str:
    """16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal_zip(data: bytes) -> bytes:
    """A zip without a comment (of `torch.save` or `np.savez`) with the SHA-256 of all its bytes as its comment."""
    body = data[:-2] + len(hashlib.sha256().hexdigest()).to_bytes(2, "little")  # a zip ends with its comment's length
    return body + hashlib.sha256(body).hexdigest().encode()


def read_zip(path: str | Path, advice: str) -> io.BytesIO:
    """The bytes that `seal_zip` made and somebody wrote to a file; a `DamagedFile` if they are others.

    The checksums in the format do not suffice: torch and NumPy do not check all of them, and read some fields that they
    do not cover.
    """
    data = Path(path).read_bytes()
    if hashlib.sha256(data[:-64]).hexdigest().encode() != data[-64:]:
        raise DamagedFile(path, "its checksum is wrong", advice)
    return io.BytesIO(data)


def check_zip(data: bytes) -> None:
    """Raise BadZipFile if a zip's own checksums or names do not fit; fields without a checksum can be wrong unseen."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        check_directory(archive)
        bad = archive.testzip()  # also compares each name with the one in the zip's directory
        folders = [member.filename for member in archive.infolist() if member.external_attr & 0x10]
    if bad is not None or folders:  # torch takes what is marked as a folder for empty
        raise zipfile.BadZipFile(f"{bad or folders[0]} is damaged")


def check_directory(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile if entries are missing: `zipfile` doesn't notice that a wrong length hides those after it."""
    end = archive.start_dir
    for member in archive.infolist():
        name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
        end += 46 + len(name) + len(member.extra) + len(member.comment)
    archive.fp.seek(end)
    record = archive.fp.read(40)  # the end record or, before it, its 64-bit form: each holds the number of entries
    number = {b"PK\5\6": record[10:12], b"PK\6\6": record[32:40]}.get(record[:4])
    # Some programs count modulo 65,536.
    if number is None or (int.from_bytes(number, "little") - len(archive.infolist())) % (1 << 16):
        raise zipfile.BadZipFile("its directory is damaged")


def write_sealed(path: str | Path, data: bytes) -> None:
    """Write a file atomically, and its checksum as `<path>.sha256`, in the format of the command sha256sum."""
    path = Path(path)
    line = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
    seal = _seal_path(path)
    before = seal.read_text(encoding="utf-8", errors="replace") if seal.is_file() else ""
    write_atomically(seal, (line + before).encode())  # fits the old and the new file, whatever a power cut leaves
    write_atomically(path, data)
    write_atomically(seal, line.encode())


def is_sealed(path: str | Path, data: bytes) -> bool:
    """Whether a file's content fits the checksum in `<path>.sha256`; True where there is none."""
    seal = _seal_path(Path(path))
    return not os.path.lexists(seal) or hashlib.sha256(data).hexdigest().encode() in seal.read_bytes()


def _seal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def write_array(path: str | Path, num_rows: int, parts: Iterable[np.ndarray]) -> None:
    """Write an array (num_rows, ...) as a .npy file that ends with its CRC-32, atomically.

    `parts` are its consecutive rows; no more than one part is in memory.
    """
    checksum = 0
    with open_atomically(path) as file:
        for number, part in enumerate(parts):
            part = part.astype(part.dtype.newbyteorder("<"), copy=False)
            data = part.tobytes()
            if number == 0:
                data = _make_header((num_rows, *part.shape[1:]), part.dtype) + data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        file.write(checksum.to_bytes(_CRC_BYTES, "little"))


def _make_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The first bytes of a .npy file."""
    header = io.BytesIO()
    about = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def checksum_array(array: np.ndarray) -> int:
    """The CRC-32 of the .npy file of an array: of its shape, type and bytes.

    Of a file that `write_array` wrote, mapped as a whole and read-only, it is read from the file's end; `check_array`
    has checked it. Otherwise, all of the array is read.
    """
    header = _make_header(array.shape, array.dtype)
    if isinstance(array, np.memmap) and array.mode == "r" and array.flags.c_contiguous and array.filename:
        with open(array.filename, "rb") as file:  # a view of the mapped array has its file name, too
            if file.read(array.offset) == header and file.seek(0, 2) == len(header) + array.nbytes + _CRC_BYTES:
                file.seek(-_CRC_BYTES, 2)
                return int.from_bytes(file.read(), "little")
    checksum = zlib.crc32(header)
    num_rows = max(1, 2**22 * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), num_rows):
        rows = array[start : start + num_rows]
        rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        checksum = zlib.crc32(rows.data, checksum)
    return checksum


def checksum_file(path: str | Path) -> int:
    """The CRC-32 of a file's bytes."""
    with open(path, "rb") as file:
        return _checksum_next(file, Path(path).stat().st_size)


def _checksum_next(file: BinaryIO, number: int) -> int:
    """The CRC-32 of the next bytes of a file, as many as there are if they are fewer."""
    checksum = 0
    while data := file.read(max(0, min(number, 2**22))):
        checksum = zlib.crc32(data, checksum)
        number -= len(data)
    return checksum


def open_array(path: str | Path) -> np.ndarray:
    """The array that `write_array` wrote, memory-mapped if it is large; `check_array` tells whether it is undamaged."""
    return np.load(path, mmap_mode="r" if Path(path).stat().st_size > MAPPED_BYTES else None)


def is_usable(path: str | Path, advice: str) -> bool:
    """Whether there is an undamaged file that `write_array` wrote; that it is damaged is printed."""
    try:
        check_array(path, advice)
    except OSError:  # it doesn't exist, or can't be read
        return False
    except DamagedFile as error:
        print(error, flush=True)
        return False
    return True


def check_array(path: str | Path, advice: str) -> None:
    """Raise a `DamagedFile` unless a file is as `write_array` wrote it."""
    with open(path, "rb") as file:
        checksum = _checksum_next(file, Path(path).stat().st_size - _CRC_BYTES)
        if file.read() != checksum.to_bytes(_CRC_BYTES, "little"):
            raise DamagedFile(path, "its checksum is wrong", advice)
