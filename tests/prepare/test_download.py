"""data_download.sh with small archives and a local server."""

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_sets import SPLITS, assert_unpacked, read_files, write_sets

ROOT = Path(__file__).parents[2]
GET = ("tokyo_xs", "--to", "data root", "--any-size")
pytestmark = pytest.mark.slow
COMMANDS = "bash cat curl dirname env grep head mkdir mv rm sed sleep wc"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("sets") / "a@b")


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
        elif self.path != "/tokyo_xs.zip":
            self.answer(404, 0, "text/html")
        elif not data:
            self.answer(416, 0)
        else:
            send = data[: server.cut_after]
            length = len(send) if server.lies else len(data)
            self.answer(206 if start else 200, length, content=f"bytes {start}-{start + length - 1}/{len(server.data)}")
            self.wfile.write(send[: len(send) // 2])
            self.wfile.flush()
            server.half_sent.set()
            server.may_finish.wait(30)
            self.wfile.write(send[len(send) // 2 :])
            server.sent += len(send)

    def answer(self, status, length, kind="application/zip", content=""):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", content)
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
    server.requests, server.sent = [], 0
    server.ranges, server.cut_after, server.lies, server.busy, server.page = True, None, False, False, None
    server.half_sent, server.may_finish = threading.Event(), threading.Event()
    server.may_finish.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.may_finish.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Kit:
    """A copy of the script in a folder with a space in its name, and a PATH with few commands."""

    def __init__(self, folder):
        self.folder, self.bin, self.root = folder / "the kit", folder / "bin", folder / "data root"
        self.part = self.root / ".download" / "tokyo_xs.zip.part"
        self.folder.mkdir()
        self.bin.mkdir()
        shutil.copy(ROOT / "data_download.sh", self.folder)
        (self.folder / "vpr_lib").symlink_to(ROOT / "vpr_lib")
        for command in COMMANDS.split():
            if shutil.which(command) is None:
                pytest.skip(f"no {command} on this machine, which data_download.sh needs")
            (self.bin / command).symlink_to(shutil.which(command))
        self.add("python3", f'exec "{sys.executable}" "$@"')

    def add(self, name, script, folder=None):
        path = (folder or self.bin) / name
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def start(self, *arguments, before="", **environment):
        command = ["bash", "-c", f'{before} exec "$0" "$@"', str(self.folder / "data_download.sh"), *arguments]
        environment = {"VPR_PAUSE_S": "0"} | environment
        environment |= {"PATH": str(self.bin), "HOME": str(self.bin), "LANG": "C.UTF-8"}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=self.bin.parent, env=environment, **output)

    def run(self, status, *arguments, **options):
        """Run the script, which must end with this exit status; returns what it printed."""
        process = self.start(*arguments, **options)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        return output

    def list_left_files(self):
        """Names in .download except of locks."""
        return sorted(p.name for p in (self.root / ".download").iterdir() if "lock" not in p.name)


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)


def test_a_set_is_fetched_once(kit, server, sets):
    kit.run(0, *GET, "--from", server.url)
    assert_unpacked(kit.root, sets, "tokyo_xs")
    assert kit.list_left_files() == []
    manifest = (kit.root / "manifest.json").read_bytes()
    assert json.loads(manifest)["tokyo_test"]["source"] == server.url
    # Without --any-size: the manifest lists the size.
    output = kit.run(0, "tokyo_xs", "--to", "data root", "--from", server.url)
    assert "nothing to do" in output and len(server.requests) == 1
    assert (kit.root / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("how", ["", "lies", "busy"])
def test_interrupted_connections_continue(kit, server, sets, how):
    server.cut_after = len(server.data) // 7  # more often than the script tries without progress
    server.lies, server.busy = how == "lies", how == "busy"
    kit.run(0, *GET, "--from", server.url)
    assert_unpacked(kit.root, sets, "tokyo_xs")
    assert server.sent == len(server.data) and len(server.requests) >= 7


def test_an_incomplete_file_is_never_unpacked(kit, server, sets):
    server.data = server.data[:-50]  # cut on the server
    output = kit.run(1, *GET, "--from", server.url)
    assert server.url in output and "--from gdrive:" in output
    assert not (kit.root / "tokyo_test").exists() and "tokyo_xs.zip" not in kit.list_left_files()
    assert sum(start == 0 for _, start in server.requests) <= 3


def test_a_part_is_only_continued_from_the_same_source(kit, server, sets):
    server.cut_after, server.ranges = 3000, False  # a server that can't continue
    kit.run(1, *GET, "--from", server.url)
    assert len(server.requests) < 12
    server.cut_after, server.ranges = None, True
    assert "404" in kit.run(1, *GET, "--from", server.url + "?mirror=2")  # another address, another path
    kit.part.write_bytes(b"PK of the second mirror")
    kit.run(0, *GET, "--from", server.url)
    assert server.requests[-1] == ("/tokyo_xs.zip", 0)
    assert_unpacked(kit.root, sets, "tokyo_xs")


def test_answers_other_than_a_zip_are_explained_and_the_part_kept(kit, server):
    output = kit.run(1, *GET, "--from", server.url + "x")
    assert "404" in output and "./data_download.sh mini" in output
    whole, server.data = server.data, b"Rar!" + server.data
    assert "not a zip" in kit.run(1, *GET, "--from", server.url)
    server.data, server.page, server.requests = whole, b"<!DOCTYPE html><html>Please sign in</html>", []
    assert "web page" in kit.run(1, *GET, "--from", server.url)
    assert kit.list_left_files() == ["tokyo_xs.source"] and len(server.requests) == 1
    kit.part.write_bytes(whole[:5000])
    assert "web page" in kit.run(1, *GET, "--from", server.url)
    server.page, server.requests = None, []
    kit.run(0, *GET, "--from", server.url)
    assert server.requests == [("/tokyo_xs.zip", 5000)]


def test_wrong_sources_are_named(kit):
    url = "http://127.0.0.1:9/tokyo_xs.zip"
    assert url in kit.run(1, *GET, TOKYO_XS_FROM=url)  # no server
    for wrong in ("nowhere.zip", "htp://x/"):
        assert wrong in kit.run(1, *GET, "--from", wrong)


def test_a_killed_download_continues(kit, server, sets):
    server.may_finish.clear()
    process = kit.start(*GET, "--from", server.url)
    assert server.half_sent.wait(30)
    until = time.monotonic() + 30
    while not (kit.part.exists() and kit.part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    server.may_finish.set()
    assert kit.part.stat().st_size and not kit.part.with_suffix("").exists()
    kit.run(0, *GET, "--from", server.url)
    assert server.requests[-1][1] > 0
    assert_unpacked(kit.root, sets, "tokyo_xs")


def test_two_calls_at_once_fetch_once(kit, server, sets):
    server.may_finish.clear()
    first = kit.start(*GET, "--from", server.url)
    assert server.half_sent.wait(30)
    second = kit.start(*GET, "--from", server.url)
    assert "waiting" in second.stdout.readline()
    server.may_finish.set()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert "nothing to do" in outputs[1] and len(server.requests) == 1
    assert_unpacked(kit.root, sets, "tokyo_xs")


def test_after_a_full_disk_the_download_continues(kit, server):
    assert len(server.data) > 8192
    limit = "trap '' XFSZ; ulimit -f 8;"  # files of 8 KiB at most
    assert "full" in kit.run(1, *GET, "--from", server.url, before=limit)
    kit.run(0, *GET, "--from", server.url)
    assert server.requests[-1][1] == 8192


def test_a_damaged_download_is_fetched_anew_and_one_of_another_size_kept(kit, server, sets):
    whole, damaged = server.data, bytearray(server.data)
    damaged[500] ^= 255
    server.data = bytes(damaged)
    assert "is damaged" in kit.run(1, *GET, "--from", server.url)
    server.data, server.requests = whole, []
    output = kit.run(1, "tokyo_xs", "--to", "data root", "--from", server.url)
    assert "3 database, 2 queries" in output and "12,771 database, 315 queries" in output
    assert not (kit.root / "tokyo_test").exists() and "tokyo_xs.zip" in kit.list_left_files()
    kit.run(0, *GET, "--from", server.url)
    assert len(server.requests) == 1 and kit.list_left_files() == []
    assert_unpacked(kit.root, sets, "tokyo_xs")


def test_files_and_folders_are_sources_and_stay(kit, sets, tmp_path):
    stick = shutil.copytree(sets / "zips", tmp_path / "usb stick")
    before = read_files(stick)
    kit.run(0, "xs", "--to", "data root", "--from", "usb stick", "--any-size")
    assert_unpacked(kit.root, sets, *SPLITS)
    for source in ("usb stick/tokyo_xs.zip", str(sets)):  # a zip; unpacked
        shutil.rmtree(kit.root)
        kit.run(0, *GET, "--from", source)
        assert_unpacked(kit.root, sets, "tokyo_xs")
    assert read_files(stick) == before


def test_xs_unpacks_the_sets_that_it_can_fetch(kit, server, sets):
    arguments = ["xs", "--to", "data root", "--any-size", "--from"]
    assert "gsv_xs sf_xs;" in kit.run(1, *arguments, server.url.rpartition("/")[0])
    assert [path for path, _ in server.requests] == ["/gsv_xs.zip", "/sf_xs.zip", "/tokyo_xs.zip"]
    assert_unpacked(kit.root, sets, "tokyo_xs")
    for wrong in (str(sets / "zips" / "sf_xs.zip"), "gdrive:1"):
        assert wrong in kit.run(1, *arguments, wrong)


def test_missing_commands_are_named(kit, server):
    assert "gdown" in kit.run(1, *GET)
    (kit.bin / "curl").unlink()
    assert "needs curl" in kit.run(1, *GET, "--from", server.url)
    assert "needs kaggle" in kit.run(1, *GET, "--from", "kaggle:a/b")
    kit.add("python3", "echo No module named numpy >&2; exit 1")
    assert "run make setup" in kit.run(1, *GET, "--from", server.url)
    (kit.bin / "python3").unlink()
    assert "is not installed" in kit.run(1, *GET, "--from", server.url)


def test_google_drive_is_read_with_gdown(kit, sets, tmp_path):
    kit.add("gdown", "echo '<!DOCTYPE html><title>Google Drive - Quota exceeded</title>' > \"$3\"")
    output = kit.run(1, *GET)
    assert "web page" in output and "your own copy" in output and kit.list_left_files() == ["tokyo_xs.source"]
    kit.add("gdown", "echo 'Too many users have viewed or downloaded this file recently' >&2; exit 1")
    assert "Too many users" in kit.run(1, *GET)
    kit.add("gdown", f'head -c 4000 "{sets}/zips/tokyo_xs.zip" > "$3"')
    assert "run the same again" in kit.run(1, *GET) and not (kit.root / "tokyo_test").exists()
    kit.add("gdown", f'echo "$@" >> "{tmp_path}/log"; cat "{sets}/zips/tokyo_xs.zip" > "$3"')
    kit.run(0, *GET, "--from", "https://drive.google.com/file/d/1AbC_d-E/view?usp=sharing")
    shutil.rmtree(kit.root)
    kit.run(0, *GET)
    assert_unpacked(kit.root, sets, "tokyo_xs")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    ids = [re.search(r"--continue --output .*/tokyo_xs.zip.part -- (\S+)$", line)[1] for line in lines]
    assert ids == ["1AbC_d-E", "15QB3VNKj93027UAQWv7pzFQO1JDCdZj2"]


def test_kaggle_is_read_with_its_own_command(kit, sets):
    check = '[ "$1 $2 $3 $5 $6" = "datasets download --path -- me/to-kyo" ]'
    kit.add("kaggle", f'{check} && cat "{sets}/zips/tokyo_xs.zip" > "$4/to-kyo.zip"')
    kit.run(0, *GET, "--from", "kaggle:me/to-kyo")
    assert_unpacked(kit.root, sets, "tokyo_xs")


EVIL = {
    "option of curl": "-K/file://x",
    "long option of curl": "--config=http://x",
    "option of gdown": "gdrive:-O/tmp/x",
    "two words for gdown": "gdrive:1 --fuzzy",
    "link without an ID": "https://drive.google.com/drive/folders/-x",
    "option of kaggle": "kaggle:-p/x",
    "folder above, for kaggle": "kaggle:a/../x",
}


@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.parametrize("source", EVIL.values(), ids=list(EVIL))
def test_no_source_is_taken_for_an_option(kit, tmp_path, source, how):
    """No command is called with it; the message names it."""
    (kit.bin / "curl").unlink()
    for command in ("curl", "gdown", "kaggle"):
        kit.add(command, f'echo "{command} $@" >> "{tmp_path}/log"; exit 1')
    for what in ("tokyo_xs", "xs"):
        options = ["--from", source] if how == "option" else []
        environment = {} if options else {f"{name.upper()}_FROM": source for name in SPLITS}
        output = kit.run(1, what, "--to", "data root", *options, **environment)
        assert source.partition(":")[2].removeprefix("//") in output
    assert not (tmp_path / "log").exists()


def test_an_address_reaches_curl_as_one_address(kit, server, sets, tmp_path):
    """Brackets and braces in it stand for themselves, and what begins with - is no option."""
    real = os.readlink(kit.bin / "curl")
    (kit.bin / "curl").unlink()
    kit.add("curl", f'printf "%s\\n" "$@" >> "{tmp_path}/log"; exec "{real}" "$@"')
    kit.run(1, *GET, "--from", server.url + "/{a,b}[1-3].zip")
    assert [path for path, _ in server.requests] == ["/tokyo_xs.zip/{a,b}[1-3].zip"]
    arguments = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert arguments[-2:] == ["--url", server.url + "/{a,b}[1-3].zip"]


def test_other_text_of_the_user_is_no_option_and_no_code(kit, sets, tmp_path):
    for arguments in (["--to", "--any-size"], ["--to", "-x"], ["--from", "-x"], ["--from", "--to"]):
        assert f"{arguments[0]} got {arguments[1]}" in kit.run(1, "tokyo_xs", *arguments)
    for pause in ("a[$(touch ran)]", "1 + 1", ""):
        output = kit.run(1 if pause else 0, *GET, "--from", str(sets), VPR_PAUSE_S=pause)
        assert not pause or f"VPR_PAUSE_S is {pause}" in output
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(kit.root)
    odd = "-$(touch ran) `touch ran`; 'x' *"
    shutil.copytree(sets / "zips", tmp_path / odd)
    kit.run(0, "tokyo_xs", "--any-size", "--to", f"./{odd} root", "--from", f"./{odd}")
    assert_unpacked(tmp_path / f"{odd} root", sets, "tokyo_xs")
    assert not (tmp_path / "ran").exists()


def test_mini_is_rendered_by_the_environment_beside_the_script(kit):
    venv = kit.folder / ".venv" / "bin"
    venv.mkdir(parents=True)
    kit.add("python", f'echo "$@"; exec "{sys.executable}" -c "" ', venv)
    assert f"-m vpr_lib city --out {kit.folder}/data/mini" in kit.run(0, "mini")
    assert "-m vpr_lib city --out else where" in kit.run(0, "mini", "--to", "else where")
    kit.run(1, "mini", "--from", "x")


def test_arguments(kit):
    assert "tokyo_xs" in kit.run(0, "--help")
    for arguments in ([], ["tokio_xs"], ["sf_xs", "gsv_xs"], ["sf_xs", "--to"]):
        output = kit.run(1, *arguments)
        assert "sf_xs" in output or "--to" in output


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine (Debian: apt install shellcheck)")
    result = subprocess.run(["shellcheck", ROOT / "data_download.sh", ROOT / ".ci/run"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
