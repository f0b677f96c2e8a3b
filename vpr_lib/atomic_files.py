"""Writing files that are complete or absent, also after a power cut or on a full disk."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_S = 3600.0  # a temporary file that nobody wrote to for this long is of a killed process, whatever the machine


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it replaces `path` at the end of the block, or vanishes after an error."""
    path = Path(path)
    prefix = f"{path.name}.{platform.node()[:12]}."  # several machines may share a disk
    _remove_stale(path, prefix)
    partial = path.with_name(f"{prefix}{os.getpid()}.tmp")
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
        kept = "; its old content is kept" if Path(path).is_file() else ""
        raise OSError(error.errno, f"{path} can't be written ({error.strerror}){kept}") from None


def _remove_stale(path: Path, prefix: str) -> None:
    """Remove what killed processes left of this file; `prefix` begins the names of this machine's."""
    for name in os.listdir(path.parent):
        if name.startswith(f"{path.name}.") and name.endswith(".tmp"):
            process = name.removeprefix(prefix).removesuffix(".tmp")
            partial = path.with_name(name)
            with suppress(OSError):  # another process may have finished or removed it
                is_old = time.time() - partial.stat().st_mtime > STALE_S
                if is_old or (process.isdigit() and not _is_running(int(process))):
                    partial.unlink()


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
