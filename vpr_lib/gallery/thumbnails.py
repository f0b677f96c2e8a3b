"""Thumbnails: small JPEGs of photos as HTML, made when first shown and cached."""

import base64
import functools
import html
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from vpr_lib.images import ImageTable
from vpr_lib.photos import read_thumbnail

JPEG_QUALITY = 80


class Thumbnails:
    """Thumbnails of the photos of {name: table}; the last 2,000 used are cached."""

    def __init__(self, tables: Mapping[str, ImageTable], max_pixels: int = 200, max_cached: int = 2000) -> None:
        self.tables = dict(tables)
        self.max_pixels = max_pixels
        self.read = functools.lru_cache(max_cached)(self._read)  # (name of a table, row) -> data URI

    def _read(self, table: str, row: int) -> str:
        return encode_photo(read_thumbnail(self.tables[table], row, self.max_pixels))

    def make_img(self, table: str, row: int, alt: str, sources: dict[str, str] | None = None) -> str:
        """Make the HTML of a photo that a click enlarges, or of a placeholder with its name if it can't be read.

        If `sources`, {key: data URI}, is given, the photo is stored there once and the HTML contains only its key.
        """
        img = self.make_plain_img(table, row, alt, sources)
        if not img.startswith("<img"):
            return img
        return f'<button type="button" class="vg-photo" data-id="{table}:{row}" title="enlarge">{img}</button>'

    def make_plain_img(self, table: str, row: int, alt: str, sources: dict[str, str] | None = None) -> str:
        """As `make_img`, but without the button that enlarges the photo."""
        try:
            source = self.read(table, int(row))
        except (OSError, ValueError) as error:
            text = html.escape(f"Photo can't be shown: {self.tables[table].names[row]}")
            reason = html.escape(str(error))
            return f'<div class="vg-missing" role="img" aria-label="{text}" title="{reason}">{text}</div>'
        if sources is None:
            return format_img(source, alt)
        sources[f"{table}{row}"] = source
        return f'<img data-photo="{table}{row}" alt="{html.escape(alt)}">'


def encode_photo(photo: np.ndarray) -> str:
    """Encode a photo (H, W, 3) uint8 as the data URI of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return format_data_uri(buffer.getvalue(), "image/jpeg")


def format_data_uri(data: bytes, mime_type: str) -> str:
    """Format a file as a data URI."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def format_img(source: str, alt: str) -> str:
    """Format an image element."""
    return f'<img src="{html.escape(source)}" alt="{html.escape(alt)}">'
