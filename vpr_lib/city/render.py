"""Writes the photos of a rendered city as a data root; a render that was stopped is resumed."""

import csv
import io
import json
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.city.layout import make_city
from vpr_lib.city.photo import draw_photo
from vpr_lib.city.planning import QUERY_SHARES, make_views
from vpr_lib.city.views import CitySettings, View
from vpr_lib.machine import count_cores

OUTPUTS = ("train", "sf_val", "sf_test", "tokyo_test", "scenarios.csv", "contact_sheet.jpg")
VERSION = 3  # of the renderer; increased when pixels or names change
CHUNK_SIZE = 32  # photos a worker takes at once: neighbors, which share the cached pictures of their houses


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
        force: replace a rendered data root of any settings.
        progress: show a progress bar.

    Returns:
        The folder, with `train`, `sf_val`, `sf_test`, `tokyo_test`, `scenarios.csv`, `contact_sheet.jpg` and
        `city.json`, which says whether it is complete.

    Raises:
        ValueError: the folder contains other files, or a city of other settings.
        OSError: there is not enough disk space.
    """
    folder, settings = Path(folder), settings or CitySettings()
    state = {"version": VERSION, "settings": asdict(settings)}
    complete = _claim_folder(folder, state, force)
    views = make_views(settings)
    exists = Path.is_file if complete else _is_whole_jpeg
    missing = [view for view in views if not exists(folder / view.path)]
    if complete and not missing:
        return folder
    needed, free = len(missing) * settings.size**2 * 0.35, shutil.disk_usage(folder).free  # bytes; 0.35 a pixel
    if needed > free:
        raise OSError(f"the photos need {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free; make room")
    _write_scenarios(folder, views)
    contact_sheet = folder / "contact_sheet.jpg"
    if not contact_sheet.is_file():
        _write_contact_sheet(contact_sheet, views)
    if progress:
        print(f"contact sheet: {contact_sheet}", flush=True)
    chunks = [(folder, settings.quality, missing[i : i + CHUNK_SIZE]) for i in range(0, len(missing), CHUNK_SIZE)]
    workers = count_cores() if workers < 0 else workers
    # Forked workers start at once, but forking is safe on Linux only.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context) if workers > 1 else nullcontext() as pool:
        # The workers are forked before the progress bar starts its thread.
        counts = pool.map(_write_photos, chunks) if pool else map(_write_photos, chunks)
        done = len(views) - len(missing)
        with tqdm(total=len(views), initial=done, unit="photo", desc=str(folder), disable=not progress) as bar:
            for count in counts:
                bar.update(count)
    _write_state(folder, state | {"complete": True, "photos": len(views)})
    return folder


def draw_view(view: View) -> Image.Image:
    """The photo of a view, RGB."""
    return draw_photo(make_city(view.city, view.blocks), view.camera, view.moment, view.occluder)


def encode_jpeg(photo: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_state(folder: Path, state: dict) -> None:
    write_atomically(folder / "city.json", json.dumps(state, indent=2).encode())


def _claim_folder(folder: Path, state: dict, force: bool) -> bool:
    """Make the folder, or check that `city.json` names the same city; whether that is complete."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a folder for the data root")
    if (folder / "city.json").is_file():
        existing = json.loads((folder / "city.json").read_text(encoding="utf-8"))
        old, new = existing.get("settings", {}), state["settings"]
        changed = [f"{key} is {old.get(key)} in it, {new[key]} requested" for key in new if old.get(key) != new[key]]
        if existing.get("version") != state["version"]:
            changed.append("it is of another version of the renderer")
        if not force and not changed:
            return existing.get("complete", False)
        if not force:
            advice = "Choose another folder, or replace its photos with --force"
            raise ValueError(f"{folder} holds another rendered city: {'; '.join(changed)}. {advice}")
        _write_state(folder, existing | {"complete": False, "version": 0})  # in case deleting is interrupted
        for name in OUTPUTS:
            target = folder / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no rendered city; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_state(folder, state | {"complete": False})
    return False


def _write_photos(chunk: tuple[Path, int, list[View]]) -> int:
    """Draw and save some photos; returns how many. A file gets its name when all of it is written."""
    folder, quality, views = chunk
    for view in views:
        path = folder / view.path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(encode_jpeg(draw_view(view), quality))
        os.replace(temporary, path)  # without waiting for the disk; `_is_whole_jpeg` checks the file on resuming
    return len(views)


def _is_whole_jpeg(path: Path) -> bool:
    """Whether a JPEG is complete to its last byte: after a power cut a renamed file may be short."""
    return path.is_file() and path.read_bytes()[-2:] == b"\xff\xd9"


def _write_scenarios(folder: Path, views: list[View]) -> None:
    """Write `scenarios.csv`: the scenario of each query, and a detail such as the light."""
    buffer = io.StringIO()
    rows = [(Path(view.path).name, view.scenario, view.detail) for view in views if view.scenario]
    csv.writer(buffer, lineterminator="\n").writerows([("query", "scenario", "detail"), *rows])
    write_atomically(folder / "scenarios.csv", buffer.getvalue().encode())


def _write_contact_sheet(path: Path, views: list[View]) -> None:
    """Write an overview: photos of one place, and up to six queries of each scenario."""
    size = 200
    place = Path(views[0].path).name.split("@")[-2]
    rows = {"one place": [view for view in views if f"@{place}@" in view.path][:6]}
    for scenario in QUERY_SHARES:
        queries = [view for view in views if view.scenario == scenario and "tokyo" not in view.path]
        rows[scenario] = queries[:: max(1, len(queries) // 6)][:6]
    sheet = Image.new("RGB", (6 * size, len(rows) * (size + 18)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (label, chosen) in enumerate(rows.items()):
        top = row * (size + 18)
        draw.text((4, top + 3), label, fill="black")
        for column, view in enumerate(chosen):
            photo = draw_view(replace(view, camera=replace(view.camera, size=size)))
            sheet.paste(photo, (column * size, top + 18))
    write_atomically(path, encode_jpeg(sheet, quality=88))
