"""`check` notices every damage: of a pack, of a folder's photos, of the manifest."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from small_sets import assert_unpacked, make_zip, read_files, write_sets

from vpr_lib.checked_files import write_json
from vpr_lib.command_line.parser import main
from vpr_lib.images import read_images
from vpr_lib.prepare import manifest
from vpr_lib.prepare.packs import write_pack


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def pack(sets):
    return write_pack(sets / "tokyo_xs" / "test", sets / "packed" / "tokyo_test.zip", 32, progress=False)


@pytest.fixture(scope="module", autouse=True)
def _folder(sets):
    (sets / "packed").mkdir()


def flip_bit(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def read_photos(pack):
    table = read_images(pack)
    return {name: table.read_bytes(row) for row, name in enumerate(table.names)}


def test_every_damaged_photo_of_a_pack_is_named(pack, tmp_path, capsys):
    copied = shutil.copy(pack, tmp_path)
    with zipfile.ZipFile(copied) as archive:
        members = archive.infolist()
    assert main(["check", str(tmp_path), "--any-size"]) == 0
    flip_bit(tmp_path / "tokyo_test.zip", members[1].header_offset + 30 + len(members[1].filename) + 400)
    flip_bit(tmp_path / "tokyo_test.zip", members[3].header_offset + 30 + 12)  # of the second copy of its name
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--any-size"]) == 1
    error = capsys.readouterr().err
    assert [name.filename in error for name in members] == [False, True, False, True, False]


def test_a_pack_with_one_flipped_bit_is_refused_or_gives_the_right_photos(pack, tmp_path, capsys, summary):
    """At 60 places, half of them in the zip's directory; there is no manifest to compare with."""
    size, photos = pack.stat().st_size, read_photos(pack)
    directory = pack.read_bytes().index(b"PK\x01\x02")
    rng = np.random.default_rng(0)
    harmless = 0
    for number, at in enumerate([*rng.integers(0, size, 30), *rng.integers(directory, size, 30)]):
        root = tmp_path / str(number)
        root.mkdir()
        flip_bit(shutil.copy(pack, root) and root / pack.name, at, rng.integers(8))
        status = main(["check", str(root), "--any-size"])
        error = capsys.readouterr().err
        if status == 0:
            assert read_photos(root / pack.name) == photos
            harmless += 1
        else:
            assert status == 1 and str(root / pack.name) in error
    summary(f"packs with a flipped bit: 60, of which {harmless} were read right and the others refused")
    assert harmless < 30


def test_a_photo_of_the_same_size_with_another_content_is_noticed(sets, tmp_path, capsys):
    split = shutil.copytree(sets / "tokyo_xs" / "test", tmp_path / "tokyo_test")
    assert main(["check", str(tmp_path), "--any-size"]) == 0
    photo = next((split / "database").iterdir())
    flip_bit(photo, 15)  # the density of its pixels, in its header: it still decodes
    assert main(["check", str(tmp_path), "--any-size"]) == 1
    assert str(split) in capsys.readouterr().err
    flip_bit(photo, 15)
    assert main(["check", str(tmp_path), "--any-size"]) == 0


def test_photos_that_a_damaged_directory_hides_are_noticed(pack, tmp_path, capsys):
    """The directory's first entry has a comment so long that it holds the second entry."""
    path = shutil.copy(pack, tmp_path) and tmp_path / pack.name
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    third = data.index(b"PK\x01\x02", second + 4)
    data[first + 32 : first + 34] = (third - second).to_bytes(2, "little")
    path.write_bytes(data)
    assert main(["check", str(tmp_path), "--any-size"]) == 1
    assert str(path) in capsys.readouterr().err
    assert main(["unpack", str(path), "--to", str(tmp_path / "root"), "--as", "tokyo_xs", "--any-size"]) == 1
    assert str(path) in capsys.readouterr().err and not (tmp_path / "root" / "tokyo_test").exists()


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 65_600])
@pytest.mark.parametrize("how", ["64-bit record", "modulo 65,536"])
def test_files_of_a_zip_are_counted_right(sets, tmp_path, others, how):
    """From 65,536 on, most programs write their number to another record; a comment may follow it."""
    files = {f"tokyo_xs/{path}": data for path, data in read_files(sets / "tokyo_xs").items()}
    path = make_zip(tmp_path / "z.zip", files | {f"{number}.txt": b"" for number in range(others)})
    if how == "modulo 65,536":
        data = path.read_bytes()
        end = data[-22:-14] + 2 * (len(files) + others & 0xFFFF).to_bytes(2, "little") + data[-10:]
        path.write_bytes(data[: data.rindex(b"PK\6\6") if others else -22] + end)
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"c" * 40_000
    assert main(["unpack", str(path), "--to", str(tmp_path / "root"), "--as", "tokyo_xs", "--any-size"]) == 0
    assert_unpacked(tmp_path / "root", sets, "tokyo_xs")


@pytest.mark.parametrize("damage", ["digit", "cut", "{", "[]", "older", "entry"])
def test_a_damaged_manifest_is_named_and_written_again_once_deleted(sets, tmp_path, capsys, damage):
    shutil.copytree(sets / "tokyo_xs" / "test", tmp_path / "tokyo_test")
    manifest = tmp_path / "manifest.json"
    assert main(["check", str(tmp_path), "--any-size"]) == 0
    whole = manifest.read_bytes()
    entries = json.loads(whole)
    del entries["sha256"]
    texts = {"digit": whole.replace(b'"queries": 2', b'"queries": 3'), "cut": whole[:-20]}
    texts["older"] = json.dumps(entries).encode()
    manifest.write_bytes(texts.get(damage, damage.encode()))
    if damage == "entry":
        write_json(manifest, {"tokyo_test": {"placed": 3}})
    assert manifest.read_bytes() != whole
    archive = ["unpack", str(sets / "zips" / "sf_xs.zip"), "--to", str(tmp_path), "--as", "sf_xs", "--any-size"]
    for arguments in (["check", str(tmp_path), "--any-size"], archive):
        capsys.readouterr()
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert str(manifest) in error and "delete it" in error
    assert not (tmp_path / "sf_val").exists()
    manifest.unlink()
    assert main(["check", str(tmp_path), "--any-size"]) == 0
    assert json.loads(manifest.read_bytes())["tokyo_test"]["photos"] == {"database": 3, "queries": 2}


def test_a_root_that_cannot_be_written_is_checked(data_root, monkeypatch, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "root")

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(manifest, "write_json", refuse)
    with pytest.warns(UserWarning, match="Read-only"):
        check = manifest.check_root(root, any_size=True)
    assert set(check.splits) == {"train", "val"} and not check.problems
