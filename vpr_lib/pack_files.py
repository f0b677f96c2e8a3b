"""Which files make up a pack: one zip, or several, its shards.

train.zip                                                            a pack in one file
train-001-of-003.zip, train-002-of-003.zip, train-003-of-003.zip     in shards; train-*-of-003.zip reads all of them
"""

import glob
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_SHARD = re.compile(r"(.+)-([0-9]{3,})-of-([0-9]{3,})(\.zip)", re.IGNORECASE)


def name_shard(pack: Path, number: int, total: int) -> Path:
    """The shard `train-002-of-003.zip` of the pack `train.zip`; the first one has number 1."""
    return pack.with_name(f"{pack.stem}-{number:03}-of-{total:03}{pack.suffix}")


def name_pack(file: Path) -> Path:
    """The pack `train.zip` of any of its shards; another file as it is."""
    match = _SHARD.fullmatch(file.name)
    return file.with_name(match[1] + match[4]) if match else file


def name_glob(file: Path) -> Path:
    """The path that reads a file and all other shards of its pack: a glob, or the file itself if it is no shard."""
    match = _SHARD.fullmatch(file.name)
    return file.with_name(f"{glob.escape(match[1])}-*-of-{match[3]}{match[4]}") if match else file


def find_files(pack: Path) -> list[Path]:
    """The files of the pack `train.zip` that are there: itself and shards, which may be incomplete; sorted."""
    shards = pack.parent.glob(f"{glob.escape(pack.stem)}-*-of-*{pack.suffix}")
    return sorted(path for path in (pack, *shards) if path.is_file() and name_pack(path) == pack)


def find_pack(pack: Path) -> Path | None:
    """The path that reads the pack `train.zip`: itself or a glob; None if it has no file; raises as `check_files`."""
    files = check_files(find_files(pack))
    return name_glob(files[0]) if files else None


def list_files(path: Path) -> list[Path]:
    """The files of a pack, given as a file or a glob; [] if there are none; raises what `check_files` raises."""
    if path.is_file():
        return [path]
    files = [file for file in path.parent.glob(path.name) if file.is_file()]
    own = [file for file in files if name_glob(file) == path]  # train-*-of-003.zip also matches train-b-001-of-003.zip
    return check_files(own or files)


def check_files(files: Iterable[Path]) -> list[Path]:
    """Sort files of packs.

    Raises:
        ValueError: shards of a pack are missing, or it is there in several versions, of other numbers of files.
    """
    packs: dict[Path, dict[Path, list[Path]]] = defaultdict(lambda: defaultdict(list))  # pack -> glob -> files
    for file in sorted(files):
        packs[name_pack(file)][name_glob(file)].append(file)
    for pack, versions in packs.items():
        if len(versions) > 1:
            found = " and ".join(map(str, versions))
            raise ValueError(f"{found} are versions of one pack, {pack.stem}; remove all but one")
        (present,) = versions.values()
        if present != [pack]:
            _check_shards(pack, present)
    return [file for versions in packs.values() for present in versions.values() for file in present]


def _check_shards(pack: Path, present: list[Path]) -> None:
    total = int(_SHARD.fullmatch(present[0].name)[3])
    names = {file.name for file in present}
    expected = (name_shard(pack, number, total).name for number in range(1, total + 1))
    missing = list(itertools.islice((name for name in expected if name not in names), 3))
    if missing or len(present) != total:
        what = f"but not {', '.join(missing)}" if missing else f"not {total}"
        advice = f"copy all {total} shards there, or make the pack again"
        raise ValueError(f"{pack.parent} holds {len(present)} shards of {pack.stem}, {what}; {advice}")
