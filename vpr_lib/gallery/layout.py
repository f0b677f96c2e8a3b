"""The widgets of the gallery: controls, buttons, and panels below them. Their events are handled in `notebook`."""

import functools
import html
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.analysis.suggestions import FROM_MISTAKES
from vpr_lib.figures.html_page import render_table
from vpr_lib.figures.plots import plot_bars
from vpr_lib.figures.tables import label_rows
from vpr_lib.gallery.browser import NUM_SHOWN, ORDERS, OUTCOMES, PAIR_RANKS, SOURCES, Browser, View
from vpr_lib.gallery.rendering import LEGEND, read_script, read_style, render_warning
from vpr_lib.gallery.thumbnails import format_data_uri, format_img

AUTO_WIDTH = {"width": "auto", "max_width": "100%"}  # as wide as the text
AUTO_LABEL = {"description_width": "initial"}
TOOLTIPS = {  # of the controls, in a notebook and on a page
    "scenario": "Show the queries of one scenario",
    "source": "Where the scenario of a query comes from",
    "outcome": "Show the queries with this outcome: right if the first photo lies close enough to the query",
    "search": "Show the queries whose file name has this part",
    "order": "Order of the queries; see the text below the photos for margin, spread and inliers",
    "descending": "Largest value first",
    "num_shown": "Number of photos of each model",
    "regions": "Show which regions of the query and of the photo with this rank account for their similarity",
    "matches": "Draw the points that the query and the photo with this rank have in common",
    "positives": "Show the database photos that would be right, nearest first",
    "hide_labels": "Hide what the models and other people say, to tag queries without knowing it",
    "position": "Query in the chosen order; the keys ← and → step",
    "previous": "Previous query (key ←)",
    "next": "Next query (key →)",
    "random": "A query drawn at random",
    "grid": "Small photos of the queries, to pick one",
    "reset": "All queries by name, from the first one",
    "undo": "Take back the last change of a tag",
    "suggest_all": "Suggest scenarios for all queries of this selection",
}
MISTAKES_NOTE = (
    f'<p class="vg-note">{" and ".join(SCENARIOS[name] for name in FROM_MISTAKES)}: left out. It is suggested where a '
    "wrong photo is the most similar one, so its recall would be low by definition.</p>"
)


class Layout:
    """The widgets, created once."""

    def __init__(self, browser: Browser) -> None:
        ranks = {0: "none", **{rank: str(rank) for rank in PAIR_RANKS}}
        search = widgets.Text(placeholder="part of it, Enter", continuous_update=False, description="name")
        search.layout, search.style = AUTO_WIDTH, AUTO_LABEL
        self.controls: dict[str, widgets.ValueWidget] = {  # {field of `View`: its widget}
            "scenario": _make_dropdown("scenario", {"": "all", **SCENARIOS}),
            "source": _make_dropdown("that is", SOURCES),
            "outcome": _make_dropdown("outcome", browser.list_choices(OUTCOMES)),
            "search": search,
            "order": _make_dropdown("order", browser.list_choices(ORDERS)),
            "descending": widgets.ToggleButton(description="descending", layout=AUTO_WIDTH),
            "num_shown": _make_dropdown("photos", {number: str(number) for number in NUM_SHOWN}),
            "regions": _make_dropdown("regions of photo", ranks),
            "matches": _make_dropdown("matches with photo", ranks),
            "positives": widgets.ToggleButton(description="positives", layout=AUTO_WIDTH),
            "hide_labels": widgets.ToggleButton(description="hide labels", layout=AUTO_WIDTH),
        }
        slider = {"readout": False, "layout": widgets.Layout(flex="1 1 200px")}
        self.position = widgets.IntSlider(min=1, max=1, description="query", **slider)
        self.place = widgets.Label()  # "7 of 200"
        self.previous, self.next, self.random = map(_make_button, ("◀ previous", "next ▶", "random"))
        self.grid_open = widgets.ToggleButton(description="grid", layout=AUTO_WIDTH)
        self.reset = _make_button("reset")
        self.tag_buttons = {scenario: _make_button(title) for scenario, title in SCENARIOS.items()}
        self.undo, self.suggest_all = _make_button("undo"), _make_button("suggest for all")
        # HTML of the counts, of the grid, of the query, and of its tags and suggestions
        self.summary, self.grid, self.screen, self.notes = (widgets.HTML() for _ in range(4))
        # What gallery.js asks for, and the answer
        self.request = widgets.Text(continuous_update=False, layout={"display": "none"})
        self.reply = widgets.HTML(layout={"display": "none"})
        self._name_parts()

    def _name_parts(self) -> None:
        """Tooltips, and the classes by which gallery.js finds its elements."""
        named = {"position": self.position, "grid": self.grid_open}
        named |= {name: getattr(self, name) for name in ("previous", "next", "random", "reset", "undo", "suggest_all")}
        for name, widget in (self.controls | named).items():
            # ipywidgets 7 has tooltips of another name, but for buttons
            setattr(widget, "tooltip" if widget.has_trait("tooltip") else "description_tooltip", TOOLTIPS[name])
        for name in ("previous", "next", "request", "reply", "screen"):
            getattr(self, name).add_class(f"vg-{name}")

    def arrange(self, panels: widgets.Widget) -> widgets.VBox:
        """Arrange all widgets, with panels below them."""
        script = {"text/html": f"<script>{read_script()}</script>"}
        output = {
            "output_type": "display_data",
            "data": script,
            "metadata": {},
        }
        gallery = widgets.VBox(
            [
                widgets.HTML(f"<style>{read_style()}</style>"),
                widgets.Output(outputs=(output,), layout={"height": "0", "margin": "0"}),
                self.request,
                self.reply,
                _make_row([*self.controls.values(), self.reset]),
                self.summary,
                _make_row([self.previous, self.position, self.place, self.next, self.random, self.grid_open]),
                self.grid,
                self.screen,
                widgets.HTML(wrap_html(f'<p class="vg-note">{LEGEND}</p>')),
                _make_row([widgets.HTML("<b>tags</b>"), *self.tag_buttons.values(), self.undo, self.suggest_all]),
                self.notes,
                panels,
            ]
        )
        gallery.add_class("vg-gallery")
        return gallery

    def show_selection(self, view: View, num_selected: int, position: int) -> None:
        """Set the controls and the slider; without selected queries, stepping and tagging are disabled."""
        for field, control in self.controls.items():
            control.value = getattr(view, field)
        self.position.max = max(1, num_selected)
        self.position.value = position
        for widget in (self.position, self.previous, self.next, self.random, *self.tag_buttons.values()):
            widget.disabled = num_selected == 0
        self.show_place(num_selected)

    def show_summary(self, content: str) -> None:
        """Show HTML above the query."""
        self.summary.value = wrap_html(content)

    def show_place(self, num_selected: int) -> None:
        """Show the slider's position as in "7 of 200"."""
        self.place.value = f"{self.position.value:,} of {num_selected:,}" if num_selected else "none"

    def show_tags(self, scenarios: Collection[str]) -> None:
        """Highlight the buttons of these scenarios."""
        for scenario, button in self.tag_buttons.items():
            button.button_style, button.icon = ("success", "check") if scenario in scenarios else ("", "")


class RecallPanel:
    """R@1 of each scenario with 95% intervals, as a table and as bars."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.source = _make_dropdown("scenarios", SOURCES)
        self.source.observe(lambda _: self.refresh(), "value")
        self.screen = widgets.HTML()
        self.widget = widgets.VBox([self.source, self.screen])

    def refresh(self) -> None:
        """Compute the recall again, since tags may have changed."""
        recalls = self.browser.recall_by_scenario(self.source.value)
        if not any(recalls.values()):
            text = f"No query of {self.browser.split} has a scenario that is {SOURCES[self.source.value]}."
            self.screen.value = wrap_html(render_warning(text))
            return
        buffer = io.BytesIO()
        plot_bars(recalls, SCENARIOS, self.browser.split).savefig(buffer, format="png")
        bars = format_img(format_data_uri(buffer.getvalue(), "image/png"), "Bar chart of the table with 95% intervals")
        table = render_table(label_rows(recalls, SCENARIOS), "")
        self.screen.value = wrap_html(table + bars + (MISTAKES_NOTE if self.source.value == "suggested" else ""))


class SavePanel:
    """Saves the selection as a PNG or as an HTML page; `path` is the default without a suffix."""

    def __init__(self, save_png: Callable[[str], Path], export_html: Callable[..., Path], path: Path) -> None:
        self.path = widgets.Text(value=str(path), description="path", continuous_update=False)
        self.screen = widgets.HTML()
        save_page = functools.partial(export_html, report=lambda text: self._show(f"{text}; writing ..."))
        png_button, page_button = map(_make_button, ("PNG of the first 12", "page of the selection"))
        png_button.on_click(lambda _: self._save(save_png, ".png"))
        page_button.on_click(lambda _: self._save(save_page, ".html"))
        self.widget = widgets.VBox([_make_row([self.path, png_button, page_button]), self.screen])

    def _show(self, text: str) -> None:
        self.screen.value = wrap_html(f"<p>{html.escape(text)}</p>")

    def _save(self, write: Callable[[str], Path], suffix: str) -> None:
        try:
            path = write(self.path.value.removesuffix(suffix) + suffix)
            self._show(f"{path}: {path.stat().st_size / 1e6:.1f} MB.")
        except (OSError, ValueError) as error:
            self.screen.value = wrap_html(render_warning(str(error)))


def _make_button(title: str) -> widgets.Button:
    """A button as wide as its title."""
    return widgets.Button(description=title, layout=AUTO_WIDTH)


def _make_dropdown(label: str, titles: Mapping[Any, str]) -> widgets.Dropdown:
    """A menu of {value: title}."""
    options = [(title, value) for value, title in titles.items()]
    return widgets.Dropdown(options=options, description=label, layout=AUTO_WIDTH, style=AUTO_LABEL)


def make_accordion(panels: Mapping[str, widgets.Widget]) -> widgets.Accordion:
    """Closed panels of {title: content}."""
    accordion = widgets.Accordion(list(panels.values()), selected_index=None)
    for number, title in enumerate(panels):
        accordion.set_title(number, title)
    return accordion


def _make_row(children: Sequence[widgets.Widget]) -> widgets.HBox:
    """Widgets side by side, on several lines if the window is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def wrap_html(content: str) -> str:
    """Apply the gallery's style to HTML."""
    return f'<div class="vg">{content}</div>'
