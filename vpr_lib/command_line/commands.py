"""What each command does: parsed options -> exit status. Imports stand inside: a command loads what it needs."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vpr_lib.machine import Machine
from vpr_lib.options import check_choice, parse_value, set_values
from vpr_lib.settings import Settings, get_preset


def city_command(options: argparse.Namespace) -> int:
    """Render a data root."""
    from vpr_lib.city.render import write_city
    from vpr_lib.city.views import CitySettings

    settings = CitySettings(seed=options.seed)
    for change in options.set:
        key, text = split_change(change, [f.name for f in fields(CitySettings) if f.name != "seed"])
        settings = set_values(settings, {key: parse_value(CitySettings, key, text)})
    folder = write_city(options.out, settings, options.workers, options.force)
    print(f"data root: {folder}")
    return 0


def pack_command(options: argparse.Namespace) -> int:
    """Write a pack."""
    from vpr_lib.prepare.packs import write_pack

    pack = write_pack(options.folder, options.out, options.size)
    print(f"pack: {pack}, {pack.stat().st_size / 1e6:.1f} MB")
    return 0


def adopt_command(options: argparse.Namespace) -> int:
    """Name photos by their EXIF data."""
    from vpr_lib.prepare.phone_photos import adopt

    adopted = adopt(options.photos, options.to)
    for name, why in adopted.left_out.items():
        print(f"left out: {name}: {why}")
    print(f"{len(adopted.names)} photos in {adopted.folder}, {len(adopted.left_out)} left out")
    return 0


def unpack_command(options: argparse.Namespace) -> int:
    """Lay out one set in a data root."""
    from vpr_lib.prepare.unpacking import unpack

    print_splits(unpack(options.archive, options.to, options.name, options.any_size, options.delete, options.origin))
    print(f"data root: {options.to}")
    return 0


def check_command(options: argparse.Namespace) -> int:
    """Check a data root; the exit status is 1 where a split is wrong, 3 where splits are only missing."""
    from vpr_lib.prepare.manifest import check_root
    from vpr_lib.prepare.unpacking import SETS

    splits = SETS[check_choice("set", options.name, SETS)].values() if options.name else ()
    report = check_root(options.root, dict.fromkeys(splits), options.any_size)
    print_splits(report.splits)
    for split in report.missing:
        name = next((name for name in SETS if split in SETS[name].values()), None)
        print(f"{split}: missing; ./data_download.sh {name} fetches it")
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if report.problems else 3 if report.missing else 0


def train_command(options: argparse.Namespace) -> int:
    """Train one model."""
    from vpr_lib.aggregators import AGGREGATORS
    from vpr_lib.evaluation import evaluate_run
    from vpr_lib.runs import train_run, validation_splits

    settings, machine = read_settings(options)
    if options.aggregator:
        settings = replace(settings, aggregator=check_choice("aggregator", options.aggregator, AGGREGATORS))
    run = train_run(settings, options.data, options.out, machine=machine)
    if not run.complete:
        return 130
    for split in validation_splits(settings, options.data):
        print_evaluation(evaluate_run(run, options.data, split, machine))
    print(f"run: {run.folder}")
    return 0


def evaluate_command(options: argparse.Namespace) -> int:
    """Evaluate one run on one split."""
    from vpr_lib.evaluation import evaluate_run
    from vpr_lib.run_folders import open_run

    run = open_run(options.run)
    _, machine = apply_changes(run.settings, options.set, machine_only=True)
    evaluation = evaluate_run(run, options.data, options.split, machine, options.index)
    print_evaluation(evaluation)
    for k, percent in evaluation.overlap.items():
        print(f"index {options.index} found {percent:.1f}% of what an exact search has among its first {k}")
    if options.json:
        Path(options.json).write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n")
    return 0


def compare_command(options: argparse.Namespace) -> int:
    """Train and evaluate several aggregators on all splits of a data root."""
    from vpr_lib.aggregators import AGGREGATORS
    from vpr_lib.data_roots import find_splits, read_split
    from vpr_lib.evaluation import compare_runs
    from vpr_lib.figures.tables import comparison_table
    from vpr_lib.runs import get_run

    settings, machine = read_settings(options)
    names = options.aggregators.split(",") if options.aggregators else list(AGGREGATORS)
    names = [check_choice("aggregator", name.strip(), AGGREGATORS) for name in names]
    splits = find_splits(options.data)
    if not splits:
        raise ValueError(f"{options.data} has no evaluation split: a folder with database/ and queries/")
    if any(change.startswith("aggregator=") for change in options.set):
        raise ValueError("compare trains --aggregators A,B,...; --set aggregator would do nothing")
    for split in splits:
        read_split(options.data, split)  # a split that can't be read is told now, not after the training
    runs = {}
    for name in names:
        print(f"{name}: {settings.epochs} epochs at {settings.image_size} px", flush=True)
        runs[name] = get_run(replace(settings, aggregator=name), options.data, options.out, machine=machine)
        if not runs[name].complete:
            return 130
    results = compare_runs(runs, options.data, splits, machine)
    table = comparison_table(results, splits)
    path = Path(options.out) / f"comparison-{Path(options.data).resolve().name}-{options.preset}.md"
    path.write_text(table + "\n")
    print(f"\n{table}\n")
    for split, result in results[names[0]].items():
        print(f"{split}: {count_queries(result)}")
    print(f"table: {path}")
    return 0


def report_command(options: argparse.Namespace) -> int:
    """Train the study on a data root and write its page."""
    from vpr_lib.study.report import make_report

    settings, machine = read_settings(options)
    if any(change.startswith("aggregator=") for change in options.set):
        raise ValueError("report trains every aggregator; --set aggregator would do nothing")
    out, preset = options.out or f"reports/{options.preset}", get_preset(options.preset)
    page = make_report(settings, options.data, out, options.runs, machine, options.preset, preset)
    if page is None:
        return 130
    print(f"page: {page}")
    return 0


def print_splits(splits: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each split of a manifest."""
    from vpr_lib.prepare.manifest import PUBLISHED_SIZES, count_photos

    for split, entry in splits.items():
        found = count_photos(split, entry["photos"])
        places = f" of {entry['places']:,} places" if split == "train" else ""
        other = f" (published: {PUBLISHED_SIZES[split]})" if PUBLISHED_SIZES.get(split, found) != found else ""
        print(f"{split}: {found}{places}, {sum(entry['bytes'].values()) / 1e9:.2f} GB{other}")


def print_evaluation(evaluation: Any) -> None:
    """One line: recalls and the number of queries."""
    result = evaluation.to_dict()
    recalls = "  ".join(f"R@{k} {percent:.2f}" for k, percent in result["recall"].items())
    print(f"{evaluation.split}: {recalls}  ({count_queries(result)})")


def count_queries(result: Mapping[str, Any]) -> str:
    """How many queries there were, and how many nobody can find."""
    return f"{result['queries']} queries, {result['without_positive']} of them without a positive, counted as missed"


def read_settings(options: argparse.Namespace) -> tuple[Settings, Machine]:
    """The preset with the command line's changes."""
    settings = get_preset(options.preset)
    given = {"epochs": options.epochs, "image_size": options.image_size}
    settings = set_values(settings, {k: v for k, v in given.items() if v is not None})
    return apply_changes(settings, options.set)


def apply_changes(settings: Settings, changes: Sequence[str], machine_only: bool = False) -> tuple[Settings, Machine]:
    """Apply `--set key=value`s to the dataclass that has the key.

    Raises:
        ValueError: an unknown key (the message lists the valid ones), or a value of another type.
    """
    machine = Machine()
    machine_keys = [f.name for f in fields(Machine)]
    keys = machine_keys if machine_only else [f.name for f in fields(Settings)] + machine_keys
    for change in changes:
        key, text = split_change(change, keys)
        if key in machine_keys:
            machine = set_values(machine, {key: parse_value(Machine, key, text)})
        else:
            settings = set_values(settings, {key: parse_value(Settings, key, text)})
    return settings, machine


def split_change(change: str, keys: Sequence[str]) -> tuple[str, str]:
    """Key and text of a `--set key=value`.

    Raises:
        ValueError: no such key (the message lists the valid ones), or no equals sign.
    """
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: expected KEY=VALUE")
    return check_choice("--set key", key, keys), text
