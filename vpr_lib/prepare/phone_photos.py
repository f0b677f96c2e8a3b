"""Import photos with a GPS position in their EXIF data as the database or the queries of a split."""

import contextlib
import math
import re
import struct
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import utm
from PIL import ExifTags, Image
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.file_names import PHOTO_SUFFIXES, format_name, parse_name
from vpr_lib.photos import open_photo

GPS = ExifTags.GPS
FALSE_NORTHING_M = 10_000_000  # of the zones south of the equator, C to M
UTM_ZONE = re.compile(r"([1-9]|[1-5]\d|60)[C-HJ-NP-X]")


class Position(NamedTuple):
    """Where and when a photo was taken."""

    latitude: float  # degrees, north positive
    longitude: float  # degrees, east positive
    heading_deg: float  # clockwise from north; NaN if unknown
    date: str  # "20150423"; "" if unknown


class ImportedPhotos(NamedTuple):
    """Result of `import_phone_photos`."""

    folder: Path
    names: list[str]  # of the imported photos in `folder`
    left_out: dict[str, str]  # path of a photo -> why: not readable, no position, too far from the split's zone, ...


def import_phone_photos(photos: str | Path, to: str | Path) -> ImportedPhotos:
    """Copy photos under names that hold their position, in one UTM zone for the whole split.

    Args:
        photos: folder of JPEGs or PNGs, in subfolders too; photos of splits below it, as those of `to`, are ignored.
        to: `ROOT/<split>/queries` or `ROOT/<split>/database`; created if missing.

    Raises:
        ValueError: no photo can be imported.
    """
    photos, to = Path(photos), Path(to)
    if not photos.is_dir():
        raise FileNotFoundError(f"no folder at {photos}; expected one with photos")
    zone = _find_zone(to.parent)
    names: dict[Path, str] = {}
    taken: dict[str, Path] = {}  # {name as disks of Windows and macOS compare it: the photo}
    left_out: dict[str, str] = {}
    for path in _list_photos(photos, to):
        try:
            if not path.name.lower().endswith(PHOTO_SUFFIXES):
                raise ValueError(f"not a photo ({', '.join(PHOTO_SUFFIXES)}); export a phone's HEIC photos as JPEG")
            with open_photo(path.read_bytes()) as photo:
                exif = photo.getexif()
            position = parse_exif(exif)
            zone = zone or _get_zone(position)
            name = _name_photo(path.relative_to(photos), position, zone)
            first = taken.setdefault(unicodedata.normalize("NFC", name.casefold()), path)
            if first != path:
                raise ValueError(f"has the same position as {first} and nearly its name; rename one of them")
            names[path] = name
        except (ValueError, OSError) as error:
            left_out[path.relative_to(photos).as_posix()] = str(error)
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise ValueError(f"no photo in {photos} can be imported ({reasons or 'there is nothing to import'})")
    to.mkdir(parents=True, exist_ok=True)
    for path, name in tqdm(names.items(), unit="photo", desc=str(to)):
        data = path.read_bytes()
        if not (to / name).is_file() or (to / name).read_bytes() != data:
            write_atomically(to / name, data)
    return ImportedPhotos(to, list(names.values()), left_out)


def _list_photos(photos: Path, to: Path) -> Iterator[Path]:
    """Yield the files in a folder, sorted, but those in `to` and the photos of splits: what was imported before."""
    for path in sorted(path for path in photos.rglob("*") if path.is_file()):
        if {photos.resolve().name, *path.relative_to(photos).parts[:-1]} & {"database", "queries"}:
            with contextlib.suppress(ValueError):
                parse_name(path.name)
                continue  # its name holds a position
        if to.resolve() not in path.resolve().parents:
            yield path


def parse_exif(exif: Image.Exif) -> Position:
    """GPS position, heading and date in EXIF data; ValueError if there is no position, or one outside the UTM grid.

    Source: Exif 2.32 (CIPA DC-008), section 4.6.6.
    """
    try:
        gps, details = exif.get_ifd(ExifTags.IFD.GPSInfo), exif.get_ifd(ExifTags.IFD.Exif)
        latitude = _to_degrees(gps[GPS.GPSLatitude], gps[GPS.GPSLatitudeRef], "NS")
        longitude = _to_degrees(gps[GPS.GPSLongitude], gps[GPS.GPSLongitudeRef], "EW")
    except (KeyError, TypeError, ZeroDivisionError, struct.error, SyntaxError):
        raise ValueError("no GPS position in its EXIF data; enable location in the camera app") from None
    # Some phones write 0, 0 before they have a position.
    if not (-80 <= latitude <= 84 and -180 <= longitude <= 180) or (latitude == 0 and longitude == 0):
        raise ValueError(f"its GPS position {latitude:.5f}, {longitude:.5f} lies outside the UTM grid")
    date = details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime, "")
    match = re.match(r"(\d{4}):(\d\d):(\d\d)", str(date), re.ASCII)
    try:
        heading_deg = float(gps[GPS.GPSImgDirection]) % 360
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        heading_deg = math.nan
    return Position(latitude, longitude, heading_deg, "".join(match.groups()) if match else "")


def _to_degrees(parts: tuple[float, float, float], reference: str | bytes, letters: str) -> float:
    """Degrees, minutes and seconds of one of two hemispheres, `letters`, the first of which is positive."""
    text = reference.decode("latin-1") if isinstance(reference, bytes) else str(reference)
    letter = text.strip("\0 ").upper()
    try:
        degrees, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        degrees = minutes = seconds = math.nan  # like the 0/0 that some phones write before they have a position
    if letter not in {*letters} or not (0 <= degrees <= 180 and 0 <= minutes <= 60 and 0 <= seconds <= 60):
        expected = f"degrees, minutes, seconds, and {' or '.join(letters)}"
        raise ValueError(f"its GPS position {parts} {reference!r} is not valid; expected {expected}")
    return (degrees + minutes / 60 + seconds / 3600) * (1 if letter == letters[0] else -1)


def project_to_zone(position: Position, zone: str) -> tuple[float, float]:
    """East and north in meters of a position, in its own UTM zone or a neighboring one; ValueError for others.

    A position on the other side of the equator gets the false northing of `zone`, so that distances stay right.
    """
    if not UTM_ZONE.fullmatch(zone):
        raise ValueError(f"{zone!r} is not a UTM zone; expected a number and a letter such as 10S")
    number, own_zone = int(zone[:-1]), _get_zone(position)
    if (int(own_zone[:-1]) - number + 1) % 60 > 2:  # 60 zones around the Earth; zone 1 is next to zone 60
        raise ValueError(f"its GPS position lies in UTM zone {own_zone}, too far from zone {zone}")
    # With a letter, versions of utm before 0.8 ignore it: they add the false northing by the latitude.
    east, north = utm.from_latlon(position.latitude, position.longitude, number)[:2]
    return east, north + FALSE_NORTHING_M * ((zone[-1] < "N") - (own_zone[-1] < "N"))


def to_latitude_longitude(east_m: float, north_m: float, zone: str) -> tuple[float, float]:
    """Latitude and longitude in degrees of a position in a UTM zone: the inverse of `project_to_zone`."""
    if not UTM_ZONE.fullmatch(zone):
        raise ValueError(f"{zone!r} is not a UTM zone; expected a number and a letter such as 10S")
    # Not strict: a position may lie a little beyond the border of its zone.
    latitude, longitude = utm.to_latlon(east_m, north_m, int(zone[:-1]), northern=zone[-1] >= "N", strict=False)
    return float(latitude), float(longitude)


def _get_zone(position: Position) -> str:
    *_, number, letter = utm.from_latlon(position.latitude, position.longitude)
    return f"{number}{letter}"


def _find_zone(split: Path) -> str | None:
    """UTM zone of the photos that a split holds already."""
    paths = (path for half in ("database", "queries") for path in (split / half).rglob("@*@*"))
    return next((zone for zone in (parse_name(path.name).zone for path in paths) if UTM_ZONE.fullmatch(zone)), None)


def _name_photo(path: Path, position: Position, zone: str) -> str:
    """Name with the position; `path` becomes the panorama id, so two photos of one position get two names."""
    east, north = project_to_zone(position, zone)
    return format_name(
        path.suffix.lower(), east=f"{east:.2f}", north=f"{north:.2f}", zone=zone[:-1], letter=zone[-1],
        lat=f"{position.latitude:.6f}", lon=f"{position.longitude:.6f}", pano="-".join(path.with_suffix("").parts),
        heading="" if math.isnan(position.heading_deg) else f"{position.heading_deg:.2f}", date=position.date,
    )  # fmt: skip
