"""Photos -> small JPEGs as HTML, made when they are looked at and kept while there is room."""

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
MAX_KEPT = 2000  # thumbnails; of about 10 kB each
JPEG_QUALITY = 80


class Thumbnails:
    """Small photos of a few tables.

    Args:
        tables: {name of a table: its photos}.
        max_pixels: longer side of the thumbnails.
        max_kept: the least recently used ones beyond this number are forgotten.
    """

    def __init__(
        self, tables: Mapping[str, ImageTable], max_pixels: int = MAX_PIXELS, max_kept: int = MAX_KEPT
    ) -> None:
        self.tables = dict(tables)
        self.max_pixels = max_pixels
        self.read = functools.lru_cache(max_kept)(self._read)

    def _read(self, table: str, row: int) -> str:
        return to_uri(to_jpeg(read_thumbnail(self.tables[table], row, self.max_pixels)))

    def make_img(self, table: str, row: int, alt: str) -> str:
        """HTML of a photo; of one that is gone or can't be read, a placeholder that names it and says why.

        Args:
            table: name of the table.
            row: of the photo.
            alt: what there is to see, for those who don't.
        """
        try:
            return format_img(self.read(table, int(row)), alt)
        except (OSError, ValueError) as error:
            return format_placeholder(self.tables[table].names[row], str(error))


def to_jpeg(photo: np.ndarray) -> bytes:
    """A photo (H, W, 3) uint8 as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def to_uri(data: bytes, mime_type: str = "image/jpeg") -> str:
    """A file as a data URI."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def format_img(source: str, alt: str) -> str:
    """HTML of a picture."""
    return f'<img src="{html.escape(source)}" alt="{html.escape(alt)}">'


def format_placeholder(name: str, reason: str) -> str:
    """HTML in place of a photo that can't be shown."""
    text = f"Photo can't be shown: {name}"
    return f'<div class="vg-missing" role="img" aria-label="{html.escape(text)}" title="{html.escape(reason)}">' + (
        f"{html.escape(text)}</div>"
    )
