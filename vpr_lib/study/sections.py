"""Runs of the study -> sections of the report: each one evaluates runs, draws figures and states the results."""

from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, Example, choose_examples, name_outcomes, read_example
from vpr_lib.analysis.scenarios import LIGHTS, SCENARIOS, Label, label_lights, label_scenarios
from vpr_lib.data_roots import DataRoot
from vpr_lib.evaluation import Comparison, Evaluation, compare_evaluations, evaluate_all
from vpr_lib.figures.html_page import Block, Details, Picture, Table
from vpr_lib.figures.photo_grids import draw_examples
from vpr_lib.figures.plots import plot_bars, plot_grids, plot_losses, plot_recalls, plot_schedules, save_figure
from vpr_lib.figures.tables import ALPHA, comparison_rows, label_rows, list_differences
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings
from vpr_lib.statistics import LabelRecall, group_cells, paired_test, recall_by_label
from vpr_lib.study.experiments import count_steps, learning_rates
from vpr_lib.study.published import GRID, LOSSES, OPTIMIZERS, PUBLISHED_KS

SHOWN = ("MixVPR", "ConvAP")  # the models of Fig. 4 and 5
MIN_QUERIES = 10  # recall of fewer queries is not plotted: each of them would move a point by more than 10 points


class StudyData(NamedTuple):
    """What the sections are made from."""

    base: Settings  # what the study varies
    data_root: DataRoot
    out: Path  # folder of the page and its figures
    machine: Machine
    labels: Mapping[str, Label]  # {file name of a query: label}, see `read_labels`
    val_splits: list[str]  # settings are compared on the first one
    splits: list[str]  # all of them, validation splits first as in the published tables

    def evaluate(self, runs: Mapping[str, Run], split: str) -> dict[str, Evaluation]:
        """Evaluate runs on a split; saved predictions are read."""
        return evaluate_all(runs, self.data_root, split, self.machine)

    def explain_no_plot(self, split: str) -> str:
        """Why recall on a split is not plotted; "" if it has enough queries."""
        number = len(self.data_root.read_split(split).queries)
        share = f"each of them is {100 / number:.0f} points of recall"
        return f"{split} has {number} queries, too few for a plot: {share}." if number < MIN_QUERIES else ""

    def save_picture(self, name: str, figure: Figure, alt: str, caption: str) -> Picture:
        """Write a figure into the page's folder and print its path."""
        path = save_figure(figure, self.out / f"{name}.png")
        print(f"figure: {path}", flush=True)
        return Picture(path, alt, caption)


def _test_aggregators(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    """The tests of Fig. 1, whose table and curves begin the page."""
    blocks: list[Block] = []
    for split in data.splits:
        blocks += _list_comparisons(compare_evaluations(data.evaluate(runs, split)), split, split)
    return blocks


def _show_grid(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    val = data.val_splits[0]
    evaluations = data.evaluate(runs, val)
    tests = _compare_cells(runs, evaluations, val)
    if reason := data.explain_no_plot(val):
        return [reason, *tests]
    ours = {}
    for run, evaluation in zip(runs.values(), evaluations.values(), strict=True):
        recall = {k: percent for k, percent in evaluation.recall.items() if k in PUBLISHED_KS}
        ours[run.settings.lr, run.settings.weight_decay] = recall
    cells = "; ".join(f"{label}: R@1 {evaluation.recall[1]:.1f}" for label, evaluation in evaluations.items())
    picture = data.save_picture(
        "fig2_grid",
        plot_grids({f"ours, {val}": ours, "published, sf_val": GRID}),
        f"Two heat maps of recall over learning rate and weight decay. Ours: {cells}.",
        "ConvAP with AdamW on the validation split; each panel has its own color scale.",
    )
    return [picture, *tests]


def _compare_cells(runs: Mapping[str, Run], evaluations: Mapping[str, Evaluation], val: str) -> list[Block]:
    """Paired tests of those cells of Fig. 2 that differ in the learning rate only, or in the weight decay only."""
    rows, significant = [["changed", "at", f"R@1 on {val}", "points", "p"]], []
    factors = {"learning rate": "lr", "weight decay": "weight_decay"}
    cells = {
        label: {title: getattr(run.settings, key) for title, key in factors.items()} for label, run in runs.items()
    }
    for factor, other in (list(factors), list(factors)[::-1]):
        for first, second in combinations(cells, 2):
            if cells[first][other] != cells[second][other]:
                continue
            before, after = evaluations[first], evaluations[second]
            row = [
                f"{factor} {cells[first][factor]:g} to {cells[second][factor]:g}",
                f"{other} {cells[first][other]:g}",
            ]
            row += [f"{before.recall[1]:.1f} to {after.recall[1]:.1f}", f"{after.recall[1] - before.recall[1]:+.1f}"]
            p_value = paired_test(before.hits, after.hits)
            rows.append([*row, f"{p_value:.2g}"])
            significant += [f"{row[0]} at {row[1]}"] if p_value < ALPHA else []
    found = f"Significant: {'; '.join(significant)}." if significant else "None of the differences is significant."
    caption = f"ConvAP on {val}: cells that differ in one factor"
    return [Table(rows, caption), f"{found} Cells that differ in both factors are not compared."]


def _show_optimizers(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    val = data.val_splits[0]
    comparisons = compare_evaluations(data.evaluate(runs, val))
    tests = _list_comparisons(comparisons, val, f"MixVPR, optimizers on {val}")
    if reason := data.explain_no_plot(val):
        return [reason, *tests]
    settings = {label: run.settings for label, run in runs.items()}
    rates = ", ".join(f"{label} lr {own.lr:g} weight decay {own.weight_decay:g}" for label, own in settings.items())
    picture = data.save_picture(
        "fig3_optimizers",
        plot_recalls({val: {label: row.recall for label, row in comparisons.items()}}, {val: OPTIMIZERS}),
        f"Lines: recall of MixVPR against k on {val} with {', '.join(runs)}; published curves thin and dashed.",
        f"MixVPR on the validation split: {rates}. Dashed: published on sf_val, read off its plot.",
    )
    return [picture, *tests]


def _show_losses(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    losses = {name: [row["loss"] for row in runs[name].history] for name in SHOWN}
    alt = f"Lines: training loss of {' and '.join(SHOWN)} after each epoch, ours solid, the published dashed."
    caption = "Mean training loss of each epoch; dashed: published, read off its plot."
    return [data.save_picture("fig4_loss", plot_losses(losses, LOSSES), alt, caption)]


def _show_schedules(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    val = data.val_splits[0]
    comparisons = compare_evaluations(data.evaluate(runs, val))
    tests = _list_comparisons(comparisons, val, f"MixVPR, schedulers on {val}")
    if reason := data.explain_no_plot(val):
        return [reason, *tests]
    steps = count_steps(data.base, data.data_root.train).steps
    rates = {label: learning_rates(run, steps) for label, run in runs.items()}
    recalls = {label: [row[f"{val} R@1"] for row in run.history] for label, run in runs.items()}
    picture = data.save_picture(
        "schedulers",
        plot_schedules(rates, recalls, steps, val),
        f"Left: learning rate of each step with {', '.join(runs)}. Right: R@1 on {val} after each epoch.",
        f"MixVPR. Left: learning rate of each optimizer step ({steps} per epoch), including the warm-up of "
        f"{data.base.warmup_steps} steps. Right: R@1 on {val} after each epoch. ReduceLROnPlateau uses this R@1 in "
        "training, so its result on the split is biased.",
    )
    return [picture, *tests]


def _show_scenarios(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    """Bars and a table of R@1 for each scenario and for each light, for every split with labeled queries."""
    blocks: list[Block] = []
    for split in data.splits:
        names = data.data_root.read_split(split).queries.names
        scenarios = label_scenarios(names, data.labels)
        lights = label_lights(names, data.labels)
        kinds = {}  # {kind: (label of each query, titles)}
        # Where queries differ in their light only, as in tokyo_test, the scenarios add nothing to the lights.
        redundant = {"", "ordinary", "illumination"} if any(lights) else {""}
        if not set(scenarios) <= redundant:
            kinds["scenario"] = scenarios, SCENARIOS
        if any(lights):
            kinds["light"] = lights, {light: light for light in [*LIGHTS, *sorted(set(lights) - {*LIGHTS, ""})]}
        for kind, (labels, titles) in kinds.items():
            recalls = {
                name: recall_by_label(evaluation.hits, labels, group_cells(evaluation.query_utm))
                for name, evaluation in data.evaluate(runs, split).items()
            }
            blocks.append(_draw_bars(data, recalls, titles, split, kind))
            blocks.append(Table(label_rows(recalls, titles), f"{split}, by {kind}"))
    return blocks


def _draw_bars(
    data: StudyData, recalls: Mapping[str, Mapping[str, LabelRecall]], titles: Mapping[str, str], split: str, kind: str
) -> Block:
    """Bars of R@1 for each scenario or light that enough queries have, or a sentence if there is none."""
    counts = {label: recall.num_queries for label, recall in next(iter(recalls.values())).items()}
    enough = [label for label in titles if counts.get(label, 0) >= MIN_QUERIES]
    if not enough:
        return f"No {kind} has {MIN_QUERIES} or more queries on {split}, too few for a plot."
    caption = f"R@1 on {split}, by {kind}; n queries each, lines are 95% intervals."
    number = len(data.data_root.read_split(split).queries)
    if num_others := number - sum(counts[label] for label in enough):
        caption += f" The other {num_others} queries have no label, or one that fewer than {MIN_QUERIES} of them have."
    alt = f"Bars with 95% intervals: R@1 on {split}, by {kind}, of {', '.join(recalls)}."
    figure = plot_bars(recalls, {label: titles[label] for label in enough}, split)
    return data.save_picture(f"{kind}_{split}".replace("/", "-"), figure, alt, caption)


def _show_examples(data: StudyData, runs: Mapping[str, Run]) -> list[Block]:
    """Queries with the models' first photos, by scenario, or by outcome if no scenario is known."""
    rows = _choose_rows(data, runs)
    if not rows:
        return []
    by_scenario = not set(rows).isdisjoint(SCENARIOS.values())
    kind = "scenario" if by_scenario else "outcome (this data root names no scenarios)"
    caption = (
        f"Two queries of each {kind}, with the first photo of {' and of '.join(SHOWN)}. ✓ and a green frame: "
        f"within {data.base.radius_m:g} m of the query; ✗ and a red frame: farther away, with the distance. Queries "
        "are chosen in the order of a hash of their names: first one on which the two models differ, if there is one, "
        "whichever is right; then the next. So the models differ more often here than in the whole split. Fail cases: "
        "queries that both models miss. Queries without a positive are left out."
    )
    alt = "Photos: " + ". ".join(f"{row}: {'; '.join(map(_name_outcome, examples))}" for row, examples in rows.items())
    names = [f"{row}: {example.split}/{example.name}" for row, examples in rows.items() for example in examples]
    picture = data.save_picture("fig5_examples", draw_examples(rows), alt, caption)
    return [picture, Details("Names of the queries", names)]


# The page's sections in order: {title: (the part of the study whose runs it shows, the function that makes it)}.
SECTIONS: dict[str, tuple[str, Callable[[StudyData, Mapping[str, Run]], list[Block]]]] = {
    "Fig. 1: aggregators, tested": ("aggregators", _test_aggregators),
    "Fig. 2: learning rate and weight decay": ("grid", _show_grid),
    "Fig. 3: optimizers": ("optimizers", _show_optimizers),
    "Fig. 4: training loss": ("aggregators", _show_losses),
    "Schedulers": ("schedulers", _show_schedules),
    "Recall of each scenario": ("aggregators", _show_scenarios),
    "Fig. 5: first predictions": ("aggregators", _show_examples),
}


def _list_comparisons(comparisons: Mapping[str, Comparison], split: str, title: str) -> list[Block]:
    """A table with paired tests, and which differences are significant."""
    return [Table(comparison_rows({split: comparisons}), title), " ".join(list_differences(comparisons, split))]


def _choose_rows(data: StudyData, runs: Mapping[str, Run]) -> dict[str, list[Example]]:
    """The rows of Fig. 5, {title: examples}, from all test splits, or from all splits if there is no test split."""
    splits = [split for split in data.splits if split not in data.val_splits] or data.splits
    evaluations = {split: data.evaluate({model: runs[model] for model in SHOWN}, split) for split in splits}
    candidates = []
    for split, by_model in evaluations.items():
        names = data.data_root.read_split(split).queries.names
        scenarios = label_scenarios(names, data.labels)
        rights = np.stack([evaluation.hits for evaluation in by_model.values()], axis=1)
        for row, positives in enumerate(by_model[SHOWN[0]].positives):
            if len(positives):
                candidates.append((split, row, f"{split}/{names[row]}", scenarios[row], rights[row]))
    if not candidates:
        return {}
    splits, rows, names, labels, rights = zip(*candidates, strict=True)
    if not any(labels):
        labels = name_outcomes(SHOWN, rights)
    examples = {
        label: [read_example(rows[i], *data.data_root.read_split(splits[i]), evaluations[splits[i]]) for i in indices]
        for label, indices in choose_examples(names, labels, np.array(rights)).items()
    }
    order = [*SCENARIOS, *(f"Only {model} right" for model in SHOWN), "Both right", FAIL_CASES]
    return {SCENARIOS.get(label, label): examples[label] for label in order if label in examples}


def _name_outcome(example: Example) -> str:
    return ", ".join(f"{model} {'right' if match.right else 'wrong'}" for model, match in example.matches.items())
