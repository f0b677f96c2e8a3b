"""Writing files and folders that are complete or absent, also after a power cut or on a full disk."""

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_S = 3600.0  # a temporary file or folder not written to for this long is of a killed process on any machine


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it replaces `path` at the end of the block, or vanishes after an error."""
    with TemporaryFiles(path) as files:
        with files.open_next() as file:
            yield file
        files.rename([Path(path)])


class TemporaryFiles:
    """A block that writes files under temporary names beside `path`; those not renamed vanish at its end."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._prefix = _begin_name(self._path)
        self._written: list[Path] = []

    def __enter__(self) -> "TemporaryFiles":
        return self

    def __exit__(self, *error: object) -> None:
        for partial in self._written:
            partial.unlink(missing_ok=True)

    @contextmanager
    def open_next(self) -> Iterator[BinaryIO]:
        """Open one more file for the length of a block."""
        for partial in self._written:
            os.utime(partial)  # or another process may take it for stale
        self._written.append(self._path.with_name(f"{self._prefix}{os.getpid()}-{len(self._written)}.tmp"))
        with open(self._written[-1], "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def rename(self, paths: Sequence[Path]) -> None:
        """Give the files their names, in the order in which they were opened; each replaces a file of that name."""
        for partial, path in zip(self._written, paths, strict=True):
            os.replace(partial, path)
        self._written.clear()


@contextmanager
def make_folder_atomically(path: str | Path) -> Iterator[Path]:
    """Make a temporary folder beside `path`, for files; it replaces `path` at the end, or vanishes after an error."""
    path = Path(path)
    partial = path.with_name(f"{_begin_name(path)}{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had this one's number
    try:
        partial.mkdir()
        yield partial
        for file in partial.iterdir():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file atomically; an OSError says which file can't be written and that it keeps its old content."""
    try:
        with open_atomically(path) as file:
            file.write(data)
    except OSError as error:
        kept = "; its old content is kept" if Path(path).is_file() else ""
        raise OSError(error.errno, f"{path} can't be written ({error.strerror}){kept}") from None


def _begin_name(path: Path) -> str:
    """How temporary names of this machine begin, once what killed processes left of a file or folder is removed."""
    prefix = f"{path.name}.{platform.node()[:12]}."  # several machines may share a disk
    for name in os.listdir(path.parent):
        if name.startswith(f"{path.name}.") and name.endswith(".tmp"):
            process = re.fullmatch(rf"{re.escape(prefix)}(\d+)(-\d+)?\.tmp", name)
            partial = path.with_name(name)
            with suppress(OSError):  # another process may have finished or removed it
                newest = max(each.stat().st_mtime for each in [partial, *partial.glob("*")])
                is_old = time.time() - newest > STALE_S
                if is_old or (process and not _is_running(int(process[1]))):
                    shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    return prefix


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there, a signal of 0 would stop it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
