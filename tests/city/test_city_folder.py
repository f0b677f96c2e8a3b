"""A rendered city says what it holds, repairs itself, and keeps two processes and other people's files apart."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from vpr_lib.checked_files import DamagedFile, is_sealed, read_json
from vpr_lib.city import write_city
from vpr_lib.images import read_images

RENDER = """
import json, sys
from vpr_lib.city import CitySettings, write_city
write_city(sys.argv[1], CitySettings(**json.loads(sys.argv[2])), workers=int(sys.argv[3]), progress=False)
"""


def start_render(folder, settings, workers=0):
    command = [sys.executable, "-c", RENDER, str(folder), json.dumps(asdict(settings)), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def read_state(folder):
    return read_json(folder / "city.json", "")


def read_files(folder):
    paths = [*folder.rglob("*.jpg"), *folder.glob("scenarios.csv*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def copy(rendered_city, tmp_path):
    return shutil.copytree(rendered_city, tmp_path / "copy")


@pytest.mark.slow
def test_state_identifies_the_city(rendered_city, city_settings):
    state = read_state(rendered_city)
    assert state["complete"] and state["version"] > 0 and state["settings"] == asdict(city_settings)
    assert state["photos"] == len(list(rendered_city.rglob("*/*.jpg")))
    halves = [f"{split}/{half}" for split in ("sf_val", "sf_test", "tokyo_test") for half in ("database", "queries")]
    tables = {half: read_images(rendered_city / half) for half in ["train", *halves]}
    assert state["fingerprints"] == {half: [table.fingerprint, len(table)] for half, table in tables.items()}
    assert (rendered_city / "scenarios.csv.sha256").is_file()
    assert is_sealed(rendered_city / "scenarios.csv", (rendered_city / "scenarios.csv").read_bytes())


@pytest.mark.slow
def test_lost_and_changed_files_are_drawn_again(rendered_city, city_settings, copy, capsys):
    lost, short, changed = sorted(copy.rglob("*/*.jpg"))[::60]
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    data = changed.read_bytes()
    changed.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    (copy / "contact_sheet.jpg").write_bytes(b"")
    (copy / "scenarios.csv").write_text("query,scenario,detail\n")
    before = read_state(copy)
    write_city(copy, city_settings, workers=0, progress=False)
    assert lost.name in capsys.readouterr().out
    assert read_files(copy) == read_files(rendered_city)
    assert read_state(copy) == before
    for name in ("scenarios.csv.sha256", "contact_sheet.jpg"):
        (copy / name).unlink()
        write_city(copy, city_settings, workers=0, progress=False)
        assert name in capsys.readouterr().out
        assert read_files(copy) == read_files(rendered_city)
    write_city(copy, city_settings, workers=0, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_temporary_files_of_a_killed_render_are_removed(city_settings, copy):
    photo = next(copy.rglob("train/*/*.jpg"))
    leftovers = [photo.with_name(f"{photo.name}.17.tmp"), copy / "city.json.17.tmp"]
    own = photo.with_name("notes.tmp")
    for path in [*leftovers, own]:
        path.write_text("x")
    photo.unlink()
    write_city(copy, city_settings, workers=0, progress=False)
    assert list(copy.rglob("*.tmp")) == [own]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sync"), reason="Windows has no os.sync")
def test_photos_reach_the_disk_before_the_city_is_marked_complete(city_settings, copy, monkeypatch):
    next(copy.rglob("train/*/*.jpg")).unlink()
    complete = []
    monkeypatch.setattr(os, "sync", lambda: complete.append(read_state(copy)["complete"]))
    write_city(copy, city_settings, workers=0, progress=False)
    assert complete == [False] and read_state(copy)["complete"]


@pytest.mark.slow
def test_damaged_state_is_named_and_replaced_by_force(rendered_city, city_settings, copy):
    text = (copy / "city.json").read_text()
    for damaged in (text[:-50], "", "[]", text.replace("true", "false"), '{"complete": true}'):
        (copy / "city.json").write_text(damaged)
        with pytest.raises(DamagedFile, match=r"city\.json.*--force"):
            write_city(copy, city_settings, progress=False)
    write_city(copy, city_settings, workers=2, progress=False, force=True)
    assert read_files(copy) == read_files(rendered_city)


@pytest.mark.slow
def test_own_photos_in_a_rendered_city_are_kept(rendered_city, city_settings, copy):
    own = copy / "train" / "london" / "@1.00@2.00@30@U@@@pano@@@@@@202001@00001_London@.jpg"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    next(copy.rglob("train/alderport/*.jpg")).unlink()
    write_city(copy, city_settings, workers=0, progress=False)
    assert read_state(copy) == read_state(rendered_city)  # the own photo is not part of the city
    for damage in (False, True):
        if damage:
            (copy / "city.json").write_text("")
        before = read_files(copy)
        with pytest.raises(ValueError, match="london"):
            write_city(copy, city_settings, progress=False, force=True)
        assert read_files(copy) == before and own.read_bytes() == b"mine"


@pytest.mark.slow
def test_second_render_of_a_folder_waits_for_the_first(rendered_city, city_settings, tmp_path):
    folder = tmp_path / "both"
    first = start_render(folder, city_settings)
    while not list(folder.rglob("*.jpg")) and first.poll() is None:
        time.sleep(0.01)
    second = start_render(folder, city_settings)
    output = second.communicate()[0]
    assert str(folder) in output and (first.poll(), second.returncode) == (0, 0)
    assert read_files(folder) == read_files(rendered_city)


def list_children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def is_running(process_id):
    try:
        return Path("/proc", process_id, "cmdline").read_bytes() != b""  # empty for one that has ended
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="lists child processes in /proc")
def test_workers_end_when_their_parent_is_killed(city_settings, tmp_path):
    """Also those that wait for work: 168 photos are six chunks, so two of eight wait."""
    process = start_render(tmp_path / "killed", city_settings, workers=8)
    while not list((tmp_path / "killed").rglob("*/*.jpg")) and process.poll() is None:
        time.sleep(0.01)
    workers = list_children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 3
    while (left := [worker for worker in workers if is_running(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in left:
        os.kill(int(worker), signal.SIGKILL)
    assert len(workers) == 8 and not left
