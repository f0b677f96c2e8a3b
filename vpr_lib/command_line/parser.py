"""Parse `python -m vpr_lib COMMAND` and run the command."""

import os
import sys
import warnings
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from vpr_lib.command_line import commands

INDEX = "exact, or for a large database ivf, ivf-sq8 or ivf-pq, the smallest (exact)"
RERANK = "order the first photos by local features, of all queries or the uncertain ones; none: confidence only"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by default that of this process; its exit status is 1 after an error, 130 after Ctrl-C."""
    warnings.simplefilter("default", UserWarning)
    options = make_parser().parse_args(arguments)
    try:
        with _join_others(options.command):
            return options.command(options) or 0
    except (ValueError, OSError, FloatingPointError) as error:
        if not getattr(error, "is_copy", False):  # of an error in another process, see vpr_lib.processes
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def make_parser() -> ArgumentParser:
    """The parser of all commands; its result holds the function of the command as `command`."""
    parser = ArgumentParser(prog="python -m vpr_lib", description="Visual place recognition.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_data_commands(subparsers)
    _add_model_commands(subparsers)
    return parser


def _join_others(command: Callable[..., int | None]) -> AbstractContextManager:
    """Work with the other processes that torchrun started, if any."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return nullcontext()
    if command not in (commands.train_model, commands.evaluate_model, commands.compare_aggregators):
        raise ValueError("of the commands, torchrun runs train, evaluate and compare only; start this one by itself")
    from vpr_lib.processes import work_together  # here, so that `city` works without torch

    return work_together()


def _add_data_commands(subparsers: _SubParsersAction) -> None:
    """Commands that make, fill and check data roots."""
    city = _add_command(subparsers, "city", commands.render_city)
    city.add_argument("--out", required=True, metavar="ROOT", help="data root to write, for example data/mini")
    city.add_argument("--seed", type=int, default=0, help="each seed gives another city (default: 0)")
    city.add_argument("--workers", type=int, default=-1, help="processes; same pixels (default: one for each core)")
    city.add_argument("--force", action="store_true", help="delete the rendered city in ROOT and render it again")
    _add_changes(city, "size, places, difficulty, ...")

    pack = _add_command(subparsers, "pack", commands.pack_folder)
    pack.add_argument("folder", help="ROOT/train, or a split")
    pack.add_argument("--size", type=int, default=320, metavar="S", help="pixels; the image size of training (320)")
    pack.add_argument("--out", metavar="ZIP", help="the pack to write (default: the folder's path with .zip)")
    pack.add_argument("--max-gb", type=float, default=4, metavar="G", help="of a file; more photos go into several (4)")

    photos = _add_command(subparsers, "import-photos", commands.import_photos)
    photos.add_argument("photos", help="folder of photos")
    photos.add_argument("--to", required=True, metavar="DIR", help="ROOT/<split>/queries or ROOT/<split>/database")

    unpack = _add_command(subparsers, "unpack", commands.unpack_archive)
    unpack.add_argument("archive", help="a zip, or a folder that holds the set")
    unpack.add_argument("--to", required=True, metavar="ROOT", help="the data root, for example data/xs")
    unpack.add_argument("--as", required=True, dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs")
    unpack.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")
    unpack.add_argument("--delete", action="store_true", help="delete the zip once its photos are copied and checked")
    unpack.add_argument("--origin", metavar="TEXT", help="source to note in the manifest (default: the archive's path)")

    check = _add_command(subparsers, "check", commands.check_data_root)
    check.add_argument("root", help="the data root")
    check.add_argument("--as", dest="name", metavar="SET", help="gsv_xs, sf_xs or tokyo_xs (default: all sets)")
    check.add_argument("--any-size", action="store_true", help="accept other numbers of photos than published")


def _add_model_commands(subparsers: _SubParsersAction) -> None:
    """Commands that train and evaluate."""
    train = _add_command(subparsers, "train", commands.train_model)
    _add_training_options(train, "photos")
    train.add_argument("--out", required=True, metavar="RUN", help="the run folder")
    train.add_argument("--aggregator", metavar="A", help="AVG, GeM, ConvAP, MixVPR, CosPlace, NetVLAD, SALAD, BoQ")

    evaluate = _add_command(subparsers, "evaluate", commands.evaluate_model)
    evaluate.add_argument("--run", required=True, help="the run folder")
    evaluate.add_argument("--data", required=True, metavar="ROOT", help="data root with the split")
    evaluate.add_argument("--split", required=True, help="name of a folder with database/ and queries/, or of a pack")
    evaluate.add_argument("--json", metavar="FILE", help="also write the recalls to this file")
    evaluate.add_argument("--index", default="exact", metavar="I", help=INDEX)
    evaluate.add_argument("--nprobe", type=int, metavar="N", help="lists of the index that a query reads (128)")
    evaluate.add_argument("--whiten", type=int, default=0, metavar="D", help="PCA-whiten to D components (0: don't)")
    evaluate.add_argument("--rerank", choices=("none", "all", "adaptive"), help=RERANK)
    evaluate.add_argument("--rerank-top", type=int, metavar="K", help="predictions verified for each query (10)")
    _add_changes(evaluate, "device, num_workers, ...")

    compare = _add_command(subparsers, "compare", commands.compare_aggregators)
    _add_training_options(compare, "photos")
    compare.add_argument("--out", default="runs", metavar="DIR", help="folder of the runs and the table (runs)")
    compare.add_argument("--aggregators", metavar="A,B,...", help="to compare (default: AVG,GeM,ConvAP,MixVPR)")

    report = _add_command(subparsers, "report", commands.write_report)
    _add_training_options(report, "mini")
    report.add_argument("--out", metavar="DIR", help="folder of the page and its figures (reports/<preset>)")
    report.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (runs)")

    gallery = _add_command(subparsers, "gallery", commands.write_gallery)
    gallery.add_argument("--data", required=True, metavar="ROOT", help="data root with the split")
    gallery.add_argument("--split", required=True, help="name of a folder with database/ and queries/, or of a pack")
    gallery.add_argument("--runs", required=True, nargs="+", metavar="RUN", help="folders of one or two runs")
    gallery.add_argument("--out", required=True, metavar="FILE", help="the page to write, for example gallery.html")
    gallery.add_argument("--queries", type=int, default=200, metavar="N", help="of a larger split, evenly chosen (200)")
    _add_changes(gallery, "device, num_workers, ...")


def _add_command(subparsers: _SubParsersAction, name: str, command: Callable[..., int | None]) -> ArgumentParser:
    parser = subparsers.add_parser(name, help=command.__doc__)
    parser.set_defaults(command=command)
    return parser


def _add_training_options(parser: ArgumentParser, preset: str) -> None:
    """Options of the commands that train; `preset` is the default."""
    parser.add_argument("--data", required=True, metavar="ROOT", help="folder with train/<city>/*.jpg and splits")
    parser.add_argument("--preset", default=preset, metavar="P", help=f"smoke, mini, photos or xs ({preset})")
    parser.add_argument("--epochs", type=int, metavar="N")
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels")
    _add_changes(parser, "any setting; may be repeated")


def _add_changes(parser: ArgumentParser, about: str) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=about)
