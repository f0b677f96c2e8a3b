"""Parse `python -m vpr_lib COMMAND` and run the command."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from vpr_lib.command_line import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `python -m vpr_lib`; default: those of this process.

    Returns:
        The exit status: 0 after success, 1 after an error, 130 after Ctrl-C.
    """
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
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m vpr_lib", description="Visual place recognition.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_city_parser(subparsers)
    _add_pack_parser(subparsers)
    _add_import_photos_parser(subparsers)
    _add_unpack_parser(subparsers)
    _add_check_parser(subparsers)
    _add_train_parser(subparsers)
    _add_evaluate_parser(subparsers)
    _add_compare_parser(subparsers)
    _add_report_parser(subparsers)
    return parser


def _add_city_parser(subparsers: argparse._SubParsersAction) -> None:
    city = subparsers.add_parser("city", help="render a small city as a data root")
    city.add_argument("--out", required=True, metavar="ROOT", help="data root to write, for example data/mini")
    city.add_argument("--seed", type=int, default=0, help="each seed gives another city (default: 0)")
    city.add_argument("--workers", type=int, default=-1, help="processes; same pixels (default: one for each core)")
    city.add_argument("--force", action="store_true", help="delete the rendered city in ROOT and render it again")
    city.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="size, places, difficulty, ...")
    city.set_defaults(command=commands.render_city)


def _add_pack_parser(subparsers: argparse._SubParsersAction) -> None:
    pack = subparsers.add_parser("pack", help="write a folder of photos as one zip of resized photos")
    pack.add_argument("folder", help="ROOT/train, or a split")
    pack.add_argument("--size", type=int, default=320, metavar="S", help="pixels; the image size of training (320)")
    pack.add_argument("--out", metavar="ZIP", help="the pack to write (default: the folder's path with .zip)")
    pack.set_defaults(command=commands.pack_folder)


def _add_import_photos_parser(subparsers: argparse._SubParsersAction) -> None:
    photos = subparsers.add_parser(
        "import-photos", help="make a split of photos with a GPS position in their EXIF data"
    )
    photos.add_argument("photos", help="folder of photos")
    photos.add_argument("--to", required=True, metavar="DIR", help="ROOT/<split>/queries or ROOT/<split>/database")
    photos.set_defaults(command=commands.import_photos)


def _add_unpack_parser(subparsers: argparse._SubParsersAction) -> None:
    unpack = subparsers.add_parser("unpack", help="copy a downloaded set into a data root")
    unpack.add_argument("archive", help="a zip, or a folder that holds the set")
    unpack.add_argument("--to", required=True, metavar="ROOT", help="the data root, for example data/xs")
    unpack.add_argument("--as", required=True, dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs")
    unpack.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")
    unpack.add_argument("--delete", action="store_true", help="delete the zip once its photos are copied and checked")
    unpack.add_argument("--origin", metavar="TEXT", help="source to note in the manifest (default: the archive's path)")
    unpack.set_defaults(command=commands.unpack_archive)


def _add_check_parser(subparsers: argparse._SubParsersAction) -> None:
    check = subparsers.add_parser("check", help="compare a data root with the published sizes and its manifest")
    check.add_argument("root", help="the data root")
    check.add_argument("--as", dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs (default: all sets)")
    check.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")
    check.set_defaults(command=commands.check_data_root)


def _add_train_parser(subparsers: argparse._SubParsersAction) -> None:
    train = subparsers.add_parser("train", help="train one model into a run folder, or resume it")
    _add_training_options(train, "photos")
    train.add_argument("--out", required=True, metavar="RUN", help="the run folder")
    train.add_argument("--aggregator", metavar="A", help="AVG, GeM, ConvAP, MixVPR or an added one")
    train.set_defaults(command=commands.train_model)


def _add_evaluate_parser(subparsers: argparse._SubParsersAction) -> None:
    evaluate = subparsers.add_parser("evaluate", help="measure the recall of a run on a split")
    evaluate.add_argument("--run", required=True, help="the run folder")
    evaluate.add_argument("--data", required=True, metavar="ROOT", help="data root with the split")
    evaluate.add_argument("--split", required=True, help="name of a folder with database/ and queries/, or of a pack")
    evaluate.add_argument("--json", metavar="FILE", help="also write the recalls to this file")
    evaluate.add_argument("--index", default="exact", metavar="I", help="exact, or ivf for a huge database (exact)")
    evaluate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="device, num_workers, ...")
    evaluate.set_defaults(command=commands.evaluate_model)


def _add_compare_parser(subparsers: argparse._SubParsersAction) -> None:
    compare = subparsers.add_parser("compare", help="train several aggregators and print a table of recalls")
    _add_training_options(compare, "photos")
    compare.add_argument("--out", default="runs", metavar="DIR", help="folder of the runs and the table (runs)")
    compare.add_argument("--aggregators", metavar="A,B,...", help="aggregators to compare (default: all)")
    compare.set_defaults(command=commands.compare_aggregators)


def _add_report_parser(subparsers: argparse._SubParsersAction) -> None:
    report = subparsers.add_parser("report", help="train the whole study and write its page")
    _add_training_options(report, "mini")
    report.add_argument("--out", metavar="DIR", help="folder of the page and its figures (reports/<preset>)")
    report.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (runs)")
    report.set_defaults(command=commands.write_report)


def _add_training_options(parser: argparse.ArgumentParser, preset: str) -> None:
    """Options of the commands that train; `preset` is the default."""
    parser.add_argument("--data", required=True, metavar="ROOT", help="folder with train/<city>/*.jpg and splits")
    parser.add_argument("--preset", default=preset, metavar="P", help=f"smoke, mini, photos or xs ({preset})")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting; may be repeated")
