"""The photos of a zip or folder to unpack: lists them, refuses what is unsafe, compares and copies one."""

import copy
import filecmp
import itertools
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from vpr_lib.checked_files import check_directory
from vpr_lib.stored_zip import FileEntry, is_photo

MAX_PHOTO_BYTES = 10**9
MAX_RATIO = 100  # of a photo to its compressed size; zip hardly compresses JPEG and PNG
HEADER_BYTES = 30  # of a member's local header, without its name
UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:")  # on Windows, \ separates folders and : follows a drive


def list_archive(archive: zipfile.ZipFile) -> list[FileEntry]:
    """List the photos of a zip; zipfile.BadZipFile if one could be written elsewhere or fill the disk, or is hidden."""
    check_directory(archive)
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    folders = {member.filename.removesuffix("/") for member in members if member.is_dir()}
    for member in members:
        if reason := "also a folder" if member.filename in folders else _find_danger(member):
            raise zipfile.BadZipFile(f"{member.orig_filename!r}, {reason}")
    for first, second in itertools.pairwise(members):
        if first.header_offset + HEADER_BYTES + first.compress_size > second.header_offset:
            raise zipfile.BadZipFile(f"{second.filename!r}, whose bytes are also those of {first.filename!r}")
    photos = (member for member in members if is_photo(member.filename))
    return [FileEntry(photo.filename, photo.file_size, photo.header_offset, photo.CRC) for photo in photos]


def check_unused(archive: zipfile.ZipFile, used: set[str]) -> None:
    """Raise zipfile.BadZipFile if a member whose name is not used may be a photo: it has two names."""
    for member in archive.infolist():
        if member.filename not in used:
            archive.open(member).close()  # compares the name in the zip's directory with the one before its content


def _find_danger(member: zipfile.ZipInfo) -> str:
    """Why a member must not be unpacked; "" if it may."""
    name = member.orig_filename  # `filename` ends at a NUL
    parts = name.removesuffix("/").split("/")
    if UNSAFE.search(name) or any(not part.strip(". ") for part in parts):
        return "a name that can lead out of the data root"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device, not a file"
    if not is_photo(name):
        return ""
    if ":" in name:
        return "a name that Windows can't store"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed in an unusual way (method {member.compress_type}; expected stored or deflated)"
    if member.file_size > min(MAX_PHOTO_BYTES, MAX_RATIO * member.compress_size):
        return f"{member.file_size:,} bytes compressed to {member.compress_size:,}, too many for a photo"
    return ""


def list_folder(
    folder: Path, accept_links: bool = True, below: str = "", above: tuple[tuple[int, int], ...] = ()
) -> Iterator[FileEntry]:
    """List the photos of a folder and its subfolders, without hidden ones.

    Args:
        below, above: used within: a subfolder, "a/b/", and device and inode of each folder that contains it.

    Raises:
        ValueError: a link leads to a folder that contains it, or there is a link and `accept_links` is False.
    """
    if not accept_links and (folder / below).is_symlink():
        raise ValueError(f"{folder / below} is a link; remove it")
    status = os.stat(folder / below)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ValueError(f"{folder / below} is a link to a folder that contains it; remove the link")
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if not accept_links and entry.is_symlink():
                raise ValueError(f"{entry.path} is a link; remove it")
            if entry.is_dir():
                if not entry.name.startswith("."):
                    yield from list_folder(folder, accept_links, f"{below}{entry.name}/", (*above, identity))
            elif is_photo(entry.name):
                yield FileEntry(below + entry.name, entry.stat().st_size)


def is_copy(path: Path, source: zipfile.ZipFile | Path, photo: FileEntry) -> bool:
    """Whether a file has the content of a photo of `source`."""
    if path.stat().st_size != photo.size:
        return False
    if isinstance(source, zipfile.ZipFile):
        return zlib.crc32(path.read_bytes()) == photo.checksum
    original = source / photo.name
    return os.path.samefile(original, path) or filecmp.cmp(original, path, shallow=False)


def copy_photo(source: zipfile.ZipFile | Path, photo: FileEntry, target: Path) -> None:
    """Write a photo to a file that must not exist yet: a hard link to the photo of a folder, else a copy.

    Raises:
        zipfile.BadZipFile: the photo's name, checksum or size differs from what the zip lists.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        try:
            os.link(os.path.realpath(source / photo.name), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source / photo.name, target)
        return
    member = copy.copy(source.getinfo(photo.name))
    member.file_size += 1  # so that surplus bytes are read: zipfile stops at this size without an error
    with source.open(member) as content, open(target, "xb") as file:
        shutil.copyfileobj(content, file)
        if file.tell() != photo.size:
            raise zipfile.BadZipFile(f"{photo.name!r} has not the {photo.size:,} bytes that are listed")
