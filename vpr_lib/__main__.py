"""python -m vpr_lib city | pack | adopt | unpack | check | train | evaluate | compare | report."""

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vpr_lib.settings import Machine, Settings, check_choice, get_preset, parse_value, set_values


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    warnings.simplefilter("default", UserWarning)
    options = make_parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vpr_lib", description="Visual place recognition.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    city = commands.add_parser("city", help="render a small city as a data root")
    city.add_argument("--out", required=True, metavar="ROOT", help="the data root to write, for example data/mini")
    city.add_argument("--seed", type=int, default=0, help="another seed is another city (0)")
    city.add_argument("--workers", type=int, default=-1, help="processes; the pixels stay the same (one for each core)")
    city.add_argument("--force", action="store_true", help="delete a rendered city that is there, and draw anew")
    city.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="size, places, difficulty, ...")
    city.set_defaults(command=city_command)

    pack = commands.add_parser("pack", help="write a folder of photos as one file, resized: quick to copy and to read")
    pack.add_argument("folder", help="ROOT/train, or a split")
    pack.add_argument("--size", type=int, default=320, metavar="S", help="pixels, as the training's image size (320)")
    pack.add_argument("--out", metavar="ZIP", help="the pack (the folder's name with .zip, in its place)")
    pack.set_defaults(command=pack_command)

    adopt = commands.add_parser("adopt", help="make a split of photos with a GPS position in their EXIF data")
    adopt.add_argument("photos", help="folder of photos")
    adopt.add_argument("--to", required=True, metavar="DIR", help="ROOT/<split>/queries or ROOT/<split>/database")
    adopt.set_defaults(command=adopt_command)

    unpack = commands.add_parser("unpack", help="lay out the archive of a downloaded set in a data root")
    unpack.add_argument("archive", help="a zip, or a folder that holds the set")
    unpack.add_argument("--to", required=True, metavar="ROOT", help="the data root, for example data/xs")
    unpack.add_argument("--as", required=True, dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs")
    unpack.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")
    unpack.add_argument("--delete", action="store_true", help="remove the zip once its photos are in place and checked")
    unpack.add_argument("--origin", metavar="TEXT", help="where it came from, for the manifest (the archive's path)")
    unpack.set_defaults(command=unpack_command)

    check = commands.add_parser("check", help="compare a data root with the published sizes and its manifest")
    check.add_argument("root", help="the data root")
    check.add_argument("--as", dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs (all that is there)")
    check.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")
    check.set_defaults(command=check_command)

    run = make_run_options("photos")

    train = commands.add_parser("train", parents=[run], help="train one model into a run folder, or go on with it")
    train.add_argument("--out", required=True, metavar="RUN", help="the run folder")
    train.add_argument("--aggregator", metavar="A", help="AVG, GeM, ConvAP, MixVPR or one that was added")
    train.set_defaults(command=train_command)

    evaluate = commands.add_parser("evaluate", help="recall of a run on a split")
    evaluate.add_argument("--run", required=True, help="the run folder")
    evaluate.add_argument("--data", required=True, metavar="ROOT", help="data root with the split")
    evaluate.add_argument("--split", required=True, help="folder with database/ and queries/, or such a pack")
    evaluate.add_argument("--json", metavar="FILE", help="write the recalls here, too")
    evaluate.add_argument("--index", default="exact", metavar="I", help="exact, or ivf for a huge database (exact)")
    evaluate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="device, num_workers, ...")
    evaluate.set_defaults(command=evaluate_command)

    compare = commands.add_parser("compare", parents=[run], help="train several aggregators, print the table")
    compare.add_argument("--out", default="runs", metavar="DIR", help="where the runs and the table go (runs)")
    compare.add_argument("--aggregators", metavar="A,B,...", help="those to compare (all)")
    compare.set_defaults(command=compare_command)

    report = commands.add_parser("report", parents=[make_run_options("mini")], help="train the study, write its page")
    report.add_argument("--out", metavar="DIR", help="where figures and page go (reports/<preset>)")
    report.add_argument("--runs", default="runs", metavar="DIR", help="where the runs are (runs)")
    report.set_defaults(command=report_command)
    return parser


def make_run_options(preset: str) -> argparse.ArgumentParser:
    """The options of a command that trains, with its default preset."""
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("--data", required=True, metavar="ROOT", help="folder with train/<city>/*.jpg and splits")
    run.add_argument("--preset", default=preset, metavar="P", help=f"smoke, mini, photos or xs ({preset})")
    run.add_argument("--epochs", type=int, metavar="N")
    run.add_argument("--image-size", type=int, metavar="S", help="pixels")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; may be repeated")
    return run


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
    from vpr_lib.packs import write_pack

    pack = write_pack(options.folder, options.out, options.size)
    print(f"pack: {pack}, {pack.stat().st_size / 1e6:.1f} MB")
    return 0


def adopt_command(options: argparse.Namespace) -> int:
    """Name photos by their EXIF data."""
    from vpr_lib.adopt import adopt

    adopted = adopt(options.photos, options.to)
    for name, why in adopted.left_out.items():
        print(f"left out: {name}: {why}")
    print(f"{len(adopted.names)} photos in {adopted.folder}, {len(adopted.left_out)} left out")
    return 0


def unpack_command(options: argparse.Namespace) -> int:
    """Lay out one set in a data root."""
    from vpr_lib.archives import unpack

    print_splits(unpack(options.archive, options.to, options.name, options.any_size, options.delete, options.origin))
    print(f"data root: {options.to}")
    return 0


def check_command(options: argparse.Namespace) -> int:
    """Check a data root; the exit status is 1 where a split is wrong, 3 where splits are only missing."""
    from vpr_lib.archives import SETS
    from vpr_lib.manifest import check_root

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
    from vpr_lib.runs import evaluate_run, train_run, validation_splits

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
    from vpr_lib.runs import evaluate_run, open_run

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
    from vpr_lib.runs import compare_runs, get_run
    from vpr_lib.table import find_splits, read_split
    from vpr_lib.text_tables import comparison_table

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
    from vpr_lib.report import make_report

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
    from vpr_lib.manifest import PUBLISHED, count_photos

    for split, entry in splits.items():
        found = count_photos(split, entry["photos"])
        places = f" of {entry['places']:,} places" if split == "train" else ""
        other = f" (published: {PUBLISHED[split]})" if PUBLISHED.get(split, found) != found else ""
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


if __name__ == "__main__":
    sys.exit(main())
