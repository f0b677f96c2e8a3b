"""The panel for a photo of the user's own: its predictions, their map, and where it may have been taken."""

import base64
import html
import json
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import traitlets
from PIL import ImageOps

from vpr_lib.analysis.confidence import to_similarity
from vpr_lib.analysis.locating import Location, locate_photo
from vpr_lib.figures.photo_grids import format_distance
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.gallery.rendering import (
    MakeImg,
    list_photo_facts,
    render_card,
    render_columns,
    render_section,
    render_warning,
)
from vpr_lib.gallery.split_descriptors import SplitDescriptors
from vpr_lib.gallery.thumbnails import encode_photo, format_img
from vpr_lib.images import ImageTable
from vpr_lib.photos import open_photo
from vpr_lib.prepare.phone_photos import to_latitude_longitude

PIXELS = 300  # longer side of the photo shown
# Jupyter's server closes the connection at a message of more than 10 MiB; base64 makes four bytes of three.
MAX_UPLOAD = 7_500_000
UPLOAD_NOTE = (
    f"At most {MAX_UPLOAD / 1e6:g} MB can be uploaded. Of a larger photo, give the path on the notebook's machine."
)


class _UploadText(widgets.Text):
    """Written by own_photo.js; unlike other values, a photo isn't sent back by the kernel."""

    value = traitlets.Unicode("").tag(sync=True, echo_update=False)


class OwnPhotoPanel:
    """Shows a model's predictions for an uploaded photo and where it may have been taken."""

    def __init__(self, browser: Browser, descriptors: SplitDescriptors, make_img: MakeImg) -> None:
        self.browser = browser
        self.descriptors = descriptors
        self.make_img = make_img
        self.model = widgets.Dropdown(options=browser.models, description="model")
        self.chooser = widgets.HTML(_render_chooser())
        self.upload = _UploadText(continuous_update=False)
        self.upload.add_class("vg-upload")
        self.path = widgets.Text(placeholder="or its path, then Enter", continuous_update=False)
        self.upload.observe(lambda change: self._read_upload(change["new"]), "value")
        self.path.observe(lambda change: self._read_path(change["new"].strip()), "value")
        self.screen = widgets.HTML()
        self._show(f'<p class="vg-note">{UPLOAD_NOTE}</p>')
        row = widgets.HBox([self.model, self.chooser, self.path, self.upload])
        row.layout.flex_flow = "row wrap"
        self.widget = widgets.VBox([row, self.screen])
        self.widget.add_class("vg-own-photo")

    def locate(self, photo: bytes, name: str) -> None:
        """Show the predictions for a photo and its estimated position, or why there are none."""
        model, browser = self.model.value, self.browser
        number = len(browser.database)
        self._show(
            f"<p>{html.escape(name)}: comparing with {number:,} database photos (the first time takes longer) ...</p>"
        )
        try:
            vectors = self.descriptors.read_database(model)
            settings, machine = self.descriptors.runs[model].settings, self.descriptors.machine
            network = self.descriptors.load_model(model)
            location = locate_photo(network, settings, browser.database, vectors, photo, min(10, number), machine)
            content = render_location(browser, model, location, photo, name, self.make_img)
        except (OSError, ValueError) as error:
            content = render_warning(f"{name} is not located: {error}")
        self._show(content)

    def _show(self, content: str) -> None:
        self.screen.value = f'<div class="vg">{content}</div>'

    def _read_path(self, path: str) -> None:
        if not path:
            return
        try:
            photo = Path(path).expanduser().read_bytes()
        except OSError as error:
            self._show(render_warning(f"{path} can't be read ({error.strerror})."))
            return
        self.locate(photo, Path(path).name)

    def _read_upload(self, text: str) -> None:
        """`text` is as own_photo.js writes it: first without the photo's content, then with it."""
        if not text:
            return
        sent = json.loads(text)
        name, size = str(sent["name"]), int(sent["size"])
        if sent["data"] is not None:
            self.locate(base64.b64decode(sent["data"]), name)
        elif size > MAX_UPLOAD:
            self._show(render_warning(f"{name} has {size / 1e6:.1f} MB and is too big. {UPLOAD_NOTE}"))
        else:
            self._show(f"<p>Uploading {html.escape(name)} ...</p>")


def _render_chooser() -> str:
    """A button that opens the browser's dialog for files."""
    script = Path(__file__).with_name("own_photo.js").read_text(encoding="utf-8").splitlines()
    handler = html.escape("\n".join(line for line in script if not line.startswith("//")))
    field = f'<input type="file" accept="image/*" data-limit="{MAX_UPLOAD}" onchange="{handler}">'
    return f'<label class="jupyter-button vg-chooser">upload a photo{field}</label>'


def warn_of_similarity(browser: Browser, model: str, similarity: float) -> str:
    """A warning if the first photo is less similar than usual for wrong answers of the split, else "".

    The limit is the median similarity of the first photos of queries that the model answers wrongly; if it answers
    all of them rightly, the lowest similarity.
    """
    number = browser.models.index(model)
    similarities, wrong = browser.similarities[number], browser.ranks[number] > 0
    if wrong.any():
        limit = float(np.median(similarities[wrong]))
        what = f"half of the wrong answers of {model} on {browser.split} have more than {limit:.2f}"
    else:
        limit = float(similarities.min())
        what = f"all answers of {model} on {browser.split} have {limit:.2f} or more"
    if similarity >= limit:
        return ""
    text = f"Don't trust these answers: the similarity of the first photo is only {similarity:.2f}; {what}."
    return f"{text} The place may not be in the database."


def render_location(
    browser: Browser, model: str, location: Location, photo: bytes, name: str, make_img: MakeImg
) -> str:
    """Render a photo of the user's own beside a model's predictions for it, with their map and the position."""
    database = browser.database
    similarities = to_similarity(location.distances)
    warning = warn_of_similarity(browser, model, float(similarities[0]))
    cards, marks, facts = [], [], [f"estimate: {format_position(location.utm, database, location.indices[0])}"]
    facts.append(f"spread {format_distance(location.spread_m)}")
    origin, what = location.utm, "the estimate"
    if location.exif_utm is None:
        facts.append(f"EXIF position: {location.exif_note}")
    else:
        error_m = float(np.linalg.norm(location.exif_utm - location.utm))
        position = format_position(location.exif_utm, database, location.indices[0])
        facts.append(f"EXIF position: {position}, {format_distance(error_m)} from the estimate")
        marks.append(Mark(location.exif_utm, "exif", "position in the photo's EXIF data", "E", "diamond"))
        origin, what = location.exif_utm, "the EXIF position"
    distances_m = np.linalg.norm(database.utm[location.indices] - origin, axis=1)
    for rank, (row, distance_m) in enumerate(zip(location.indices.tolist(), distances_m, strict=True), start=1):
        away = f"{format_distance(distance_m)} from {what}"
        img = make_img("database", row, f"Rank {rank} of {model}, {away}")
        card_facts = [f"similarity {similarities[rank - 1]:.2f}", *list_photo_facts(database, row)]
        # Without an EXIF position the first photo is the estimate itself: its 0 m would look like an answer.
        card_facts += [away] if location.exif_utm is not None or not warning else []
        cards.append(render_card(img, "", f"rank {rank}", card_facts, f"a{rank}"))
        marks.append(Mark(database.utm[row], "predicted", f"rank {rank}, {away}", str(rank), key=f"a{rank}"))
    svg = draw_map(location.utm, browser.radius_m, marks, what="estimate", dots=database.utm)
    figure = f"<figure>{_render_photo(photo, name)}<figcaption><b>{html.escape(name)}</b></figcaption></figure>"
    section = render_section(f"Predictions of {model}", "" if warning else f"distances are from {what}", cards)
    summary = f'<p class="vg-summary">{" ".join(f"<span>{html.escape(fact)}</span>" for fact in facts)}</p>'
    head = render_warning(warning) + summary if warning else summary
    return f'{head}<div class="vg-view">{render_columns(figure + svg, [section])}</div>'


def format_position(utm: np.ndarray, database: ImageTable, row: int) -> str:
    """A position (2,) as latitude and longitude, where the database's zone is known, and in UTM; `row` is nearby."""
    east_m, north_m = utm
    zone = str(database.zones[row])
    text = f"UTM {zone} {east_m:.0f} m east, {north_m:.0f} m north".replace("  ", " ")
    try:
        latitude, longitude = to_latitude_longitude(float(east_m), float(north_m), zone)
    except ValueError:
        return text
    return f"{latitude:.5f}, {longitude:.5f} (latitude, longitude; {text})"


def _render_photo(photo: bytes, name: str) -> str:
    with open_photo(photo) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((PIXELS, PIXELS))
    return format_img(encode_photo(np.asarray(picture)), f"Your photo {name}")
