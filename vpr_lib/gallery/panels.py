"""Parts of the gallery: its controls, and the panels below it for recall, a photo of one's own, and saving."""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from vpr_lib.analysis.locating import Location, locate_photo
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.figures.html_page import render_table
from vpr_lib.figures.photo_grids import format_distance
from vpr_lib.figures.plots import plot_bars
from vpr_lib.figures.tables import label_rows
from vpr_lib.gallery.browser import NUM_SHOWN, ORDERS, OUTCOMES, REGION_RANKS, SOURCES, Browser, to_similarity
from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.gallery.rendering import describe_photo, join, render_card, render_section, render_warning
from vpr_lib.gallery.thumbnails import Thumbnails, format_img, to_uri
from vpr_lib.machine import Machine
from vpr_lib.models import VPRModel
from vpr_lib.run_folders import Run

AUTO = {"width": "auto", "max_width": "100%"}  # as wide as the text
UPLOAD_NOTE = (
    "A photo of more than 10 MB is too large for Jupyter's connection and never arrives: give its path instead."
)


class RecallPanel:
    """R@1 of each scenario with intervals, as a table and as bars."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        options = [(title, source) for source, title in SOURCES.items()]
        self.source = widgets.Dropdown(options=options, description="scenarios")
        self.source.observe(lambda _: self.open(), "value")
        self.screen = widgets.HTML()
        self.widget = widgets.VBox([self.source, self.screen])

    def open(self) -> None:
        """Count anew: tags may have changed."""
        found = self.browser.recall_by_scenario(self.source.value)
        split = next(iter(self.browser.found.values())).split
        if not any(found.values()):
            text = f"No query of {split} has a scenario that is {SOURCES[self.source.value]}."
            self.screen.value = wrap(render_warning(text))
            return
        buffer = io.BytesIO()
        plot_bars(found, SCENARIOS, split).savefig(buffer, format="png")
        bars = format_img(to_uri(buffer.getvalue(), "image/png"), "Bars: what the table says, with 95% intervals")
        self.screen.value = wrap(
            render_table(label_rows(found, SCENARIOS), "") + f'<div class="vg-figure">{bars}</div>'
        )


class OwnPhotoPanel:
    """A photo of one's own: what a model finds for it, and where it may have been taken."""

    def __init__(
        self, browser: Browser, runs: Mapping[str, Run], load_model: Callable[[str], VPRModel], machine: Machine
    ) -> None:
        self.browser, self.runs, self.load_model, self.machine = browser, runs, load_model, machine
        self.thumbnails = Thumbnails({"database": browser.database})
        self._descriptors: dict[str, np.ndarray] = {}
        self.model = widgets.Dropdown(options=list(runs), description="model")
        self.upload = widgets.FileUpload(accept="image/*", multiple=False, description="upload a photo", layout=AUTO)
        self.path = widgets.Text(placeholder="or its path, then Enter", continuous_update=False)
        self.upload.observe(lambda change: self._locate(read_upload(change["new"])), "value")
        self.path.observe(lambda change: self._open_path(change["new"]), "value")
        self.screen = widgets.HTML(wrap(f'<p class="vg-note">{UPLOAD_NOTE}</p>'))
        self.widget = widgets.VBox([make_row([self.model, self.upload, self.path]), self.screen])

    def open(self) -> None:
        """Nothing to prepare."""

    def describe_database(self, name: str) -> np.ndarray:
        """(N, D) float32, the database's descriptors; made once and kept beside the run where that can be written."""
        if name not in self._descriptors:
            run = self.runs[name]
            rest = (run.settings.precision, self.machine)
            arguments = self.load_model(name), self.browser.database, run.settings.image_size
            try:
                self._descriptors[name] = extract_descriptors(*arguments, run.folder / "descriptors", *rest)
            except OSError:
                self._descriptors[name] = extract_descriptors(*arguments, None, *rest)
        return self._descriptors[name]

    def _open_path(self, path: str) -> None:
        if not path.strip():
            return
        try:
            self._locate(Path(path.strip()).expanduser().read_bytes())
        except OSError as error:
            self.screen.value = wrap(render_warning(f"{path} can't be read ({error.strerror})."))

    def _locate(self, photo: bytes | None) -> None:
        """Show what the model finds for a photo."""
        if photo is None:
            return
        name, database = self.model.value, self.browser.database
        self.screen.value = wrap(f"<p>Describing {len(database):,} database photos, the first time only ...</p>")
        try:
            descriptors, settings = self.describe_database(name), self.runs[name].settings
            arguments = self.load_model(name), settings, database, descriptors, photo
            place = locate_photo(*arguments, k=min(10, len(database)), machine=self.machine)
        except (OSError, ValueError) as error:
            self.screen.value = wrap(render_warning(f"Not located: {error}"))
            return
        self.screen.value = wrap(render_location(place, name, self.browser, self.thumbnails))


class SavePanel:
    """The selection as PNG or as a page.

    Args:
        save_png, export_html: each writes to a path and returns it; the second says the size before it writes.
        path: offered for the files, without a suffix.
    """

    def __init__(self, save_png: Callable[[str], Path], export_html: Callable[..., Path], path: Path) -> None:
        self.path = widgets.Text(value=str(path), description="path", continuous_update=False)
        self.screen = widgets.HTML()
        png = make_button("PNG of the first 12", lambda: self._save(save_png, ".png"))
        page = make_button("page of the selection", lambda: self._save(partial(export_html, say=self._say), ".html"))
        self.widget = widgets.VBox([make_row([self.path, png, page]), self.screen])

    def open(self) -> None:
        """Nothing to prepare."""

    def _say(self, text: str) -> None:
        self.screen.value = wrap(f"<p>{html.escape(text)}; writing ...</p>")

    def _save(self, write: Callable[[str], Path], suffix: str) -> None:
        try:
            path = write(self.path.value.removesuffix(suffix) + suffix)
        except (OSError, ValueError) as error:
            self.screen.value = wrap(render_warning(str(error)))
            return
        self.screen.value = wrap(f"<p>{html.escape(str(path))}: {path.stat().st_size / 1e6:.1f} MB.</p>")


def render_location(place: Location, model: str, browser: Browser, thumbnails: Thumbnails) -> str:
    """The photos found for a photo of one's own, their map, and the estimate."""
    database = browser.database
    from_estimate_m = np.linalg.norm(database.utm[place.indices] - place.utm, axis=1)
    cards, marks = [], []
    if place.exif_utm is not None:
        marks.append(Mark(place.exif_utm, "exif", "position in the photo's EXIF data", "E", "diamond"))
    for i, row in enumerate(place.indices):
        similarity, distance = float(to_similarity(place.distances[i])), format_distance(from_estimate_m[i])
        alt = f"Rank {i + 1} of {model}, {distance} from the estimate"
        facts = [f"rank {i + 1}", f"similarity {similarity:.2f}", *describe_photo(database, row)]
        cards.append(render_card(thumbnails.make_img("database", row, alt), "", distance, facts))
        marks.append(Mark(database.utm[row], "found", f"rank {i + 1}, {distance}", str(i + 1)))
    east, north = place.utm
    facts = [f"estimate: {east:.0f} m east, {north:.0f} m north (UTM), spread {format_distance(place.spread_m)}"]
    if place.exif_utm is None:
        facts.append(f"EXIF position: {place.exif_note}")
    else:
        off = float(np.linalg.norm(place.exif_utm - place.utm))
        facts.append(f"EXIF position: {format_distance(off)} from the estimate")
    ground = draw_map(place.utm, max(place.spread_m, 1.0), marks, what="estimate")
    found = render_section(f"What {model} finds", "metres are from the estimate", cards)
    return (
        f'<p class="vg-summary">{join(facts)}</p><div class="vg-view"><div class="vg-query">{ground}</div>'
        f'<div class="vg-models">{found}</div></div>'
    )


def read_upload(value: Any) -> bytes | None:
    """The file of a `FileUpload`, whose value is a tuple in ipywidgets 8 and a dict in 7; None where there is none."""
    files = list(value.values()) if isinstance(value, Mapping) else list(value)
    return bytes(files[-1]["content"]) if files else None


def make_controls(browser: Browser) -> dict[str, widgets.ValueWidget]:
    """{field of `View`: its widget}."""
    style = {"description_width": "initial"}

    def dropdown(label: str, options: Mapping[Any, str]) -> widgets.Dropdown:
        choices = [(title, value) for value, title in options.items()]
        return widgets.Dropdown(options=choices, description=label, layout=AUTO, style=style)

    search = widgets.Text(
        description="name", placeholder="part of it, Enter", continuous_update=False, layout=AUTO, style=style
    )
    return {
        "scenario": dropdown("scenario", {"": "all", **SCENARIOS}),
        "source": dropdown("that is", SOURCES),
        "outcome": dropdown("found", browser.list_choices(OUTCOMES)),
        "search": search,
        "order": dropdown("order", browser.list_choices(ORDERS)),
        "descending": widgets.ToggleButton(description="descending", layout=AUTO),
        "num_shown": dropdown("photos", {number: str(number) for number in NUM_SHOWN}),
        "regions": dropdown("regions of photo", {0: "none", **{rank: str(rank) for rank in REGION_RANKS}}),
        "positives": widgets.ToggleButton(description="positives", layout=AUTO),
    }


def make_button(title: str, action: Callable[[], Any]) -> widgets.Button:
    """A button as wide as its title."""
    button = widgets.Button(description=title, layout=AUTO)
    button.on_click(lambda _: action())
    return button


def make_row(children: Sequence[widgets.Widget]) -> widgets.HBox:
    """Widgets side by side, on more lines where the window is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def wrap(content: str) -> str:
    """HTML with the gallery's style."""
    return f'<div class="vg">{content}</div>'
