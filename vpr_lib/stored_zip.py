"""Reading the members of a plain stored zip (a pack) without unpacking it."""

import functools
import mmap
import os
import struct
import zipfile
from collections import Counter
from pathlib import Path

from vpr_lib.file_names import PHOTO_SUFFIXES


def list_members(pack: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip; one that isn't complete is a ValueError."""
    try:
        with zipfile.ZipFile(pack) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{pack} is no complete zip file ({error}); make or copy the pack again") from None


def list_photos(pack: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and header offset of each photo in a pack; a compressed or repeated one is a ValueError."""
    members = [member for member in list_members(pack) if member.filename.lower().endswith(PHOTO_SUFFIXES)]
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{pack}: {member.filename} is compressed; a pack is a plain stored zip (zip -0)")
    for name, count in Counter(member.filename for member in members).items():
        if count > 1:
            raise ValueError(f"{pack} holds {name} twice; make the pack again")
    return [(member.filename, member.file_size, member.header_offset) for member in members]


def read_member(pack: Path, header_offset: int, size: int) -> bytes:
    """The bytes of a stored member of this size whose local header starts at `header_offset`."""
    stat = os.stat(pack)
    view = _map_file(pack, stat.st_mtime_ns, stat.st_size)
    # A stored member: a 30-byte header that ends with the lengths of name and extra field, both fields, the data.
    start = header_offset + 30 + sum(struct.unpack_from("<HH", view, header_offset + 26))
    return view[start : start + size]


@functools.lru_cache(maxsize=16)
def _map_file(path: Path, mtime_ns: int, size: int) -> mmap.mmap:
    """A memory map of a file; a changed file (other time or size) gets a new one."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
