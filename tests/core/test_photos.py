"""Decoding photos of all kinds, and thumbnails."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vpr_lib.images import read_images
from vpr_lib.photos import decode, read_photo, read_size, read_thumbnail

GRAY, COLOR, PALETTE, GRAY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6  # PNG's color types
CHANNELS = {GRAY: 1, COLOR: 3, PALETTE: 1, GRAY_ALPHA: 2, COLOR_ALPHA: 4}
PALETTE_COLORS = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)


def png(samples, bits, color_type):
    """A PNG file of (H, W, channels) samples, written by hand (PNG specification, sections 5 and 7)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = samples.shape
    unpacked = (samples.reshape(height, -1, 1) >> np.arange(bits)[::-1]) & 1  # most significant bit first
    rows = np.packbits(unpacked.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    palette = PALETTE_COLORS[: 2**bits].tobytes() if color_type == PALETTE else b""
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))]
    chunks += [chunk(b"PLTE", palette), chunk(b"tRNS", bytes([0, 128]))] if palette else []  # its first two see-through
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bits, color_type", [
    *((bits, GRAY) for bits in (1, 2, 4, 8, 16)), *((bits, PALETTE) for bits in (1, 2, 4, 8)),
    *((bits, color_type) for bits in (8, 16) for color_type in (COLOR, GRAY_ALPHA, COLOR_ALPHA)),
])  # fmt: skip
def test_every_kind_of_png_keeps_its_colors(bits, color_type):
    channels = CHANNELS[color_type]
    samples = np.random.default_rng(0).integers(0, 2**bits, (6, 11, channels))
    if color_type == PALETTE:
        expected = PALETTE_COLORS[samples[..., 0]]
    else:
        colors = samples[..., : channels - (color_type in (GRAY_ALPHA, COLOR_ALPHA))]  # transparency is ignored
        expected = np.broadcast_to(colors * 255 / (2**bits - 1), (6, 11, 3))
    found = decode(png(samples, bits, color_type), (6, 11)).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1)


def test_jpegs_of_a_printer_become_rgb():
    colors = np.array([[[20, 200, 90, 30], [0, 0, 0, 255]], [[255, 0, 0, 0], [10, 20, 30, 200]]], dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colors.repeat(32, 0).repeat(32, 1), "CMYK").save(buffer, "JPEG", quality=100)
    found = decode(buffer.getvalue(), 64)[:, 16::32, 16::32].transpose(1, 2, 0)
    cyan_magenta_yellow, black = colors[..., :3] / 255, colors[..., 3:] / 255
    np.testing.assert_allclose(found, 255 * (1 - cyan_magenta_yellow) * (1 - black), atol=4)


def test_the_first_picture_of_a_phones_file_is_read():
    pictures = [Image.new("RGB", (32, 24), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    np.testing.assert_allclose(decode(buffer.getvalue(), 8)[:, 4, 4], (255, 0, 0), atol=3)


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "GIF", "PPM"])
def test_other_formats_are_not_tried_whatever_the_name_says(tmp_path, kind):
    Image.new("RGB", (32, 24)).save(tmp_path / "@1@2@.jpg", kind)
    table = read_images(tmp_path)
    for read in (read_size, lambda *photo: read_photo(*photo, 8)):
        with pytest.raises(ValueError, match="@1@2@"):
            read(table, 0)


def test_gray_photos_of_16_bits_stand_upright(tmp_path):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(ramp).save(tmp_path / "@1@2@.png", exif=exif)
    found = read_photo(read_images(tmp_path), 0, 8)
    np.testing.assert_allclose(found[0], np.rot90(ramp, -1) / 257, atol=1)


def test_thumbnails_keep_the_shape_and_stand_upright(tmp_path):
    path = tmp_path / "@1@2@.jpg"
    photo = Image.new("RGB", (200, 100), "red")
    photo.save(path)
    table = read_images(tmp_path)
    assert read_thumbnail(table, 0, 50).shape == (25, 50, 3)
    assert read_thumbnail(table, 0, 900).shape == (100, 200, 3)  # never larger than the photo
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    photo.save(path, exif=exif)
    assert read_thumbnail(read_images(tmp_path), 0, 50).shape == (50, 25, 3)
    path.write_bytes(b"no photo")
    with pytest.raises(ValueError, match="@1@2@"):
        read_thumbnail(read_images(tmp_path), 0, 50)
