"""Runs and a split -> the gallery: looking, in a notebook, at what models find.

    from vpr_lib.gallery import open_gallery

    open_gallery({"MixVPR": run_a, "ConvAP": run_b}, "data/mini", "sf_test")

A fixed number of widgets is made once; photos are pictures inside one HTML widget, so a split may be large. Arrow keys
step through the queries while the slider has the focus: a slider does that by itself in JupyterLab, Colab and the
classic notebook, so no extension is needed.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from vpr_lib.analysis.scenarios import SCENARIOS, read_labels
from vpr_lib.analysis.suggestions import suggest_scenarios
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import read_predictions
from vpr_lib.figures.plots import save_figure
from vpr_lib.gallery.browser import Browser, View, read_view
from vpr_lib.gallery.drawing import draw_queries, draw_scenarios
from vpr_lib.gallery.export import write_gallery_page
from vpr_lib.gallery.panels import OwnPhotoPanel, RecallPanel, SavePanel, make_button, make_controls, make_row, wrap
from vpr_lib.gallery.regions import render_regions
from vpr_lib.gallery.rendering import (
    LEGEND,
    read_style,
    render_query,
    render_suggestions,
    render_summary,
    render_warning,
)
from vpr_lib.gallery.tags import Tags
from vpr_lib.gallery.thumbnails import Thumbnails
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run, open_run


def open_gallery(
    runs: Mapping[str, Run | str | Path],
    data_root: str | Path,
    split: str,
    state: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    reports_dir: str | Path = "reports",
) -> "Gallery":
    """The gallery of one or two runs; make it the last value of a cell.

    Args:
        runs: {name: run or its folder}, evaluated on the split (`runs.evaluate_run`).
        data_root: folder with the split.
        split: its name.
        state: where to go on, `gallery.state` of an earlier session.
        machine: device, for one's own photos.
        reports_dir: where pictures and pages are saved unless another path is given.

    Raises:
        FileNotFoundError: a run wasn't evaluated on the split (the message says how), or a folder isn't there.
        ValueError: not one or two runs, or their radii differ.
    """
    runs = {name: run if isinstance(run, Run) else open_run(run) for name, run in runs.items()}
    if len({run.settings.radius_m for run in runs.values()}) > 1:
        radii = ", ".join(f"{name} {run.settings.radius_m:g} m" for name, run in runs.items())
        raise ValueError(f"the runs call photos right within different radii: {radii}; show them one at a time")
    database, queries = read_split(data_root, split)
    found = {name: read_predictions(run, data_root, split, database, queries) for name, run in runs.items()}
    tags = Tags(next(iter(runs.values())).folder.parent / f"tags-{split.replace('/', '-')}.csv", queries.names)
    browser = Browser(database, queries, found, read_labels(data_root), tags)
    return Gallery(browser, runs, state, machine, reports_dir)


class Gallery:
    """Queries of a split with what one or two models found, to look through.

    Args:
        browser: the queries and what is known about them.
        runs: {name: run}, the browser's models.
        state: where to go on.
        machine: device, for one's own photos.
        reports_dir: see `open_gallery`.

    Attributes:
        view: what is looked at.
        rows: (n,) int64, the selected queries.
    """

    def __init__(
        self,
        browser: Browser,
        runs: Mapping[str, Run],
        state: Mapping[str, Any] | None = None,
        machine: Machine | None = None,
        reports_dir: str | Path = "reports",
    ) -> None:
        self.browser, self.runs, self.machine = browser, dict(runs), machine or Machine()
        self.split = next(iter(browser.found.values())).split
        self.path = Path(reports_dir) / f"gallery-{self.split.replace('/', '-')}"  # what is saved, less the suffix
        self.radius_m = next(iter(self.runs.values())).settings.radius_m
        self.thumbnails = Thumbnails({"database": browser.database, "queries": browser.queries})
        self.view, self.rows = View(), np.arange(len(browser))
        self.load_model = functools.cache(lambda name: self.runs[name].load_model())
        self._setting = False  # while the program, and not the user, changes widgets
        self.widget = self._build()
        self.show(read_view(state or {}))

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def state(self) -> dict[str, Any]:
        """What is looked at, in plain types: `open_gallery(..., state=state)` goes on there."""
        return self.view.to_dict()

    @property
    def row(self) -> int | None:
        """The row of the query shown; None where the selection is empty."""
        return int(self.rows[self.position.value - 1]) if len(self.rows) else None

    def show(self, view: View) -> None:
        """Show another view: select, count, and go to its query, or to the first one where that isn't selected."""
        self.rows = self.browser.select(view)
        row = self.browser.find(view.query)
        found = np.flatnonzero(self.rows == row) if row is not None else []
        self._setting = True
        for field, control in self.controls.items():
            control.value = getattr(view, field)
        self.position.max = max(1, len(self.rows))
        self.position.value = int(found[0]) + 1 if len(found) else 1
        self._setting = False
        for control in (self.position, *self.steppers, *self.tag_buttons.values()):
            control.disabled = not len(self.rows)
        self.view = view
        text = render_summary(self.browser.summarise(self.rows), len(self.browser))
        if view.source == "suggested" and len(self.browser.suggestions) < len(self.browser):
            done = len(self.browser.suggestions)
            text += render_warning(f"Suggested for {done:,} queries so far; the button below does so for all.")
        self.summary.value = wrap(text)
        self._render()

    def step(self, by: int) -> None:
        """Go to another query of the selection; from its end on at its start."""
        if len(self.rows):
            self.position.value = (self.position.value - 1 + by) % len(self.rows) + 1

    def suggest(self, rows: np.ndarray | None = None) -> None:
        """Suggest scenarios for some queries (the selection), from what the first model found.

        The filter then knows them; reasons stand below each query.
        """
        rows = self.rows if rows is None else rows
        new = [int(row) for row in rows if int(row) not in self.browser.suggestions]
        found = self.browser.found[self.browser.models[0]]
        suggested = suggest_scenarios(self.browser.database, self.browser.queries, found, new)
        self.browser.suggestions.update(zip(new, suggested, strict=True))

    def draw_selection(self, limit: int = 12) -> Figure:
        """A figure of the selection's first queries, each with the models' first photos."""
        return draw_queries(self.browser, self.rows[:limit])

    def draw_scenarios(self) -> Figure:
        """Fig. 5: two queries of each known scenario with the models' first photos, see `gallery_figures`."""
        return draw_scenarios(self.browser)

    def merge_tags(self, path: str | Path) -> int:
        """Add the tags that a page exported; returns how many were new. See `Tags.merge`."""
        count = self.browser.tags.merge(path)
        self.show(self.view)
        return count

    def save_png(self, path: str | Path) -> Path:
        """Write `draw_selection` as PNG; returns the path."""
        return save_figure(self.draw_selection(), path)

    def export_html(self, path: str | Path, selection: np.ndarray | View | None = None, **options: Any) -> Path:
        """Write the gallery as one HTML page that needs no notebook.

        Args:
            path: of the page.
            selection: rows of queries, or a view; None is the present selection.
            options: of `gallery_page.write_gallery_page`: num_shown, max_mb.

        Returns:
            The path.
        """
        rows = self.browser.select(selection) if isinstance(selection, View) else selection
        rows = self.rows if rows is None else np.asarray(rows)
        return write_gallery_page(path, self.browser, rows, self.radius_m, **options)

    # What the widgets do

    def _choose(self, field: str, change: Mapping[str, Any]) -> None:
        """A control has changed."""
        if not self._setting:
            self.show(replace(self.view, **{field: change["new"]}))

    def _move(self, _: Mapping[str, Any]) -> None:
        """The slider has moved."""
        if not self._setting:
            self._render()

    def _tag(self, scenario: str) -> None:
        if self.row is not None:
            self.browser.tags.toggle(self.browser.queries.names[self.row], scenario)
            self._render_tags()

    def _undo(self) -> None:
        change = self.browser.tags.undo()
        self._render_tags(f"Undone: {SCENARIOS[change.scenario]} of {change.query}" if change else "Nothing to undo.")

    def _suggest_all(self) -> None:
        """Suggest for the selection, whatever its scenario; says how far it is, and which photos can't be read."""
        rows, failed = self.browser.select(replace(self.view, scenario="", source="given")), ""
        for done, row in enumerate(rows):
            if done % 50 == 0:
                self.summary.value = wrap(render_warning(f"Suggested for {done:,} of {len(rows):,} queries ..."))
            try:
                self.suggest([row])
            except (OSError, ValueError) as error:
                failed = f"Not for all: {error}"
        self.show(self.view)
        if failed:
            self._render_tags(failed)

    def _open_panel(self, number: int, panel: Any, change: Mapping[str, Any]) -> None:
        if change["new"] == number:
            panel.open()

    # What is shown

    def _render(self) -> None:
        """The query at the slider's position, its photos, tags and suggestions."""
        row, view = self.row, self.view
        if row is None:
            self.screen.value = wrap(render_warning("No query matches: choose another scenario, outcome or name."))
            self.notes.value = ""
            return
        self.view = view = replace(view, query=str(self.browser.queries.names[row]))
        make_img = self.thumbnails.make_img
        shown = render_query(self.browser, row, make_img, self.radius_m, view.num_shown, view.positives)
        regions = self._render_regions(row) if view.regions else ""
        self.screen.value = wrap(f'<div class="vg-view">{shown}</div>{regions}')
        self._render_tags()

    def _render_tags(self, note: str = "") -> None:
        """Tag buttons, suggestions with reasons, and what there is to say about the file of tags."""
        if self.row is None:
            return
        on = self.browser.tags.list_scenarios(self.browser.queries.names[self.row])
        for scenario, button in self.tag_buttons.items():
            button.button_style, button.icon = ("success", "check") if scenario in on else ("", "")
        try:
            self.suggest([self.row])
            suggested = render_suggestions(self.browser.suggestions[self.row])
        except (OSError, ValueError) as error:
            suggested = render_warning(f"No suggestions: {error}")
        warnings = [render_warning(text) for text in (self.browser.tags.message, note) if text]
        self.notes.value = wrap(suggested + "".join(warnings))

    def _render_regions(self, row: int) -> str:
        sizes = {name: run.settings.image_size for name, run in self.runs.items()}
        return render_regions(self.browser, row, self.view.regions, self.load_model, sizes)

    # The widgets

    def _build(self) -> widgets.VBox:
        """All of them; they are made once."""
        self.controls = make_controls(self.browser)
        for field, control in self.controls.items():
            control.observe(functools.partial(self._choose, field), "value")
        self.position = widgets.IntSlider(min=1, max=1, description="query", layout=widgets.Layout(flex="1 1 260px"))
        self.position.observe(self._move, "value")
        self.steppers = [
            make_button("◀ previous", lambda: self.step(-1)),
            make_button("next ▶", lambda: self.step(1)),
            make_button("random", lambda: self.step(int(np.random.default_rng().integers(max(1, len(self.rows)))))),
        ]
        self.tag_buttons = {
            name: make_button(title, functools.partial(self._tag, name)) for name, title in SCENARIOS.items()
        }
        tags = [widgets.HTML("<b>tags</b>"), *self.tag_buttons.values(), make_button("undo", self._undo)]
        self.summary, self.screen, self.notes = widgets.HTML(), widgets.HTML(), widgets.HTML()
        first = ("scenario", "source", "outcome", "search")
        return widgets.VBox(
            [
                widgets.HTML(f"<style>{read_style()}</style>"),
                make_row([self.controls[field] for field in first]),
                make_row([control for field, control in self.controls.items() if field not in first]),
                self.summary,
                make_row([self.steppers[0], self.position, *self.steppers[1:]]),
                self.screen,
                widgets.HTML(wrap(f'<p class="vg-note">{LEGEND}</p>')),
                make_row([*tags, make_button("suggest for all", self._suggest_all)]),
                self.notes,
                self._build_panels(),
            ]
        )

    def _build_panels(self) -> widgets.Accordion:
        """What opens below the gallery."""
        self.panels = {
            "Recall of each scenario": RecallPanel(self.browser),
            "A photo of your own": OwnPhotoPanel(self.browser, self.runs, self.load_model, self.machine),
            "Save as PNG or as a page": SavePanel(self.save_png, self.export_html, self.path),
        }
        accordion = widgets.Accordion([panel.widget for panel in self.panels.values()], selected_index=None)
        for number, (title, panel) in enumerate(self.panels.items()):
            accordion.set_title(number, title)
            accordion.observe(functools.partial(self._open_panel, number, panel), "selected_index")
        return accordion
