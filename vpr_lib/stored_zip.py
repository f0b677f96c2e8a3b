"""Reading the members of plain stored zips (packs) without unpacking them."""

import functools
import hashlib
import mmap
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vpr_lib.checked_files import check_directory
from vpr_lib.file_names import PHOTO_SUFFIXES


class FileEntry(NamedTuple):
    """A photo's file in a folder or pack."""

    name: str  # below the folder, or in the pack
    size: int  # bytes
    offset: int = -1  # where its header starts in the pack; -1 in a folder
    checksum: int = -1  # CRC-32, from the pack's directory; -1 in a folder
    shard: int = 0  # which of the pack's files holds it


def list_members(pack: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip; one that is not complete, or whose directory is damaged, is a ValueError."""
    try:
        with zipfile.ZipFile(pack) as archive:
            members = archive.infolist()
            check_directory(archive)
            expected = re.search(rb"directory ([0-9a-f]{16})$", archive.comment)
            if not expected:  # a pack made by another program
                _compare_headers(pack, members)
            elif expected[1].decode() != hash_directory(members):
                raise zipfile.BadZipFile("the checksum of its directory is wrong")
            return members
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{pack} is no complete zip file ({error}); make or copy the pack again") from None


def hash_directory(members: Iterable[zipfile.ZipInfo]) -> str:
    """16 hex digits of names, sizes, checksums and offsets; they end the comment of a pack from `write_pack`."""
    rows = [f"{each.filename}\0{each.file_size}\0{each.CRC}\0{each.header_offset}" for each in members]
    return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()[:16]


def _compare_headers(pack: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise BadZipFile if a member has another name or checksum in its header than in the directory."""
    view = _map_file(pack, os.stat(pack).st_mtime_ns, os.stat(pack).st_size) if members else b""
    for member in members:
        start = member.header_offset
        header = view[start : start + 30].ljust(30)
        name = view[start + 30 : start + 30 + int.from_bytes(header[26:28], "little")]
        is_same_name = member.orig_filename in (name.decode("utf-8", "replace"), name.decode("cp437"))
        is_written_later = header[6] & 8  # the checksum follows the data
        is_same = is_same_name and (is_written_later or int.from_bytes(header[14:18], "little") == member.CRC)
        if header[:4] != b"PK\3\4" or not is_same:
            raise zipfile.BadZipFile(f"{member.filename} has another name or checksum in its header")


def read_origin(file: Path) -> str:
    """What a zip's comment says of its photos before they were packed; "" if `write_pack` did not write the zip."""
    with open(file, "rb") as stream:
        stream.seek(max(0, os.stat(file).st_size - 300))  # bytes; the comment is shorter, and ends the file
        match = re.search(rb"([0-9a-f]{16} at [ -~]+, )directory [0-9a-f]{16}\Z", stream.read())
    return match[1].decode() if match else ""


def list_photos(files: Sequence[Path]) -> list[FileEntry]:
    """The photos in the files of a pack.

    Raises:
        ValueError: one is compressed or there twice, a file is damaged, or the files are shards of several packs.
    """
    photos: dict[str, FileEntry] = {}
    origin = read_origin(files[0])
    for number, file in enumerate(files):
        members = [member for member in list_members(file) if is_photo(member.filename)]
        if read_origin(file) != origin:
            advice = "copy all shards of one, or make the pack again"
            raise ValueError(f"{files[0]} and {file} are shards of different packs, by photos or settings; {advice}")
        for member in members:
            name = member.filename
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{file}: {name} is compressed; a pack is a plain stored zip (zip -0)")
            photo = FileEntry(name, member.file_size, member.header_offset, member.CRC, number)
            other = photos.setdefault(name, photo)
            if other is not photo:
                where = "twice" if other.shard == number else f"and so does {files[other.shard]}"
                raise ValueError(f"{file} holds {name} {where}; make the pack again")
    expected = re.search(r"(\d+) photos in all", origin)
    if expected and len(files) > 1 and len(photos) != int(expected[1]):
        found = f"{files[0]} and the other shards hold {len(photos)} photos of {expected[1]}"
        raise ValueError(f"{found}; copy all shards again, or make the pack again")
    return list(photos.values())


def is_photo(name: str) -> bool:
    """Whether a file is a photo by its name, and neither hidden nor in a hidden folder.

    macOS adds a hidden `._name.jpg`, which is none, to photos on other disks; Jupyter makes `.ipynb_checkpoints`.
    """
    return name.lower().endswith(PHOTO_SUFFIXES) and "/." not in f"/{name}"


def read_member(pack: Path, offset: int, size: int, checksum: int) -> bytes:
    """The bytes of a stored member whose header starts at an offset; with another checksum, it is a ValueError."""
    stat = os.stat(pack)
    view = _map_file(pack, stat.st_mtime_ns, stat.st_size)
    # A stored member: a 30-byte header that ends with the lengths of name and extra field, both fields, the data.
    header = view[offset : offset + 30]
    if len(header) == 30:
        start = offset + 30 + sum(struct.unpack_from("<HH", header, 26))
        data = view[start : start + size]
        if zlib.crc32(data) == checksum:
            return data
    raise ValueError("is damaged in its pack (its checksum is wrong); make or copy the pack again")


@functools.lru_cache(maxsize=128)  # each keeps its file open, of which a process may have 256 on some systems
def _map_file(path: Path, mtime_ns: int, size: int) -> mmap.mmap:
    """A memory map of a file; a changed file (other time or size) gets a new one."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
