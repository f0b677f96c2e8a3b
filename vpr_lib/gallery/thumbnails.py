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

MAX_PIXELS = 200  # longer side
MAX_CACHED = 2000  # thumbnails of about 10 kB each
JPEG_QUALITY = 80


class Thumbnails:
    """Cached thumbnails of the photos of several tables.

    Args:
        tables: {name of a table: its photos}.
        max_pixels: longer side of the thumbnails.
        max_cached: size of the cache; the least recently used thumbnails are dropped.

    Attributes:
        read: (name of a table, row) -> data URI of a thumbnail; raises as `photos.read_thumbnail`.
    """

    def __init__(
        self, tables: Mapping[str, ImageTable], max_pixels: int = MAX_PIXELS, max_cached: int = MAX_CACHED
    ) -> None:
        self.tables = dict(tables)
        self.max_pixels = max_pixels
        self.read = functools.lru_cache(max_cached)(self._read)

    def _read(self, table: str, row: int) -> str:
        return format_data_uri(encode_jpeg(read_thumbnail(self.tables[table], row, self.max_pixels)))

    def make_img(self, table: str, row: int, alt: str) -> str:
        """Make the HTML of a photo, or of a placeholder with its name if it can't be read.

        Args:
            table: name of the table.
            row: row of the photo.
            alt: alternative text.
        """
        try:
            return format_img(self.read(table, int(row)), alt)
        except (OSError, ValueError) as error:
            return format_placeholder(self.tables[table].names[row], str(error))


def encode_jpeg(photo: np.ndarray) -> bytes:
    """Encode a photo (H, W, 3) uint8 as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def format_data_uri(data: bytes, mime_type: str = "image/jpeg") -> str:
    """Format a file as a data URI."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def format_img(source: str, alt: str) -> str:
    """Format an image element."""
    return f'<img src="{html.escape(source)}" alt="{html.escape(alt)}">'


def format_placeholder(name: str, reason: str) -> str:
    """Format an element in place of a photo that can't be shown."""
    text = html.escape(f"Photo can't be shown: {name}")
    return f'<div class="vg-missing" role="img" aria-label="{text}" title="{html.escape(reason)}">{text}</div>'
