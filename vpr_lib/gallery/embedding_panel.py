"""The panel with the embedding map below the gallery: computed when it is first opened, linked with the selection."""

import functools
import html
import itertools
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np

from vpr_lib.analysis.embedding import list_methods
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.embedding_map import (
    Describe,
    SplitMap,
    embed_split,
    list_colorings,
    mark_outcomes,
    place_points,
    render_embedding,
)
from vpr_lib.gallery.rendering import MakeImg, render_warning

NUMBERS = itertools.count()  # of the panels, which share the style sheet of a notebook


class EmbeddingPanel:
    """Shows the split as a map; a click or a lasso on it calls `change_view` with the fields of a view to change."""

    def __init__(
        self, browser: Browser, describe: Describe, make_img: MakeImg, change_view: Callable[..., None]
    ) -> None:
        self.browser = browser
        self.make_img = make_img
        self.embed = functools.cache(functools.partial(embed_split, browser, describe))  # (model, method) -> SplitMap
        self.change_view = change_view
        self.is_open = False
        self._rows, self._row = np.arange(len(browser)), None  # the selection and the query shown
        self._map: SplitMap | None = None  # the one shown
        titles = {"model": {name: name for name in browser.models}, "method": list_methods()}
        titles["color by"] = {key: each.title for key, each in list_colorings(browser).items()}
        self.model, self.method, self.color = (
            widgets.Dropdown(
                options=[(title, key) for key, title in options.items()],
                description=label,
                layout={"width": "auto", "max_width": "100%"},
                style={"description_width": "initial"},
            )
            for label, options in titles.items()
        )
        self.all = widgets.Button(description="all queries", layout={"width": "auto"})
        self.picked = widgets.Text(continuous_update=False)  # written by embedding_map.js
        self.picked.add_class("vg-picked")
        self.screen, self.marker, self.query = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._name = f"vg-embedding-{next(NUMBERS)}"
        columns = widgets.Box([self.screen, self.query])
        columns.add_class("vg-embedding-columns")
        row = widgets.Box([self.model, self.method, self.color, self.all, self.picked])
        row.layout.flex_flow = "row wrap"
        self.widget = widgets.VBox([row, self.marker, columns])
        self.widget.add_class("vg-embedding-box")
        self.widget.add_class(self._name)
        for control in (self.model, self.method, self.color):
            control.observe(lambda _: self.refresh(), "value")
        self.picked.observe(lambda change: self._read_pick(change["new"]), "value")
        self.all.on_click(lambda _: self.change_view(picked=""))

    def refresh(self) -> None:
        """Draw the map of the chosen model and method, or say why there is none."""
        self.is_open = True
        model, method = self.model.value, self.method.value
        self.screen.value = _wrap(f"<p>Computing the map of {html.escape(model)} (first time only) ...</p>")
        try:
            self._map = self.embed(model, method, ())
        except (OSError, ValueError) as error:
            self._map = None
            self.screen.value = _wrap(render_warning(f"No embedding map: {error}"))
        else:
            chosen = np.isin(np.arange(len(self.browser)), self._rows)
            shown = np.ones(len(self.browser), dtype=bool)
            self.screen.value = _wrap(render_embedding(self.browser, self._map, shown, chosen, self.color.value))
        self.show_query(self._row)

    def show_selection(self, rows: np.ndarray) -> None:
        """Dim the queries that are not among the selected rows."""
        is_same = np.array_equal(rows, self._rows)
        self._rows = rows
        if self.is_open and not is_same:
            self.refresh()

    def show_query(self, row: int | None) -> None:
        """Mark the query shown in the gallery, with its photo beside the map."""
        self._row = row
        self.marker.value = self.query.value = ""
        if self._map is None or row is None:
            return
        name = str(self.browser.queries.names[row])
        outcome = list_colorings(self.browser)["outcome"].labels[str(mark_outcomes(self.browser)[row])]
        caption = f"<figcaption><b>{html.escape(outcome)}</b> <code>{html.escape(name)}</code></figcaption>"
        image = self.make_img("queries", row, f"The query {name}")
        self.query.value = _wrap(f'<div class="vg-query"><figure>{image}{caption}</figure></div>')
        places = np.flatnonzero(self._map.queries == row)
        if len(places):
            x, y = place_points(self._map.embedding)[1][places[0]]
            rule = f".{self._name} .vg-ring {{ display: block; transform: translate({x:.1f}px, {y:.1f}px); }}"
            self.marker.value = f"<style>{rule}</style>"

    def _read_pick(self, text: str) -> None:
        """`text` is as embedding_map.js writes it."""
        _, kind, *words = text.split()
        rows = [int(word) for word in words]
        if kind == "query":
            self.change_view(query=str(self.browser.queries.names[rows[0]]))
        else:
            self.change_view(picked="\n".join(self.browser.tags.names[rows].tolist()))


def _wrap(content: str) -> str:
    return f'<div class="vg">{content}</div>'
