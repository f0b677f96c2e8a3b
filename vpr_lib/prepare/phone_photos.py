"""Import photos with a GPS position in their EXIF data as the database or the queries of a split."""

import re
from pathlib import Path
from typing import NamedTuple

import utm
from PIL import ExifTags, Image
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.file_names import PHOTO_SUFFIXES, format_name, parse_name
from vpr_lib.photos import open_photo

GPS = ExifTags.GPS
UTM_ZONE = re.compile(r"([1-9]|[1-5]\d|60)[C-HJ-NP-X]")


class Position(NamedTuple):
    """Where and when a photo was taken."""

    latitude: float  # degrees, north positive
    longitude: float  # degrees, east positive
    heading_deg: float | None  # clockwise from north
    date: str  # "20150423"; "" if unknown


class ImportedPhotos(NamedTuple):
    """Result of `import_phone_photos`."""

    folder: Path
    names: list[str]  # of the imported photos in `folder`
    left_out: dict[str, str]  # path of a photo -> why: not readable, no position, or too far from the split's zone


def import_phone_photos(photos: str | Path, to: str | Path) -> ImportedPhotos:
    """Copy photos under names that hold their position, in one UTM zone for the whole split.

    Args:
        photos: folder of JPEGs or PNGs, in subfolders too.
        to: `ROOT/<split>/queries` or `ROOT/<split>/database`; created if missing.

    Raises:
        ValueError: no photo can be imported.
    """
    photos, to = Path(photos), Path(to)
    if not photos.is_dir():
        raise FileNotFoundError(f"no folder at {photos}; expected one with photos")
    zone = _find_zone(to.parent)
    names: dict[Path, str] = {}
    left_out: dict[str, str] = {}
    for path in sorted(path for path in photos.rglob("*") if path.is_file() and to not in path.parents):
        try:
            if not path.name.lower().endswith(PHOTO_SUFFIXES):
                raise ValueError(f"not a photo ({', '.join(PHOTO_SUFFIXES)}); export a phone's HEIC photos as JPEG")
            with open_photo(path.read_bytes()) as photo:
                exif = photo.getexif()
            position = parse_exif(exif)
            zone = zone or _get_zone(position)
            names[path] = _name_photo(path.relative_to(photos), position, zone)
        except (ValueError, OSError) as error:
            left_out[path.relative_to(photos).as_posix()] = str(error)
    if not names:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise ValueError(f"no photo in {photos} can be imported ({reasons or 'the folder is empty'})")
    to.mkdir(parents=True, exist_ok=True)
    for path, name in tqdm(names.items(), unit="photo", desc=str(to)):
        if not (to / name).is_file() or (to / name).stat().st_size != path.stat().st_size:
            write_atomically(to / name, path.read_bytes())
    return ImportedPhotos(to, list(names.values()), left_out)


def parse_exif(exif: Image.Exif) -> Position:
    """GPS position, heading and date in EXIF data; ValueError if there is no position, or one outside the UTM grid.

    Source: Exif 2.32 (CIPA DC-008), section 4.6.6.
    """
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    try:
        latitude = _to_degrees(gps[GPS.GPSLatitude], gps[GPS.GPSLatitudeRef] == "S")
        longitude = _to_degrees(gps[GPS.GPSLongitude], gps[GPS.GPSLongitudeRef] == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ValueError("no GPS position in its EXIF data; enable location in the camera app") from None
    # Some phones write 0/0 (NaN) or 0, 0 before they have a position.
    if not (-80 <= latitude <= 84 and -180 <= longitude <= 180) or (latitude == 0 and longitude == 0):
        raise ValueError(f"its GPS position {latitude:.5f}, {longitude:.5f} lies outside the UTM grid")
    date = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime, "")
    try:
        heading_deg = float(gps[GPS.GPSImgDirection]) % 360
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        heading_deg = None
    return Position(latitude, longitude, heading_deg, str(date)[:10].replace(":", ""))


def _to_degrees(parts: tuple[float, float, float], negative: bool) -> float:
    degrees, minutes, seconds = map(float, parts)
    return (degrees + minutes / 60 + seconds / 3600) * (-1 if negative else 1)


def project_to_zone(position: Position, zone: str) -> tuple[float, float]:
    """East and north in meters of a position, in its own UTM zone or a neighboring one; ValueError for others."""
    if not UTM_ZONE.fullmatch(zone):
        raise ValueError(f"{zone!r} is not a UTM zone; expected a number and a letter such as 10S")
    number, own_zone = int(zone[:-1]), _get_zone(position)
    if (int(own_zone[:-1]) - number + 1) % 60 > 2:  # 60 zones around the Earth; zone 1 is next to zone 60
        raise ValueError(f"its GPS position lies in UTM zone {own_zone}, too far from zone {zone}")
    return utm.from_latlon(position.latitude, position.longitude, number, zone[-1])[:2]


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
        path.suffix.lower(),
        east=f"{east:.2f}",
        north=f"{north:.2f}",
        zone=zone[:-1],
        letter=zone[-1],
        lat=f"{position.latitude:.6f}",
        lon=f"{position.longitude:.6f}",
        pano="-".join(path.with_suffix("").parts),
        heading="" if position.heading_deg is None else f"{position.heading_deg:.2f}",
        date=position.date,
    )
