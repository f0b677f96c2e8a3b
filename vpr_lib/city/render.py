"""Writes the photos of a rendered city as a data root; a render that was stopped is resumed, a damaged one repaired."""

import csv
import io
import math
import multiprocessing
import operator
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import write_sealed
from vpr_lib.city.city_folder import EXTRAS, CityFolder
from vpr_lib.city.layout import make_city
from vpr_lib.city.photo import draw_photo
from vpr_lib.city.planning import QUERY_SHARES, make_views
from vpr_lib.city.views import CitySettings, View
from vpr_lib.machine import count_cores

VERSION = 3  # of the renderer; increased when pixels or names change
CHUNK_SIZE = 32  # photos a worker takes at once: neighbors, which share the cached pictures of their houses


def write_city(
    folder: str | Path,
    settings: CitySettings | None = None,
    workers: int = -1,
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Render a data root, or what is missing of it; files that were lost or changed are drawn again, which is printed.

    Args:
        folder: the data root to make. Only one process at a time writes into it; a second one waits.
        settings: sizes, difficulty, seed.
        workers: processes; -1 is one for each core, 0 draws in this one. The pixels are the same.
        force: replace a rendered data root of any settings.
        progress: show a progress bar.

    Returns:
        The folder, with `train`, `sf_val`, `sf_test`, `tokyo_test`, `scenarios.csv` and its checksum,
        `contact_sheet.jpg`, and `city.json`, which identifies the city and says whether it is complete.

    Raises:
        ValueError: the folder contains other files, a city of other settings, or a damaged `city.json`.
        OSError: there is not enough disk space.
    """
    folder, settings = Path(folder), settings or CitySettings()
    target = CityFolder(folder, {"version": VERSION, "settings": asdict(settings)})
    if not force and target.is_whole():
        return folder
    with target.claim(force):
        views = {view.path: view for view in make_views(settings)}
        lost = target.find_lost([*sorted(views), *EXTRAS])
        if lost and target.was_complete:
            names = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
            print(f"{folder}: missing or changed files are drawn again ({len(lost)}): {names}", flush=True)
        if lost or not target.was_complete:
            needed, free = 0.35 * len(lost) * settings.size**2, shutil.disk_usage(folder).free  # bytes; 0.35 a pixel
            if needed > free:
                raise OSError(
                    f"the photos need {needed / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free; make room"
                )
            if {*lost} & {*EXTRAS}:
                _write_scenarios(folder / "scenarios.csv", views.values())
            _write_lost(target, views, {*lost}, settings.quality, workers, progress)
            target.complete()
    return folder


def _write_lost(
    target: CityFolder, views: Mapping[str, View], lost: set[str], quality: int, workers: int, progress: bool
) -> None:
    """Draw the contact sheet, if one of `EXTRAS` is among the paths `lost`, then the photos that are."""
    missing = [view for path, view in views.items() if path in lost]
    chunks = [missing[i : i + CHUNK_SIZE] for i in range(0, len(missing), CHUNK_SIZE)]
    workers = count_cores() if workers < 0 else workers
    # A worker gets chunks of the same part of the data root one after the other, since these show the same houses.
    stretch = math.ceil(len(chunks) / max(workers, 1))
    order = [chunk for first in range(stretch) for chunk in chunks[first::stretch]]
    jobs = [partial(_write_photos, target.folder, quality, chunk) for chunk in order]
    sheet = target.folder / "contact_sheet.jpg"
    is_sheet_lost = not lost.isdisjoint(EXTRAS)
    if is_sheet_lost:
        jobs.insert(0, partial(_write_contact_sheet, sheet, [*views.values()]))
    # Forked workers start at once, but forking is safe on Linux only.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent) if workers > 1 else nullcontext() as pool:
        # The workers are forked before the progress bar starts its thread.
        finished = pool.map(operator.call, jobs) if pool else map(operator.call, jobs)
        if is_sheet_lost:
            next(finished)
            target.record(EXTRAS)
        if progress:
            print(f"contact sheet: {sheet}", flush=True)
        done, name = len(views) - len(missing), str(target.folder)
        with tqdm(total=len(views), initial=done, unit="photo", desc=name, disable=not progress) as bar:
            for paths in finished:
                target.record(paths)
                bar.update(len(paths))


def _end_with_parent() -> None:
    """Let this worker end when its parent has ended, even if that was killed; also while it waits for work."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def draw_view(view: View) -> Image.Image:
    """The photo of a view, RGB."""
    return draw_photo(make_city(view.city, view.blocks), view.camera, view.moment, view.occluder)


def encode_jpeg(photo: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_photos(folder: Path, quality: int, views: list[View]) -> list[str]:
    """Draw and save some photos; their paths. A file gets its name when all of it is written."""
    for view in views:
        path = folder / view.path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # if it is left over, the next call removes it
        temporary.write_bytes(encode_jpeg(draw_view(view), quality))
        os.replace(temporary, path)  # without waiting for the disk; `CityFolder.complete` does, once
    return [view.path for view in views]


def _write_scenarios(path: Path, views: Iterable[View]) -> None:
    """Write the scenario of each query, and a detail such as the light."""
    buffer = io.StringIO()
    rows = [(Path(view.path).name, view.scenario, view.detail) for view in views if view.scenario]
    csv.writer(buffer, lineterminator="\n").writerows([("query", "scenario", "detail"), *rows])
    write_sealed(path, buffer.getvalue().encode())


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
