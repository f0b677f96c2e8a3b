"""The gallery in a notebook: browse the queries of a split with the predictions of one or two runs.

    open_gallery({"MixVPR": run_a, "ConvAP": run_b}, "data/mini", "sf_test")

The number of widgets is fixed; photos are images inside one HTML widget, so a split may be large. gallery.js handles
keys and enlarged photos; it is a part of the widgets' HTML and needs no extension in JupyterLab, Colab or Notebook.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from vpr_lib.analysis.scenarios import SCENARIOS, read_labels
from vpr_lib.analysis.verification import read_inliers
from vpr_lib.data_roots import DataRoot, open_data_root
from vpr_lib.evaluation import read_evaluation
from vpr_lib.figures.plots import save_figure
from vpr_lib.gallery.browser import Browser, View, read_view
from vpr_lib.gallery.drawing import draw_queries, draw_scenarios
from vpr_lib.gallery.embedding_panel import EmbeddingPanel
from vpr_lib.gallery.export import write_gallery_page
from vpr_lib.gallery.large_view import LargeView
from vpr_lib.gallery.layout import Layout, RecallPanel, SavePanel, make_accordion, wrap_html
from vpr_lib.gallery.own_photo import OwnPhotoPanel
from vpr_lib.gallery.query_grid import GRID_PIXELS, render_grid
from vpr_lib.gallery.rendering import render_query, render_suggestions, render_summary, render_warning
from vpr_lib.gallery.split_descriptors import SplitDescriptors
from vpr_lib.gallery.tags import open_tags
from vpr_lib.gallery.thumbnails import Thumbnails
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run, open_run

SHOWN_PIXELS = 320  # longer side of the photos


def open_gallery(
    runs: Mapping[str, Run | str | Path],
    data_root: str | Path | DataRoot,
    split: str,
    state: Mapping[str, Any] | None = None,
    machine: Machine | None = None,
    reports_dir: str | Path = "reports",
) -> "Gallery":
    """Open the gallery of one or two runs; it is shown if it is the last value of a cell.

    Args:
        runs: {name: run or its folder}, evaluated on the split with `evaluate_run`.
        data_root: folder with the split.
        split: name of the split.
        state: `Gallery.state` of an earlier session, to restore its view.
        machine: device for descriptors: of the user's own photos and of the embedding map.
        reports_dir: default folder for saved figures and pages.

    Raises:
        FileNotFoundError: a run was not evaluated on the split (the message says how), or a folder does not exist.
        ValueError: not one or two runs, or their radii differ.
    """
    if not 1 <= len(runs) <= 2:
        raise ValueError(f"{len(runs)} runs; the gallery shows one or two")
    runs = {name: run if isinstance(run, Run) else open_run(run) for name, run in runs.items()}
    if len({run.settings.radius_m for run in runs.values()}) > 1:
        radii = ", ".join(f"{name} {run.settings.radius_m:g} m" for name, run in runs.items())
        raise ValueError(f"the runs were evaluated with different radii: {radii}; show them one at a time")
    data_root = open_data_root(data_root)
    photos = data_root.read_split(split)
    evaluations = {name: read_evaluation(run, data_root, split) for name, run in runs.items()}
    inliers = {
        name: read_inliers(photos, evaluations[name].indices, run.folder.parent, split) for name, run in runs.items()
    }
    first = next(iter(runs.values()))
    tags = open_tags(first.folder.parent, data_root.folder, split, photos.queries.names)
    labels = read_labels(data_root.folder)
    browser = Browser(*photos, evaluations, labels, tags, first.settings.radius_m, inliers)
    return Gallery(browser, runs, state, machine, reports_dir)


class Gallery:
    """The gallery's widgets. Args as those of `open_gallery`, but the browser holds the split and the predictions."""

    def __init__(
        self,
        browser: Browser,
        runs: Mapping[str, Run],
        state: Mapping[str, Any] | None = None,
        machine: Machine | None = None,
        reports_dir: str | Path = "reports",
    ) -> None:
        self.browser = browser
        self.tags = browser.tags  # scenarios assigned by hand
        self.runs = {model: runs[model] for model in browser.models}
        self.view = View()  # the present selection and display options
        self.rows = np.arange(len(browser))  # (n,) int64, the selected queries in their order
        self._load_model = functools.cache(lambda model: self.runs[model].load_model())
        sizes = {model: run.settings.image_size for model, run in self.runs.items()}
        self._large_view = LargeView(browser, sizes, self._load_model)
        tables = self._large_view.tables
        self._make_img = Thumbnails(tables, SHOWN_PIXELS).make_img
        self._make_small_img = Thumbnails(tables, GRID_PIXELS).make_plain_img
        self._updating = False  # while the program sets widgets, their events are ignored
        path = Path(reports_dir) / f"gallery-{browser.split.replace('/', '-')}"
        descriptors = SplitDescriptors(tables, self.runs, self._load_model, machine or Machine())
        self.panels = {  # {title: panel below the gallery}
            "Recall of each scenario": RecallPanel(browser),
            "Embedding map": EmbeddingPanel(browser, descriptors.describe, self._make_img, self._change_view),
            "A photo of your own": OwnPhotoPanel(browser, descriptors, self._make_img),
            "Save as PNG or as a page": SavePanel(self.save_png, self.export_html, path),
        }
        self.layout = Layout(browser)
        accordion = make_accordion({title: panel.widget for title, panel in self.panels.items()})
        self.widget = self.layout.arrange(accordion)
        self._connect_widgets(accordion)
        self.show(read_view(state or {}))

    def _ipython_display_(self) -> None:
        display(self.widget)

    @property
    def state(self) -> dict[str, Any]:
        """The present view in plain types; `open_gallery(..., state=state)` restores it."""
        return asdict(self.view)

    @property
    def row(self) -> int | None:
        """Row of the query shown; None if the selection is empty."""
        return int(self.rows[self.layout.position.value - 1]) if len(self.rows) else None

    def select(self, view: View) -> np.ndarray:
        """(n,) int64, rows of the queries that match a view, in its order; nothing is shown."""
        return self.browser.select(view)

    def show(self, view: View) -> None:
        """Show another view: its query, or the first one if that is not selected."""
        self.rows = self.select(view)
        self.view = view
        positions = np.flatnonzero(self.rows == self.browser.find_query(view.query))
        self._updating = True
        self.layout.show_selection(view, len(self.rows), int(positions[0]) + 1 if len(positions) else 1)
        self._updating = False
        summary = self.browser.summarize(self.rows)
        text = render_summary(summary, len(self.browser), self.browser.shows_recall(view))
        self.panels["Embedding map"].show_selection(self.rows)
        num_done = len(self.browser.suggestions)
        if view.source == "suggested" and num_done < len(self.browser):
            text += render_warning(f"Suggestions exist for {num_done:,} queries; 'suggest for all' adds the others.")
        self.layout.show_summary(text)
        self._show_query()

    def step(self, by: int) -> None:
        """Go to another query of the selection, from the last one to the first."""
        if len(self.rows):
            position = self.layout.position
            position.value = (position.value - 1 + by) % len(self.rows) + 1

    def reset(self) -> None:
        """Show all queries by name, from the first one; what is shown of each stays as it is."""
        cleared = ("scenario", "source", "outcome", "search", "picked", "order", "descending", "query")
        self.show(replace(self.view, **{field: getattr(View(), field) for field in cleared}))

    def draw_queries(self, rows: Sequence[int] | np.ndarray) -> Figure:
        """Draw queries with the first photo of each model, two in a row, numbered in their order."""
        return draw_queries(self.browser, rows)

    def draw_selection(self, limit: int = 12) -> Figure:
        """Draw the first queries of the selection with the first photo of each model."""
        return self.draw_queries(self.rows[:limit])

    def draw_scenarios(self) -> Figure:
        """Draw Fig. 5: two queries of each known scenario and two fail cases with the first photo of each model."""
        return draw_scenarios(self.browser)

    def merge_tags(self, path: str | Path) -> int:
        """Add the tags of a CSV exported by a page; returns the number of new ones. See `Tags.merge`."""
        count = self.tags.merge(path)
        self.show(self.view)
        return count

    def save_png(self, path: str | Path) -> Path:
        """Write `draw_selection` as a PNG; returns the path."""
        return save_figure(self.draw_selection(), path)

    def export_html(self, path: str | Path, selection: np.ndarray | View | None = None, **options: Any) -> Path:
        """Write the gallery as one HTML page that needs no notebook; returns the path.

        Args:
            path: path of the page.
            selection: rows of queries, or a view; None for the present selection.
            options: `num_shown`, `max_mb` and `report` of `export.write_gallery_page`.
        """
        rows = self.select(selection) if isinstance(selection, View) else selection
        rows = self.rows if rows is None else np.asarray(rows)
        embed = self.panels["Embedding map"].embed
        return write_gallery_page(Path(path), self.browser, rows, embed=embed, **options)

    # Events of the widgets

    def _connect_widgets(self, accordion: widgets.Accordion) -> None:
        layout = self.layout
        for field, control in layout.controls.items():
            control.observe(lambda change, field=field: self._change_view(**{field: change["new"]}), "value")
        layout.position.observe(lambda _: self._show_query(), "value")
        layout.previous.on_click(lambda _: self.step(-1))
        layout.next.on_click(lambda _: self.step(1))
        layout.random.on_click(lambda _: self.step(int(np.random.default_rng().integers(max(1, len(self.rows))))))
        layout.reset.on_click(lambda _: self.reset())
        layout.grid_open.observe(lambda _: self._show_grid(), "value")
        layout.request.observe(lambda change: self._answer(change["new"]), "value")
        for scenario, button in layout.tag_buttons.items():
            button.on_click(functools.partial(self._toggle_tag, scenario))
        layout.undo.on_click(self._undo_tag)
        layout.suggest_all.on_click(self._suggest_all)
        accordion.observe(self._open_panel, "selected_index")

    def _open_panel(self, change: Mapping[str, Any]) -> None:
        if change["new"] in (0, 1):  # the others have nothing to compute
            list(self.panels.values())[change["new"]].refresh()

    def _change_view(self, **changes: Any) -> None:
        if not self._updating:
            if {"order", "descending"} & set(changes):
                changes["query"] = ""  # another order starts at its first query
            self.show(replace(self.view, **changes))

    def _toggle_tag(self, scenario: str, _: widgets.Button) -> None:
        if self.row is not None:
            self.tags.toggle(self.browser.queries.names[self.row], scenario)
            self._show_notes()

    def _undo_tag(self, _: widgets.Button) -> None:
        change = self.tags.undo()
        self._show_notes(f"Undone: {SCENARIOS[change.scenario]} of {change.query}" if change else "Nothing to undo.")

    def _suggest_all(self, _: widgets.Button) -> None:
        """Suggest for the selection, in which the scenario is ignored; show progress and unreadable photos."""
        rows = self.select(replace(self.view, scenario="", source="given"))
        failure = self.browser.suggest_all(rows, lambda text: self.layout.show_summary(render_warning(text)))
        self.show(self.view)
        if failure:
            self._show_notes(failure)

    # Output

    def _show_query(self) -> None:
        """Show the query at the slider's position with its photos, tags and suggestions."""
        if self._updating:
            return
        row = self.row
        self.layout.show_place(len(self.rows))
        self.panels["Embedding map"].show_query(row)
        if row is None:
            text = "No query matches: choose another scenario, outcome or name."
            self.layout.screen.value = wrap_html(render_warning(text))
            self.layout.notes.value = self.layout.grid.value = ""
            return
        self.view = view = replace(self.view, query=str(self.browser.queries.names[row]))
        content = render_query(self.browser, row, self._make_img, view.num_shown, view.positives)
        content = f'<div class="vg-screen"><div class="vg-view{" vg-blind" * view.hide_labels}">{content}</div></div>'
        for kind, rank in (("regions", view.regions), ("matches", view.matches)):
            content += self._large_view.render_pair(kind, row, rank) if rank else ""
        self.layout.screen.value = wrap_html(content)
        self._show_notes()
        self._show_grid()

    def _show_grid(self, start: int | None = None) -> None:
        """Show the part of the grid with a position (from 0), by default that of the query; nothing if it is closed."""
        position = self.layout.position.value - 1 if start is None else start
        is_shown = self.layout.grid_open.value and self.row is not None
        content = render_grid(self.browser, self.rows, position, self._make_small_img) if is_shown else ""
        self.layout.grid.value = wrap_html(f'<div class="{"vg-blind" * self.view.hide_labels}">{content}</div>')

    def _answer(self, request: str) -> None:
        """Do what gallery.js asks for: a number to answer to, a word, and its arguments."""
        number, kind, *words = request.split()
        if kind == "query":
            self.layout.grid_open.value = False
            self.layout.position.value = int(np.flatnonzero(self.rows == int(words[0]))[0]) + 1
        elif kind == "grid":
            self._show_grid(int(words[0]))
        else:
            content = self._large_view.answer(self.row, kind, words)
            self.layout.reply.value = f'<div data-reply="{number}">{content}</div>'

    def _show_notes(self, note: str = "") -> None:
        """Show tags, suggestions with their reasons, and messages about the file of tags."""
        if self.row is None:
            return
        self.layout.show_tags(self.tags.list_scenarios(self.browser.queries.names[self.row]))
        try:
            content = "" if self.view.hide_labels else render_suggestions(self.browser.suggest(self.row))
        except (OSError, ValueError) as error:
            content = render_warning(f"No suggestions: {error}")
        content += "".join(render_warning(text) for text in (self.tags.message, note) if text)
        self.layout.notes.value = wrap_html(content)
