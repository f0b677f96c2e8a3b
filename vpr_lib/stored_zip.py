"""Reading the members of a plain stored zip (a pack) without unpacking it."""

import functools
import mmap
import os
import struct
import zipfile
from collections import Counter
from pathlib import Path

from vpr_lib.file_names import PHOTO_SUFFIXES


def list_photos(pack: Path) -> tuple[list[str], list[int], list[int]]:
    """Names, sizes in bytes and header offsets of the photos in a pack, in the order of the zip.

    Raises:
        ValueError: it is no complete zip, a photo is compressed, or a name occurs twice.
    """
    try:
        with zipfile.ZipFile(pack) as archive:
            members = [m for m in archive.infolist() if m.filename.lower().endswith(PHOTO_SUFFIXES)]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{pack} is no complete zip file ({error}); make or copy the pack again") from None
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{pack}: {member.filename} is compressed; a pack is a plain stored zip (zip -0)")
    names = [m.filename for m in members]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{pack} holds {twice} twice; make the pack again")
    return names, [m.file_size for m in members], [m.header_offset for m in members]


def read_member(pack: Path, header_offset: int, size: int) -> bytes:
    """The bytes of one stored member.

    Args:
        pack: the zip.
        header_offset: position of the member's local header.
        size: bytes of the member.
    """
    stat = os.stat(pack)
    view = _map_file(pack, stat.st_mtime_ns, stat.st_size)
    # A stored member: a 30-byte header that ends with the lengths of name and extra field, both fields, the data.
    name_length, extra_length = struct.unpack_from("<HH", view, header_offset + 26)
    start = header_offset + 30 + name_length + extra_length
    return view[start : start + size]


@functools.lru_cache(maxsize=16)
def _map_file(path: Path, mtime_ns: int, size: int) -> mmap.mmap:
    """A memory map of a file; a changed file (other time or size) gets a new one."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
