"""Panel below the gallery that locates a photo of the user's own."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from vpr_lib.analysis.locating import Location, locate_photo
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.figures.photo_grids import format_distance
from vpr_lib.gallery.browser import to_similarity
from vpr_lib.gallery.layout import AUTO_WIDTH, make_row, wrap_html
from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.gallery.rendering import join_facts, list_photo_facts, render_card, render_section, render_warning
from vpr_lib.gallery.thumbnails import Thumbnails
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.models import VPRModel
from vpr_lib.run_folders import Run

UPLOAD_NOTE = "Photos of more than 10 MB exceed Jupyter's limit for uploads: give their path instead."


class OwnPhotoPanel:
    """Shows a model's predictions for an uploaded photo and where it may have been taken.

    Args:
        database: database of the split.
        runs: {model: run}.
        load_model: returns a model by its name.
        machine: device and workers for the descriptors.
    """

    def __init__(
        self, database: ImageTable, runs: Mapping[str, Run], load_model: Callable[[str], VPRModel], machine: Machine
    ) -> None:
        self.database = database
        self.runs = runs
        self.load_model = load_model
        self.machine = machine
        self.thumbnails = Thumbnails({"database": database})
        self._descriptors: dict[str, np.ndarray] = {}
        self.model = widgets.Dropdown(options=list(runs), description="model")
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="upload a photo", layout=AUTO_WIDTH
        )
        self.path = widgets.Text(placeholder="or its path, then Enter", continuous_update=False)
        self.upload.observe(lambda change: self._locate_upload(change["new"]), "value")
        self.path.observe(lambda change: self._locate_path(change["new"].strip()), "value")
        self.screen = widgets.HTML(wrap_html(f'<p class="vg-note">{UPLOAD_NOTE}</p>'))
        self.widget = widgets.VBox([make_row([self.model, self.upload, self.path]), self.screen])

    def locate(self, photo: bytes) -> None:
        """Show the predictions for a photo and its estimated position, or why there are none."""
        model = self.model.value
        settings = self.runs[model].settings
        self.screen.value = wrap_html(
            f"<p>Extracting {len(self.database):,} database descriptors (first time only) ...</p>"
        )
        try:
            location = locate_photo(
                self.load_model(model),
                settings,
                self.database,
                self._extract_database(model),
                photo,
                k=min(10, len(self.database)),
                machine=self.machine,
            )
        except (OSError, ValueError) as error:
            self.screen.value = wrap_html(render_warning(f"Not located: {error}"))
            return
        self.screen.value = wrap_html(_render_location(location, model, self.database, self.thumbnails))

    def _extract_database(self, model: str) -> np.ndarray:
        """(N, D) float32, saved in the run folder if that is writable."""
        if model not in self._descriptors:
            run = self.runs[model]
            extract = functools.partial(
                extract_descriptors,
                self.load_model(model),
                self.database,
                run.settings.image_size,
                precision=run.settings.precision,
                machine=self.machine,
            )
            try:
                descriptors = extract(cache_dir=run.folder / "descriptors")
            except OSError:
                descriptors = extract()
            self._descriptors[model] = descriptors
        return self._descriptors[model]

    def _locate_path(self, path: str) -> None:
        if not path:
            return
        try:
            photo = Path(path).expanduser().read_bytes()
        except OSError as error:
            self.screen.value = wrap_html(render_warning(f"{path} can't be read ({error.strerror})."))
            return
        self.locate(photo)

    def _locate_upload(self, value: Any) -> None:
        """The value of a `FileUpload` is a tuple of files in ipywidgets 8 and a dict in 7."""
        files = list(value.values()) if isinstance(value, Mapping) else list(value)
        if files:
            self.locate(bytes(files[-1]["content"]))


def _render_location(location: Location, model: str, database: ImageTable, thumbnails: Thumbnails) -> str:
    """The predictions for a photo, their map, and the estimated position."""
    cards = []
    marks = []
    if location.exif_utm is not None:
        marks.append(Mark(location.exif_utm, "exif", "position in the photo's EXIF data", "E", "diamond"))
    distances_m = np.linalg.norm(database.utm[location.indices] - location.utm, axis=1)
    similarities = to_similarity(location.distances)
    for i, row in enumerate(location.indices):
        distance = format_distance(distances_m[i])
        alt = f"Rank {i + 1} of {model}, {distance} from the estimate"
        facts = [f"rank {i + 1}", f"similarity {similarities[i]:.2f}", *list_photo_facts(database, row)]
        cards.append(render_card(thumbnails.make_img("database", row, alt), "", distance, facts))
        marks.append(Mark(database.utm[row], "predicted", f"rank {i + 1}, {distance}", str(i + 1)))
    east_m, north_m = location.utm
    spread = format_distance(location.spread_m)
    facts = [f"estimate: {east_m:.0f} m east, {north_m:.0f} m north (UTM), spread {spread}"]
    if location.exif_utm is None:
        facts.append(f"EXIF position: {location.exif_note}")
    else:
        error_m = float(np.linalg.norm(location.exif_utm - location.utm))
        facts.append(f"EXIF position: {format_distance(error_m)} from the estimate")
    location_map = draw_map(location.utm, max(location.spread_m, 1.0), marks, what="estimate")
    section = render_section(f"Predictions of {model}", "distances are from the estimate", cards)
    return (
        f'<p class="vg-summary">{join_facts(facts)}</p><div class="vg-view"><div class="vg-query">{location_map}</div>'
        f'<div class="vg-models">{section}</div></div>'
    )
