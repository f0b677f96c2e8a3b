"""Thumbnails."""

import pytest
from PIL import Image

from vpr_lib.images import read_images
from vpr_lib.photos import read_thumbnail


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
