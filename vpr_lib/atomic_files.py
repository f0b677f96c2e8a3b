"""Writing files that are complete or absent, also after a power cut or on a full disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file `<path>.tmp` for writing; it replaces `path` at the end of the block, or vanishes after an error."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.tmp")
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
