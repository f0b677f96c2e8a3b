"""data_download.sh and what it calls, on small archives and a server of our own on the loopback."""

import errno
import http.server
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import photo_name, write_photo

from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import read_split
from vpr_lib.images import read_images
from vpr_lib.prepare import manifest
from vpr_lib.prepare import unpacking as archives
from vpr_lib.prepare.manifest import check_root, count_photos
from vpr_lib.prepare.packs import write_pack
from vpr_lib.prepare.unpacking import unpack

ROOT = Path(__file__).parents[2]
SPLITS = {  # folder of each set -> split of the data root
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test"},
}


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """The three sets, small: unpacked, and as zips in zips/."""
    folder = tmp_path_factory.mktemp("sets") / "a@b"
    for place in range(4):
        for view in range(2):
            name = photo_name(1000 * place, view, note=f"{place:05}_X", pano=view)
            write_photo(folder / "gsv_xs" / "train" / ("paris", "rome")[place % 2] / name, place, view)
    for number, split in enumerate(["sf_xs/train", "sf_xs/val", "sf_xs/test", "tokyo_xs/test"]):
        for place in range(3):
            for half in ("database", "queries")[: 1 + (place > 0)]:
                write_photo(folder / split / half / photo_name(100 * number + place, 5, pano=half), place + number)
    for name in SPLITS:
        make_zip(folder / "zips" / f"{name}.zip", {f"{name}/{p}": d for p, d in files_of(folder / name).items()})
    return folder


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_laid_out(root, sets, *names):
    """The root holds the photos of these sets, and none else."""
    expected = {}
    for name in names:
        for folder, split in SPLITS[name].items():
            expected |= {f"{split}/{p}": data for p, data in files_of(sets / name / folder).items()}
    found = {p: data for p, data in files_of(root).items() if p.endswith(".jpg")}
    assert found == expected


# The Python side.


@pytest.mark.parametrize(
    ("name", "above"),
    [
        *(("gsv_xs", above) for above in ("gsv_xs/train/", "train/", "gsv_xs/", "", "x/gsv_xs/train/", "train/y/")),
        *(("tokyo_xs", above) for above in ("tokyo_xs/test/", "test/", "tokyo_xs/", "", "x/tokyo_xs/test/", "test/y/")),
    ],
)
def test_a_folder_level_more_or_less_is_no_error(sets, tmp_path, name, above):
    (folder,) = SPLITS[name]
    files = {above + path: data for path, data in files_of(sets / name / folder).items()}
    unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", name, any_size=True, progress=False)
    assert_laid_out(tmp_path / "root", sets, name)


@pytest.mark.parametrize("above", ["sf_xs/", "", "x/sf_xs/"])
def test_sf_xs_has_two_splits_and_a_training_set_that_is_left_out(sets, tmp_path, capsys, above):
    files = {above + path: data for path, data in files_of(sets / "sf_xs").items()}
    unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", "sf_xs", any_size=True)
    assert_laid_out(tmp_path / "root", sets, "sf_xs")
    assert re.search(rf"left out: 5 photos in {above}train\n", capsys.readouterr().out)
    assert len(read_split(tmp_path / "root", "sf_val")[1]) == 2


def test_what_macos_adds_to_a_zip_is_left_out(sets, tmp_path):
    files = files_of(sets / "gsv_xs")
    junk = {f"__MACOSX/{Path(p).parent}/._{Path(p).name}": b"junk" for p in files} | {"train/.DS_Store": b""}
    unpack(make_zip(tmp_path / "z.zip", files | junk), tmp_path / "root", "gsv_xs", any_size=True, progress=False)
    assert_laid_out(tmp_path / "root", sets, "gsv_xs")


@pytest.mark.parametrize(
    "evil", ["../evil.jpg", "train/../../evil", "/evil.jpg", "..\\evil.jpg", "C:/evil.jpg", "link"]
)
def test_a_member_that_leads_out_of_the_root_is_refused(sets, tmp_path, evil):
    path = make_zip(tmp_path / "in" / "z.zip", files_of(sets / "gsv_xs") | ({} if evil == "link" else {evil: b"x"}))
    if evil == "link":
        member = zipfile.ZipInfo("train/paris")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, "../..")
    with pytest.raises(ValueError, match="leads out of the data root"):
        unpack(path, tmp_path / "in" / "root", "gsv_xs", any_size=True, delete=True, progress=False)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"z.zip", "unpack.lock"}


def test_sizes_are_compared_before_anything_is_written(sets, tmp_path, monkeypatch):
    archive = sets / "zips" / "sf_xs.zip"
    with pytest.raises(
        ValueError, match=r"3 database, 2 queries for sf_val; published are 8,015 database, 7,993 queri"
    ):
        unpack(archive, tmp_path / "root", "sf_xs", progress=False)
    with pytest.raises(ValueError, match=r"2 cities, 8 photos for train; published are 23 cities, 529,506 photos"):
        unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs", progress=False)
    with pytest.raises(ValueError, match="has nothing for train"):  # any size, but not none
        unpack(archive, tmp_path / "root", "gsv_xs", any_size=True, progress=False)
    assert not [p for p in (tmp_path / "root").rglob("*.jpg")]
    published = dict.fromkeys(("sf_val", "sf_test"), "3 database, 2 queries")
    monkeypatch.setattr(archives, "PUBLISHED_SIZES", published)
    monkeypatch.setattr(manifest, "PUBLISHED_SIZES", published)
    unpack(archive, tmp_path / "root", "sf_xs", progress=False)
    assert check_root(tmp_path / "root", ["sf_val", "sf_test"]).problems == []


def test_published_sizes_read_as_they_are_counted():
    cities = {f"city{number}": 23_000 for number in range(22)} | {"last": 529_506 - 22 * 23_000}
    assert manifest.PUBLISHED["train"] == count_photos("train", cities)
    for split, database, queries in (("sf_val", 8015, 7993), ("sf_test", 27191, 1000), ("tokyo_test", 12771, 315)):
        assert manifest.PUBLISHED[split] == count_photos(split, {"queries": queries, "database": database})


def test_a_split_without_queries_is_never_whole(sets, tmp_path):
    files = {p: data for p, data in files_of(sets / "sf_xs").items() if "val/queries" not in p}
    with pytest.raises(ValueError, match=r"has 3 database for sf_val; expected 8,015 database, 7,993 queries"):
        unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", "sf_xs", any_size=True, progress=False)


@pytest.mark.parametrize("damage", ["cut", "byte", "text"])
@pytest.mark.parametrize("delete", [False, True])
def test_a_damaged_zip_is_told_and_only_removed_if_it_is_ours(sets, tmp_path, damage, delete):
    data = bytearray((sets / "zips" / "tokyo_xs.zip").read_bytes())
    data[500] ^= 255 if damage == "byte" else 0
    path = tmp_path / "z.zip"
    path.write_bytes({"cut": data[:-100], "byte": data, "text": b"hello"}[damage])
    with pytest.raises(ValueError, match="is damaged or no zip"):
        unpack(path, tmp_path / "root", "tokyo_xs", any_size=True, delete=delete, progress=False)
    assert path.exists() is not delete
    assert not (tmp_path / "root" / "tokyo_test").exists()


@pytest.mark.parametrize("wrong", ["photo", "name", "twice"])
def test_broken_photos_and_bad_names_are_named(sets, tmp_path, wrong):
    files = {f"test/{path}": data for path, data in files_of(sets / "tokyo_xs" / "test").items()}
    first = next(iter(files))
    if wrong == "photo":
        files[first] = files[first][:-500]
    elif wrong == "name":
        files["test/database/holiday.jpg"] = b""
    else:
        files["tokyo_xs/" + first] = b""
    with pytest.raises(ValueError, match={"photo": "no.* readable", "name": "no UTM", "twice": "both"}[wrong]) as error:
        unpack(make_zip(tmp_path / "z.zip", files), tmp_path / "root", "tokyo_xs", any_size=True, progress=False)
    assert ("holiday.jpg" if wrong == "name" else Path(first).name) in str(error.value)
    assert wrong == "photo" or not list((tmp_path / "root").rglob("*.jpg"))  # names are read before photos are written
    assert not (tmp_path / "root" / "tokyo_test").exists()


def stop_at(monkeypatch, number, error):
    """The photo of this number, from 0, can't be written; returns the names of those that were."""
    written, write = [], archives._write_photo

    def write_or_stop(source, name, target):
        if len(written) == number:
            target.write_bytes(b"half a photo")
            raise error
        written.append(name)
        write(source, name, target)

    monkeypatch.setattr(archives, "_write_photo", write_or_stop)
    return written


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stopped_unpacking_goes_on(sets, tmp_path, monkeypatch, error):
    archive = shutil.copy(sets / "zips" / "gsv_xs.zip", tmp_path)
    with monkeypatch.context() as patch:
        written = stop_at(patch, 6, error)  # in the second city
        with pytest.raises(type(error), match="the disk of .* is full; make room" if error.args else None):
            unpack(archive, tmp_path / "root", "gsv_xs", any_size=True, delete=True, progress=False)
    assert not (tmp_path / "root" / "train").exists() and not (tmp_path / "root" / "manifest.json").exists()
    assert len(written) == 6 and Path(archive).exists()
    assert {p.name for p in (tmp_path / "root" / ".download" / "gsv_xs" / "train").iterdir()} == {"paris", "rome.part"}
    written = stop_at(monkeypatch, -1, None)
    unpack(archive, tmp_path / "root", "gsv_xs", any_size=True, delete=True, progress=False)
    assert len(written) == 4  # the first city was whole
    assert_laid_out(tmp_path / "root", sets, "gsv_xs")
    assert not Path(archive).exists() and not (tmp_path / "root" / ".download" / "gsv_xs").exists()


def test_parts_of_another_archive_are_not_gone_on_with(sets, tmp_path, monkeypatch):
    other = {path.replace("paris", "lyon"): data + b"x" for path, data in files_of(sets / "gsv_xs").items()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 6, KeyboardInterrupt())
        unpack(make_zip(tmp_path / "z.zip", other), tmp_path / "root", "gsv_xs", any_size=True, progress=False)
    unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs", any_size=True, progress=False)
    assert_laid_out(tmp_path / "root", sets, "gsv_xs")


def test_two_unpackings_at_once_write_once(sets, tmp_path, monkeypatch):
    written, write = [], archives._write_photo

    def write_slowly(source, name, target):
        time.sleep(0.02)
        written.append(name)
        write(source, name, target)

    monkeypatch.setattr(archives, "_write_photo", write_slowly)
    with ThreadPoolExecutor(2) as pool:
        archive = sets / "zips" / "gsv_xs.zip"
        jobs = [pool.submit(unpack, archive, tmp_path, "gsv_xs", any_size=True, progress=False) for _ in range(2)]
    assert jobs[0].result()["train"]["photos"] == jobs[1].result()["train"]["photos"]
    assert len(written) == 8
    assert_laid_out(tmp_path, sets, "gsv_xs")


def test_space_is_looked_at_before_unpacking(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 8 * 4096 - 1))
    with pytest.raises(OSError, match=r"8 photos need 0.0 GB more, .* make room"):
        unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs", any_size=True, progress=False)
    assert not list((tmp_path / "root").rglob("*.jpg"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 8 * 4096))
    unpack(sets / "zips" / "gsv_xs.zip", tmp_path / "root", "gsv_xs", any_size=True, progress=False)


def test_the_manifest_says_what_arrived(sets, tmp_path):
    origin = "https://me:word@host.example/x/gsv_xs.zip?token=1"
    unpack(sets / "zips" / "gsv_xs.zip", tmp_path, "gsv_xs", any_size=True, origin=origin, progress=False)
    entry = json.loads((tmp_path / "manifest.json").read_text())["train"]
    files = files_of(sets / "gsv_xs" / "train")
    assert entry["photos"] == Counter(path.split("/")[0] for path in files) == {"paris": 4, "rome": 4}
    assert entry["bytes"]["rome"] == sum(len(data) for path, data in files.items() if path.startswith("rome"))
    assert entry["fingerprint"] == read_images(sets / "gsv_xs" / "train").fingerprint
    assert entry["places"] == 4 and entry["set"] == "gsv_xs"
    assert entry["source"] == "https://host.example/x/gsv_xs.zip"
    assert np.datetime64(entry["date"].removesuffix("+00:00")) > np.datetime64("2024-01-01")


def test_an_unpacking_of_what_is_there_changes_nothing(sets, tmp_path):
    unpack(sets / "zips" / "sf_xs.zip", tmp_path, "sf_xs", any_size=True, progress=False)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".jpg", ".json")}
    unpack(sets / "zips" / "sf_xs.zip", tmp_path, "sf_xs", any_size=True, progress=False)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".jpg", ".json")} == before


def test_photos_of_ones_own_are_not_overwritten(sets, tmp_path):
    write_photo(tmp_path / "sf_val" / "queries" / photo_name(1, 2), 0)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"sf_val is there, with other photos; move it away"):
        unpack(sets / "zips" / "sf_xs.zip", tmp_path, "sf_xs", any_size=True, progress=False)
    assert {p: data for p, data in files_of(tmp_path).items() if not p.startswith(".download")} == before


def test_an_unpacked_set_is_linked_and_a_data_root_is_one(sets, tmp_path):
    for name in SPLITS:
        unpack(sets, tmp_path / "a", name, any_size=True, progress=False)  # all three in one folder
        unpack(tmp_path / "a", tmp_path / "b", name, any_size=True, progress=False)
    for root in "ab":
        assert_laid_out(tmp_path / root, sets, *SPLITS)
    photo = next((tmp_path / "b" / "train").rglob("*.jpg"))
    assert photo.samefile(next((sets / "gsv_xs").rglob(photo.name)))


def test_check_compares_with_the_manifest(sets, tmp_path, capsys):
    assert main(["check", str(tmp_path), "--as", "gsv_xs"]) == 3
    assert "train: missing; ./data_download.sh gsv_xs" in capsys.readouterr().out
    for name in SPLITS:
        arguments = [str(sets / "zips" / f"{name}.zip"), "--to", str(tmp_path), "--as", name, "--any-size"]
        assert main(["unpack", *arguments]) == 0
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 0  # the manifest knows that it is small
    assert "train: 2 cities, 8 photos of 4 places, 0.00 GB (published: 23" in capsys.readouterr().out
    photo = next((tmp_path / "train" / "rome").glob("*.jpg"))
    data = photo.read_bytes()
    photo.unlink()
    assert main(["check", str(tmp_path), "--any-size"]) == 1
    assert "found 2 cities, 7 photos, but manifest.json says 2 cities, 8 photos" in capsys.readouterr().err
    photo.write_bytes(data + b"x")
    assert check_root(tmp_path).problems
    photo.write_bytes(data)
    write_pack(tmp_path / "train", image_size=32, progress=False)
    shutil.move(tmp_path / "train", tmp_path / "away")
    assert check_root(tmp_path) == check_root(tmp_path, any_size=True)
    assert not check_root(tmp_path).problems and not check_root(tmp_path).missing


def test_check_without_a_manifest_compares_with_the_published_sizes(sets, tmp_path):
    shutil.copytree(sets / "sf_xs" / "val", tmp_path / "sf_val")
    report = check_root(tmp_path)
    assert report.missing == ["train", "sf_test", "tokyo_test"]
    assert re.search(r"sf_val: found 3 database, 2 queries, published are 8,015", *report.problems)
    assert not (tmp_path / "manifest.json").exists()
    report = check_root(tmp_path, any_size=True)
    assert (list(report.splits), report.missing, report.problems) == (["sf_val"], [], [])
    assert (tmp_path / "manifest.json").exists()
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        check_root(tmp_path)


# The script.


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.data`; the server's other attributes say how it fails."""

    def do_GET(self):
        server = self.server
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) if server.ranges else None
        start = int(start[1]) if start else 0
        server.requests.append((self.path, start))
        data = server.data[start:]
        if server.busy and len(server.requests) % 2:
            self.answer(503, 0)
        elif server.page is not None:
            self.answer(200, len(server.page), "text/html; charset=utf-8")
            self.wfile.write(server.page)
        elif self.path not in server.paths:
            self.answer(404, 0, "text/html")
        elif not data:
            self.answer(416, 0)
        else:
            send = data[: server.cut_after] if server.cut_after else data
            length = len(send) if server.lies else len(data)
            self.answer(206 if start else 200, length, extra=f"bytes {start}-{start + length - 1}/{len(server.data)}")
            self.wfile.write(send[: len(send) // 2])
            self.wfile.flush()
            server.half.set()
            server.go.wait(30)
            self.wfile.write(send[len(send) // 2 :])
            server.sent += len(send)

    def answer(self, status, length, kind="application/zip", extra=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if extra and status == 206:
            self.send_header("Content-Range", extra)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(sets):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # a killed client
    server.data = (sets / "zips" / "tokyo_xs.zip").read_bytes()
    server.url = f"http://127.0.0.1:{server.server_port}/tokyo_xs.zip"
    server.paths, server.requests, server.sent = ["/tokyo_xs.zip"], [], 0
    server.ranges, server.cut_after, server.lies, server.busy, server.page = True, None, False, False, None
    server.half, server.go = threading.Event(), threading.Event()
    server.go.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


TOOLS = "bash cat curl dirname env grep head mkdir mv rm sed sleep wc"


class Kit:
    """A copy of the script in a folder with a space in its name, and a PATH of few commands."""

    def __init__(self, folder):
        self.folder, self.bin, self.root = folder / "the kit", folder / "bin", folder / "data root"
        self.folder.mkdir()
        self.bin.mkdir()
        shutil.copy(ROOT / "data_download.sh", self.folder)
        (self.folder / "vpr_lib").symlink_to(ROOT / "vpr_lib")
        for tool in TOOLS.split():
            if shutil.which(tool) is None:
                pytest.skip(f"no {tool} on this machine, which data_download.sh needs")
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.add("python3", f'exec "{sys.executable}" "$@"')

    def add(self, name, script, folder=None):
        path = (folder or self.bin) / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def start(self, *arguments, before="", **environment):
        command = ["bash", "-c", f'{before} exec "$0" "$@"', str(self.folder / "data_download.sh"), *arguments]
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.bin),
            "VPR_PAUSE_S": "0",
            "LANG": "C.UTF-8",
        } | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        where = {"cwd": self.bin.parent, "env": environment, "start_new_session": True}
        return subprocess.Popen(command, text=True, **pipes, **where)

    def run(self, *arguments, **options):
        """Exit status and all that it printed."""
        process = self.start(*arguments, **options)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def get(self, *arguments, **options):
        return self.run("tokyo_xs", "--to", str(self.root), "--any-size", *arguments, **options)

    def left(self):
        """What is in .download but locks."""
        return sorted(p.name for p in (self.root / ".download").iterdir() if "lock" not in p.name)


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)


@pytest.mark.slow
def test_download_lays_out_the_set_once(kit, server, sets):
    status, output = kit.get("--from", server.url)
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")
    assert kit.left() == []
    assert json.loads((kit.root / "manifest.json").read_text())["tokyo_test"]["source"] == server.url
    before = (kit.root / "manifest.json").stat().st_mtime_ns
    status, output = kit.run("tokyo_xs", "--to", "data root", "--from", server.url)  # without --any-size: it is known
    assert (status, len(server.requests)) == (0, 1) and "nothing to do" in output
    assert (kit.root / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["", "lies", "busy"])
def test_connections_that_break_off_cost_nothing_twice(kit, server, sets, how):
    server.cut_after = len(server.data) // 7  # more often than it tries without progress
    server.lies, server.busy = how == "lies", how == "busy"
    status, output = kit.get("--from", server.url)
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")
    assert server.sent == len(server.data) and len(server.requests) >= 7


@pytest.mark.slow
def test_a_server_without_ranges_starts_again(kit, server, sets):
    server.ranges, server.cut_after = False, 3000
    status, output = kit.get("--from", server.url)
    assert status == 1 and "gives no whole zip" in output and "--from gdrive:" in output
    assert not (kit.root / "tokyo_test").exists() and len(server.requests) < 12
    server.cut_after = None
    status, output = kit.get("--from", server.url)
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_a_file_that_is_cut_on_the_server_is_no_whole_one(kit, server):
    server.data = server.data[:-50]
    status, output = kit.get("--from", server.url)
    assert status == 1 and "gives no whole zip" in output
    assert not (kit.root / "tokyo_test").exists() and "tokyo_xs.zip" not in kit.left()
    assert sum(start == 0 for _, start in server.requests) <= 3


@pytest.mark.slow
def test_a_web_page_is_told_and_spoils_nothing(kit, server, sets):
    server.page = b"<!DOCTYPE html><html>Please sign in</html>"
    status, output = kit.get("--from", server.url)
    assert status == 1 and "sent a web page, not a zip" in output and "What to do instead" in output
    assert kit.left() == ["tokyo_xs.source"] and len(server.requests) == 1
    part = kit.root / ".download" / "tokyo_xs.zip.part"
    part.write_bytes(server.data[:5000])
    status, output = kit.get("--from", server.url)
    assert status == 1 and "sent a web page" in output
    assert part.read_bytes() == server.data[:5000]
    server.page, server.requests[:] = None, []
    assert kit.get("--from", server.url)[0] == 0
    assert server.requests == [("/tokyo_xs.zip", 5000)]


@pytest.mark.slow
def test_dead_and_wrong_addresses_say_what_to_do_instead(kit, server):
    status, output = kit.get("--from", server.url + "x")
    assert status == 1 and "answered 404" in output and "./data_download.sh mini" in output
    assert len(server.requests) == 1
    server.data = b"Rar!" + server.data
    status, output = kit.get("--from", server.url)
    assert status == 1 and "sent something that is no zip" in output
    server.shutdown()
    server.server_close()
    status, output = kit.get(TOKYO_XS_FROM=server.url)  # the variable, too
    assert status == 1 and "curl 7" in output and "--from gdrive:" in output
    for wrong, words in (("nowhere.zip", "no file or folder"), ("htp://x/", "no address")):
        status, output = kit.get("--from", wrong)
        assert status == 1 and words in output


@pytest.mark.slow
def test_a_killed_download_goes_on(kit, server, sets):
    server.go.clear()
    process = kit.start("tokyo_xs", "--to", str(kit.root), "--any-size", "--from", server.url)
    assert server.half.wait(30)
    part = kit.root / ".download" / "tokyo_xs.zip.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server.go.set()
    assert part.stat().st_size and not part.with_suffix("").exists()
    status, output = kit.get("--from", server.url)
    assert status == 0, output
    assert server.requests[-1][1] > 0
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_a_call_killed_after_the_last_byte_fetches_nothing_again(kit, server, sets):
    server.cut_after, server.ranges = 3000, False
    assert kit.get("--from", server.url)[0] == 1  # leaves the note of where its part is from
    (kit.root / ".download" / "tokyo_xs.zip.part").write_bytes(server.data)
    server.requests.clear()
    assert kit.get("--from", server.url)[0] == 0
    assert server.requests == []
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_two_calls_at_once_fetch_once(kit, server, sets):
    server.go.clear()
    arguments = ["tokyo_xs", "--to", str(kit.root), "--any-size", "--from", server.url]
    first = kit.start(*arguments)
    assert server.half.wait(30)
    second = kit.start(*arguments)
    assert "waiting for it" in second.stdout.readline()
    server.go.set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "nothing to do" in outputs[1] and len(server.requests) == 1
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_a_disk_that_fills_up_is_told(kit, server, sets):
    assert len(server.data) > 8192
    status, output = kit.get("--from", server.url, before="trap '' XFSZ; ulimit -f 8;")  # files of 8 KiB at most
    assert status == 1 and "the disk is full" in output
    assert kit.get("--from", server.url)[0] == 0
    assert server.requests[-1][1] == 8192
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_a_damaged_download_is_fetched_anew(kit, server, sets):
    whole, damaged = server.data, bytearray(server.data)
    damaged[500] ^= 255
    server.data = bytes(damaged)
    status, output = kit.get("--from", server.url)
    assert status == 1 and "is damaged" in output and "run the same again" in output
    server.data = whole
    assert kit.get("--from", server.url)[0] == 0
    assert_laid_out(kit.root, sets, "tokyo_xs")


@pytest.mark.slow
def test_another_size_is_refused_and_the_download_kept(kit, server, sets):
    status, output = kit.run("tokyo_xs", "--to", str(kit.root), "--from", server.url)
    assert status == 1 and "3 database, 2 queries for tokyo_test; published are 12,771 database, 315 queries" in output
    assert not (kit.root / "tokyo_test").exists() and "tokyo_xs.zip" in kit.left()
    assert kit.get("--from", server.url)[0] == 0
    assert len(server.requests) == 1 and kit.left() == []


@pytest.mark.slow
def test_a_download_from_elsewhere_is_not_mixed_with_the_first(kit, server, sets):
    server.cut_after, server.ranges = 3000, False
    assert kit.get("--from", server.url)[0] == 1
    server.cut_after, server.ranges, server.requests[:] = None, True, []
    assert kit.get("--from", server.url + "?mirror=2")[0] == 1  # 404: the path is another
    (kit.root / ".download" / "tokyo_xs.zip.part").write_bytes(b"PK of the second mirror")
    assert kit.get("--from", server.url)[0] == 0
    assert server.requests[-1] == ("/tokyo_xs.zip", 0)


@pytest.mark.slow
def test_files_and_folders_are_sources_and_stay(kit, sets, tmp_path):
    shutil.copytree(sets / "zips", tmp_path / "usb stick")
    before = files_of(tmp_path / "usb stick")
    status, output = kit.run("xs", "--to", str(kit.root), "--from", "usb stick", "--any-size")
    assert status == 0, output
    assert_laid_out(kit.root, sets, *SPLITS)
    assert files_of(tmp_path / "usb stick") == before
    shutil.rmtree(kit.root)
    assert kit.get("--from", "usb stick/tokyo_xs.zip")[0] == 0
    shutil.rmtree(kit.root)
    status, output = kit.get("--from", str(sets))  # unpacked
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")
    assert files_of(tmp_path / "usb stick") == before


@pytest.mark.slow
def test_xs_takes_what_it_gets(kit, server, sets):
    status, output = kit.run("xs", "--to", str(kit.root), "--from", server.url.rpartition("/")[0], "--any-size")
    assert status == 1 and "not there yet: gsv_xs sf_xs;" in output
    assert [path for path, _ in server.requests] == ["/gsv_xs.zip", "/sf_xs.zip", "/tokyo_xs.zip"]
    assert_laid_out(kit.root, sets, "tokyo_xs")
    for wrong in (str(sets / "zips" / "sf_xs.zip"), "gdrive:1"):
        status, output = kit.run("xs", "--to", str(kit.root), "--from", wrong)
        assert status == 1 and "xs" in output


@pytest.mark.slow
def test_missing_commands_are_named(kit, server):
    status, output = kit.get()
    assert status == 1 and "Google Drive needs gdown, which isn't here; run make setup" in output
    (kit.bin / "curl").unlink()
    status, output = kit.get("--from", server.url)
    assert status == 1 and "needs curl, which isn't here; install it" in output
    status, output = kit.get("--from", "kaggle:a/b")
    assert status == 1 and "needs kaggle" in output
    kit.add("python3", "echo No module named numpy >&2; exit 1")
    status, output = kit.get("--from", server.url)
    assert status == 1 and "run make setup" in output
    (kit.bin / "python3").unlink()
    status, output = kit.get("--from", server.url)
    assert status == 1 and "there is no Python here" in output


@pytest.mark.slow
def test_google_drive_goes_through_gdown(kit, sets, tmp_path):
    log = tmp_path / "log"
    page = "<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
    kit.add("gdown", f"echo '{page}' > \"$3\"")
    status, output = kit.get()
    assert status == 1 and "a web page instead of the file" in output and "today's downloads" in output
    assert "your own copy" in output and kit.left() == ["tokyo_xs.source"]
    kit.add("gdown", "echo 'Too many users have viewed or downloaded this file recently' >&2; exit 1")
    status, output = kit.get()
    assert status == 1 and "Too many users" in output and "today's downloads" in output
    kit.add("gdown", f'head -c 4000 "{sets}/zips/tokyo_xs.zip" > "$3"')
    status, output = kit.get()
    assert status == 1 and "run the same again" in output and not (kit.root / "tokyo_test").exists()
    kit.add("gdown", f'echo "$@" >> "{log}"; cat "{sets}/zips/tokyo_xs.zip" > "$3"')
    status, output = kit.get("--from", "https://drive.google.com/file/d/1AbC_d-E/view?usp=sharing")
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")
    shutil.rmtree(kit.root)
    assert kit.get()[0] == 0
    ids = [re.search(r"--continue --output .*/tokyo_xs.zip.part (\S+)$", line)[1] for line in log.open()]
    assert ids == ["1AbC_d-E", "15QB3VNKj93027UAQWv7pzFQO1JDCdZj2"]


@pytest.mark.slow
def test_kaggle_goes_through_its_own_command(kit, sets):
    kit.add(
        "kaggle",
        f'[ "$1 $2 $3 $4" = "datasets download me/to-kyo --path" ] && cat "{sets}/zips/tokyo_xs.zip" > "$5/to-kyo.zip"',
    )
    status, output = kit.get("--from", "kaggle:me/to-kyo")
    assert status == 0, output
    assert_laid_out(kit.root, sets, "tokyo_xs")


def test_mini_is_rendered_by_the_environment_beside_the_script(kit):
    venv = kit.folder / ".venv" / "bin"
    venv.mkdir(parents=True)
    kit.add("python", f'echo "$@"; exec "{sys.executable}" -c "" ', venv)
    status, output = kit.run("mini")
    assert status == 0 and f"-m vpr_lib city --out {kit.folder}/data/mini" in output
    assert "-m vpr_lib city --out else where" in kit.run("mini", "--to", "else where")[1]
    assert kit.run("mini", "--from", "x")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "tokyo_xs"),
        ([], 1, "which set?"),
        (["tokio_xs"], 1, "valid: mini, gsv_xs, sf_xs, tokyo_xs, xs"),
        (["sf_xs", "gsv_xs"], 1, "one set at a time"),
        (["sf_xs", "--to"], 1, "--to needs a value"),
    ],
)
def test_arguments(kit, arguments, status, words):
    found, output = kit.run(*arguments)
    assert found == status and words in output


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine (Debian: apt install shellcheck)")
    result = subprocess.run(["shellcheck", ROOT / "data_download.sh", ROOT / ".ci/run"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
