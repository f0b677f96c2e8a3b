"""Write the photos of a rendered city as a data root; goes on where it was stopped."""

import csv
import io
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.city.drawing import draw_photo
from vpr_lib.city.scene import make_city
from vpr_lib.city.views import CitySettings, View, make_views
from vpr_lib.machine import count_cores

PARTS = ("train", "sf_val", "sf_test", "tokyo_test", "scenarios.csv", "contact_sheet.jpg")
VERSION = 2  # of the renderer; another one draws other pixels or names
CHUNK = 32  # photos a worker takes at once: neighbours, which share their houses' pictures


def write_city(
    folder: str | Path,
    settings: CitySettings | None = None,
    workers: int = -1,
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Render a data root, or what is missing of it.

    Args:
        folder: the data root to make.
        settings: sizes, difficulty, seed.
        workers: processes; -1 is one for each core, 0 draws in this one. The pixels are the same.
        force: draw everything again, over a rendered data root of any settings.
        progress: show a bar.

    Returns:
        The folder, with `train`, `sf_val`, `sf_test`, `tokyo_test`, `scenarios.csv`, `contact_sheet.jpg` and
        `city.json`, which says that it is complete.

    Raises:
        ValueError: the folder holds something else.
        OSError: too little space.
    """
    folder, settings = Path(folder), settings or CitySettings()
    state = {"version": VERSION, "settings": asdict(settings)}
    claim_folder(folder, state, force)
    views = make_views(settings)
    complete = json.loads((folder / "city.json").read_text()).get("complete")
    there = Path.is_file if complete else is_whole
    todo = [view for view in views if not there(folder / view.path)]
    if complete and not todo:
        return folder
    check_space(folder, len(todo), settings.size)
    write_scenarios(folder, views)
    if not (folder / "contact_sheet.jpg").is_file():
        write_contact_sheet(folder / "contact_sheet.jpg", views)
    if progress:
        print(f"contact sheet: {folder / 'contact_sheet.jpg'}", flush=True)
    for parent in {(folder / view.path).parent for view in views}:
        parent.mkdir(parents=True, exist_ok=True)
    draw_missing(folder, settings, views, todo, workers, progress)
    write_atomically(
        folder / "city.json", json.dumps(state | {"complete": True, "photos": len(views)}, indent=2).encode()
    )
    return folder


def draw_missing(
    folder: Path, settings: CitySettings, views: list[View], todo: list[View], workers: int, progress: bool
) -> None:
    """Draw what is to do, under a bar that counts all views."""
    chunks = [(folder, settings.quality, todo[i : i + CHUNK]) for i in range(0, len(todo), CHUNK)]
    with make_pool(workers) as run:
        counts = run(write_photos, chunks)  # the workers fork here, before the bar starts its thread
        done = len(views) - len(todo)
        with tqdm(total=len(views), initial=done, unit="photo", desc=str(folder), disable=not progress) as bar:
            for count in counts:
                bar.update(count)


def claim_folder(folder: Path, state: dict, force: bool) -> None:
    """Make the folder, or see that it is ours: `city.json` says what it is being filled with."""
    path = folder / "city.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a folder for the data root")
    if path.is_file():
        found = json.loads(path.read_text())
        old, new = found.get("settings", {}), state["settings"]
        changed = [f"{key} is {old.get(key)} there, {new[key]} asked for" for key in new if old.get(key) != new[key]]
        if found.get("version") != state["version"]:
            changed.append("it is of another version of the renderer")
        if not changed and not force:
            return
        if not force:
            raise ValueError(
                f"{folder} holds another rendered city: {'; '.join(changed)}. Choose another folder, or have its "
                "photos deleted and drawn anew with --force"
            )
        write_atomically(path, json.dumps(found | {"complete": False, "version": 0}).encode())  # if killed here
        for part in PARTS:
            target = folder / part
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something that is no rendered city; it is left alone, choose another")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(state | {"complete": False}, indent=2).encode())


def check_space(folder: Path, photos: int, size: int) -> None:
    """Raise an OSError where the photos won't fit; about 0.35 bytes a pixel each."""
    needed, free = photos * size**2 * 0.35, shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{photos} photos need about {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free")


@contextmanager
def make_pool(workers: int) -> Iterator:
    """`map` over processes; results come in order."""
    workers = count_cores() if workers < 0 else workers
    if workers < 2:
        yield map
        return
    # Forked workers start at once; elsewhere than on Linux forking isn't safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield pool.map


def write_photos(chunk: tuple[Path, int, list[View]]) -> int:
    """Draw and save some photos; how many. A photo has its name only when it is whole."""
    folder, quality, views = chunk
    for view in views:
        photo = draw_photo(make_city(view.city, view.blocks), view.camera, view.moment, view.occluder)
        path = folder / view.path
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(encode(photo, quality))
        os.replace(temporary, path)  # not synced to the disk one by one; `is_whole` looks again
    return len(views)


def is_whole(path: Path) -> bool:
    """Whether a JPEG is there to its last byte: after a power cut a renamed file may be short."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:
        return False


def encode(photo: Image.Image, quality: int) -> bytes:
    """JPEG bytes."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_scenarios(folder: Path, views: list[View]) -> None:
    """`scenarios.csv`: what makes each query hard; the detail says how."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("query", "scenario", "detail"))
    writer.writerows((Path(v.path).name, v.scenario, v.detail) for v in views if v.scenario)
    write_atomically(folder / "scenarios.csv", buffer.getvalue().encode())


def write_contact_sheet(path: Path, views: list[View], size: int = 200) -> None:
    """A picture of what there is: a place through the years, then up to six queries of each scenario."""
    place = Path(views[0].path).name.split("@")[-2]
    rows = [("one place", [v for v in views if f"@{place}@" in v.path][:6])]
    for scenario in ("ordinary", "viewpoint", "illumination", "occlusion", "repetitive", "skyline"):
        queries = [v for v in views if v.scenario == scenario and "tokyo" not in v.path]
        rows.append((scenario, queries[:: max(1, len(queries) // 6)][:6]))
    sheet = Image.new("RGB", (6 * size, len(rows) * (size + 18)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, chosen) in enumerate(rows):
        draw.text((4, row * (size + 18) + 3), label, fill="black")
        for column, view in enumerate(chosen):
            camera = replace(view.camera, size=size)
            photo = draw_photo(make_city(view.city, view.blocks), camera, view.moment, view.occluder)
            sheet.paste(photo, (column * size, row * (size + 18) + 18))
    write_atomically(path, encode(sheet, 88))
