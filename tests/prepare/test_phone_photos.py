import math

import numpy as np
import pytest
from PIL import ExifTags, Image

from vpr_lib.data_roots import read_split
from vpr_lib.file_names import format_name, parse_name
from vpr_lib.prepare.phone_photos import Position, import_phone_photos, project_to_zone
from vpr_lib.recall import find_positives

GPS = ExifTags.GPS


def write_phone_photo(path, latitude, longitude, heading=None):
    """A JPEG with EXIF as phones write it: degrees, minutes, seconds, and the hemisphere apart."""

    def split_degrees(value):
        minutes = abs(value) % 1 * 60
        return int(abs(value)), int(minutes), minutes % 1 * 60

    gps = {GPS.GPSLatitude: split_degrees(latitude), GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S"}
    gps |= {GPS.GPSLongitude: split_degrees(longitude), GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W"}
    if heading is not None:
        gps[GPS.GPSImgDirection] = heading
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = gps
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2015:04:23 10:11:12"}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path, exif=exif)


def test_positions_agree_with_a_published_photo(tmp_path):
    """The name of a photo of gsv_xs holds both: UTM 544050.17, 4174706.96 zone 10S, and 37.71856, -122.50018."""
    write_phone_photo(tmp_path / "in" / "IMG_1.JPG", 37.71856, -122.50018, heading=398.0)
    imported = import_phone_photos(tmp_path / "in", tmp_path / "root" / "mine" / "queries")
    (name,) = imported.names
    parsed = parse_name(name)
    assert math.hypot(parsed.east_m - 544050.17, parsed.north_m - 4174706.96) < 0.1
    assert parsed.zone == "10S" and parsed.heading_deg == pytest.approx(38)
    assert str(parsed.date) == "2015-04" and name.endswith("@.jpg") and "@IMG_1@" in name
    assert (imported.folder / name).read_bytes() == (tmp_path / "in" / "IMG_1.JPG").read_bytes()
    assert not imported.left_out


@pytest.mark.parametrize("latitude, longitude, zone", [(-33.8568, 151.2153, "56H"), (-22.9519, -43.2105, "23K")])
def test_southern_and_western_positions(tmp_path, latitude, longitude, zone):
    write_phone_photo(tmp_path / "in" / "a.jpg", latitude, longitude)
    parsed = parse_name(import_phone_photos(tmp_path / "in", tmp_path / "q").names[0])
    assert parsed.zone == zone and 160_000 < parsed.east_m < 840_000 and 6_000_000 < parsed.north_m < 10_000_000
    assert math.isnan(parsed.heading_deg)


def test_photos_become_a_split_with_positives_across_a_zone_border(tmp_path):
    """Meters from degrees on a sphere, close enough to tell 20 m from 40 m."""
    degrees_per_m = math.degrees(1 / 6_371_000)
    for i, north_m in enumerate((0, 20, 40)):
        write_phone_photo(tmp_path / "database" / f"{i}.jpg", 48.2 + north_m * degrees_per_m, 11.9999)
    write_phone_photo(tmp_path / "queries" / "sub" / "q.jpg", 48.2, 12.0001)  # the next UTM zone, 15 m away
    for half in ("database", "queries"):
        import_phone_photos(tmp_path / half, tmp_path / "root" / "walk" / half)
    database, queries = read_split(tmp_path / "root", "walk")
    assert [len(rows) for rows in find_positives(database.utm, queries.utm)] == [2]
    assert "@sub-q@" in queries.names[0]


def test_positions_are_projected_to_a_neighboring_zone_only():
    fiji = Position(-17.0, 179.9, None, "")  # zone 60, beside zone 1
    assert project_to_zone(fiji, "60K") != project_to_zone(fiji, "1K")
    for zone in ("2K", "58K", "", "10", "K", "61K", "10I"):
        with pytest.raises(ValueError, match=repr(zone) if zone not in ("2K", "58K") else f"60K.*{zone}"):
            project_to_zone(fiji, zone)


def test_photos_that_cannot_be_imported_are_named_and_left_out(tmp_path):
    photos = tmp_path / "in"
    positions = {"good": (48, 11), "same": (48, 11), "zero": (0, 0), "pole": (88, 11), "tokyo": (35.68, 139.77)}
    for name, position in positions.items():
        write_phone_photo(photos / f"{name}.jpg", *position)
    Image.new("RGB", (9, 9)).save(photos / "plain.jpg")
    for name in ("broken.jpg", "phone.heic"):
        (photos / name).write_bytes(b"no photo")
    imported = import_phone_photos(photos, tmp_path / "q")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "q").iterdir()}
    assert len(imported.names) == 2 == len(before)
    assert set(imported.left_out) == {"plain.jpg", "broken.jpg", "phone.heic", "zero.jpg", "pole.jpg", "tokyo.jpg"}
    assert "GPS" in imported.left_out["plain.jpg"] and "HEIC" in imported.left_out["phone.heic"]
    assert import_phone_photos(photos, tmp_path / "q").names == imported.names
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "q").iterdir()} == before


def test_an_import_without_a_usable_photo_fails(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        import_phone_photos(tmp_path / "nowhere", tmp_path / "q")
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="empty"):
        import_phone_photos(tmp_path / "in", tmp_path / "q")
    write_phone_photo(tmp_path / "paris" / "a.jpg", 48.86, 2.35)
    write_phone_photo(tmp_path / "tokyo" / "a.jpg", 35.68, 139.77)
    import_phone_photos(tmp_path / "paris", tmp_path / "root" / "s" / "database")
    with pytest.raises(ValueError, match=r"a\.jpg: .*54S.*31U"):
        import_phone_photos(tmp_path / "tokyo", tmp_path / "root" / "s" / "queries")


def test_format_name_is_the_inverse_of_parse_name():
    name = format_name(".png", east="1.50", north="2.25", zone=10, letter="S", heading=30, note="7_a@b/c")
    assert parse_name("x@y/" + name) == parse_name(name)
    assert parse_name(name)._replace(date=None) == (1.5, 2.25, 30.0, None, "7_a-b-c", "10S")
    with pytest.raises(ValueError, match=r"eats.*east, north"):
        format_name(eats=1)
