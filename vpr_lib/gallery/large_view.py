"""What the dialog of gallery.js shows in a notebook: large photos, and regions or matches of two of them."""

from collections.abc import Mapping, Sequence

from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.rendering import LoadModel, render_matches, render_regions
from vpr_lib.gallery.thumbnails import Thumbnails
from vpr_lib.images import ImageTable

LARGE_PIXELS = 1024  # longer side of the photos


class LargeView:
    """Renders what is asked for."""

    def __init__(self, browser: Browser, image_sizes: Mapping[str, int], load_model: LoadModel) -> None:
        """The sizes, in pixels, are those of the models' input, {model: size}."""
        self.browser = browser
        self.image_sizes = image_sizes
        self.load_model = load_model
        self.tables: dict[str, ImageTable] = {"database": browser.database, "queries": browser.queries}
        self.make_img = Thumbnails(self.tables, LARGE_PIXELS, max_cached=50).make_img

    def render_pair(self, kind: str, row: int, rank: int, models: Sequence[str] = ()) -> str:
        """Render "regions" or "matches" of a query and the photo of a rank, of all models or of some."""
        if kind == "matches":
            return render_matches(self.browser, row, rank, models)
        return render_regions(self.browser, row, rank, self.load_model, self.image_sizes, models)

    def answer(self, row: int, kind: str, words: Sequence[str]) -> str:
        """Render what gallery.js asks for, about the query shown.

        Args:
            row: of the query.
            kind: "photos", "regions" or "matches".
            words: of photos, "table:row" of each; else the key of a photo's mark, as in "b2" of the last model.
        """
        if kind == "photos":
            photos = (word.split(":") for word in words)
            return "".join(self.make_img(table, int(photo), "") for table, photo in photos)
        (key,) = words
        return self.render_pair(kind, row, int(key[1:]), [self.browser.models[key[0] == "b"]])
