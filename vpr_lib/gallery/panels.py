"""Panels below the gallery: recall of each scenario, and saving the selection."""

import html
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ipywidgets as widgets

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.html_page import render_table
from vpr_lib.figures.plots import plot_bars
from vpr_lib.figures.tables import label_rows
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.layout import make_button, make_row, wrap_html
from vpr_lib.gallery.rendering import render_warning
from vpr_lib.gallery.thumbnails import format_data_uri, format_img
from vpr_lib.gallery.views import SOURCES


class RecallPanel:
    """R@1 of each scenario with 95% intervals, as a table and as bars."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        options = [(title, source) for source, title in SOURCES.items()]
        self.source = widgets.Dropdown(options=options, description="scenarios")
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
        self.screen.value = wrap_html(f'{table}<div class="vg-figure">{bars}</div>')


class SavePanel:
    """Saves the selection as a PNG or as an HTML page.

    Args:
        save_png: writes the PNG to a path and returns it.
        export_html: writes the page to a path and returns it; passes its size to `report` before it writes.
        path: default path of both, without a suffix.
    """

    def __init__(self, save_png: Callable[[str], Path], export_html: Callable[..., Path], path: Path) -> None:
        self.path = widgets.Text(value=str(path), description="path", continuous_update=False)
        self.screen = widgets.HTML()
        save_page = partial(export_html, report=self._report)
        png_button = make_button("PNG of the first 12", lambda: self._save(save_png, ".png"))
        page_button = make_button("page of the selection", lambda: self._save(save_page, ".html"))
        self.widget = widgets.VBox([make_row([self.path, png_button, page_button]), self.screen])

    def _report(self, text: str) -> None:
        self.screen.value = wrap_html(f"<p>{html.escape(text)}; writing ...</p>")

    def _save(self, write: Callable[[str], Path], suffix: str) -> None:
        try:
            path = write(self.path.value.removesuffix(suffix) + suffix)
        except (OSError, ValueError) as error:
            self.screen.value = wrap_html(render_warning(str(error)))
            return
        self.screen.value = wrap_html(f"<p>{html.escape(str(path))}: {path.stat().st_size / 1e6:.1f} MB.</p>")
