"""Packs of several files: read as one pack, written together, and never mixed up with other files."""

import os
import pickle
import re
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from conftest import photo_name, write_photo
from small_sets import make_zip

from vpr_lib import stored_zip
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import DataRoot, find_part, find_splits, read_split
from vpr_lib.images import read_images
from vpr_lib.loading import BatchRequest, PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.photos import read_photo
from vpr_lib.prepare.packs import copy_packs, write_pack
from vpr_lib.prepare.unpacking import unpack_set

MAX_BYTES = 16_000  # of a shard: some 8 of the 32 photos
COLUMNS = ("names", "utm", "zones", "places", "headings", "dates", "sizes", "checksums")


@pytest.fixture
def folder(data_root, tmp_path):
    return shutil.copytree(data_root / "train", tmp_path / "root" / "train")


def pack(folder, target=None, max_bytes=MAX_BYTES, size=40):
    return write_pack(folder, target, size, progress=False, max_bytes=max_bytes)


def list_zips(folder):
    """{name: content} of the packs beside a folder of photos; there must be nothing else."""
    files = {path.name: path for path in folder.parent.iterdir() if path != folder}
    assert all(name.endswith(".zip") for name in files), sorted(files)
    return {name: path.read_bytes() for name, path in files.items()}


def list_members(zip_file):
    with zipfile.ZipFile(zip_file) as archive:
        return archive.infolist()


def assert_same_table(table, expected):
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(table, column), getattr(expected, column))
    assert table.fingerprint == expected.fingerprint
    assert [table.read_bytes(row) for row in range(len(table))] == [
        expected.read_bytes(row) for row in range(len(expected))
    ]


def test_shards_read_like_the_single_pack_and_in_the_order_of_the_folder(folder, tmp_path):
    path = pack(folder)
    single = read_images(pack(folder, tmp_path / "one.zip", 4e9))
    files = sorted(folder.parent.glob("*.zip"))
    total = len(files)
    assert total > 2 and path == folder.parent / f"train-*-of-{total:03}.zip"
    assert [file.name for file in files] == [f"train-{i + 1:03}-of-{total:03}.zip" for i in range(total)]
    table = read_images(path)
    assert_same_table(table, single)
    assert list(table.names) == list(read_images(folder).names)
    assert [m.filename for file in files for m in list_members(file)] == list(table.names)
    rows = np.random.default_rng(0).permutation(len(table))[:20]
    assert_same_table(table[rows], single[rows])
    assert_same_table(pickle.loads(pickle.dumps(table[4:])), single[4:])
    with zipfile.ZipFile(table.shards[1]) as archive:
        assert [m.filename for m in archive.infolist()] == list(table.names[table.shard_numbers == 1])


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"ZIP64_LIMIT": 20_000}, {"ZIP_FILECOUNT_LIMIT": 5}], ids=str)
def test_a_shard_is_as_large_as_may_be_and_not_larger(folder, monkeypatch, limits):
    """Also where a zip needs the fields for large files, here from a lower limit on."""
    for name, value in limits.items():
        monkeypatch.setattr(zipfile, name, value)
    size = pack(folder, max_bytes=4e9).stat().st_size
    whole = list_zips(folder)
    pack(folder, max_bytes=size - 1)
    assert sorted(list_zips(folder)) == ["train-001-of-002.zip", "train-002-of-002.zip"]
    pack(folder, max_bytes=size)  # it fits exactly
    assert list_zips(folder) == whole
    for max_bytes in range(size // 2, size, size // 8):
        table = read_images(pack(folder, max_bytes=max_bytes))
        for shard, following in zip(table.shards, table.shards[1:], strict=False):
            assert shard.stat().st_size <= max_bytes
            first = list_members(following)[0]
            room = max_bytes - shard.stat().st_size
            assert room < 76 + 2 * len(first.filename.encode()) + first.file_size + 12 + 76
        assert following.stat().st_size <= max_bytes


@pytest.mark.slow
def test_workers_load_the_photos_of_shards(folder):
    table = read_images(pack(folder, max_bytes=2_500))
    assert len(table.shards) > 16
    requests = [BatchRequest(rows) for rows in np.random.default_rng(0).permutation(len(table)).reshape(8, 4)]
    machine = Machine(device="cpu", num_workers=2, progress=False)
    batches = list(load_batches(PhotoDataset(table, 40), requests, machine))
    for batch, request in zip(batches, requests, strict=True):
        expected = [read_photo(table, row, 40) for row in request.rows]
        np.testing.assert_array_equal(batch.inputs.numpy(), np.stack(expected))


def test_each_of_many_shards_is_mapped_once(tmp_path, monkeypatch):
    for number in range(100):
        make_stored_zip(tmp_path / f"s-{number + 1:03}-of-100.zip", photo_name(number, 1))
    table, mapped, mmap = read_images(tmp_path / "s-*-of-100.zip"), [], stored_zip.mmap.mmap
    stored_zip._map_file.cache_clear()
    monkeypatch.setattr(stored_zip.mmap, "mmap", lambda *args, **named: mapped.append(1) or mmap(*args, **named))
    for row in [*range(100), *range(100)]:
        assert table.read_bytes(row) == table.names[row].encode()
    assert len(mapped) == 100


def make_stored_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_a_second_call_keeps_the_files(folder):
    path = pack(folder)
    before = {file: file.stat().st_mtime_ns for file in folder.parent.glob("*.zip")}
    assert pack(folder) == path
    assert {file: file.stat().st_mtime_ns for file in folder.parent.glob("*.zip")} == before


@pytest.mark.parametrize("damage", ["photo", "directory", "comment", "cut", "gone"])
def test_a_damaged_shard_is_named_by_check_and_written_again(folder, capsys, damage):
    table = read_images(pack(folder))
    whole = list_zips(folder)
    victim = table.shards[1]
    data = bytearray(victim.read_bytes())
    at = {"photo": 500, "directory": data.rindex(b"PK\1\2") + 50, "comment": len(data) - 40}.get(damage)
    if at:
        data[at] ^= 1
    victim.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "gone":
        victim.unlink()
    alone = shutil.copytree(folder.parent, folder.parents[1] / "alone", ignore=shutil.ignore_patterns("train"))
    assert main(["check", str(alone), "--any-size"]) == 1
    error = capsys.readouterr().err
    assert victim.name in error and table.shards[2].name not in error
    assert ("again" in error) and (damage != "photo" or table.names[table.shard_numbers == 1][0] in error)
    if damage == "photo":
        with pytest.raises(ValueError, match=victim.name):
            read_images(find_part(alone, "train")).read_bytes(int(np.flatnonzero(table.shard_numbers == 1)[0]))
    pack(folder)
    assert list_zips(folder) == whole


def find_part_quietly(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the folder is there, too
        return find_part(folder.parent, folder.name)


def test_an_unreadable_photo_is_named_with_its_shard(folder):
    victim = read_images(folder).names[20]
    (folder / victim).write_bytes(b"no photo")
    with pytest.raises(ValueError, match=re.escape(victim)):
        pack(folder)
    assert list_zips(folder) == {}
    other = photo_name(8, 8)
    make_stored_zip(folder.parent / "p-001-of-002.zip", photo_name(9, 9))
    make_stored_zip(folder.parent / "p-002-of-002.zip", other)
    table = read_images(folder.parent / "p-*-of-002.zip")
    with pytest.raises(ValueError, match=r"p-002-of-002\.zip/@8") as error:
        read_photo(table, 0, 32)
    assert other in str(error.value)


def test_a_missing_shard_is_named(folder):
    path = pack(folder)
    files = sorted(folder.parent.glob("*.zip"))
    whole = list_zips(folder)
    for victim in (files[0], files[-1]):
        victim.unlink()
        for read in (
            lambda: read_images(path),
            lambda: find_part(folder.parent, "train"),
            lambda: find_splits(folder.parent),
            lambda: DataRoot(folder.parent).train,
        ):
            with pytest.raises(ValueError, match=re.escape(victim.name)):
                read()
        pack(folder)
        assert list_zips(folder) == whole


def test_a_number_that_is_too_high_is_an_error(tmp_path):
    for number in (1, 2, 3):
        make_stored_zip(tmp_path / f"p-00{number}-of-002.zip", photo_name(number, 1))
    with pytest.raises(ValueError, match="3 shards of p, not 2"):
        read_images(tmp_path / "p-*-of-002.zip")
    make_stored_zip(tmp_path / "q-001-of-999999999999.zip", photo_name(1, 1))
    with pytest.raises(ValueError, match="q-002-of-999999999999"):
        find_part(tmp_path, "q")


def test_several_versions_of_a_pack_are_an_error_that_names_them(folder, tmp_path):
    paths = []
    for max_bytes in (30_000, MAX_BYTES, 4e9):
        (tmp_path / str(max_bytes)).mkdir()
        paths.append(pack(folder, tmp_path / str(max_bytes) / "train.zip", max_bytes))
    two, many, single = paths
    for path in (two, many):
        for file in path.parent.glob("*.zip"):
            shutil.copy(file, folder.parent)
    for read in (lambda: find_part(folder.parent, "train"), lambda: read_images(folder.parent / "train*.zip")):
        with pytest.raises(ValueError, match=re.escape(two.name)) as error:
            read()
        assert many.name in str(error.value)
    for file in folder.parent.glob(many.name):
        file.unlink()
    shutil.copy(single, folder.parent)
    with pytest.raises(ValueError, match=r"train\.zip") as error:
        find_part(folder.parent, "train")
    assert two.name in str(error.value)
    pack(folder, max_bytes=30_000)  # keeps the shards, removes the single pack of the same photos
    assert_same_table(read_images(two), read_images(folder.parent / two.name))
    assert len(list_zips(folder)) == 2


def test_shards_of_different_packs_are_an_error_that_names_them(folder, tmp_path):
    path = pack(folder)
    files = sorted(folder.parent.glob("*.zip"))
    original = files[1].read_bytes()
    other = shutil.copytree(folder, tmp_path / "other" / "train")
    victim = read_images(other).names[3]
    (other / victim).unlink()
    (tmp_path / "size").mkdir()
    other_size = pack(folder, tmp_path / "size" / "train.zip", size=39)
    for source in (pack(other), other_size):
        strange = sorted(source.parent.glob("*.zip"))[1]
        files[1].write_bytes(strange.read_bytes())
        with pytest.raises(ValueError, match=re.escape(str(files[1]))) as error:
            read_images(path)
        assert str(files[0]) in str(error.value) and "different" in str(error.value)
    files[1].write_bytes(original)
    assert len(read_images(path)) == 32


def test_a_photo_in_two_shards_is_an_error(tmp_path):
    for number, names in enumerate([(1, 2), (3,), (2, 4)], 1):
        make_stored_zip(tmp_path / f"p-00{number}-of-003.zip", *(photo_name(name, 1) for name in names))
    with pytest.raises(ValueError, match=r"p-003-of-003\.zip holds @2\.00.*p-001-of-003\.zip"):
        read_images(tmp_path / "p-*-of-003.zip")


def test_shards_that_lack_photos_of_the_pack_are_an_error(folder):
    """As another version of the JPEG encoder could leave them: its shards end at other photos."""
    path = pack(folder)
    last = sorted(folder.parent.glob("*.zip"))[-1]
    whole = list_zips(folder)
    with zipfile.ZipFile(last) as archive:
        kept = [(m, archive.read(m)) for m in archive.infolist()[1:]]
        origin = archive.comment.decode().rpartition(" ")[0]
    with zipfile.ZipFile(last, "w") as archive:
        for member, data in kept:
            archive.writestr(zipfile.ZipInfo(member.filename), data)
        archive.comment = f"{origin} {stored_zip.hash_directory(archive.infolist())}".encode()
    with pytest.raises(ValueError, match="31 photos of 32"):
        read_images(path)
    pack(folder)
    assert list_zips(folder) == whole


def test_a_glob_reads_packs_of_other_programs_as_one(tmp_path):
    for city in ("b", "a", "[c]"):
        make_stored_zip(tmp_path / f"{city}.zip", f"{city}/{photo_name(1, 1)}")
    table = read_images(tmp_path / "*.zip")
    assert list(table.names) == [f"{city}/{photo_name(1, 1)}" for city in ("[c]", "a", "b")]
    assert [table.locate(row).parents[1].name for row in range(3)] == ["[c].zip", "a.zip", "b.zip"]
    with pytest.raises(FileNotFoundError, match="no folder or pack"):
        read_images(tmp_path / "d-*-of-001.zip")


def test_packs_with_similar_names_are_not_mixed_up(folder):
    for name in ("train", "train-b", "t[r]*"):
        pack(folder, folder.parent / f"{name}.zip", 30_000)
    shutil.rmtree(folder)
    for name in ("train", "train-b", "t[r]*"):
        table = read_images(find_part(folder.parent, name))
        assert len(table) == 32 and all(shard.name.startswith(f"{name}-0") for shard in table.shards)


def test_a_split_in_shards_is_a_split(data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "root")
    pack(root / "val", max_bytes=8_000)
    assert find_splits(root) == ["val"]
    with pytest.warns(UserWarning, match=r"val-\*-of-\d+\.zip, not the folder val/"):
        read_split(root, "val")
    shutil.rmtree(root / "val")
    assert find_splits(root) == DataRoot(root).splits == ["val"]
    for half, table in zip(("database", "queries"), read_split(root, "val"), strict=True):
        plain = read_images(data_root / "val" / half)
        assert [f"{half}/{name}" for name in plain.names] == list(table.names)
        assert np.abs(read_photo(table, 3, 40).astype(int) - read_photo(plain, 3, 40)).mean() < 10
    assert main(["check", str(root), "--any-size"]) == 0


@pytest.mark.slow
def test_another_number_of_files_replaces_the_old_ones(folder):
    layouts = {max_bytes: None for max_bytes in (4e9, 30_000, MAX_BYTES)}
    for max_bytes in (*layouts, 30_000, 4e9, MAX_BYTES, 4e9):
        table = read_images(pack(folder, max_bytes=max_bytes))
        files = list_zips(folder)
        assert len(table) == 32 and len(files) == len(table.shards)
        layouts[max_bytes] = layouts[max_bytes] or files
        assert files == layouts[max_bytes]  # equal photos, equal files
    assert len({len(files) for files in layouts.values()}) == 3
    pack(folder, max_bytes=30_000, size=32)  # other settings of the same photos
    assert len(list_zips(folder)) == len(layouts[30_000])


def test_files_of_other_photos_are_named_and_left_alone(folder):
    pack(folder, max_bytes=30_000)
    old = list_zips(folder)
    write_photo(folder / "aba" / photo_name(1, 1, note="00009_Aba"), 3)
    with pytest.raises(ValueError, match="remove them") as error:
        pack(folder)
    assert all(name in str(error.value) for name in old)
    assert old.items() <= list_zips(folder).items()
    for name in old:
        (folder.parent / name).unlink()
    new = {file: file.stat().st_mtime_ns for file in folder.parent.glob("*.zip")}
    assert len(read_images(pack(folder))) == 33
    assert {file: file.stat().st_mtime_ns for file in folder.parent.glob("*.zip")} == new  # nothing was lost
    for file in new:
        file.unlink()
    foreign = make_stored_zip(folder.parent / "train-001-of-005.zip", photo_name(1, 1))
    with pytest.raises(ValueError, match=re.escape(str(foreign))):
        pack(folder)
    assert list(list_zips(folder)) == [foreign.name]


def test_a_photo_larger_than_a_shard_is_named(folder):
    with pytest.raises(ValueError, match="larger files") as error:
        pack(folder, max_bytes=1_200)
    assert any(name in str(error.value) for name in read_images(folder).names)
    assert list_zips(folder) == {}


def test_wrong_arguments_are_refused(folder):
    for wrong in ({"max_bytes": 0}, {"max_bytes": float("nan")}, {"target": folder.parent / "train-001-of-002.zip"}):
        with pytest.raises(ValueError, match="expected a"):
            pack(folder, **wrong)


def die_at_step(number, monkeypatch):
    """End this process before it renames or removes a file for the n-th time."""
    steps = []

    def wrap(step):
        def end_or_go_on(*args, **named):
            steps.append(step)
            if len(steps) > number:
                os._exit(9)
            step(*args, **named)

        return end_or_go_on

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, 4e9, 30_000], ids=["nothing", "one file", "other shards"])
def test_a_kill_at_any_step_leaves_what_the_same_call_repairs(folder, monkeypatch, before):
    """In a forked process that ends, without any cleaning up, before it renames or removes its n-th file."""
    pack(folder)
    expected = list_zips(folder)
    for number in range(100):
        for name in list_zips(folder):
            (folder.parent / name).unlink()
        if before:
            pack(folder, max_bytes=before)
        process = os.fork()
        if process == 0:
            die_at_step(number, monkeypatch)
            pack(folder)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        try:
            assert len(read_images(find_part_quietly(folder))) == 32
        except ValueError as error:
            assert "shards" in str(error) or "versions" in str(error)
        pack(folder)
        assert list_zips(folder) == expected
        if status == 0:
            break
    assert number >= len(expected) + (0 if before is None else 1 if before == 4e9 else 2)


@pytest.mark.slow
def test_shards_are_copied_with_the_other_packs(data_root, tmp_path):
    drive, local = shutil.copytree(data_root, tmp_path / "drive"), tmp_path / "local"
    path = pack(drive / "train")
    pack(drive / "val", max_bytes=4e9)
    copy_packs(drive, local, progress=False)
    names = sorted(file.name for file in drive.glob("*.zip"))
    assert sorted(file.name for file in local.iterdir()) == names
    assert_same_table(read_images(local / path.name), read_images(path))
    (local / names[1]).unlink()  # as an interrupted call leaves it
    copy_packs(drive, local, progress=False)
    assert sorted(file.name for file in local.iterdir()) == names
    pack(drive / "train", max_bytes=4e9)
    with pytest.raises(ValueError, match=r"train\.zip") as error:
        copy_packs(drive, local, progress=False)
    assert path.name in str(error.value) and not (local / "train.zip").exists()
    pack(drive / "train")
    (drive / names[0]).unlink()
    with pytest.raises(ValueError, match=re.escape(names[0])):
        copy_packs(drive, tmp_path / "third", progress=False)


def test_a_set_is_not_unpacked_beside_its_shards(data_root, tmp_path):
    split = shutil.copytree(data_root / "val", tmp_path / "set" / "test")
    pack(split, tmp_path / "tokyo_test.zip", 8_000)
    archive = make_zip(
        tmp_path / "z" / "z.zip", {f"test/{h}/{photo_name(1, 1)}": b"x" for h in ("database", "queries")}
    )
    with pytest.raises(ValueError, match=r"tokyo_test-001-of-00\d\.zip"):
        unpack_set(archive, tmp_path, "tokyo_xs", any_size=True)


def test_the_command_writes_shards(folder, capsys):
    assert main(["pack", str(folder), "--size", "40", "--max-gb", "0.000016"]) == 0
    total = len(list_zips(folder))
    megabytes = sum(map(len, list_zips(folder).values())) / 1e6
    assert f"train-*-of-{total:03}.zip, {total} files, {megabytes:.1f} MB" in capsys.readouterr().out
    assert main(["pack", str(folder), "--size", "40", "--max-gb", "nan"]) == 1
