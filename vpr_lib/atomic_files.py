"""Files that are there whole or not at all, through a power cut or a full disk too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name when the block ends well, and leaves nothing behind when it doesn't.

    Until then it is `<path>.tmp`, beside what `path` held before.
    """
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
    """Write a file, whole or not at all.

    Raises:
        OSError: it can't be written; what `path` held before is still there.
    """
    try:
        with open_atomically(path) as file:
            file.write(data)
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written ({error.strerror}); what it held before is kept") from None
