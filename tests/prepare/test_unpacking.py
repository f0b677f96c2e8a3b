import errno
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import photo_name, write_photo
from small_sets import SPLITS, assert_unpacked, make_zip, read_files, write_sets

from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import read_split
from vpr_lib.images import read_images
from vpr_lib.prepare.manifest import PUBLISHED_SIZES, check_root, format_counts
from vpr_lib.prepare.packs import write_pack
from vpr_lib.prepare.unpacking import unpack_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets") / "a@b")


def unpack(source, root, name, **options):
    return unpack_set(source, root, name, **{"any_size": True} | options)


@pytest.mark.parametrize("name", ["gsv_xs", "tokyo_xs"])
@pytest.mark.parametrize("above", ["{split}/", "{set}/", "", "x/{set}/{split}/", "{split}/y/"])
def test_a_folder_level_more_or_less_is_accepted(sets, tmp_path, name, above):
    (folder,) = SPLITS[name]
    above = above.format(set=name, split=folder)
    files = {above + path: data for path, data in read_files(sets / name / folder).items()}
    unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", name)
    assert_unpacked(tmp_path / "root", sets, name)


@pytest.mark.parametrize("above", ["sf_xs/", "", "x/sf_xs/"])
def test_two_splits_and_a_training_set_that_is_left_out(sets, tmp_path, capsys, above):
    files = {above + path: data for path, data in read_files(sets / "sf_xs").items()}
    files |= {f"__MACOSX/{Path(p).parent}/._{Path(p).name}": b"not a photo" for p in files}  # as macOS adds them
    unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", "sf_xs")
    assert_unpacked(tmp_path / "root", sets, "sf_xs")
    assert f"3 photos in {above}train/database, 2 photos in {above}train/queries\n" in capsys.readouterr().out
    assert len(read_split(tmp_path / "root", "sf_val")[1]) == 2


def test_sizes_are_compared_before_anything_is_written(sets, tmp_path, monkeypatch):
    archive, root = sets / "zips" / "sf_xs.zip", tmp_path / "root"
    with pytest.raises(ValueError, match=r"sf_val .*3 database, 2 queries.* 8,015 database, 7,993 queries"):
        unpack(archive, root, "sf_xs", any_size=False)
    with pytest.raises(ValueError, match=r"train .*nothing"):  # any size, but not none
        unpack(archive, root, "gsv_xs")
    half = {path: data for path, data in read_files(sets / "sf_xs").items() if "val/queries" not in path}
    with pytest.raises(ValueError, match=r"sf_val .*3 database"):  # a split without queries is never complete
        unpack(make_zip(tmp_path / "z.zip", half), root, "sf_xs")
    assert not list(root.rglob("*.jpg"))
    for split in ("sf_val", "sf_test"):
        monkeypatch.setitem(PUBLISHED_SIZES, split, "3 database, 2 queries")
    unpack(archive, root, "sf_xs", any_size=False)
    assert check_root(root, ["sf_val", "sf_test"]).problems == []


def test_published_sizes_are_written_as_they_are_counted():
    cities = {f"city{number}": 23_000 for number in range(22)} | {"last": 529_506 - 22 * 23_000}
    assert PUBLISHED_SIZES["train"] == format_counts("train", cities)
    assert PUBLISHED_SIZES["sf_val"] == format_counts("sf_val", {"queries": 7993, "database": 8015})


@pytest.mark.parametrize(("damage", "delete"), [("cut", False), ("byte", True), ("text", False)])
def test_a_damaged_zip_is_named_and_only_removed_on_request(sets, tmp_path, damage, delete):
    data = bytearray((sets / "zips" / "tokyo_xs.zip").read_bytes())
    data[500] ^= 255 if damage == "byte" else 0
    path = tmp_path / "z.zip"
    path.write_bytes({"cut": data[:-100], "byte": data, "text": b"hello"}[damage])
    with pytest.raises(ValueError, match=r"z\.zip is damaged"):
        unpack(path, tmp_path / "root", "tokyo_xs", delete=delete)
    assert path.exists() is not delete
    assert not (tmp_path / "root" / "tokyo_test").exists()


@pytest.mark.parametrize("wrong", ["photo", "name", "twice"])
def test_broken_photos_and_bad_names_are_named(sets, tmp_path, wrong):
    files = {f"test/{path}": data for path, data in read_files(sets / "tokyo_xs" / "test").items()}
    first = next(iter(files))
    bad = {"photo": first, "name": "test/database/holiday.jpg", "twice": f"tokyo_xs/{first}"}[wrong]
    files[bad] = files[first][:-500]
    with pytest.raises(ValueError, match=re.escape(Path(bad).name)):
        unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", "tokyo_xs")
    assert wrong == "photo" or not list((tmp_path / "root").rglob("*.jpg"))  # names are read before photos are written
    assert not (tmp_path / "root" / "tokyo_test").exists()


def count_writes(monkeypatch, stop_at=None, error=None, pause_s=0.0):
    """Patch the copying of a file: the one of this number, from 0, fails; returns a list with an entry per file."""
    written, copy = [], shutil.copyfileobj

    def copy_or_stop(source, target):
        if len(written) == stop_at:
            target.write(b"half a photo")
            raise error
        written.append(target.name)
        time.sleep(pause_s)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfileobj", copy_or_stop)
    return written


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_unpacking_continues(sets, tmp_path, monkeypatch, error):
    archive, root = Path(shutil.copy(sets / "zips" / "gsv_xs.zip", tmp_path)), tmp_path / "root"
    files = read_files(sets / "gsv_xs")
    other = {path.replace("paris", "lyon"): data[:-1] + b"x" for path, data in files.items()}  # of the same sizes
    for source in (make_zip(tmp_path / "z.zip", other), archive):  # the second must not use what the first left
        with monkeypatch.context() as patch:
            written = count_writes(patch, stop_at=6, error=error)
            with pytest.raises(type(error), match=re.escape(str(root)) if error.args else None):
                unpack(source, root, "gsv_xs", delete=True)
        assert len(written) == 6 and source.exists()
        assert not (root / "train").exists() and not (root / "manifest.json").exists()
    written = count_writes(monkeypatch)
    unpack(archive, root, "gsv_xs", delete=True)
    assert len(written) == 2  # six were complete
    assert_unpacked(root, sets, "gsv_xs")
    assert not archive.exists() and not (root / ".download" / "gsv_xs").exists()


def test_two_unpackings_at_once_write_once(sets, tmp_path, monkeypatch):
    written = count_writes(monkeypatch, pause_s=0.02)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(unpack, sets / "zips" / "gsv_xs.zip", tmp_path, "gsv_xs") for _ in range(2)]
    assert jobs[0].result()["train"].photos == jobs[1].result()["train"].photos
    assert len(written) == 8
    assert_unpacked(tmp_path, sets, "gsv_xs")


def test_space_is_checked_before_unpacking(sets, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8 * 4096 - 1))
    with pytest.raises(OSError, match=r"8 photos need .*GB free"):
        unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs")
    assert not list((tmp_path / "root").rglob("*.jpg"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=8 * 4096))
    unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs")


def test_the_manifest_holds_sizes_and_source_without_secrets(sets, tmp_path):
    unpack(sets / "zips" / "gsv_xs.zip", tmp_path, "gsv_xs", origin="https://me:word@host.example/x/a.zip?token=1")
    entry = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))["train"]
    assert entry["photos"] == {"paris": 4, "rome": 4}
    assert entry["bytes"]["rome"] == sum(map(len, read_files(sets / "gsv_xs" / "train" / "rome").values()))
    assert entry["fingerprint"] == read_images(sets / "gsv_xs" / "train").fingerprint
    assert (entry["places"], entry["set"], entry["source"]) == (4, "gsv_xs", "https://host.example/x/a.zip")


def test_what_is_there_is_not_changed(sets, tmp_path):
    unpack(sets / "zips" / "sf_xs.zip", tmp_path, "sf_xs")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.j*")}  # photos and the manifest
    unpack(sets / "zips" / "sf_xs.zip", tmp_path, "sf_xs")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.j*")} == before
    write_photo(tmp_path / "tokyo_test" / "queries" / photo_name(1, 2), 0)  # a photo of one's own
    with pytest.raises(ValueError, match=r"tokyo_test exists"):
        unpack(sets / "zips" / "tokyo_xs.zip", tmp_path, "tokyo_xs")
    assert len(list((tmp_path / "tokyo_test").rglob("*.jpg"))) == 1


def test_an_unpacked_set_or_data_root_is_linked(sets, tmp_path):
    for name in SPLITS:
        unpack(sets, tmp_path / "a", name)  # all three in one folder
        unpack(tmp_path / "a", tmp_path / "b", name)
    for root in "ab":
        assert_unpacked(tmp_path / root, sets, *SPLITS)
    photo = next((tmp_path / "b" / "train").rglob("*.jpg"))
    assert photo.samefile(next((sets / "gsv_xs").rglob(photo.name)))


def test_check_compares_with_the_manifest(sets, tmp_path, capsys):
    assert main(["check", str(tmp_path), "--as", "gsv_xs"]) == 3
    assert "./data_download.sh gsv_xs" in capsys.readouterr().out
    for name in SPLITS:
        arguments = [str(sets / "zips" / f"{name}.zip"), "--to", str(tmp_path), "--as", name, "--any-size"]
        assert main(["unpack", *arguments]) == 0
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 0  # the manifest lists the small sizes
    assert "train: 2 cities, 8 photos of 4 places, 0.00 GB (published: 23" in capsys.readouterr().out
    photo = next((tmp_path / "train" / "rome").glob("*.jpg"))
    data = photo.read_bytes()
    photo.write_bytes(data + b"x")
    assert check_root(tmp_path).problems
    photo.unlink()
    assert main(["check", str(tmp_path), "--any-size"]) == 1
    assert re.search("train has 2 cities, 7 photos, .* 2 cities, 8 photos", capsys.readouterr().err)
    photo.write_bytes(data)
    write_pack(tmp_path / "train", image_size=32, progress=False)
    shutil.move(tmp_path / "train", tmp_path / "away")
    assert check_root(tmp_path) == check_root(tmp_path, any_size=True)
    assert not check_root(tmp_path).problems and not check_root(tmp_path).missing


def test_check_without_a_manifest_compares_with_the_published_sizes(sets, tmp_path):
    shutil.copytree(sets / "sf_xs" / "val", tmp_path / "sf_val")
    check = check_root(tmp_path)
    assert check.missing == ["train", "sf_test", "tokyo_test"]
    assert re.search(r"sf_val has 3 database, 2 queries; .* 8,015", *check.problems)
    assert not (tmp_path / "manifest.json").exists()
    check = check_root(tmp_path, any_size=True)
    assert (list(check.splits), check.missing, check.problems) == (["sf_val"], [], [])
