"""Decoding photos: a photo's file -> pixels of the wanted size."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vpr_lib.images import ImageTable

ImageSize = int | tuple[int, int]  # pixels, of a square or (height, width)
# Pillow tries no other decoder, whatever the file's name says: that of EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP")  # JPEG includes MPO, several pictures in a file, as some phones write


@contextlib.contextmanager
def open_photo(data: bytes) -> Iterator[Image.Image]:
    """Open a photo's bytes with Pillow; if they are not readable, also within the block, it raises a ValueError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as photo:
            yield photo
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # The message of UnidentifiedImageError holds an address in memory.
        reason = "no JPEG, PNG or WebP file" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"is not a readable photo ({reason}); copy it again or remove it") from None


def decode(data: bytes, image_size: ImageSize) -> np.ndarray:
    """Decode and resize a photo's file -> (3, H, W) uint8, RGB, upright as its EXIF orientation says.

    Bilinear, antialiased; the aspect ratio is not kept, as published. Of 16 bits a channel the upper 8 are kept, and
    transparency is ignored. A file that is no readable JPEG, PNG or WebP is a ValueError.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    with open_photo(data) as photo:
        # A JPEG decodes faster at 1/2, 1/4 or 1/8; twice the wanted size leaves the resize to do.
        photo.draft("RGB", (2 * width, 2 * height))
        photo = _to_rgb(ImageOps.exif_transpose(photo))
        return np.array(photo.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith("I"):  # gray of 16 bits, which Pillow converts by cutting off what is above 255
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    photo.info.pop("transparency", None)  # Pillow warns of transparency in a palette
    return photo.convert("RGB")


@contextlib.contextmanager
def _name_in_errors(table: ImageTable, row: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # only now: reading a name earlier would copy its memory into each forked worker
        raise ValueError(f"{table.locate(row)} {error}") from None


def read_photo(table: ImageTable, row: int, image_size: ImageSize) -> np.ndarray:
    """A row's photo as from `decode`; errors name it: ValueError if unreadable, FileNotFoundError if it is gone."""
    data = table.read_bytes(row)
    with _name_in_errors(table, row):
        return decode(data, image_size)


def read_size(table: ImageTable, row: int) -> tuple[int, int]:
    """Width and height of a photo in pixels, upright; raises what `read_photo` raises."""
    data = table.read_bytes(row)
    with _name_in_errors(table, row), open_photo(data) as photo:
        is_sideways = photo.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return photo.size[::-1] if is_sideways else photo.size


def read_thumbnail(table: ImageTable, row: int, max_pixels: int) -> np.ndarray:
    """(H, W, 3) uint8, RGB: a photo with its longer side at most `max_pixels`; raises what `read_photo` raises."""
    width, height = read_size(table, row)
    scale = min(1.0, max_pixels / max(width, height))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return read_photo(table, row, size).transpose(1, 2, 0)
