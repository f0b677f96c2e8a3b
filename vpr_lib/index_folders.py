"""An index of `ivf_index` in a folder: built in blocks, checked and memory-mapped, so it may exceed the memory."""

import errno
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpr_lib.atomic_files import make_folder_atomically
from vpr_lib.checked_files import DamagedFile, checksum_array, checksum_file, read_json, write_json
from vpr_lib.ivf_index import add_rows, get_ivf, make_index, train_index

BLOCK_BYTES = 2**30  # of codes and row numbers in memory while an index is built
ROW_BYTES = 8  # of a row number, beside each code
_INDEX_FILE, _LISTS_FILE, _SETTINGS_FILE = "index.faiss", "lists.ivfdata", "settings.json"
_FILES = {_INDEX_FILE, _LISTS_FILE, _SETTINGS_FILE}
_ADVICE = "build_index builds the index again"
# faiss writes merged lists through a memory map. If the disk gets full, that ends the process, so it isn't this one.
_MERGE = f"""
import sys
import faiss
from faiss.contrib.ondisk import merge_ondisk
index = faiss.read_index("{_INDEX_FILE}")
merge_ondisk(index, sys.argv[1:], "{_LISTS_FILE}")
with open("{_INDEX_FILE}", "wb") as file:
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
"""


def build_index(
    database: np.ndarray,
    folder: str | Path,
    kind: str,
    chunk_size: int = 65536,
    seed: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Path:
    """Build an index in a folder, which is complete or absent afterwards; an index that is there is replaced.

    In memory are the training sample, one chunk of descriptors and one block of codes. Several blocks are written to
    files and merged there, which needs twice the space until the end.

    Args:
        database, kind, chunk_size, seed: as in `ivf_index.build_ivf`.
        folder: for the index only; it may be moved or copied later.
        block_bytes: codes and row numbers in memory at a time.

    Returns:
        The folder, for `open_index`.

    Raises:
        ValueError: as `build_ivf`.
        OSError: too little space, or the folder can't be written.
    """
    import faiss

    folder = Path(folder)
    if folder.exists() and not {path.name for path in folder.iterdir()} <= _FILES:
        raise ValueError(f"{folder} holds other files than an index; choose a folder for the index only")
    index = make_index(database, kind, seed)
    ivf = get_ivf(index)
    num_blocks = math.ceil(len(database) * (ivf.code_size + ROW_BYTES) / block_bytes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_space(folder, index, len(database), num_blocks)
    with make_folder_atomically(folder) as partial:
        settings = _describe(database, kind) | {"seed": seed, "faiss": faiss.__version__}
        settings |= {"lists": ivf.nlist, "code_bytes": ivf.code_size}
        train_index(index, database, seed)
        _write_index(index, partial / _INDEX_FILE)
        bounds = np.linspace(0, len(database), num_blocks + 1).astype(int).tolist()
        blocks = [f"block{number}.faiss" for number in range(num_blocks)]
        for name, start, stop in zip(blocks, bounds, bounds[1:], strict=False):
            add_rows(index, database, start, stop, chunk_size)
            _write_index(index, partial / name)
            index.reset()
        del index, ivf  # the block's memory
        if num_blocks == 1:
            (partial / blocks[0]).replace(partial / _INDEX_FILE)
        else:
            _merge_blocks(partial, blocks)
        files = {path.name: [path.stat().st_size, checksum_file(path)] for path in sorted(partial.iterdir())}
        write_json(partial / _SETTINGS_FILE, settings | {"files": files})
    return folder


def open_index(folder: str | Path, database: np.ndarray, kind: str) -> Any:
    """Open the index that `build_index` built; its lists are memory-mapped, once all bytes have been checked.

    Args:
        folder: of the index.
        database: the descriptors it was built of.
        kind: its kind.

    Returns:
        The index, for `search_index`.

    Raises:
        FileNotFoundError: there is no index.
        DamagedFile: a file of the index is damaged or missing.
        ValueError: the index is of another kind or of other descriptors.
    """
    import faiss

    folder = Path(folder)
    if not (folder / _SETTINGS_FILE).is_file():
        raise FileNotFoundError(f"no index in {folder}; build_index builds one")
    settings = read_json(folder / _SETTINGS_FILE, _ADVICE)
    expected = _describe(database, kind)
    found = {key: settings.get(key) for key in expected}
    if found != expected:
        raise ValueError(f"{folder} holds an index of {found}, expected {expected}; remove it, and it is built again")
    for name, (size, checksum) in settings["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or checksum_file(path) != checksum:
            raise DamagedFile(path, "it is missing or its checksum is wrong", _ADVICE)
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE  # see `make_index`
    try:
        index = faiss.read_index(str(folder / _INDEX_FILE), flags)
    except RuntimeError as error:  # the checksums are right, so it is the version
        text = f"faiss {faiss.__version__} can't read the index that {settings['faiss']} wrote in {folder}"
        raise ValueError(f"{text} ({error}); {_ADVICE}") from None
    if _LISTS_FILE in settings["files"]:  # else the lists are in the index file
        lists = faiss.downcast_InvertedLists(get_ivf(index).invlists)
        lists.filename = str(folder / _LISTS_FILE)
        lists.do_mmap()
    return index


def _check_space(folder: Path, index: Any, num_rows: int, num_blocks: int) -> None:
    """Raise an OSError if the index, and the blocks it is merged from, won't fit."""
    ivf = get_ivf(index)
    lists = num_rows * (ivf.code_size + ROW_BYTES)
    # At most: means of lists and of codes, a PCA with all directions; where each list is; the rest of the settings.
    trained = 4 * index.d * (ivf.nlist + 256 + 2 * index.d) + 32 * ivf.nlist + 10_000
    needed = lists * (1 if num_blocks == 1 else 2) + trained * (num_blocks + 1)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        space = f"the index needs {needed / 1e9:.1f} GB while it is built, {folder.parent} has {free / 1e9:.1f} GB free"
        raise OSError(errno.ENOSPC, f"{space}; make room, or choose a folder on another disk", str(folder))


def _write_index(index: Any, path: Path) -> None:
    """Write through a Python file: faiss's own files don't tell if the last bytes found no space."""
    import faiss

    with open(path, "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def _merge_blocks(folder: Path, blocks: Sequence[str]) -> None:
    """Move the rows of the blocks into the index file, which has none yet, and a file of its lists."""
    # Without paths, so the index can be moved.
    done = subprocess.run([sys.executable, "-c", _MERGE, *blocks], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise OSError(f"the blocks of the index can't be merged in {folder.parent} ({reason}); make room on the disk")
    for name in blocks:
        (folder / name).unlink()


def _describe(database: np.ndarray, kind: str) -> dict[str, Any]:
    """What the settings say of an index and its descriptors, as in JSON."""
    num_rows, size = database.shape
    return {"kind": kind, "rows": num_rows, "numbers": size, "descriptors": f"{checksum_array(database):08x}"}
