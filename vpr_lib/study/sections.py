"""Runs of the study -> sections of the report: evaluates, draws, and says what may be concluded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vpr_lib.analysis.examples import FAIL_CASES, Example, choose_examples, name_outcomes, read_example
from vpr_lib.analysis.scenarios import LIGHTS, SCENARIOS, Label, label_lights, label_scenarios
from vpr_lib.evaluation import Evaluation, compare_evaluations, evaluate_run
from vpr_lib.figures.html_page import Block, Details, Picture, Section, Table, Text
from vpr_lib.figures.photo_grids import show_examples
from vpr_lib.figures.plots import plot_bars, plot_grids, plot_losses, plot_recalls, plot_schedules, save_figure
from vpr_lib.figures.tables import (
    Rows,
    comparison_rows,
    describe_differences,
    format_markdown,
    label_rows,
)
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run
from vpr_lib.settings import Settings
from vpr_lib.statistics import group_cells, recall_by_label
from vpr_lib.study.experiments import count_steps, learning_rates
from vpr_lib.study.published import GRID, LOSSES, OPTIMIZERS, PUBLISHED_KS, published_rows

SHOWN = ("MixVPR", "ConvAP")  # the models of Fig. 4 and 5

Evaluations = dict[str, dict[str, Evaluation]]  # run -> split -> what it found


@dataclass
class Report:
    """What a report is about, and what of it stands so far."""

    base: Settings
    data_root: Path
    out: Path
    machine: Machine
    splits: dict[str, tuple[ImageTable, ImageTable]]  # database and queries
    val_splits: list[str]  # the first one chooses
    train: ImageTable
    labels: dict[str, Label]
    sections: dict[int, Section] = field(default_factory=dict)  # by their place on the page
    printed: list[str] = field(default_factory=list)  # tables as Markdown, for the end

    def draw(self, name: str, figure: Figure, alt: str, caption: str) -> Picture:
        """Write a figure and say where."""
        path = save_figure(figure, self.out / f"{name}.png")
        print(f"figure: {path}", flush=True)
        return Picture(path, alt, caption)

    def tabulate(self, title: str, rows: Rows, caption: str = "") -> Table:
        """A table for the page; it is printed at the end, too."""
        self.printed.append(f"{title}\n\n{format_markdown(rows)}\n")
        return Table(rows, caption)

    def evaluate(self, runs: Mapping[str, Run], splits: Sequence[str]) -> Evaluations:
        """What each run finds on splits."""
        return {
            name: {split: evaluate_run(run, self.data_root, split, self.machine) for split in splits}
            for name, run in runs.items()
        }

    def test(self, runs: Mapping[str, Run], what: str) -> tuple[Evaluations, list[Block]]:
        """Evaluations on the validation split; a table with paired tests, and what may be called a difference."""
        val = self.val_splits[0]
        evaluations = self.evaluate(runs, [val])
        results = compare_evaluations(evaluations)
        table = self.tabulate(f"{what} on {val}", comparison_rows(results, [val]))
        return evaluations, [table, Text(" ".join(describe_differences(results, val)))]


def report_aggregators(report: Report, runs: Mapping[str, Run]) -> None:
    """Fig. 1, 4 and 5, and recall of each scenario."""
    evaluations = report.evaluate(runs, list(report.splits))
    report_recalls(report, evaluations)
    report_losses(report, runs)
    report_scenarios(report, evaluations)
    report_examples(report, evaluations)


def report_recalls(report: Report, evaluations: Evaluations) -> None:
    """Fig. 1: tables and recall against k, for each split."""
    results = compare_evaluations(evaluations)
    rows = published_rows(results, list(report.splits))
    blocks: list[Block] = [report.tabulate("Fig. 1, ours beside the published", rows)]
    recalls = {split: {name: found[split].recall for name, found in evaluations.items()} for split in report.splits}
    alt = f"Lines: recall against k of {', '.join(evaluations)}, a panel for each of {', '.join(report.splits)}."
    blocks.append(report.draw("fig1_recall", plot_recalls(recalls), alt, "Recall against k, one seed."))
    for split in report.splits:
        blocks.append(report.tabulate(split, comparison_rows(results, [split])))
        blocks.append(Text(" ".join(describe_differences(results, split))))
    report.sections[1] = Section("Fig. 1: aggregators", blocks)


def report_losses(report: Report, runs: Mapping[str, Run]) -> None:
    """Fig. 4: training losses."""
    losses = {name: [row["loss"] for row in runs[name].history] for name in SHOWN}
    alt = f"Lines: training loss of {' and '.join(SHOWN)} after each epoch, ours solid, the published dashed."
    caption = "Mean training loss of each epoch; dashed: published, read off its plot."
    picture = report.draw("fig4_loss", plot_losses(losses, LOSSES), alt, caption)
    report.sections[4] = Section("Fig. 4: training loss", [picture])


def report_grid(report: Report, runs: Mapping[str, Run]) -> None:
    """Fig. 2: learning rate x weight decay."""
    evaluations, tested = report.test(runs, "ConvAP, learning rate and weight decay")
    val = report.val_splits[0]
    ours = {
        (run.settings.lr, run.settings.weight_decay): {
            k: percent for k, percent in evaluations[label][val].recall.items() if k in PUBLISHED_KS
        }
        for label, run in runs.items()
    }
    figure = plot_grids({f"ours, {val}": ours, "published, sf_val": GRID})
    cells = "; ".join(f"{label}: R@1 {found[val].recall[1]:.1f}" for label, found in evaluations.items())
    alt = f"Two heat maps of recall over learning rate and weight decay. Ours: {cells}."
    caption = "ConvAP with AdamW on the validation split; each panel has a colour scale of its own."
    report.sections[2] = Section(
        "Fig. 2: learning rate and weight decay", [report.draw("fig2_grid", figure, alt, caption), *tested]
    )


def report_optimizers(report: Report, runs: Mapping[str, Run]) -> None:
    """Fig. 3: optimizers."""
    evaluations, tested = report.test(runs, "MixVPR, optimizers")
    val = report.val_splits[0]
    ours = {val: {label: found[val].recall for label, found in evaluations.items()}}
    figure = plot_recalls(ours, {val: OPTIMIZERS})
    alt = f"Lines: recall of MixVPR against k on {val} with {', '.join(runs)}; published curves thin and dashed."
    rates = ", ".join(f"{k} lr {r.settings.lr:g} weight decay {r.settings.weight_decay:g}" for k, r in runs.items())
    caption = f"MixVPR on the validation split: {rates}. Dashed: published on sf_val, read off its plot."
    picture = report.draw("fig3_optimizers", figure, alt, caption)
    report.sections[3] = Section("Fig. 3: optimizers", [picture, *tested])


def report_schedulers(report: Report, runs: Mapping[str, Run]) -> None:
    """Learning rates as used, and validation recall of each epoch."""
    _, tested = report.test(runs, "MixVPR, schedulers")
    val, steps = report.val_splits[0], count_steps(report.base, report.train)[0]
    rates = {label: learning_rates(run, steps) for label, run in runs.items()}
    recalls = {label: [row[f"{val} R@1"] for row in run.history] for label, run in runs.items()}
    alt = f"Left: learning rate of each step with {', '.join(runs)}. Right: R@1 on {val} after each epoch."
    caption = (
        f"MixVPR. Left: the rate of each optimizer step ({steps} an epoch), warm-up over {report.base.warmup_steps} "
        f"steps included. Right: R@1 on {val} after each epoch; ReduceLROnPlateau sees it, so for it the split is no "
        "judge."
    )
    picture = report.draw("schedulers", plot_schedules(rates, recalls, steps, val), alt, caption)
    report.sections[5] = Section("Schedulers", [picture, *tested])


def report_scenarios(report: Report, evaluations: Evaluations) -> None:
    """Recall of each scenario and each light, for every split with labelled queries."""
    blocks: list[Block] = []
    for split, (_, queries) in report.splits.items():
        found = {name: by_split[split] for name, by_split in evaluations.items()}
        lights = label_lights(queries.names, report.labels)
        others = sorted(set(lights) - set(LIGHTS) - {""})
        kinds = (
            ("scenario", label_scenarios(queries.names, report.labels), SCENARIOS),
            ("light", lights, {light: light for light in (*LIGHTS, *others)}),
        )
        for kind, labels, titles in kinds:
            # Where queries differ in nothing but their light, as in tokyo_test, scenarios say less than lights.
            only_light = kind == "scenario" and set(labels) <= {"", "ordinary", "illumination"} and (lights != "").any()
            if (labels != "").any() and not only_light:
                blocks += show_kinds(report, f"{kind}_{split}", f"{split}, by {kind}", found, labels, titles)
    if blocks:
        report.sections[6] = Section("Recall of each scenario", blocks)


def show_kinds(
    report: Report,
    name: str,
    title: str,
    found: Mapping[str, Evaluation],
    labels: np.ndarray,
    titles: Mapping[str, str],
) -> list[Block]:
    """Bars and a table of R@1 for each kind of query."""
    by_run = {run: recall_by_label(e.hits, labels, group_cells(e.query_utm)) for run, e in found.items()}
    split = next(iter(found.values())).split
    missing = int((labels == "").sum())
    note = f" {missing} of the {len(labels)} queries are labelled otherwise or not at all." if missing else ""
    alt = f"Bars with 95% intervals: R@1 on {title}, of {', '.join(found)}."
    caption = f"R@1 on {title}; n queries each, lines are 95% intervals.{note}"
    figure = plot_bars(by_run, titles, split)
    return [
        report.draw(name.replace("/", "-"), figure, alt, caption),
        report.tabulate(title, label_rows(by_run, titles)),
    ]


def report_examples(report: Report, evaluations: Evaluations) -> None:
    """Fig. 5: queries of each scenario with the models' first photos; of each outcome where no scenario is known."""
    places, labels, rights = list_candidates(report, evaluations)
    if not places:
        return
    by_scenario = any(labels)
    outcomes = name_outcomes(SHOWN, rights)
    chosen = choose_examples(["/".join(p[:2]) for p in places], labels if by_scenario else list(outcomes), rights)
    order = [*SCENARIOS] if by_scenario else [f"Only {model} right" for model in SHOWN] + ["Both right"]
    rows = {}
    for label in (*order, FAIL_CASES):
        for i in chosen.get(label, []):
            split, _, row = places[i]
            found = {model: evaluations[model][split] for model in SHOWN}
            example = read_example(row, *report.splits[split], found)
            rows.setdefault(SCENARIOS.get(label, label), []).append(example)
    kind = "scenario" if by_scenario else "outcome (this data root names no scenarios)"
    caption = (
        f"Two queries of each {kind}, each with the first photo of {' and of '.join(SHOWN)}: ✓ and a green frame "
        f"within {report.base.radius_m:g} m of the query, ✗ and a red one beyond, with the distance. Queries are taken "
        "in the order of a hash of their names, not by eye: first one on which the two models differ, if there is one, "
        "whichever is right; then the next. So models differ more often here than they do in the whole split. Fail "
        "cases: queries both models miss. Queries without a positive are left out."
    )
    alt = "Photos: " + ". ".join(f"{title}: {'; '.join(describe_example(e) for e in es)}" for title, es in rows.items())
    names = [f"{title}: {e.split}/{e.name}" for title, examples in rows.items() for e in examples]
    picture = report.draw("fig5_examples", show_examples(rows), alt, caption)
    report.sections[7] = Section("Fig. 5: what the models find", [picture, Details("The queries' names", names)])


def list_candidates(
    report: Report, evaluations: Evaluations
) -> tuple[list[tuple[str, str, int]], list[str], np.ndarray]:
    """Queries to choose from: those with a positive, of the test splits, or of all splits where there is no other.

    Returns:
        C (split, name, row), C scenario ids ("" where unknown), (C, 2) bool whether each of `SHOWN` is right.
    """
    splits = [split for split in report.splits if split not in report.val_splits] or list(report.splits)
    places, labels, rights = [], [], []
    for split in splits:
        names = report.splits[split][1].names
        found = [evaluations[model][split] for model in SHOWN]
        for row, label in enumerate(label_scenarios(names, report.labels)):
            if len(found[0].positives[row]):
                places.append((split, names[row], row))
                labels.append(str(label))
                rights.append([bool(e.hits[row]) for e in found])
    return places, labels, np.array(rights, dtype=bool).reshape(-1, len(SHOWN))


def describe_example(example: Example) -> str:
    """Which models are right on an example, in words."""
    return ", ".join(f"{model} {'right' if m.right else 'wrong'}" for model, m in example.matches.items())


PARTS: dict[str, Callable[[Report, Mapping[str, Run]], None]] = {
    "aggregators": report_aggregators,
    "grid": report_grid,
    "optimizers": report_optimizers,
    "schedulers": report_schedulers,
}
