"""Writing a data root: it reads as any other, is resumed when stopped, and replaces nothing unasked."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vpr_lib.analysis.scenarios import read_labels
from vpr_lib.city import CitySettings, write_city
from vpr_lib.data_roots import find_splits, read_split
from vpr_lib.images import read_images
from vpr_lib.recall import find_positives


def read_photos(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def is_complete(folder):
    return json.loads((folder / "city.json").read_text(encoding="utf-8"))["complete"]


@pytest.fixture
def copy(rendered_city, tmp_path):
    return shutil.copytree(rendered_city, tmp_path / "copy")


@pytest.mark.slow
def test_root_reads_as_any_other(rendered_city):
    assert find_splits(rendered_city) == ["sf_test", "sf_val", "tokyo_test"]
    train = read_images(rendered_city / "train")
    assert len(train) == 15 and len(set(train.places)) == 5
    assert len({place.split("/")[0] for place in train.places}) == 2
    scenarios = read_labels(rendered_city)
    for split, sizes in {"sf_val": (40, 14), "sf_test": (40, 14), "tokyo_test": (36, 9)}.items():
        database, queries = read_split(rendered_city, split)
        assert (len(database), len(queries)) == sizes
        assert all(len(positives) for positives in find_positives(database.utm, queries.utm))
        assert {Path(name).name for name in queries.names} <= set(scenarios)
        assert queries.dates.min() > database.dates.max()  # queries are of later years
    assert is_complete(rendered_city)


@pytest.mark.slow
def test_killed_render_is_resumed(rendered_city, city_settings, tmp_path):
    """Another process, drawing without workers, gives the same pixels."""
    folder = tmp_path / "killed"
    script = (
        "import json, sys; from vpr_lib.city import CitySettings, write_city; "
        "write_city(sys.argv[1], CitySettings(**json.loads(sys.argv[2])), workers=0, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), json.dumps(asdict(city_settings))])
    while len(list(folder.rglob("*.jpg"))) < 50 and process.poll() is None:  # city.json names the first 32
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not is_complete(folder)
    short, *kept = sorted(folder.rglob("train/*/*.jpg"))
    data = short.read_bytes()
    short.write_bytes(bytes(100) + data[100:])  # as after a power cut
    before = [path.stat().st_mtime_ns for path in kept]
    write_city(folder, city_settings, workers=0, progress=False)
    assert read_photos(folder) == read_photos(rendered_city)
    assert [path.stat().st_mtime_ns for path in kept] == before


@pytest.mark.slow
def test_spawned_workers_draw_what_is_missing(rendered_city, city_settings, copy, monkeypatch):
    """As on Windows and macOS, where workers are not forked."""
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: spawn)
    for path in list(copy.rglob("database/*.jpg"))[:40]:  # more than one worker takes at once
        path.unlink()
    assert read_photos(write_city(copy, city_settings, workers=2, progress=False)) == read_photos(rendered_city)


@pytest.mark.slow
def test_finished_root_is_unchanged(rendered_city, city_settings):
    before = {path: path.stat().st_mtime_ns for path in rendered_city.rglob("*")}
    write_city(rendered_city, city_settings, progress=False)
    assert {path: path.stat().st_mtime_ns for path in rendered_city.rglob("*")} == before


@pytest.mark.slow
def test_command_line_passes_settings_on(rendered_city, city_settings, copy):
    next(copy.rglob("database/*.jpg")).unlink()
    command = [sys.executable, "-m", "vpr_lib", "city", "--out", str(copy), "--workers", "0"]
    defaults = asdict(CitySettings())
    for key, value in asdict(city_settings).items():
        if value != defaults[key]:
            command += ["--set", f"{key}={value}"]
    output = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert "contact sheet" in output
    assert read_photos(copy) == read_photos(rendered_city)
    wrong = subprocess.run([*command, "--set", "citys=3"], capture_output=True, encoding="utf-8")
    assert wrong.returncode == 1 and "citys" in wrong.stderr and "cities" in wrong.stderr


@pytest.mark.parametrize("force", [False, True])
def test_folder_with_other_files_is_refused(tmp_path, city_settings, force):
    own = tmp_path / "mine" / "train" / "london" / "real.jpg"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(ValueError, match="mine"):
        write_city(tmp_path / "mine", city_settings, progress=False, force=force)
    assert own.read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["train"]


@pytest.mark.slow
def test_another_city_is_refused_unless_forced(city_settings, copy, monkeypatch):
    fewer = replace(city_settings, tokyo_places=2)
    with pytest.raises(ValueError, match=r"tokyo_places is 3.*--force"):
        write_city(copy, fewer, progress=False)
    with monkeypatch.context() as patched:  # interrupted while deleting: neither city counts as complete
        patched.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_city(copy, fewer, progress=False, force=True)
    with pytest.raises(ValueError, match="version"):
        write_city(copy, city_settings, progress=False)
    write_city(copy, fewer, progress=False, workers=2, force=True)
    assert len(read_split(copy, "tokyo_test")[1]) == 6


def test_full_disk_is_reported_before_drawing(tmp_path, city_settings, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="MB free"):
        write_city(tmp_path / "full", city_settings, progress=False)
    assert not is_complete(tmp_path / "full")


@pytest.mark.slow
def test_disk_that_fills_up_leaves_no_partial_photo(tmp_path, city_settings, monkeypatch):
    def write_half(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        write_city(tmp_path / "full", city_settings, workers=0, progress=False)
    assert not list((tmp_path / "full" / "train").rglob("*.jpg"))
    assert not is_complete(tmp_path / "full")
