"""The whole study on a data root -> figures and one page that shows them beside the published numbers."""

import json
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from vpr_lib.analysis.scenarios import read_labels
from vpr_lib.atomic_files import write_atomically
from vpr_lib.data_roots import find_part, find_splits, read_split
from vpr_lib.devices import choose_device
from vpr_lib.figures.html_page import Block, Details, Picture, Section, Table, Text, write_page
from vpr_lib.images import read_images
from vpr_lib.machine import Machine
from vpr_lib.recall import count_without_positive, find_positives
from vpr_lib.run_folders import Run
from vpr_lib.runs import validation_splits
from vpr_lib.samplers import PlaceSampler
from vpr_lib.settings import Settings
from vpr_lib.study.experiments import (
    STUDY,
    Runs,
    count_steps,
    is_complete,
    list_distinct,
    name_settings,
    plan_study,
    train_study,
    training_seconds,
)
from vpr_lib.study.published import RECALLS
from vpr_lib.study.sections import PARTS, Report

ONE_SEED = "One seed a run: another seed moves these numbers, too."
INTERVALS = (
    "95% intervals: bootstrap over 25 m cells, since queries of one spot succeed and fail together. One of zero width, "
    "at 0 or 100 percent, only says that all queries at hand went the same way."
)
TESTS = (
    "p: McNemar's exact test on R@1 against the row above; a difference is called one where p < 0.05. The number of "
    "tests is not corrected for."
)
PUBLISHED = (
    "Published numbers are on the real sets (gsv_xs, sf_xs, tokyo_xs; ImageNet weights, 320 px). Unless this data root "
    "holds those, compare order and shape, not values."
)
CHOSEN = "The epoch whose weights are kept was chosen on it, too, which flatters its recalls a little."

PACKAGES = ("vpr_lib", "torch", "torchvision", "numpy", "matplotlib")


def make_report(
    base: Settings,
    data_root: str | Path,
    out: str | Path,
    runs_dir: str | Path = "runs",
    machine: Machine | None = None,
    preset: str = "",
    preset_settings: Settings | None = None,
) -> Path | None:
    """Train or read the study's runs, evaluate them on all splits, write the figures and `index.html`.

    Figures are written as soon as the runs they need are there, and the page grows with them.

    Args:
        base: settings that the study varies.
        data_root: folder with `train`, evaluation splits and maybe `scenarios.csv`.
        out: folder of the page.
        runs_dir: where runs are kept.
        machine: device, workers, progress bars.
        preset: its name, for the page.
        preset_settings: what the page lists changed settings against; None is the published study.

    Returns:
        The page; None if Ctrl-C stopped a training, and the same call goes on.

    Raises:
        ValueError: the root has no evaluation split, or the settings measure no R@1.
    """
    report = open_report(base, data_root, out, machine)
    parts = list(STUDY) if report.val_splits else ["aggregators"]
    about = f"preset {preset}" if preset else "settings of its own"
    done: Runs = {}

    def add_part(part: str, runs: dict[str, Run]) -> None:
        PARTS[part](report, runs)
        done[part] = runs
        sections = [describe_data(report), describe_gaps(report, parts, done)]
        sections += [report.sections[place] for place in sorted(report.sections)]
        sections.append(describe_runs(report, done, runs_dir))
        sections.append(describe_settings(report, about, preset_settings or Settings()))
        write_page(report.out / "index.html", f"The study on {report.data_root.name}, {about}", sections)

    runs = train_study(base, data_root, runs_dir, report.machine, parts, add_part)
    if not is_complete(runs):
        return None
    print("\n" + "\n".join(report.printed))
    return report.out / "index.html"


def open_report(base: Settings, data_root: str | Path, out: str | Path, machine: Machine | None) -> Report:
    """Read the data root: what can't be read is told now, not after the training."""
    splits = find_splits(data_root)
    if not splits:
        raise ValueError(f"{data_root} has no evaluation split: a folder with database/ and queries/")
    if 1 not in base.ks:
        raise ValueError(f"ks is {base.ks}; the report shows R@1, so it must hold 1")
    val_splits = validation_splits(base, data_root)
    report = Report(
        base=base,
        data_root=Path(data_root).resolve(),
        out=Path(out),
        machine=machine or Machine(),
        # Validation first, as in the published tables.
        splits={split: read_split(data_root, split) for split in dict.fromkeys([*val_splits, *splits])},
        val_splits=val_splits,
        train=read_images(find_part(data_root, "train")),
        labels=read_labels(data_root),
    )
    report.out.mkdir(parents=True, exist_ok=True)
    return report


def describe_data(report: Report) -> Section:
    """The photos: how many, and a contact sheet where the root holds one."""
    blocks: list[Block] = []
    for sheet in sorted(report.data_root.glob("contact_sheet.*")):
        if sheet.suffix.lower() in (".png", ".jpg", ".jpeg"):
            write_atomically(report.out / sheet.name, sheet.read_bytes())
            alt = f"Contact sheet: some photos of {report.data_root.name}."
            blocks.append(Picture(report.out / sheet.name, alt, "Some of the photos."))
            break
    rows = [["split", "used for", "database photos", "queries", "queries without a positive"]]
    for split, (database, queries) in report.splits.items():
        missed = count_without_positive(find_positives(database.utm, queries.utm, report.base.radius_m))
        use = "choosing" if split in report.val_splits else "testing"
        rows.append([split, use, str(len(database)), str(len(queries)), str(missed)])
    caption = f"A query without a database photo within {report.base.radius_m:g} m counts as missed."
    base = report.base
    sampler = PlaceSampler(report.train.places, base.num_places, base.images_per_place, base.seed)
    return Section(
        "Photos of this data root", [*blocks, Table(rows, caption), Text(f"Training: {sampler.describe()}.")]
    )


def describe_gaps(report: Report, parts: list[str], done: Runs) -> Section:
    """What to keep in mind, what this page leaves out and why."""
    lines = [ONE_SEED, PUBLISHED, INTERVALS, TESTS]
    plan = plan_study(report.base, parts)
    trained = {name_settings(run.settings) for runs in done.values() for run in runs.values()}
    if set(parts) - set(done):
        lines.append(f"Still training: {len(trained)} of {len(list_distinct(plan))} runs are shown.")
    if report.val_splits:
        lines.append(
            f"{report.val_splits[0]} is the validation split: Fig. 2, Fig. 3 and the schedulers are measured there. "
            + CHOSEN * (report.base.keep == "best")
        )
    else:
        lines.append("No validation split (a name ending in val): Fig. 2, Fig. 3 and the schedulers are left out.")
    known = {split for by_split in RECALLS.values() for split in by_split}
    unknown = [split for split in report.splits if split not in known]
    if unknown:
        lines.append(f"No published numbers for {', '.join(unknown)}; there are some for {', '.join(sorted(known))}.")
    if not report.labels:
        lines.append("No scenarios.csv in the data root: recall of each scenario is left out.")
    return Section("How to read this page", [Text(line) for line in lines])


def describe_runs(report: Report, done: Runs, runs_dir: str | Path) -> Section:
    """Every run: its folder, settings that the study varies, seconds."""
    photos = count_steps(report.base, report.train)[1]
    head = ["shown as", "folder", "optimizer", "lr", "weight decay", "scheduler", "seed", "epochs"]
    rows = [[*head, "training, seconds", "last loss"]]
    uses: dict[Path, list[str]] = {}
    for part, runs in done.items():
        for label, run in runs.items():
            uses.setdefault(run.folder, []).append(f"{part}: {label}")
    for run in {run.folder: run for runs in done.values() for run in runs.values()}.values():
        s, history = run.settings, run.history
        row = ["; ".join(uses[run.folder]), f"{Path(runs_dir).name}/{run.folder.name}", s.optimizer, f"{s.lr:g}"]
        row += [f"{s.weight_decay:g}", str(s.scheduler), str(s.seed), str(len(history))]
        rows.append([*row, f"{training_seconds(run, photos):.0f}", f"{history[-1]['loss']:.3f}"])
    caption = "Seconds without validation and evaluation. A run that two figures share was trained once."
    return Section("Runs", [Table(rows, caption)])


def describe_settings(report: Report, about: str, standard: Settings) -> Section:
    """Settings, changed and all; versions and date."""
    ours, theirs = report.base.to_dict(), standard.to_dict()
    changed = [f"{key} = {json.dumps(ours[key])}" for key in ours if ours[key] != theirs[key]]
    versions = [f"python {python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    device = choose_device(report.machine.device).type
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return Section(
        "What was run",
        [
            Text(f"{about[0].upper()}{about[1:]}; changed: {', '.join(changed) or 'nothing'}."),
            Text(f"Written {date}, device {device}; {', '.join(versions)}."),
            Details("All settings that the study varies from", json.dumps(ours, indent=2).splitlines()),
        ],
    )
