"""The commands; each takes the parsed options. Their docstrings are printed by `--help`.

A command imports what it needs when it runs, so that `--help` is quick and `city` works without torch.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpr_lib.machine import Machine
from vpr_lib.options import check_choice, parse_change
from vpr_lib.settings import Settings, get_preset

if TYPE_CHECKING:
    from vpr_lib.data_roots import DataRoot
    from vpr_lib.evaluation import Evaluation, SearchLoss
    from vpr_lib.prepare.manifest import SplitSummary
    from vpr_lib.run_folders import Run


def render_city(options: argparse.Namespace) -> None:
    """Render a small city as a data root."""
    from vpr_lib.city import CitySettings, write_city

    (settings,) = _apply_changes(options.set, CitySettings(seed=options.seed))
    print(f"data root: {write_city(options.out, settings, options.workers, options.force)}")


def pack_folder(options: argparse.Namespace) -> None:
    """Write a folder of photos as one zip of resized photos, or as several if it is large."""
    from vpr_lib.pack_files import list_files
    from vpr_lib.prepare.packs import write_pack

    pack = write_pack(options.folder, options.out, options.size, max_bytes=options.max_gb * 1e9)
    sizes = [file.stat().st_size for file in list_files(pack)]
    print(f"pack: {pack}, {f'{len(sizes)} files, ' if len(sizes) > 1 else ''}{sum(sizes) / 1e6:.1f} MB")


def import_photos(options: argparse.Namespace) -> None:
    """Make half of a split of photos with a GPS position in their EXIF data."""
    from vpr_lib.prepare.phone_photos import import_phone_photos

    imported = import_phone_photos(options.photos, options.to)
    for name, reason in imported.left_out.items():
        print(f"left out: {name}: {reason}")
    print(f"{len(imported.names)} photos in {imported.folder}, {len(imported.left_out)} left out")


def unpack_archive(options: argparse.Namespace) -> None:
    """Copy a downloaded set into a data root."""
    from vpr_lib.prepare.unpacking import unpack_set

    splits = unpack_set(options.archive, options.to, options.name, options.any_size, options.delete, options.origin)
    _print_splits(splits)
    print(f"data root: {options.to}")


def check_data_root(options: argparse.Namespace) -> int:
    """Compare a data root with the published sizes and its manifest; exit status 3: splits are missing."""
    from vpr_lib.prepare.manifest import check_root
    from vpr_lib.prepare.unpacking import SETS

    splits = dict.fromkeys(SETS[check_choice("set", options.name, SETS)].values()) if options.name else ()
    check = check_root(options.root, splits, options.any_size)
    _print_splits(check.splits)
    for split in check.missing:
        name = next(name for name in SETS if split in SETS[name].values())
        print(f"{split}: missing; ./data_download.sh {name} fetches it")
    for problem in check.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if check.problems else 3 if check.missing else 0


def train_model(options: argparse.Namespace) -> None:
    """Train one model into a run folder, or resume it, and print its recall on the validation splits."""
    from vpr_lib.data_roots import DataRoot
    from vpr_lib.evaluation import evaluate_run
    from vpr_lib.runs import train_run

    settings, machine = _read_settings(options, "train takes --aggregator A" if options.aggregator else "")
    settings = replace(settings, aggregator=options.aggregator or settings.aggregator)
    data_root = DataRoot(options.data)
    run = train_run(settings, data_root, options.out, machine=machine)
    if not run.complete:
        raise KeyboardInterrupt
    for split in data_root.list_validation_splits(settings.val_splits):
        _print_evaluation(evaluate_run(run, data_root, split, machine))
    print(f"run: {run.folder}")


def evaluate_model(options: argparse.Namespace) -> None:
    """Measure the recall of a run on a split."""
    from vpr_lib.evaluation import evaluate_run
    from vpr_lib.processes import is_main
    from vpr_lib.run_folders import open_run

    (machine,) = _apply_changes(options.set, Machine())
    if options.rerank_top is not None and options.rerank in (None, "none"):
        raise ValueError(f"--rerank-top {options.rerank_top} does nothing without --rerank all or --rerank adaptive")
    search = {"index": options.index, "whiten": options.whiten}
    if options.nprobe is not None:
        if options.index == "exact":
            raise ValueError(f"--nprobe {options.nprobe} does nothing without --index")
        search["nprobe"] = options.nprobe
    run = open_run(options.run)
    if options.rerank is None:
        evaluation = evaluate_run(run, options.data, options.split, machine, **search)
        content = evaluation.to_dict()
    else:
        evaluation, content = _rerank(run, options, machine, search)
    _print_evaluation(evaluation)
    if evaluation.search_loss:
        _print_search_loss(options.index, evaluation.search_loss)
    if options.json and is_main():
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _print_search_loss(index: str, loss: "SearchLoss") -> None:
    recalls = ", ".join(f"R@{k} {loss.recall[k]:.2f} ({loss.exact_recall[k]:.2f})" for k in loss.recall)
    print(f"index {index}, and exact search in brackets, for {loss.num_queries} of the queries: {recalls}")
    for k, percent in loss.overlap.items():
        print(f"index {index} found {percent:.1f}% of what an exact search has among its first {k}")


def _rerank(
    run: "Run", options: argparse.Namespace, machine: Machine, search: Mapping[str, Any]
) -> tuple["Evaluation", dict[str, Any]]:
    """Re-rank, print what it changed; the evaluation after it, and the content of the JSON file."""
    from vpr_lib.analysis.reranking import measure_areas, rerank_run
    from vpr_lib.data_roots import DataRoot
    from vpr_lib.processes import count_processes

    if count_processes() > 1:
        raise ValueError("--rerank runs in one process; evaluate without it first, then with it, without torchrun")
    data_root, split = DataRoot(options.data), options.split
    result = rerank_run(run, data_root, split, options.rerank, options.rerank_top, machine=machine, **search)
    areas = measure_areas(result, data_root.read_split(split))
    print("before re-ranking, ", end="")
    _print_evaluation(result.before)
    if result.threshold:
        optimistic = ": the recall on this split is too optimistic" if result.threshold.split == split else ""
        print(f"the threshold was chosen on {result.threshold.split}{optimistic}")
    if options.rerank != "none":
        print(
            f"verified: {100 * result.verified.mean():.1f}% of the queries, {result.inliers.shape[1]} photos each, "
            f"{result.seconds_per_query:.3f} s of one core per query of the split"
        )
    print("area under precision and recall: " + ", ".join(f"{name} {area:.3f}" for name, area in areas.items()))
    content = result.after.to_dict() | {
        "recall_before": result.before.to_dict()["recall"],
        "confidence": {name: None if math.isnan(area) else area for name, area in areas.items()},
        "seconds_per_query": result.seconds_per_query,
        "verified": float(100 * result.verified.mean()),
    }
    return result.after, content


def compare_aggregators(options: argparse.Namespace) -> None:
    """Train several aggregators and print a table of recalls on all splits."""
    from vpr_lib.aggregators import AGGREGATORS, STUDY_AGGREGATORS
    from vpr_lib.data_roots import DataRoot
    from vpr_lib.evaluation import compare_evaluations, evaluate_all
    from vpr_lib.figures.tables import comparison_rows, format_markdown
    from vpr_lib.processes import is_main
    from vpr_lib.runs import train_all

    settings, machine = _read_settings(options, "compare trains --aggregators A,B,...")
    names = options.aggregators.split(",") if options.aggregators else STUDY_AGGREGATORS
    names = [check_choice("aggregator", name.strip(), AGGREGATORS) for name in names]
    data_root = DataRoot(options.data)
    if not data_root.splits:
        raise ValueError(f"{options.data} has no evaluation split; add a folder with database/ and queries/")
    for split in data_root.splits:
        data_root.read_split(split)  # an unreadable split must stop the command before the training
    runs = train_all({name: replace(settings, aggregator=name) for name in names}, data_root, options.out, machine)
    if not all(run.complete for run in runs.values()):
        raise KeyboardInterrupt
    evaluations = {split: evaluate_all(runs, data_root, split, machine) for split in data_root.splits}
    comparisons = {split: compare_evaluations(by_name) for split, by_name in evaluations.items()}
    table = format_markdown(comparison_rows(comparisons))
    path = Path(options.out) / f"comparison-{data_root.folder.resolve().name}-{options.preset}.md"
    if is_main():
        path.write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n")
    for split, by_name in evaluations.items():
        print(f"{split}: {_format_queries(by_name[names[0]])}")
    print(f"table: {path}")


def write_report(options: argparse.Namespace) -> None:
    """Train the whole study and write its page, and the gallery of one split as a second page."""
    from vpr_lib.gallery import open_gallery
    from vpr_lib.study.report import make_report

    def make_gallery(runs: Mapping[str, "Run"], data_root: "DataRoot", split: str, rows: Any, path: Path) -> None:
        open_gallery(runs, data_root, split).export_html(path, rows)

    settings, machine = _read_settings(options, "report trains the study's four aggregators")
    out = options.out or f"reports/{options.preset}"
    page = make_report(settings, options.data, out, options.runs, machine, options.preset, make_gallery)
    if page is None:
        raise KeyboardInterrupt
    print(f"page: {page}")


def write_gallery(options: argparse.Namespace) -> None:
    """Evaluate one or two runs on a split, and write its gallery as one HTML page."""
    from vpr_lib.data_roots import DataRoot
    from vpr_lib.evaluation import evaluate_all
    from vpr_lib.gallery import open_gallery
    from vpr_lib.run_folders import open_run
    from vpr_lib.statistics import choose_evenly

    (machine,) = _apply_changes(options.set, Machine())
    if options.queries < 1:
        raise ValueError(f"--queries {options.queries}; a page shows one query or more")
    data_root, runs = DataRoot(options.data), [open_run(folder) for folder in options.runs]
    names = [run.settings.aggregator for run in runs]
    if len(set(names)) < len(names):  # runs of one aggregator are told apart by their folders
        names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"--runs has {len(names)} runs, two of them in folders named {names[0]}; rename one")
    by_name = dict(zip(names, runs, strict=True))
    evaluate_all(by_name, data_root, options.split, machine)
    gallery = open_gallery(by_name, data_root, options.split, machine=machine)
    page = gallery.export_html(options.out, choose_evenly(len(gallery.rows), options.queries))
    print(f"page: {page}")


def _read_settings(options: argparse.Namespace, own_aggregators: str = "") -> tuple[Settings, Machine]:
    """The preset with the changes of the command line. Commands with aggregators of their own refuse to change it."""
    if own_aggregators and any(change.startswith("aggregator=") for change in options.set):
        raise ValueError(f"{own_aggregators}; --set aggregator would do nothing beside it")
    given = {name: getattr(options, name) for name in ("epochs", "image_size") if getattr(options, name) is not None}
    return _apply_changes(options.set, replace(get_preset(options.preset), **given), Machine())


def _apply_changes(changes: Sequence[str], *dataclasses: Any) -> tuple[Any, ...]:
    """Copies of dataclass instances with each `key=value` applied to the one that has the key."""
    values: dict[type, dict[str, Any]] = {type(instance): {} for instance in dataclasses}
    for change in changes:
        owner, key, value = parse_change(change, values)
        values[owner][key] = value
    return tuple(replace(instance, **values[type(instance)]) for instance in dataclasses)


def _print_splits(splits: Mapping[str, "SplitSummary"]) -> None:
    from vpr_lib.prepare.manifest import PUBLISHED_SIZES, format_counts

    for split, summary in splits.items():
        size = format_counts(split, summary.photos)
        published = PUBLISHED_SIZES.get(split, size)
        places = f" of {summary.places:,} places" if split == "train" else ""
        note = f" (published: {published})" if published != size else ""
        print(f"{split}: {size}{places}, {sum(summary.bytes.values()) / 1e9:.2f} GB{note}")


def _print_evaluation(evaluation: "Evaluation") -> None:
    recalls = "  ".join(f"R@{k} {percent:.2f}" for k, percent in evaluation.recall.items())
    print(f"{evaluation.split}: {recalls}  ({_format_queries(evaluation)})")


def _format_queries(evaluation: "Evaluation") -> str:
    missed = f"{evaluation.num_without_positive} of them without a positive, counted as missed"
    return f"{evaluation.num_queries} queries, {missed}"
