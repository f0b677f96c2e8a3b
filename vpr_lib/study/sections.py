"""Runs of the study -> sections of the report: each one evaluates runs, draws figures and states the results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, Example, choose_examples, name_outcomes, read_example
from vpr_lib.analysis.scenarios import LIGHTS, SCENARIOS, Label, label_lights, label_scenarios
from vpr_lib.data_roots import DataRoot
from vpr_lib.evaluation import Comparison, Evaluation, compare_evaluations, evaluate_all
from vpr_lib.figures.html_page import Block, Details, Picture, Section, Table
from vpr_lib.figures.photo_grids import draw_examples
from vpr_lib.figures.plots import plot_bars, plot_grids, plot_losses, plot_recalls, plot_schedules, save_figure
from vpr_lib.figures.tables import comparison_rows, label_rows, list_differences
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings
from vpr_lib.statistics import group_cells, recall_by_label
from vpr_lib.study.experiments import count_steps, learning_rates
from vpr_lib.study.published import GRID, LOSSES, OPTIMIZERS, PUBLISHED_KS, published_rows

SHOWN = ("MixVPR", "ConvAP")  # the models of Fig. 4 and 5


@dataclass(frozen=True)
class StudyData:
    """What the sections are made from."""

    base: Settings  # what the study varies
    data_root: DataRoot
    out: Path  # folder of the page and its figures
    machine: Machine
    labels: Mapping[str, Label]  # {file name of a query: label}, see `read_labels`

    @property
    def val_splits(self) -> list[str]:
        """Validation splits; settings are compared on the first one."""
        return self.data_root.list_validation_splits(self.base.val_splits)

    @property
    def splits(self) -> list[str]:
        """All splits, validation splits first as in the published tables."""
        return list(dict.fromkeys([*self.val_splits, *self.data_root.splits]))

    def evaluate(self, runs: Mapping[str, Run], split: str) -> dict[str, Evaluation]:
        """Evaluate runs on a split; saved predictions are read."""
        return evaluate_all(runs, self.data_root, split, self.machine)

    def compare(self, runs: Mapping[str, Run], split: str) -> dict[str, Comparison]:
        """Compare runs on a split."""
        return compare_evaluations(self.evaluate(runs, split))

    def save_picture(self, name: str, figure: Figure, alt: str, caption: str) -> Picture:
        """Write a figure into the page's folder."""
        return Picture(save_figure(figure, self.out / f"{name}.png"), alt, caption)


def make_recall_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Fig. 1: recall of the aggregators on each split, in tables and against k."""
    comparisons = {split: data.compare(runs, split) for split in data.splits}
    recalls = {split: {name: c.recall for name, c in by_run.items()} for split, by_run in comparisons.items()}
    alt = f"Lines: recall against k of {', '.join(runs)}, a panel for each of {', '.join(data.splits)}."
    blocks: list[Block] = [
        Table(published_rows(comparisons), "Fig. 1, ours beside the published"),
        data.save_picture("fig1_recall", plot_recalls(recalls), alt, "Recall against k, one seed."),
    ]
    for split, by_run in comparisons.items():
        blocks += _list_comparisons(by_run, split, split)
    return Section("Fig. 1: aggregators", blocks)


def make_grid_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Fig. 2: learning rate x weight decay."""
    val = data.val_splits[0]
    comparisons = data.compare(runs, val)
    ours = {}
    for label, run in runs.items():
        recall = {k: percent for k, percent in comparisons[label].recall.items() if k in PUBLISHED_KS}
        ours[run.settings.lr, run.settings.weight_decay] = recall
    cells = "; ".join(f"{label}: R@1 {comparison.recall[1]:.1f}" for label, comparison in comparisons.items())
    picture = data.save_picture(
        "fig2_grid",
        plot_grids({f"ours, {val}": ours, "published, sf_val": GRID}),
        f"Two heat maps of recall over learning rate and weight decay. Ours: {cells}.",
        "ConvAP with AdamW on the validation split; each panel has its own color scale.",
    )
    tested = _list_comparisons(comparisons, val, f"ConvAP, learning rate and weight decay on {val}")
    return Section("Fig. 2: learning rate and weight decay", [picture, *tested])


def make_optimizer_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Fig. 3: optimizers."""
    val = data.val_splits[0]
    comparisons = data.compare(runs, val)
    ours = {val: {label: comparison.recall for label, comparison in comparisons.items()}}
    rates = ", ".join(
        f"{label} lr {run.settings.lr:g} weight decay {run.settings.weight_decay:g}" for label, run in runs.items()
    )
    picture = data.save_picture(
        "fig3_optimizers",
        plot_recalls(ours, {val: OPTIMIZERS}),
        f"Lines: recall of MixVPR against k on {val} with {', '.join(runs)}; published curves thin and dashed.",
        f"MixVPR on the validation split: {rates}. Dashed: published on sf_val, read off its plot.",
    )
    return Section(
        "Fig. 3: optimizers", [picture, *_list_comparisons(comparisons, val, f"MixVPR, optimizers on {val}")]
    )


def make_loss_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Fig. 4: training losses."""
    losses = {name: [row["loss"] for row in runs[name].history] for name in SHOWN}
    alt = f"Lines: training loss of {' and '.join(SHOWN)} after each epoch, ours solid, the published dashed."
    caption = "Mean training loss of each epoch; dashed: published, read off its plot."
    picture = data.save_picture("fig4_loss", plot_losses(losses, LOSSES), alt, caption)
    return Section("Fig. 4: training loss", [picture])


def make_scheduler_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Learning rate of each step and validation recall of each epoch, for each scheduler."""
    val = data.val_splits[0]
    comparisons = data.compare(runs, val)
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
    return Section("Schedulers", [picture, *_list_comparisons(comparisons, val, f"MixVPR, schedulers on {val}")])


def make_scenario_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Recall of each scenario and of each light, for every split with labelled queries; no block if there is none."""
    blocks: list[Block] = []
    for split in data.splits:
        names = data.data_root.read_split(split).queries.names
        scenarios = label_scenarios(names, data.labels)
        lights = label_lights(names, data.labels)
        has_lights = bool((lights != "").any())
        # Where queries differ in their light only, as in tokyo_test, the scenarios add nothing to the lights.
        if (scenarios != "").any() and not (has_lights and set(scenarios) <= {"", "ordinary", "illumination"}):
            blocks += _list_label_recalls(data, runs, split, "scenario", scenarios, SCENARIOS)
        if has_lights:
            others = sorted(set(lights) - set(LIGHTS) - {""})
            titles = {light: light for light in (*LIGHTS, *others)}
            blocks += _list_label_recalls(data, runs, split, "light", lights, titles)
    return Section("Recall of each scenario", blocks)


def make_example_section(data: StudyData, runs: Mapping[str, Run]) -> Section:
    """Fig. 5: queries with the models' first photos, by scenario, or by outcome if no scenario is known."""
    title = "Fig. 5: first predictions"
    splits = [split for split in data.splits if split not in data.val_splits] or data.splits
    shown = {model: runs[model] for model in SHOWN}
    rows = _choose_rows(data, {split: data.evaluate(shown, split) for split in splits})
    if not rows:
        return Section(title)
    by_scenario = not set(rows).isdisjoint(SCENARIOS.values())
    kind = "scenario" if by_scenario else "outcome (this data root names no scenarios)"
    caption = (
        f"Two queries of each {kind}, with the first photo of {' and of '.join(SHOWN)}. ✓ and a green frame: "
        f"within {data.base.radius_m:g} m of the query; ✗ and a red frame: farther away, with the distance. Queries "
        "are chosen in the order of a hash of their names: first one on which the two models differ, if there is one, "
        "whichever is right; then the next. So the models differ more often here than in the whole split. Fail cases: "
        "queries that both models miss. Queries without a positive are left out."
    )
    alt = "Photos: " + ". ".join(
        f"{row}: {'; '.join(map(_describe_example, examples))}" for row, examples in rows.items()
    )
    names = [f"{row}: {example.split}/{example.name}" for row, examples in rows.items() for example in examples]
    picture = data.save_picture("fig5_examples", draw_examples(rows), alt, caption)
    return Section(title, [picture, Details("Names of the queries", names)])


MakeSection = Callable[[StudyData, Mapping[str, Run]], Section]

# The page's sections in order, each with the part of the study whose runs it shows.
PAGE: list[tuple[str, MakeSection]] = [
    ("aggregators", make_recall_section),
    ("grid", make_grid_section),
    ("optimizers", make_optimizer_section),
    ("aggregators", make_loss_section),
    ("schedulers", make_scheduler_section),
    ("aggregators", make_scenario_section),
    ("aggregators", make_example_section),
]


def _list_comparisons(comparisons: Mapping[str, Comparison], split: str, title: str) -> list[Block]:
    """A table with paired tests, and which differences are significant."""
    sentences = list_differences(comparisons, split)
    return [Table(comparison_rows({split: comparisons}), title), " ".join(sentences)]


def _list_label_recalls(
    data: StudyData, runs: Mapping[str, Run], split: str, kind: str, labels: np.ndarray, titles: Mapping[str, str]
) -> list[Block]:
    """Bars and a table of R@1 for each kind of query."""
    recalls = {
        name: recall_by_label(evaluation.hits, labels, group_cells(evaluation.query_utm))
        for name, evaluation in data.evaluate(runs, split).items()
    }
    title = f"{split}, by {kind}"
    alt = f"Bars with 95% intervals: R@1 on {title}, of {', '.join(runs)}."
    caption = f"R@1 on {title}; n queries each, lines are 95% intervals."
    if num_others := int((labels == "").sum()):
        caption += f" {num_others} of the {len(labels)} queries have another label or none."
    name = f"{kind}_{split}".replace("/", "-")
    picture = data.save_picture(name, plot_bars(recalls, titles, split), alt, caption)
    return [picture, Table(label_rows(recalls, titles), title)]


def _choose_rows(data: StudyData, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, list[Example]]:
    """The rows of Fig. 5, {title: examples}, from {split: {model: evaluation}}."""
    candidates: list[tuple[str, int]] = []  # split and row
    names: list[str] = []
    labels: list[str] = []
    rights: list[list[bool]] = []
    for split, by_model in evaluations.items():
        queries = data.data_root.read_split(split).queries
        findable = [row for row, positives in enumerate(by_model[SHOWN[0]].positives) if len(positives)]
        candidates += [(split, row) for row in findable]
        names += [f"{split}/{queries.names[row]}" for row in findable]
        labels += label_scenarios(queries.names, data.labels)[findable].tolist()
        rights += np.stack([by_model[model].hits for model in SHOWN], axis=1)[findable].tolist()
    if not candidates:
        return {}
    titles = SCENARIOS
    if not any(labels):
        labels = name_outcomes(SHOWN, np.array(rights)).tolist()
        titles = {outcome: outcome for outcome in (*(f"Only {model} right" for model in SHOWN), "Both right")}
    chosen = choose_examples(names, labels, np.array(rights))
    rows: dict[str, list[Example]] = {}
    for label, title in (titles | {FAIL_CASES: FAIL_CASES}).items():
        for split, row in (candidates[i] for i in chosen.get(label, [])):
            example = read_example(row, *data.data_root.read_split(split), evaluations[split])
            rows.setdefault(title, []).append(example)
    return rows


def _describe_example(example: Example) -> str:
    return ", ".join(f"{model} {'right' if match.right else 'wrong'}" for model, match in example.matches.items())
