"""python -m vpr_lib city | pack | adopt | unpack | check | train | evaluate | compare | report."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from vpr_lib.command_line.commands import (
    adopt_command,
    check_command,
    city_command,
    compare_command,
    evaluate_command,
    pack_command,
    report_command,
    train_command,
    unpack_command,
)


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
