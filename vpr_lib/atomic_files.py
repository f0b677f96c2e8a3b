"""Writing files that are complete or absent, also after a power cut or on a full disk."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_S = 3600.0  # a temporary file that nobody wrote to for this long was left by a killed process


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file `<path>.<process id>.tmp`; it replaces `path` at the end of the block, or vanishes after an error."""
    path = Path(path)
    _remove_stale(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file atomically; an OSError says which file can't be written and that it keeps its old content."""
    try:
        with open_atomically(path) as file:
            file.write(data)
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written ({error.strerror}); its old content is kept") from None


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left of this file."""
    names = [name for name in os.listdir(path.parent) if name.startswith(f"{path.name}.") and name.endswith(".tmp")]
    for partial in (path.parent / name for name in names):
        with suppress(OSError):  # another process may have finished or removed it
            if time.time() - partial.stat().st_mtime > STALE_S:
                partial.unlink()
