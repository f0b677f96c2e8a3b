"""Runs of the aggregators -> what the report shows first: title, three sentences, tables and curves of recall."""

from collections.abc import Mapping
from itertools import pairwise

from vpr_lib.evaluation import Evaluation, compare_evaluations
from vpr_lib.figures.html_page import Block, Table, Tables
from vpr_lib.figures.plots import plot_recalls
from vpr_lib.figures.tables import ALPHA
from vpr_lib.run_folders import Run
from vpr_lib.study.published import PUBLISHED_SPLITS, RECALLS, published_rows
from vpr_lib.study.sections import StudyData


def make_title(data: StudyData, names: list[str]) -> str:
    """What was compared on what."""
    folder = data.data_root.folder
    kind = "the rendered city " if (folder / "city.json").is_file() else ""
    return f"{', '.join(names[:-1])} and {names[-1]} compared on {kind}{folder.resolve().name}"


def make_lead(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    """Three sentences, a table for each split, and recall against k."""
    evaluations = {split: data.evaluate(runs, split) for split in data.splits}
    comparisons = {split: compare_evaluations(by_name) for split, by_name in evaluations.items()}
    tables = [Table(published_rows({split: by_name})) for split, by_name in comparisons.items()]
    blocks: list[Block] = [" ".join(list_results(evaluations, choose_split(data))), Tables(tables)]
    reasons = {split: data.explain_no_plot(split) for split in data.splits}
    if plotted := [split for split, reason in reasons.items() if not reason]:
        recalls = {split: {name: row.recall for name, row in comparisons[split].items()} for split in plotted}
        alt = f"Lines: recall against k of {', '.join(runs)}, a panel for each of {', '.join(plotted)}."
        caption = "Fig. 1: recall against k, one seed."
        blocks.append(data.save_picture("fig1_recall", plot_recalls(recalls), alt, caption))
    return blocks + [reason for reason in reasons.values() if reason]


def choose_split(data: StudyData) -> str:
    """The split that stands for all: sf_test, or else the first test split, or the first split."""
    tests = [split for split in data.splits if split not in data.val_splits]
    return "sf_test" if "sf_test" in tests else (tests or data.splits)[0]


def list_results(evaluations: Mapping[str, Mapping[str, Evaluation]], split: str) -> list[str]:
    """Three sentences: R@1 on a split, whether the best model is better, and the order on all splits.

    Args:
        evaluations: {split: {model: evaluation}}, two or more models.
        split: one of them.
    """
    by_name = evaluations[split]
    best, *others = sorted(by_name, key=lambda name: -by_name[name].recall[1])
    number = by_name[best].num_queries
    shares = {name: f"{evaluation.recall[1]:.1f}%" for name, evaluation in by_name.items()}
    found = f"{best} finds {shares[best]} of the {number:,} queries with its first photo (R@1)"
    found += "".join(f", {name} {shares[name]}" for name in others)
    verdicts = [_judge(by_name, other, best) for other in dict.fromkeys((others[0], others[-1]))]
    return [f"On {split}, {found}.", f"{best} is {', and '.join(verdicts)}.", _compare_orders(evaluations)]


def _judge(by_name: Mapping[str, Evaluation], other: str, best: str) -> str:
    """How much better the best model is than another one."""
    points = by_name[best].recall[1] - by_name[other].recall[1]
    p_value = compare_evaluations({other: by_name[other], best: by_name[best]})[best].p_value
    return f"{points:.1f} points above {other} ({'' if p_value < ALPHA else 'not '}significant, p = {p_value:.2g})"


def _compare_orders(evaluations: Mapping[str, Mapping[str, Evaluation]]) -> str:
    """The order of the models by R@1 on each split beside the published one, which is the same on all its splits."""
    names = next(iter(evaluations.values()))
    published = format_order({name: RECALLS[name][PUBLISHED_SPLITS[0]][1] for name in names if name in RECALLS})
    splits: dict[str, list[str]] = {"that order": []}  # {order: where it is found}
    for split, by_name in evaluations.items():
        order = format_order({name: evaluation.recall[1] for name, evaluation in by_name.items()})
        splits.setdefault("that order" if order == published else order, []).append(split)
    found = [f"{order} on {' and '.join(where)}" for order, where in splits.items() if where]
    return f"Published by M. Bracco et al., on real photos: {published}; here: {', and '.join(found)}."


def format_order(recalls: Mapping[str, float]) -> str:
    """Models from the lowest recall to the highest, as in "AVG < GeM = ConvAP"."""
    order = sorted(recalls, key=recalls.__getitem__)
    signs = [" = " if recalls[first] == recalls[second] else " < " for first, second in pairwise(order)]
    return "".join(part for pair in zip(order, [*signs, ""], strict=True) for part in pair)
