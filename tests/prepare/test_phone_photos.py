import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from vpr_lib.data_roots import read_split
from vpr_lib.file_names import format_name, parse_name
from vpr_lib.prepare.phone_photos import (
    Position,
    import_phone_photos,
    project_to_zone,
    to_latitude_longitude,
)
from vpr_lib.recall import find_positives

GPS = ExifTags.GPS


def write_phone_photo(path, latitude, longitude, heading=None, **changes):
    """A JPEG with EXIF as phones write it: degrees, minutes, seconds, and the hemisphere apart.

    `changes` replaces entries of its GPS data, or with `date` that of its date.
    """

    def split_degrees(value):
        minutes = abs(value) % 1 * 60
        return int(abs(value)), int(minutes), minutes % 1 * 60

    gps = {GPS.GPSLatitude: split_degrees(latitude), GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S"}
    gps |= {GPS.GPSLongitude: split_degrees(longitude), GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W"}
    if heading is not None:
        gps[GPS.GPSImgDirection] = heading
    date = changes.pop("date", "2015:04:23 10:11:12")
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = gps | {GPS[key]: value for key, value in changes.items()}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: date}
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


@pytest.mark.parametrize(
    "latitude, longitude, zone",
    [(-33.87, 153, "56H"), (48.2, 9, "32U"), (-0.01, 9, "32N"), (0.01, 9, "32M"), (-0.01, 9, "32M"), (-1.5, 9, "31N")],
)
def test_north_is_measured_from_the_equator_of_the_zone(latitude, longitude, zone):
    """On the central meridian of its own zone, north is 0.9996 times the arc of the meridian, summed up here."""
    axis_m, eccentricity2 = 6_378_137.0, 0.00669438
    middles = (np.arange(100_000) + 0.5) / 100_000 * math.radians(latitude)
    radius_m = axis_m * (1 - eccentricity2) / (1 - eccentricity2 * np.sin(middles) ** 2) ** 1.5
    expected = 0.9996 * radius_m.mean() * math.radians(latitude) + (10_000_000 if zone[-1] < "N" else 0)
    _, north = project_to_zone(Position(latitude, longitude, math.nan, ""), zone)
    # Six degrees from a neighboring zone's meridian, the same latitude lies a little farther from the equator.
    assert north == pytest.approx(expected, abs=0.01 if zone != "31N" else 1000)
    assert zone != "56H" or 6_250_000 < north < 6_255_000


@pytest.mark.parametrize("reference", ["s", "S", b"S", b"s\0", " S ", "S\0"])
def test_southern_and_western_references_are_read_as_phones_write_them(tmp_path, reference):
    west = reference.replace(b"S", b"W").replace(b"s", b"w") if isinstance(reference, bytes) else "w"
    changes = {"GPSLatitudeRef": reference, "GPSLongitudeRef": west}
    write_phone_photo(tmp_path / "in" / "a.jpg", 22.9519, 43.2105, **changes)
    parsed = parse_name(import_phone_photos(tmp_path / "in", tmp_path / "q").names[0])
    assert parsed.zone == "23K" and 7_000_000 < parsed.north_m < 8_000_000


WRONG = [
    *({"GPSLatitudeRef": reference} for reference in ("X", "", "E", "NS", "North", 2)),
    *({"GPSLongitudeRef": reference} for reference in ("X", "N", b"\xff")),
    *({"GPSLatitude": parts} for parts in ((48.0, 61.0, 0.0), (48.0, 0.0, 60.5), (481.0, 0.0, 0.0), (48.0, 1.0))),
    {"GPSLatitude": (IFDRational(0, 0), 0.0, 0.0)},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_positions_that_are_not_valid_are_named(tmp_path, changes):
    write_phone_photo(tmp_path / "in" / "good.jpg", 48.1, 11.5)
    write_phone_photo(tmp_path / "in" / "wrong.jpg", 48.1, 11.5, **changes)
    imported = import_phone_photos(tmp_path / "in", tmp_path / "q")
    assert "GPS position" in imported.left_out["wrong.jpg"] and len(imported.names) == 1


def test_a_position_with_a_sign_of_its_own_is_refused(tmp_path):
    """Is -33 S in the north or in the south? Pillow does not write signed fractions, so bytes are replaced."""
    path = tmp_path / "in" / "a.jpg"
    write_phone_photo(path, -33, 18)
    data = path.read_bytes()
    order = {b"II": "<", b"MM": ">"}[data[data.index(b"Exif\0\0") + 6 :][:2]]
    for old, new in ((("HHL", 2, 5, 3), ("HHL", 2, 10, 3)), (("LL", 33, 1), ("ll", -33, 1))):  # type; value
        assert data.count(struct.pack(order + old[0], *old[1:])) == 1
        data = data.replace(struct.pack(order + old[0], *old[1:]), struct.pack(order + new[0], *new[1:]))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.jpg: .*-33"):
        import_phone_photos(tmp_path / "in", tmp_path / "q")


@pytest.mark.parametrize("date", ["0000", "2015/04/23", "\n../../x", "    :  :     "])
def test_a_date_that_is_none_is_not_put_into_the_name(tmp_path, date):
    write_phone_photo(tmp_path / "in" / "a.jpg", 48.1, 11.5, date=date)
    name = import_phone_photos(tmp_path / "in", tmp_path / "q").names[0]
    assert name.split("@")[13] == ""


@pytest.mark.parametrize("to", ["archive/mine/walk", "archive/walk", "mine/walk"])
@pytest.mark.parametrize("relative", [False, True])
def test_imported_photos_are_not_imported_again(tmp_path, monkeypatch, to, relative):
    """Also where the split lies below the source: by a second call, for the other half, of another split."""
    monkeypatch.chdir(tmp_path)
    write_phone_photo(tmp_path / "archive" / "sub" / "a.jpg", 48.1, 11.5)
    write_phone_photo(tmp_path / "archive" / "database" / "b.jpg", 48.1, 11.6)  # a folder of one's own
    source = Path("archive") if relative else tmp_path / "archive"
    for split in (to, to, f"{to}2"):
        for half in ("queries", "database"):
            names = import_phone_photos(source, tmp_path / split / half).names
            assert sorted(path.name for path in (tmp_path / split / half).iterdir()) == sorted(names)
            assert len(names) == 2
    with pytest.raises(ValueError, match="nothing to import"):
        import_phone_photos(tmp_path / to / "queries", tmp_path / to / "database")


def test_photos_that_would_get_one_name_are_named(tmp_path):
    for name in ("a-b.jpg", "a/b.jpg", "a/B.JPG"):
        write_phone_photo(tmp_path / "in" / name, 48.1, 11.5)
    imported = import_phone_photos(tmp_path / "in", tmp_path / "q")
    assert len(imported.names) == 1 == len(list((tmp_path / "q").iterdir())) and len(imported.left_out) == 2
    assert all("in/a" in reason for reason in imported.left_out.values())


def test_a_photo_with_another_content_replaces_the_earlier_one(tmp_path):
    write_phone_photo(tmp_path / "in" / "a.jpg", 48.1, 11.5)
    data = (tmp_path / "in" / "a.jpg").read_bytes()
    (name,) = import_phone_photos(tmp_path / "in", tmp_path / "q").names
    (tmp_path / "in" / "a.jpg").write_bytes(data + b"1")
    import_phone_photos(tmp_path / "in", tmp_path / "q")
    (tmp_path / "in" / "a.jpg").write_bytes(data + b"2")  # of the same size
    import_phone_photos(tmp_path / "in", tmp_path / "q")
    assert (tmp_path / "q" / name).read_bytes() == data + b"2"


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
    fiji = Position(-17.0, 179.9, math.nan, "")  # zone 60, beside zone 1
    assert project_to_zone(fiji, "60K") != project_to_zone(fiji, "1K")
    for zone in ("2K", "58K", "", "10", "K", "61K", "10I"):
        with pytest.raises(ValueError, match=repr(zone) if zone not in ("2K", "58K") else f"60K.*{zone}"):
            project_to_zone(fiji, zone)


@pytest.mark.parametrize(("east_m", "north_m", "zone", "latitude", "longitude"), [
    (630_084, 4_833_438, "17T", 43 + 38 / 60 + 33.24 / 3600, -(79 + 23 / 60 + 13.7 / 3600)),  # CN Tower, Toronto
    (313_784, 5_427_057, "60G", -41.28646, 174.77624),  # Wellington
])  # fmt: skip
def test_utm_becomes_published_latitudes_and_longitudes(east_m, north_m, zone, latitude, longitude):
    found = to_latitude_longitude(east_m, north_m, zone)
    assert found == pytest.approx((latitude, longitude), abs=1e-5)  # a meter
    assert project_to_zone(Position(*found, math.nan, ""), zone) == pytest.approx((east_m, north_m), abs=0.01)
    with pytest.raises(ValueError, match="UTM zone"):
        to_latitude_longitude(east_m, north_m, "")


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
    with pytest.raises(ValueError, match="nothing to import"):
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
