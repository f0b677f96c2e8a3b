import shutil
import struct
import unicodedata
import zipfile
import zlib

import numpy as np
import pytest
from conftest import photo_name, write_photo

from vpr_lib import images
from vpr_lib.data_roots import find_splits, is_validation, read_split
from vpr_lib.file_names import parse_name
from vpr_lib.images import read_images
from vpr_lib.photos import read_photo


def test_parse_name_reads_the_published_convention():
    parsed = parse_name("x/@0544050.17@4174706.96@10@S@037.71856@-122.50018@DnU@@398@@@@201104@00000_SanFrancisco@.jpg")
    assert (parsed.east_m, parsed.north_m) == (544050.17, 4174706.96)
    assert parsed.heading_deg == 38.0
    assert parsed.date == np.datetime64("2011-04")
    assert parsed.note == "00000_SanFrancisco"


@pytest.mark.parametrize("name", ["@1.5@2.5@@@@@@@@@@@@@.jpg", "@1.5@2.5@.JPG", "@1.5@2.5.png"])
def test_only_utm_is_needed(name):
    parsed = parse_name(name)
    assert (parsed.east_m, parsed.north_m) == (1.5, 2.5)
    assert np.isnan(parsed.heading_deg) and np.isnat(parsed.date) and parsed.note == ""


@pytest.mark.parametrize("name", ["photo.jpg", "@@@.jpg", "@east@2@.jpg", "@nan@1@.jpg", "a@1@2/b.jpg"])
def test_a_name_without_utm_is_an_error_that_names_it(name):
    with pytest.raises(ValueError, match=r"no UTM coordinates") as error:
        parse_name(name)
    assert name in str(error.value)


def test_an_at_sign_in_a_folder_does_not_shift_the_fields(tmp_path):
    folder = tmp_path / "me@home@1@2"
    write_photo(folder / "c@d" / photo_name(7, 8, note="1_X"), 0)
    table = read_images(folder)
    assert table.utm.tolist() == [[7.0, 8.0]]
    assert table.utm.dtype == np.float64


def test_float64_survives(tmp_path):
    write_photo(tmp_path / photo_name(544050.17, 4174706.96), 0)
    assert read_images(tmp_path).utm[0, 1] == 4174706.96  # float32 would give 4174707.0


def test_rows_are_sorted_by_name_whatever_the_file_system_says(data_root):
    table = read_images(data_root / "train")
    assert list(table.names) == sorted(table.names)
    assert len(table) == 32


def test_places_of_two_cities_do_not_collide(data_root):
    table = read_images(data_root / "train")
    assert len(set(table.places)) == 8  # both cities number theirs from 0
    alone = read_images(data_root / "train" / "éze")
    assert len(set(alone.places)) == 4


def test_places_with_one_note_in_two_city_folders_are_two(tmp_path):
    for city in "ab":
        write_photo(tmp_path / city / photo_name(1, 2, note="00001_X"), 0)
    assert len(set(read_images(tmp_path).places)) == 2


def test_upper_case_and_png_and_nested_folders_count(tmp_path):
    write_photo(tmp_path / "a" / "b" / photo_name(1, 2).replace(".jpg", ".JPG"), 0)
    write_photo(tmp_path / photo_name(3, 4).replace(".jpg", ".png"), 0)
    (tmp_path / "notes.txt").write_text("not a photo")
    assert len(read_images(tmp_path)) == 2


def test_an_empty_folder_and_a_missing_one_are_different_errors(tmp_path):
    with pytest.raises(ValueError, match="holds no photos"):
        read_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder or pack"):
        read_images(tmp_path / "nowhere")


def make_pack(folder, pack, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(pack, "w", compression) as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder).as_posix())
    return pack


def test_a_pack_reads_like_its_folder(data_root, tmp_path):
    folder = read_images(data_root / "train")
    pack = read_images(make_pack(data_root / "train", tmp_path / "train.zip"))
    assert list(pack.names) == list(folder.names)
    assert pack.fingerprint == folder.fingerprint
    for row in (0, 7, 31):
        assert pack.read_bytes(row) == folder.read_bytes(row) == (data_root / "train" / folder.names[row]).read_bytes()
    assert pack[[3, 5]].read_bytes(1) == folder.read_bytes(5)


def test_a_pack_that_was_replaced_is_read_anew(tmp_path):
    write_photo(tmp_path / "a" / photo_name(1, 1), 1)
    write_photo(tmp_path / "b" / photo_name(1, 1), 2, size=80)
    pack = make_pack(tmp_path / "a", tmp_path / "p.zip")
    read_images(pack).read_bytes(0)
    shutil.copy(make_pack(tmp_path / "b", tmp_path / "q.zip"), pack)
    assert read_images(pack).read_bytes(0) == next((tmp_path / "b").iterdir()).read_bytes()


def test_a_compressed_or_cut_pack_is_an_error(data_root, tmp_path):
    pack = make_pack(data_root / "train", tmp_path / "c.zip", zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_images(pack)
    whole = make_pack(data_root / "train", tmp_path / "w.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no complete zip"):
        read_images(tmp_path / "cut.zip")
    assert struct.unpack("<I", whole[:4])[0] == 0x04034B50


def test_a_pack_with_a_name_twice_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as pack, pytest.warns(UserWarning, match="Duplicate name"):
        for data in (b"one", b"two"):
            pack.writestr(photo_name(1, 1), data)
    with pytest.raises(ValueError, match=r"holds @1.00@.* twice"):
        read_images(tmp_path / "p.zip")


def test_fingerprint_changes_with_a_name_and_a_size_but_not_with_the_place_on_disk(data_root, tmp_path):
    shutil.copytree(data_root / "train", tmp_path / "t")
    copied = read_images(tmp_path / "t")
    assert copied.fingerprint == read_images(data_root / "train").fingerprint
    first = tmp_path / "t" / copied.names[0]
    first.write_bytes(first.read_bytes() + b"x")
    longer = read_images(tmp_path / "t").fingerprint
    first.rename(first.with_name(photo_name(5, 5)))
    assert len({copied.fingerprint, longer, read_images(tmp_path / "t").fingerprint}) == 3


def test_splits(data_root, tmp_path):
    assert find_splits(data_root) == ["val"]
    database, queries = read_split(data_root, "val")
    assert (len(database), len(queries)) == (12, 6)
    make_pack(data_root / "val", tmp_path / "val.zip")
    packed_database, packed_queries = read_split(tmp_path, "val")
    assert find_splits(tmp_path) == ["val"]
    assert packed_database.read_bytes(0) == database.read_bytes(0)
    assert packed_queries.utm.tolist() == queries.utm.tolist()


def test_split_errors(data_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data root"):
        read_split(tmp_path / "nowhere", "val")
    with pytest.raises(FileNotFoundError, match=r"no test/ or test\.zip; it holds train, val"):
        read_split(data_root, "test")
    shutil.copytree(data_root / "val" / "database", tmp_path / "s" / "database")
    with pytest.raises(ValueError, match="has no queries/"):
        read_split(tmp_path, "s")
    (tmp_path / "s" / "queries").mkdir()
    with pytest.raises(ValueError, match="holds no photos"):
        read_split(tmp_path, "s")
    make_pack(tmp_path / "s", tmp_path / "t.zip")
    with pytest.raises(ValueError, match="has no queries/"):
        read_split(tmp_path, "t")


def test_a_photo_that_is_gone_is_named(data_root, tmp_path):
    shutil.copytree(data_root / "val" / "queries", tmp_path / "q")
    table = read_images(tmp_path / "q")
    (tmp_path / "q" / table.names[2]).unlink()
    with pytest.raises(FileNotFoundError, match="no longer exists") as error:
        table.read_bytes(2)
    assert table.names[2] in str(error.value)


def test_fingerprint_changes_with_a_content_of_the_same_size_but_not_with_a_copy(data_root, tmp_path):
    shutil.copytree(data_root / "val" / "queries", tmp_path / "q", copy_function=shutil.copyfile)  # other times
    before = read_images(tmp_path / "q")
    assert before.fingerprint == read_images(data_root / "val" / "queries").fingerprint
    photo = tmp_path / "q" / before.names[0]
    write_photo(tmp_path / "other.jpg", 7, size=40)
    photo.write_bytes((tmp_path / "other.jpg").read_bytes().ljust(photo.stat().st_size, b"\0"))
    after = read_images(tmp_path / "q")
    assert after.sizes.tolist() == before.sizes.tolist() and after.fingerprint != before.fingerprint


def test_checksums_of_a_large_folder_are_kept_and_renewed(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGE", 3)
    shutil.copytree(data_root / "val" / "queries", tmp_path / "q")
    table = read_images(tmp_path / "q")
    expected = [zlib.crc32(table.read_bytes(row)) for row in range(len(table))]
    assert table.checksums.tolist() == expected
    cache = tmp_path / ".q-checksums.npz"
    read = []
    monkeypatch.setattr(images.ImageTable, "read_bytes", lambda table, row: read.append(row) or b"new")
    assert read_images(tmp_path / "q").checksums.tolist() == expected and not read
    (tmp_path / "q" / table.names[2]).write_bytes(table.sizes[2] * b"x")
    assert read_images(tmp_path / "q").checksums.tolist()[2] == zlib.crc32(b"new") and read == [2]
    cache.write_bytes(cache.read_bytes()[:-30])  # damaged: all are read again
    assert len(read_images(tmp_path / "q").checksums) == 6 and len(read) == 7


def test_hidden_copies_of_macos_are_no_photos(tmp_path):
    write_photo(tmp_path / "a" / photo_name(1, 2), 0)
    (tmp_path / "a" / ("._" + photo_name(1, 2))).write_bytes(b"resource fork")
    write_photo(tmp_path / "a" / ".ipynb_checkpoints" / photo_name(1, 3), 0)
    assert len(read_images(tmp_path)) == 1
    assert len(read_images(make_pack(tmp_path, tmp_path / "p.zip"))) == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("twin", [".JPG", ".jpeg", ".png"])
def test_twins_are_refused(tmp_path, packed, twin):
    for suffix in (".jpg", twin):
        write_photo(tmp_path / "a" / photo_name(1, 2).replace(".jpg", suffix), 0)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in (tmp_path / "a").iterdir():
            archive.write(path, path.name)
    with pytest.raises(ValueError, match="remove one") as error:
        read_images(tmp_path / ("p.zip" if packed else "a"))
    assert twin in str(error.value)


def test_a_note_in_both_unicode_forms_is_one_place(tmp_path):
    for form, pano in (("NFC", "a"), ("NFD", "b")):
        write_photo(tmp_path / "x" / photo_name(1, 2, note=unicodedata.normalize(form, "1_Éze"), pano=pano), 0)
    assert len(set(read_images(tmp_path).places)) == 1


def test_subfolders_of_a_city_hold_the_same_places(tmp_path):
    for folder in ("lyon/2015", "lyon/2016", "lyon", "nice"):
        write_photo(tmp_path / folder / photo_name(1, 2, note="1_X", pano=folder.replace("/", "")), 0)
    assert sorted(read_images(tmp_path).places) == ["lyon/1_X"] * 3 + ["nice/1_X"]


def test_a_damaged_member_of_a_pack_is_named(data_root, tmp_path):
    pack = make_pack(data_root / "train", tmp_path / "p.zip")
    table = read_images(pack)
    data = bytearray(pack.read_bytes())
    start = data.index(table.read_bytes(5))
    data[start + 100] ^= 1
    pack.write_bytes(data)
    with pytest.raises(ValueError, match="make or copy the pack again") as error:
        read_photo(read_images(pack), 5, 32)
    assert table.names[5] in str(error.value)
    data[start + 100] ^= 1  # whole again
    entry = data.rindex(table.names[5].encode()) - 46  # in the directory
    data[entry + 16 : entry + 28] = bytes(12)  # checksum and sizes of an empty file
    pack.write_bytes(data)
    with pytest.raises(ValueError, match=r"p\.zip .*checksum"):
        read_images(pack)
    pack = make_pack(data_root / "train", tmp_path / "p.zip")
    data = bytearray(pack.read_bytes())
    data[start - 20] ^= 1  # of its name in the local header
    pack.write_bytes(data)
    with pytest.raises(ValueError, match=r"p\.zip .*another name"):
        read_images(pack)


def make_split(root, *names):
    for half, name in zip(("database", "queries", "queries"), names, strict=False):
        write_photo(root / "val" / half / name, 0)
    return root


@pytest.mark.parametrize("query_zone, message", [
    ("54@S", "10 north.*54 north"), ("10@H", "10 north.*10 south"), ("54@", "10 north.*54"), ("54.0@", "10 north.*54"),
])  # fmt: skip
def test_halves_in_different_zones_are_refused(tmp_path, query_zone, message):
    """Their numbers could be the same, on another side of the Earth."""
    root = make_split(tmp_path, photo_name(5e5, 4e6), photo_name(5e5, 4e6).replace("10@S", query_zone))
    with pytest.raises(ValueError, match=message):
        read_split(root, "val")


@pytest.mark.parametrize("zone", ["10@T", "10@s", "10@", "@"])
def test_bands_of_one_zone_and_unknown_zones_are_no_difference(tmp_path, zone):
    root = make_split(tmp_path, photo_name(5e5, 4e6), photo_name(5e5, 4e6).replace("10@S", zone))
    assert len(read_split(root, "val").queries) == 1


def test_several_zones_in_a_split_are_a_warning(tmp_path):
    other = photo_name(5e5, 4e6).replace("10@S", "33@U")
    with pytest.warns(UserWarning, match="33 north"):
        read_split(make_split(tmp_path, photo_name(5e5, 4e6), photo_name(5e5, 4e6), other), "val")


def test_degrees_are_refused(tmp_path):
    for number, photos in enumerate([
        [photo_name(5e5, 4e6), photo_name(-122.4, 37.7)],
        [photo_name(5e5, 4e6), photo_name(37.7, -122.4)],  # latitude first
        [photo_name(5e5, 4e6), photo_name(5e5, 4e6), photo_name(-122.4, 37.7)],  # some of them
    ]):  # fmt: skip
        root = make_split(tmp_path / str(number), *photos)
        with pytest.raises(ValueError, match="val/queries has degrees"):
            read_split(root, "val")
    near_zero = make_split(tmp_path / "local", photo_name(300, 0), photo_name(5, 0), photo_name(900, 0))  # a local grid
    assert len(read_split(near_zero, "val").queries) == 2


def test_only_a_split_for_validation_is_one():
    names = ["val", "sf_val", "sf-val", "SF_Val", "festival", "interval", "val_old", "test"]
    assert [name for name in names if is_validation(name)] == ["val", "sf_val", "sf-val", "SF_Val"]
