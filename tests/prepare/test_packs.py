import io
import os
import re
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import photo_name, write_photo
from PIL import Image

from vpr_lib.data_roots import find_part, find_splits, read_split
from vpr_lib.images import read_images
from vpr_lib.loading import PhotoDataset
from vpr_lib.photos import decode, read_photo
from vpr_lib.prepare.packs import copy_packs, write_pack


@pytest.fixture
def folder(data_root, tmp_path):
    return shutil.copytree(data_root / "train", tmp_path / "root" / "train")


def test_a_pack_holds_the_folders_photos_resized(folder):
    pack = write_pack(folder, image_size=40, progress=False)
    assert pack == folder.with_name("train.zip")
    packed, plain = read_images(pack), read_images(folder)
    assert list(packed.names) == list(plain.names) and (packed.utm == plain.utm).all()
    assert list(packed.places) == list(plain.places)
    with zipfile.ZipFile(pack) as archive:
        assert archive.testzip() is None and all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
    for row in range(len(plain)):
        assert Image.open(io.BytesIO(packed.read_bytes(row))).size == (40, 40)
        expected = read_photo(plain, row, 40).astype(int)
        found, other = (read_photo(packed, i, 40) for i in (row, (row + 4) % len(plain)))  # of another place
        assert 3 * np.abs(found - expected).mean() < np.abs(other - expected).mean()


def test_a_split_becomes_a_pack_and_takes_the_folders_place(data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "root")
    write_pack(root / "val", image_size=72, progress=False)
    with pytest.warns(UserWarning, match=r"val\.zip"):
        both = read_split(root, "val")
    assert both[0].root == root / "val.zip" and find_splits(root) == ["val"]
    shutil.rmtree(root / "val")
    assert [len(t) for t in read_split(root, "val")] == [12, 6]


def test_packing_twice_writes_once(folder):
    pack = write_pack(folder, image_size=40, progress=False)
    date, data = pack.stat().st_mtime_ns, pack.read_bytes()
    write_pack(folder, image_size=40, progress=False)
    assert pack.stat().st_mtime_ns == date
    extra = folder / "aba" / photo_name(1, 1, note="00009_Aba")
    write_photo(extra, 3)
    write_pack(folder, image_size=40, progress=False)
    assert len(read_images(pack)) == len(read_images(folder))  # made again: the folder has changed
    extra.unlink()
    assert write_pack(folder, image_size=40, progress=False).read_bytes() == data  # equal photos, equal packs


def test_an_unreadable_photo_is_named_and_leaves_no_pack(folder):
    victim = read_images(folder).names[20]
    (folder / victim).write_bytes(b"no photo")
    with pytest.raises(ValueError, match=re.escape(victim)):
        write_pack(folder, image_size=40, progress=False)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["train"]


def test_what_a_killed_packing_leaves_is_no_pack(folder):
    left = folder.with_name("train.zip.4711.tmp")
    left.write_bytes(b"half a pack")
    os.utime(left, (0, 0))
    assert find_part(folder.parent, "train") == folder
    assert len(read_images(write_pack(folder, image_size=40, progress=False))) == 32
    assert sorted(p.name for p in folder.parent.iterdir()) == ["train", "train.zip"]


def test_png_and_upper_case_names_are_kept(tmp_path):
    names = [photo_name(1, 1).replace(".jpg", ".png"), photo_name(2, 2).replace(".jpg", ".JPG")]
    for name in names:
        write_photo(tmp_path / "own" / "Éze" / name, 1)
    packed = read_images(write_pack(tmp_path / "own", image_size=72, progress=False))
    assert sorted(packed.names) == sorted(f"Éze/{name}" for name in names)
    png = next(row for row in range(2) if packed.names[row].endswith("png"))
    assert Image.open(io.BytesIO(packed.read_bytes(png))).format == "PNG"
    original = decode((tmp_path / "own" / packed.names[png]).read_bytes(), 72)
    np.testing.assert_array_equal(read_photo(packed, png, 72), original)  # nothing lost, as its size is right


def test_enlarging_the_photos_of_a_pack_warns(folder):
    table = read_images(write_pack(folder, image_size=40, progress=False))
    PhotoDataset(table, 40)
    PhotoDataset(table, 32)
    with pytest.warns(UserWarning, match=r"train\.zip .*40 x 40 .*64 x 64.*--size 64"):
        PhotoDataset(table, 64)


def test_wrong_arguments_are_refused(folder):
    for wrong in ({"image_size": 0}, {"pack": folder / "train.tar"}):
        with pytest.raises(ValueError, match="expected a"):
            write_pack(folder, progress=False, **wrong)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_pack(folder / "nowhere")


def test_packs_are_copied_once(data_root, tmp_path, monkeypatch):
    drive, local = shutil.copytree(data_root, tmp_path / "drive"), tmp_path / "local"
    with pytest.raises(FileNotFoundError, match="no packs"):
        copy_packs(drive, local)
    for part in ("train", "val"):
        write_pack(drive / part, image_size=32, progress=False)
    (drive / "scenarios.csv").write_text("query,scenario\n", encoding="utf-8")
    assert copy_packs(drive, local, progress=False) == local
    assert sorted(p.name for p in local.iterdir()) == ["scenarios.csv", "train.zip", "val.zip"]
    assert (local / "train.zip").read_bytes() == (drive / "train.zip").read_bytes()
    before = {p: p.stat().st_ino for p in local.iterdir()}
    copy_packs(drive, local, progress=False)
    assert {p: p.stat().st_ino for p in local.iterdir()} == before
    data = (drive / "val.zip").read_bytes()
    (drive / "val.zip").write_bytes(data[:-1] + b"!")  # another pack of the same size, newer
    os.utime(drive / "val.zip", ns=(2**62, 2**62))
    copy_packs(drive, local, progress=False)
    assert (local / "val.zip").read_bytes()[-1:] == b"!"
    (local / "train.zip").unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="GB free"):
        copy_packs(drive, local, progress=False)


def test_a_damaged_pack_is_made_again(folder):
    pack = write_pack(folder, image_size=40, progress=False)
    data = bytearray(pack.read_bytes())
    start = data.rindex(b"PK\1\2")  # the last entry of its directory
    data[start + 46 + 3] ^= 1  # a digit of the position in a name
    pack.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.zip .*make or copy the pack again"):
        read_images(pack)
    assert len(read_images(write_pack(folder, image_size=40, progress=False))) == 32


def test_a_pack_with_a_damaged_photo_is_made_again(folder):
    """As the errors of such a pack advise."""
    pack = write_pack(folder, image_size=40, progress=False)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(ValueError, match="make or copy the pack again"):
        read_images(pack).read_bytes(0)
    assert write_pack(folder, image_size=40, progress=False).read_bytes() == whole


def test_photos_of_the_same_sizes_are_packed_again(folder):
    first = write_pack(folder, image_size=40, progress=False).read_bytes()
    table = read_images(folder)
    size = int(table.sizes[0])
    black = io.BytesIO()
    Image.new("RGB", (72, 72)).save(black, "JPEG")
    (folder / table.names[0]).write_bytes(black.getvalue().ljust(size, b"\0"))
    assert write_pack(folder, image_size=40, progress=False).read_bytes() != first
