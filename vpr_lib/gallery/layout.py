"""The widgets of the gallery and their arrangement; what they do is in `notebook` and `panels`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.gallery.browser import NUM_SHOWN, ORDERS, OUTCOMES, REGION_RANKS, SOURCES, Browser, View
from vpr_lib.gallery.rendering import LEGEND, read_style

AUTO_WIDTH = {"width": "auto", "max_width": "100%"}  # as wide as the text
AUTO_LABEL = {"description_width": "initial"}


class Layout:
    """The widgets, created once."""

    def __init__(self, browser: Browser) -> None:
        search = widgets.Text(placeholder="part of it, Enter", continuous_update=False, description="name")
        search.layout, search.style = AUTO_WIDTH, AUTO_LABEL
        self.controls: dict[str, widgets.ValueWidget] = {  # {field of `View`: its widget}
            "scenario": make_dropdown("scenario", {"": "all", **SCENARIOS}),
            "source": make_dropdown("that is", SOURCES),
            "outcome": make_dropdown("outcome", browser.list_choices(OUTCOMES)),
            "search": search,
            "order": make_dropdown("order", browser.list_choices(ORDERS)),
            "descending": widgets.ToggleButton(description="descending", layout=AUTO_WIDTH),
            "num_shown": make_dropdown("photos", {number: str(number) for number in NUM_SHOWN}),
            "regions": make_dropdown("regions of photo", {0: "none", **{rank: str(rank) for rank in REGION_RANKS}}),
            "positives": widgets.ToggleButton(description="positives", layout=AUTO_WIDTH),
        }
        self.position = widgets.IntSlider(min=1, max=1, description="query", layout=widgets.Layout(flex="1 1 260px"))
        self.previous, self.next, self.random = map(make_button, ("◀ previous", "next ▶", "random"))
        self.tag_buttons = {scenario: make_button(title) for scenario, title in SCENARIOS.items()}
        self.undo, self.suggest_all = make_button("undo"), make_button("suggest for all")
        # HTML of the counts, of the query, and of its tags and suggestions
        self.summary, self.screen, self.notes = widgets.HTML(), widgets.HTML(), widgets.HTML()

    def arrange(self, panels: widgets.Widget) -> widgets.VBox:
        """Arrange all widgets, with panels below them."""
        controls = list(self.controls.values())
        return widgets.VBox(
            [
                widgets.HTML(f"<style>{read_style()}</style>"),
                make_row(controls[:4]),
                make_row(controls[4:]),
                self.summary,
                make_row([self.previous, self.position, self.next, self.random]),
                self.screen,
                widgets.HTML(wrap_html(f'<p class="vg-note">{LEGEND}</p>')),
                make_row([widgets.HTML("<b>tags</b>"), *self.tag_buttons.values(), self.undo, self.suggest_all]),
                self.notes,
                panels,
            ]
        )

    def show_selection(self, view: View, num_selected: int, position: int) -> None:
        """Set the controls and the slider; without selected queries, stepping and tagging are disabled."""
        for field, control in self.controls.items():
            control.value = getattr(view, field)
        self.position.max = max(1, num_selected)
        self.position.value = position
        for widget in (self.position, self.previous, self.next, self.random, *self.tag_buttons.values()):
            widget.disabled = num_selected == 0

    def show_tags(self, scenarios: Collection[str]) -> None:
        """Highlight the buttons of these scenarios."""
        for scenario, button in self.tag_buttons.items():
            button.button_style, button.icon = ("success", "check") if scenario in scenarios else ("", "")


def make_button(title: str, action: Callable[[], Any] | None = None) -> widgets.Button:
    """Make a button as wide as its title."""
    button = widgets.Button(description=title, layout=AUTO_WIDTH)
    if action is not None:
        button.on_click(lambda _: action())
    return button


def make_dropdown(label: str, titles: Mapping[Any, str]) -> widgets.Dropdown:
    """Make a menu of {value: title}."""
    options = [(title, value) for value, title in titles.items()]
    return widgets.Dropdown(options=options, description=label, layout=AUTO_WIDTH, style=AUTO_LABEL)


def make_row(children: Sequence[widgets.Widget]) -> widgets.HBox:
    """Put widgets side by side, on several lines if the window is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def wrap_html(content: str) -> str:
    """Apply the gallery's style to HTML."""
    return f'<div class="vg">{content}</div>'
