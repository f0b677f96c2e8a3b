"""Zips and folders that are damaged or made to do harm: each is refused by name, nothing is written outside."""

import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import photo_name, write_photo
from small_sets import assert_unpacked, write_sets

from vpr_lib.command_line.parser import main
from vpr_lib.prepare.unpacking import unpack_set

HALF = "tokyo_xs/test/database/"
FIRST = photo_name(300, 4e6, pano="database")  # a photo of tokyo_xs that `write_sets` writes
PHOTO = photo_name(1, 2)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets"))


def add_members(path, *members):
    """Append (name or ZipInfo, data) to a zip."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def replace_bytes(path, old, new, count=-1):
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new, count))


def change_byte(photo):
    """Another JPEG of the same size, which decodes: the density of its pixels, in its header, differs."""
    return photo[:15] + bytes([photo[15] ^ 1]) + photo[16:]


def list_outside(folder):
    """What lies in a folder, without the inside of its `root`: paths, and the contents of files."""
    paths = [path for path in sorted(folder.rglob("*")) if folder / "root" not in path.parents]
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


def assert_refused(source, folder, name, capsys):
    """The command line names the offender in one line; no split appears, and nothing changes outside of the root."""
    (folder / "root").mkdir(exist_ok=True)
    before = list_outside(folder)
    arguments = ["unpack", str(source), "--to", str(folder / "root"), "--as", "tokyo_xs", "--any-size"]
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and name in error
    assert list_outside(folder) == before
    assert [path.name for path in (folder / "root").iterdir()] in ([], [".download"])


NAMES = {
    "absolute": "/etc/" + PHOTO,
    "absolute after a split": HALF + "/abs/" + PHOTO,
    "empty part": "tokyo_xs//test/database/" + PHOTO,
    "dot": HALF + "./" + FIRST,
    "dots": HALF + "../../../" + PHOTO,
    "dots of a file that is not unpacked": "../readme.txt",
    "dots at the end": "x/..",
    "dots with a blank, which Windows drops": HALF + ".. /" + PHOTO,
    "backslashes": HALF + "..\\..\\" + PHOTO,
    "drive": "C:/test/database/" + PHOTO,
    "drive after a split": HALF + "C:" + PHOTO,
    "line end": HALF + "a\n" + PHOTO,
    "only a slash": "/",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))
def test_names_that_lead_out_of_the_root_are_refused(sets, tmp_path, capsys, name):
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), (name, b"evil"))
    assert_refused(path, tmp_path, repr(name), capsys)


def test_a_name_with_a_nul_is_refused(sets, tmp_path, capsys):
    """Python's zipfile reads such a name up to the NUL."""
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), (f"{HALF}@1@2@.jpg%x.txt", b"evil"))
    replace_bytes(Path(path), b".jpg%x.txt", b".jpg\0x.txt")
    assert_refused(path, tmp_path, r"@1@2@.jpg\x00x.txt", capsys)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(sets, tmp_path, capsys, kind):
    member = zipfile.ZipInfo("tokyo_xs/test/link")
    member.external_attr = (kind | 0o777) << 16
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), (member, b"../.."))
    assert_refused(path, tmp_path, "'tokyo_xs/test/link'", capsys)


TWINS = {
    "case": (HALF + "a/" + PHOTO, HALF + "a/" + PHOTO.replace("jpg", "JPG")),
    "case of folders": (HALF + "a/" + PHOTO, HALF + "A/@3@4@.jpg"),
    "accents": [HALF + unicodedata.normalize(form, f"é{PHOTO}") for form in ("NFC", "NFD")],
    "twice": (HALF + PHOTO, HALF + PHOTO),
    "another folder level": (HALF + PHOTO, HALF.removeprefix("tokyo_xs/") + PHOTO),
    "file and folder": (HALF + PHOTO, f"{HALF}{PHOTO}/@3@4@.jpg"),
    "folder and file": (f"{HALF}{PHOTO}/@3@4@.jpg", HALF + PHOTO),
    "file and empty folder": (f"{HALF}{PHOTO}/", HALF + PHOTO),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", TWINS.values(), ids=list(TWINS))
def test_photos_that_would_become_one_file_are_refused(sets, tmp_path, capsys, names):
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), *((name, b"evil") for name in names))
    assert_refused(path, tmp_path, names[1], capsys)


def test_photos_of_a_folder_that_would_become_one_file_elsewhere_are_refused(sets, tmp_path, capsys):
    database = shutil.copytree(sets / "tokyo_xs", tmp_path / "tokyo_xs") / "test" / "database"
    shutil.copy(database / FIRST, database / FIRST.upper())
    if len(list(database.iterdir())) == 3:
        pytest.skip("this disk doesn't tell the two names apart")
    assert_refused(tmp_path / "tokyo_xs", tmp_path, FIRST, capsys)


def test_zip_bombs_are_refused_before_the_disk_fills(sets, tmp_path, capsys):
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), (HALF + PHOTO, bytes(5_000_000)))
    assert_refused(path, tmp_path, repr(HALF + PHOTO), capsys)
    assert not list((tmp_path / "root").rglob("*.jpg"))


@pytest.mark.parametrize("declared", [10, 199_999, 200_001, 1_000_000_001, 4_000_000_000])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_photo_with_more_or_less_bytes_than_declared_is_refused(sets, tmp_path, capsys, method, declared):
    """Its checksum fits what zipfile reads of it, so that only the size can tell."""
    data = np.random.default_rng(0).bytes(200_000)
    path = Path(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(HALF + PHOTO), data, method)
        compressed = archive.getinfo(HALF + PHOTO).compress_size
    sizes = struct.pack("<LL", compressed, len(data))
    checksum = struct.pack("<L", zlib.crc32(data))
    forged = struct.pack("<L", zlib.crc32(data[:declared])) + struct.pack("<LL", compressed, declared)
    replace_bytes(path, checksum + sizes, forged)
    assert_refused(path, tmp_path, HALF + PHOTO, capsys)
    assert sum(file.stat().st_size for file in (tmp_path / "root").rglob("*.jpg")) < 300_000


def test_members_that_share_their_bytes_are_refused(sets, tmp_path, capsys):
    """As in the zip bomb of Fifield, A better zip bomb (WOOT 2019): many members of the same compressed bytes."""
    path = add_members(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path), ("a.txt", b"a"), ("b.txt", b"b"))
    with zipfile.ZipFile(path) as archive:
        first, second = (struct.pack("<L", archive.getinfo(name).header_offset) for name in ("a.txt", "b.txt"))
    replace_bytes(Path(path), second + b"b.txt", first + b"b.txt")
    assert_refused(path, tmp_path, "'b.txt'", capsys)


def test_an_unusual_compression_is_refused(sets, tmp_path, capsys):
    """zipfile expands these without a limit of memory."""
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(HALF + PHOTO, bytes(1000))
    assert_refused(path, tmp_path, repr(HALF + PHOTO), capsys)


def test_links_in_the_root_are_not_followed(sets, tmp_path, capsys):
    """Such a link may be what another program left there."""
    archive, root, elsewhere = sets / "zips" / "tokyo_xs.zip", tmp_path / "root", tmp_path / "elsewhere"
    write_photo(elsewhere / "database" / PHOTO, 0)  # staging removes photos that are not the set's
    for link in (".download", ".download/tokyo_xs", ".download/tokyo_xs/tokyo_test"):
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(elsewhere)
        assert_refused(archive, tmp_path, str(root / link), capsys)
        shutil.rmtree(root)
    staged = root / ".download" / "tokyo_xs" / "tokyo_test" / "database" / FIRST
    staged.parent.mkdir(parents=True)
    staged.symlink_to(elsewhere / "database" / PHOTO)
    assert_refused(archive, tmp_path, str(staged), capsys)
    shutil.rmtree(root / ".download")
    (root / "tokyo_test").symlink_to(tmp_path / "nowhere")
    assert main(["unpack", str(archive), "--to", str(root), "--as", "tokyo_xs", "--any-size"]) == 1
    assert str(root / "tokyo_test") in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_a_root_behind_a_link_is_filled(sets, tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "big disk")
    unpack_set(sets / "zips" / "tokyo_xs.zip", tmp_path / "root", "tokyo_xs", any_size=True)
    assert_unpacked(tmp_path / "big disk", sets, "tokyo_xs")


def test_links_in_a_source_folder_are_followed_unless_they_form_a_loop(sets, tmp_path, capsys):
    (tmp_path / "tokyo_xs" / "test").mkdir(parents=True)
    for half in ("database", "queries"):
        (tmp_path / "tokyo_xs" / "test" / half).symlink_to(sets / "tokyo_xs" / "test" / half)
    unpack_set(tmp_path / "tokyo_xs", tmp_path / "data", "tokyo_xs", any_size=True)
    assert_unpacked(tmp_path / "data", sets, "tokyo_xs")
    for name in ("again", "and again"):  # two of them: the number of paths would double at each level
        (tmp_path / "tokyo_xs" / name).symlink_to("..")
    assert_refused(tmp_path / "tokyo_xs", tmp_path, f"{tmp_path}/tokyo_xs/a", capsys)


def test_a_damaged_zip_gives_an_error_or_the_right_photos(sets, tmp_path, capsys, summary):
    """One bit flipped at each of 100 places, half of them in the headers at the end; and zips cut at 20 places."""
    whole = (sets / "zips" / "tokyo_xs.zip").read_bytes()
    rng = np.random.default_rng(0)
    directory = whole.index(b"PK\x01\x02")
    places = [*rng.integers(0, len(whole), 50), *rng.integers(directory, len(whole), 50)]
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << rng.integers(8)]) + whole[i + 1 :] for i in places]
    damaged += [whole[:i] for i in rng.integers(0, len(whole), 20)]
    harmless = 0
    for number, data in enumerate(damaged):
        path, root = tmp_path / f"{number}.zip", tmp_path / f"root{number}"
        path.write_bytes(data)
        status = main(["unpack", str(path), "--to", str(root), "--as", "tokyo_xs", "--any-size"])
        captured = capsys.readouterr()
        if status == 0:
            assert_unpacked(root, sets, "tokyo_xs")
            harmless += 1
        else:
            assert status == 1 and re.search(rf"/{number}\.zip|\.jpg: no UTM", captured.err.splitlines()[-1])
            assert not (root / "tokyo_test").exists()
    summary(f"damaged zips: {len(damaged)}, of which {harmless} were unpacked right and the others refused")
    assert harmless < len(damaged) / 2


def test_a_local_header_with_another_name_is_refused(sets, tmp_path, capsys):
    path = Path(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path))
    replace_bytes(path, (HALF + FIRST).encode(), (HALF + FIRST.replace("300", "399")).encode(), 1)
    assert_refused(path, tmp_path, FIRST, capsys)


@pytest.mark.parametrize("damage", [".jpg .jpf", "database databasd"])
def test_a_photo_whose_name_is_damaged_does_not_disappear(sets, tmp_path, capsys, damage):
    path = Path(shutil.copy(sets / "zips" / "tokyo_xs.zip", tmp_path))
    old, new = damage.encode().split()
    data = path.read_bytes()
    name = data.rindex((HALF + FIRST).encode())  # in the zip's directory
    path.write_bytes(data[:name] + data[name:].replace(old, new, 1))
    assert_refused(path, tmp_path, new.decode(), capsys)


def test_photos_that_an_interrupted_call_left_damaged_are_written_again(sets, tmp_path):
    """Also of a folder, and of the same size."""
    for source in (sets / "zips" / "tokyo_xs.zip", sets / "tokyo_xs"):
        root = tmp_path / source.stem / source.parent.name
        staged = root / ".download" / "tokyo_xs" / "tokyo_test" / "database"
        staged.mkdir(parents=True)
        photo = sets / "tokyo_xs" / "test" / "database" / FIRST
        (staged / FIRST).write_bytes(change_byte(photo.read_bytes()))
        unpack_set(source, root, "tokyo_xs", any_size=True)
        assert_unpacked(root, sets, "tokyo_xs")


def test_a_split_with_one_other_photo_is_named(sets, tmp_path):
    for source in (sets / "zips" / "tokyo_xs.zip", sets / "tokyo_xs"):
        root = tmp_path / source.parent.name
        split = shutil.copytree(sets / "tokyo_xs" / "test", root / "tokyo_test")
        photo = split / "database" / FIRST
        photo.write_bytes(change_byte(photo.read_bytes()))
        with pytest.raises(ValueError, match=re.escape(FIRST)):
            unpack_set(source, root, "tokyo_xs", any_size=True)


@pytest.mark.parametrize("left", ["unpack.lock", "tokyo_xs", "tokyo_xs/tokyo_test", ""])
def test_files_and_folders_in_the_way_are_named(sets, tmp_path, capsys, left):
    path = tmp_path / "root" / ".download" / left
    path.parent.mkdir(parents=True, exist_ok=True)
    if left == "unpack.lock":
        path.mkdir()
    else:
        path.write_bytes(b"half a fi")
    assert_refused(sets / "zips" / "tokyo_xs.zip", tmp_path, str(path), capsys)
