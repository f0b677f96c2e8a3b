"""The whole study on a data root -> figures and one page that shows them beside the published numbers."""

import json
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from vpr_lib.analysis.scenarios import read_labels
from vpr_lib.atomic_files import write_atomically
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.devices import choose_device
from vpr_lib.figures.html_page import Block, Details, Picture, Section, Table, write_page
from vpr_lib.figures.tables import format_markdown
from vpr_lib.file_names import PHOTO_SUFFIXES
from vpr_lib.machine import Machine
from vpr_lib.recall import count_without_positive, find_positives
from vpr_lib.run_folders import Run
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings, get_preset
from vpr_lib.study.experiments import STUDY, Runs, count_steps, plan_study, train_study
from vpr_lib.study.published import PUBLISHED_SPLITS
from vpr_lib.study.sections import SECTIONS, StudyData

_HOW_TO_READ = (
    "Each run has one seed; other seeds give other numbers.",
    "Published numbers are on the real sets (gsv_xs, sf_xs, tokyo_xs; ImageNet weights, 320 px). Unless this data root "
    "holds those, compare order and shape, not values.",
    "95% intervals: bootstrap over cells of 25 m, since the results of nearby queries are correlated. An interval of "
    "zero width, at 0 or 100 percent, only means that all queries had the same result.",
    "p: McNemar's exact test on R@1 against the row above; a difference is called significant if p < 0.05. There is no "
    "correction for the number of tests.",
)
_CHOSEN = " The epoch whose weights are kept was chosen on it, too, so its recalls are slightly optimistic."


def make_report(
    base: Settings,
    data_root: str | Path | DataRoot,
    out: str | Path,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    preset: str = "",
) -> Path | None:
    """Train or open the runs of the study, evaluate them on all splits, write the figures and `index.html`.

    Figures are written as soon as the runs they need are complete, and the page is written again each time.

    Args:
        base: settings that the study varies.
        data_root: folder with `train`, evaluation splits and optionally `scenarios.csv`.
        out: folder of the page and its figures.
        runs_dir, machine: as in `get_run`.
        preset: name of the preset that the page lists changes against; "" is the published study.

    Returns:
        The page; None if Ctrl-C stopped a training. The same call then resumes it.

    Raises:
        ValueError: the root has no evaluation split, or the settings measure no R@1.
    """
    data = _open_study_data(base, open_data_root(data_root), Path(out), machine or Machine())
    parts = list(STUDY) if data.val_splits else ["aggregators"]
    about = f"preset {preset}" if preset else "settings of its own"
    page = data.out / "index.html"
    done: Runs = {}
    made: dict[str, Section] = {}

    def add_part(part: str, runs: dict[str, Run]) -> None:
        done[part] = runs
        for title, (its_part, make_blocks) in SECTIONS.items():
            if its_part == part:
                made[title] = Section(title, make_blocks(data, runs))
        sections = [_make_data_section(data), _make_reading_section(data, parts, done)]
        sections += [made[title] for title in SECTIONS if title in made and made[title].blocks]
        sections.append(_make_runs_section(data, done, Path(runs_dir)))
        sections.append(_make_settings_section(data, about, get_preset(preset) if preset else Settings()))
        write_page(page, f"The study on {data.data_root.folder.resolve().name}, {about}", sections)

    train_study(base, data.data_root, runs_dir, data.machine, parts, add_part)
    if len(done) < len(parts):
        return None
    for table in (table for section in made.values() for table in section.list_blocks(Table)):
        print(f"\n{table.caption}\n\n{format_markdown(table.rows)}")
    print()
    return page


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


def _make_reading_section(data: StudyData, parts: list[str], done: Runs) -> Section:
    """How to interpret the numbers, and what the page leaves out."""
    lines = list(_HOW_TO_READ)
    if len(done) < len(parts):
        planned = {settings.to_json() for part in plan_study(data.base, parts).values() for settings in part.values()}
        shown = {run.folder for runs in done.values() for run in runs.values()}
        lines.append(f"Still training: {len(shown)} of {len(planned)} runs are shown.")
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
    return Section("How to read this page", lines)


def _make_runs_section(data: StudyData, done: Runs, runs_dir: Path) -> Section:
    """A row for each run: its folder, the settings that the study varies, its training time."""
    photos = count_steps(data.base, data.data_root.train).photos
    head = ["shown as", "folder", "optimizer", "lr", "weight decay", "scheduler", "seed", "epochs"]
    rows = [[*head, "training, seconds", "last loss"]]
    shown: dict[Path, tuple[Run, list[str]]] = {}  # {folder: (its run, the names under which it is shown)}
    for part, by_label in done.items():
        for label, run in by_label.items():
            shown.setdefault(run.folder, (run, []))[1].append(f"{part}: {label}")
    for folder, (run, names) in shown.items():
        settings, history = run.settings, run.history
        seconds = sum(photos / row["photos_per_s"] for row in history)
        row = ["; ".join(names), f"{runs_dir.name}/{folder.name}", settings.optimizer, f"{settings.lr:g}"]
        row += [f"{settings.weight_decay:g}", str(settings.scheduler), str(settings.seed), str(len(history))]
        rows.append([*row, f"{seconds:.0f}", f"{history[-1]['loss']:.3f}"])
    caption = "Seconds without validation and evaluation. A run that two figures share was trained once."
    return Section("Runs", [Table(rows, caption)])


def _make_settings_section(data: StudyData, about: str, standard: Settings) -> Section:
    """Changed settings, all settings, versions and date."""
    ours, theirs = data.base.to_dict(), standard.to_dict()
    changed = [f"{key} = {json.dumps(ours[key])}" for key in ours if ours[key] != theirs[key]]
    packages = ("vpr_lib", "torch", "torchvision", "numpy", "matplotlib")
    versions = [f"python {python_version()}", *(f"{name} {version(name)}" for name in packages)]
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    blocks = [
        f"{about[0].upper()}{about[1:]}; changed: {', '.join(changed) or 'nothing'}.",
        f"Written {date}, device {choose_device(data.machine.device).type}; {', '.join(versions)}.",
        Details("All settings that the study varies", json.dumps(ours, indent=2).splitlines()),
    ]
    return Section("Settings", blocks)
