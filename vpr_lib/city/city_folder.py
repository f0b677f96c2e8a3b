"""The folder of a rendered city: which city it holds, which of its files are whole, and who may write into it.

`city.json` holds the version of the renderer, the settings, and a checksum of each finished file. So a later call finds
what an interrupted render has not finished, and what was lost or changed since.
"""

import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vpr_lib.checked_files import read_json, write_json
from vpr_lib.images import read_images
from vpr_lib.options import list_changes

PARTS = ("train", "sf_val", "sf_test", "tokyo_test")
EXTRAS = ("scenarios.csv", "scenarios.csv.sha256", "contact_sheet.jpg")
_HALVES = ("train", *(f"{split}/{half}" for split in PARTS[1:] for half in ("database", "queries")))  # hold photos
_LOCK = ".city.lock"
_UNKNOWN = "-" * 8  # in place of the checksum of a file that is not finished
# The path of a rendered photo: its pano field, the seventh, has a form of our own.
_RENDERED = re.compile(
    r"(train/\w+|\w+/(database|queries))/@([^@/]*@){6}\d+(p\d{5,}v\d{2,}|[dq]\d{5,}(-\w+)?)@[^/]*(\.jpg|(\.jpg\.\d+)?\.tmp)"
)


class CityFolder:
    """A data root that is rendered; `identity` is {"version": of the renderer, "settings": of the city}."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        self.was_complete = False  # before this call
        self._stored = ""  # the checksums of the files that were finished before this call, one after the other
        self._checksums: dict[str, str] = {}  # {path: checksum} of all files, in the same order

    def is_whole(self) -> bool:
        """Whether the folder holds all files of this city, unchanged, and no other photos; fast, needs no lock.

        Raises:
            DamagedFile: `city.json` is damaged.
        """
        try:
            state = self._read_state()
        except FileNotFoundError:
            return False
        if not state["complete"] or self._list_differences(state):
            return False
        photos = sorted(path for path in self._list_files() if path.endswith(".jpg"))
        return "".join(self._read_checksum(path) for path in (*photos, *EXTRAS)) == state["checksums"]

    @contextmanager
    def claim(self, force: bool) -> Iterator[None]:
        """Make the folder, wait until no other process writes into it, and check that it holds this city, or nothing.

        With `force`, the city that it holds is removed.

        Raises:
            DamagedFile: `city.json` is damaged.
            ValueError: the folder holds another city, or other files.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; choose a folder for the data root")
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self.folder.iterdir()}
        if "city.json" not in names and any(name != _LOCK and not _is_leftover(name) for name in names):
            raise ValueError(f"{self.folder} is not empty and holds no rendered city; choose another folder")
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{self.folder}: another process renders it; waiting until that has ended", flush=True)
            lock.acquire()
        try:
            self._remove_leftovers()
            if force:
                self._remove_city()
            if force or not (self.folder / "city.json").is_file():
                self._write_state(complete=False)
            self._adopt_state()
            yield
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of killed processes."""
        leftovers = [path.name for path in self.folder.iterdir() if _is_leftover(path.name)]
        leftovers += [path for path in self._list_files() if path.endswith(".tmp") and _RENDERED.fullmatch(path)]
        for path in leftovers:
            (self.folder / path).unlink()

    def _adopt_state(self) -> None:
        """Check that `city.json` names this city; note what it says is finished."""
        state = self._read_state()
        if differences := self._list_differences(state):
            advice = "Choose another folder, or replace its photos with --force"
            raise ValueError(f"{self.folder} holds another rendered city: {'; '.join(differences)}. {advice}")
        self.was_complete, self._stored = state["complete"], state["checksums"]

    def find_lost(self, paths: Sequence[str]) -> list[str]:
        """Those of the city's files (all photos by name, then `EXTRAS`) that are missing or not as once written."""
        stored = re.findall(".{8}", self._stored) or [_UNKNOWN] * len(paths)
        for path, checksum in zip(paths, stored, strict=True):
            self._checksums[path] = checksum if self._read_checksum(path) == checksum else _UNKNOWN
        return [path for path in paths if self._checksums[path] == _UNKNOWN]

    def record(self, paths: Iterable[str]) -> None:
        """Note files that are finished."""
        self._checksums |= {path: self._read_checksum(path) for path in paths}
        self._write_state(complete=False)

    def complete(self) -> None:
        """Note that all files are finished, after they have reached the disk."""
        if hasattr(os, "sync"):  # not on Windows
            os.sync()
        fingerprints = {}
        for half in _HALVES:
            table = read_images(self.folder / half)
            is_rendered = [f"{half}/{name}" in self._checksums for name in table.names]  # others may have been added
            fingerprints[half] = (table[np.array(is_rendered)].fingerprint, sum(is_rendered))
        self._write_state(complete=True, photos=len(self._checksums) - len(EXTRAS), fingerprints=fingerprints)

    def _list_files(self) -> list[str]:
        """Paths in the data root of all files in `PARTS`."""
        paths = (path for part in PARTS for path in (self.folder / part).rglob("*"))
        return [path.relative_to(self.folder).as_posix() for path in paths if not path.is_dir()]

    def _read_checksum(self, path: str) -> str:
        """8 hex digits of a file's path and content (CRC-32); `_UNKNOWN` if it can't be read."""
        try:
            return f"{zlib.crc32((self.folder / path).read_bytes(), zlib.crc32(path.encode())):08x}"
        except OSError:
            return _UNKNOWN

    def _read_state(self) -> dict[str, Any]:
        advice = "replace the city with --force (a city of an earlier release needs that, too), or delete the folder"
        return read_json(self.folder / "city.json", advice)

    def _write_state(self, complete: bool, **more: Any) -> None:
        checksums = "".join(self._checksums.values())
        write_json(self.folder / "city.json", {**self.identity, "complete": complete, **more, "checksums": checksums})

    def _list_differences(self, state: Mapping[str, Any]) -> list[str]:
        """What distinguishes the city in the folder from the requested one."""
        is_older = state["version"] != self.identity["version"]
        changed = list_changes(state["settings"], self.identity["settings"])
        return changed + ["it is of another version of the renderer"] * is_older

    def _remove_city(self) -> None:
        for path in self._list_files():
            if not (_RENDERED.fullmatch(path) or path.rpartition("/")[2].startswith(".")):
                raise ValueError(f"{self.folder} also holds {path}, which is not of a rendered city; move it elsewhere")
        # In case deleting is interrupted: neither city counts as complete.
        write_json(self.folder / "city.json", {**self.identity, "version": 0, "complete": False, "checksums": ""})
        for name in (*PARTS, *EXTRAS):
            target = self.folder / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)


def _is_leftover(name: str) -> bool:
    """Whether a file beside the parts is the temporary file of a killed process."""
    return name.endswith(".tmp") and name.startswith(("city.json.", *(f"{extra}." for extra in EXTRAS)))
