"""The whole study on a data root -> figures and one page that shows them beside the published numbers."""

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from vpr_lib.analysis.scenarios import read_labels
from vpr_lib.atomic_files import write_atomically
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.devices import choose_device, choose_dtype
from vpr_lib.figures.html_page import Block, Details, Links, Picture, Section, Table, Tables, write_page
from vpr_lib.figures.tables import format_markdown
from vpr_lib.file_names import PHOTO_SUFFIXES
from vpr_lib.machine import Machine, count_cores
from vpr_lib.recall import count_without_positive, find_positives
from vpr_lib.run_folders import Run
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings, get_preset
from vpr_lib.statistics import choose_evenly
from vpr_lib.study.experiments import STUDY, Runs, count_steps, plan_study, train_study
from vpr_lib.study.published import CITATION, CODE, PUBLISHED_SPLITS
from vpr_lib.study.sections import SECTIONS, SHOWN, StudyData
from vpr_lib.study.summary import choose_split, make_lead, make_title

GALLERY_QUERIES = 200  # of a larger split, so many are in the page of the gallery

Histories = dict[Path, list[dict[str, float]]]  # {run folder: `Run.history`}, each read once
# (runs, data root, split, rows of the queries, path) -> writes the page of a gallery; the rooms above can.
MakeGallery = Callable[[Mapping[str, Run], DataRoot, str, np.ndarray, Path], object]

_HOW_TO_READ = (
    "Each run has one seed; other seeds give other numbers.",
    "Published numbers are on the real sets (gsv_xs, sf_xs, tokyo_xs; ImageNet weights, 320 px). Unless this data root "
    "holds those, compare order and shape, not values.",
    "95% intervals: bootstrap over cells of 25 m, since the results of nearby queries are correlated. An interval of "
    "zero width, at 0 or 100 percent, only means that all queries had the same result.",
    "p: McNemar's exact test on R@1, against the row above unless the table names a pair; a difference is called "
    "significant if p < 0.05. There is no correction for the number of tests.",
)
_CHOSEN = " The epoch whose weights are kept was chosen on it, too, so its recalls are slightly optimistic."


def make_report(
    base: Settings,
    data_root: str | Path | DataRoot,
    out: str | Path,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    preset: str = "",
    make_gallery: MakeGallery | None = None,
) -> Path | None:
    """Train or open the runs of the study, evaluate them on all splits, write the figures and `index.html`.

    Figures are written as soon as the runs they need are complete, and the page is written again each time.

    Args:
        base: settings that the study varies.
        data_root: folder with `train`, evaluation splits and optionally `scenarios.csv`.
        out: folder of the page and its figures.
        runs_dir, machine: as in `get_run`.
        preset: name of the preset that the page lists changes against; "" is the published study.
        make_gallery: writes the page of a gallery that the report links to; None: no gallery.

    Returns:
        The page; None if Ctrl-C stopped a training. The same call then resumes it.

    Raises:
        ValueError: the root has no evaluation split, or the settings measure no R@1.
    """
    start = time.perf_counter()
    data = _open_study_data(base, open_data_root(data_root), Path(out), machine or Machine())
    parts = list(STUDY) if data.val_splits else ["aggregators"]
    title = make_title(data, list(plan_study(base, ["aggregators"])["aggregators"]))
    page = data.out / "index.html"
    done: Runs = {}
    histories: Histories = {}
    lead: list[Block] = []
    made: dict[str, Section] = {}

    def add_part(part: str, runs: dict[str, Run]) -> None:
        done[part] = runs
        histories.update({run.folder: run.history for run in runs.values() if run.folder not in histories})
        if part == "aggregators":
            lead.extend(make_lead(data, runs))
            lead.extend(_link_gallery(data, runs, make_gallery) if make_gallery else [])
        for heading, (its_part, make_blocks) in SECTIONS.items():
            if its_part == part:
                made[heading] = Section(heading, make_blocks(data, runs))
        sections = [made[heading] for heading in SECTIONS if heading in made and made[heading].blocks]
        sections += [_make_reading_section(data), _make_data_section(data)]
        sections += [_make_runs_section(done, histories, Path(runs_dir)), _make_settings_section(data, preset)]
        sections.append(_make_machine_section(data, done, histories, time.perf_counter() - start))
        write_page(page, title, [*_say_incomplete(data, parts, done), *lead], sections)

    train_study(base, data.data_root, runs_dir, data.machine, parts, add_part)
    if len(done) < len(parts):
        return None
    _print_tables([Section("", lead), *made.values()])
    return page


def _print_tables(sections: Iterable[Section]) -> None:
    for section in sections:
        tables = [table for block in section.list_blocks(Tables) for table in block.tables]
        for table in [*tables, *section.list_blocks(Table)]:
            caption = f"\n{table.caption}\n" if table.caption else ""
            print(f"{caption}\n{format_markdown(table.rows)}")
    print()


def _open_study_data(base: Settings, data_root: DataRoot, out: Path, machine: Machine) -> StudyData:
    """Read everything that will be needed, so that errors are raised before the training."""
    if not data_root.splits:
        raise ValueError(f"{data_root.folder} has no evaluation split; add a folder with database/ and queries/")
    if 1 not in base.ks:
        raise ValueError(f"ks is {base.ks}; the report shows R@1, add 1")
    val_splits = data_root.list_validation_splits(base.val_splits)
    splits = list(dict.fromkeys([*val_splits, *data_root.splits]))
    for split in splits:
        data_root.read_split(split)
    out.mkdir(parents=True, exist_ok=True)
    return StudyData(base, data_root, out, machine, read_labels(data_root.folder), val_splits, splits)


def _link_gallery(data: StudyData, runs: Mapping[str, Run], make_gallery: MakeGallery) -> list[Block]:
    """Write the page of the gallery, and link to it."""
    split = choose_split(data)
    total = len(data.data_root.read_split(split).queries)
    rows = choose_evenly(total, GALLERY_QUERIES)
    path = data.out / f"gallery-{split.replace('/', '-')}.html"
    make_gallery({name: runs[name] for name in SHOWN}, data.data_root, split, rows, path)
    queries = f"all {total:,} queries" if len(rows) == total else f"{len(rows):,} of the {total:,} queries"
    return [Links({f"Gallery: {queries} of {split} with the photos that {' and '.join(SHOWN)} retrieve": path.name})]


def _say_incomplete(data: StudyData, parts: list[str], done: Runs) -> list[Block]:
    """How many runs are not shown yet; nothing if the study is complete."""
    if len(done) == len(parts):
        return []
    planned = {settings.to_json() for part in plan_study(data.base, parts).values() for settings in part.values()}
    shown = {run.folder for runs in done.values() for run in runs.values()}
    return [f"Still training: {len(shown)} of {len(planned)} runs are shown."]


def _make_data_section(data: StudyData) -> Section:
    """Numbers of photos, and a contact sheet if the root has one."""
    base, folder = data.base, data.data_root.folder
    blocks: list[Block] = []
    sheets = sorted(path for path in folder.glob("contact_sheet.*") if path.suffix.lower() in PHOTO_SUFFIXES)
    for sheet in sheets[:1]:
        write_atomically(data.out / sheet.name, sheet.read_bytes())
        alt = f"Contact sheet: some photos of {folder.resolve().name}."
        blocks.append(Picture(data.out / sheet.name, alt, "Some of the photos."))
    rows = [["split", "used for", "database photos", "queries", "queries without a positive"]]
    for split in data.splits:
        database, queries = data.data_root.read_split(split)
        num_without = count_without_positive(find_positives(database.utm, queries.utm, base.radius_m))
        use = "choosing" if split in data.val_splits else "testing"
        rows.append([split, use, *map(str, (len(database), len(queries), num_without))])
    caption = f"A query without a database photo within {base.radius_m:g} m counts as missed."
    sampler = PlaceSampler(data.data_root.train.places, base.num_places, base.images_per_place, base.seed)
    return Section("Photos of this data root", [*blocks, Table(rows, caption), f"Training: {sampler.summary}."])


def _make_reading_section(data: StudyData) -> Section:
    """How to interpret the numbers, and what the page leaves out."""
    lines: list[Block] = list(_HOW_TO_READ)
    if data.val_splits:
        text = f"{data.val_splits[0]} is the validation split: Fig. 2, Fig. 3 and the schedulers are measured there."
        lines.append(text + (_CHOSEN if data.base.keep == "best" else ""))
    else:
        lines.append("No validation split (a name ending in val): Fig. 2, Fig. 3 and the schedulers are left out.")
    if unknown := [split for split in data.splits if split not in PUBLISHED_SPLITS]:
        known = ", ".join(sorted(PUBLISHED_SPLITS))
        lines.append(f"No published numbers for {', '.join(unknown)}; there are some for {known}.")
    if not data.labels:
        lines.append("No scenarios.csv in the data root: recall of each scenario is left out.")
    lines += [f"The published study: {CITATION}.", Links({"Code of the study": CODE})]
    return Section("How to read this page", lines)


def _make_runs_section(done: Runs, histories: Histories, runs_dir: Path) -> Section:
    """A row for each run: its folder, and the settings that the study varies."""
    head = ["shown as", "folder", "optimizer", "lr", "weight decay", "scheduler", "seed", "epochs"]
    rows = [[*head, "last loss"]]
    shown: dict[Path, tuple[Run, list[str]]] = {}  # {folder: (its run, the names under which it is shown)}
    for part, by_label in done.items():
        for label, run in by_label.items():
            shown.setdefault(run.folder, (run, []))[1].append(f"{part}: {label}")
    for folder, (run, names) in shown.items():
        settings, history = run.settings, histories[folder]
        row = ["; ".join(names), f"{runs_dir.name}/{folder.name}", settings.optimizer, f"{settings.lr:g}"]
        row += [f"{settings.weight_decay:g}", str(settings.scheduler), str(settings.seed), str(len(history))]
        rows.append([*row, f"{history[-1]['loss']:.3f}"])
    return Section("Runs", [Table(rows, "A run that two figures share was trained once.")])


def _make_settings_section(data: StudyData, preset: str) -> Section:
    """Changed settings, and all of them."""
    ours, theirs = data.base.to_dict(), (get_preset(preset) if preset else Settings()).to_dict()
    changed = [f"{key} = {json.dumps(ours[key])}" for key in ours if ours[key] != theirs[key]]
    blocks = [
        f"{f'Preset {preset}' if preset else 'Settings of its own'}; changed: {', '.join(changed) or 'nothing'}.",
        Details("All settings that the study varies", json.dumps(ours, indent=2).splitlines()),
    ]
    return Section("Settings", blocks)


def _make_machine_section(data: StudyData, done: Runs, histories: Histories, seconds: float) -> Section:
    """Training times, the machine that wrote the page, versions and date."""
    photos = count_steps(data.base, data.data_root.train).photos
    runs = {run.folder: run for by_label in done.values() for run in by_label.values()}
    times = {folder: sum(photos / row["photos_per_s"] for row in histories[folder]) for folder in runs}
    rows = [["aggregator", "runs", "training, seconds a run"]]
    for name in dict.fromkeys(run.settings.aggregator for run in runs.values()):
        own = [times[folder] for folder, run in runs.items() if run.settings.aggregator == name]
        span = f"{min(own):.0f} to {max(own):.0f}" if len(own) > 1 else f"{own[0]:.0f}"
        rows.append([name, str(len(own)), span])
    device = choose_device(data.machine.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _name_processor()
    precision = str(choose_dtype(data.base.precision, device)).removeprefix("torch.")
    packages = ("vpr_lib", "torch", "torchvision", "numpy", "matplotlib")
    versions = [f"python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages)]
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    caption = "Without validation and evaluation, on the machine that trained the run."
    text = (
        f"Training of the {len(runs)} runs: {sum(times.values()):.0f} s. This call, with what existed: {seconds:.0f} s."
    )
    machine = f"{name}, {count_cores()} cores, device {device.type}, {precision}"
    return Section("Times and machine", [Table(rows, caption), text, f"{machine}; {', '.join(versions)}; {date}."])


def _name_processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []  # not Linux
    return names[0] if names else platform.processor() or platform.machine()
