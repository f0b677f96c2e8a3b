"""Photos of one's own -> half of an evaluation split: their GPS position in EXIF becomes their name."""

from pathlib import Path
from typing import NamedTuple

import utm
from PIL import ExifTags, Image
from tqdm.auto import tqdm

from vpr_lib.atomic_files import write_atomically
from vpr_lib.file_names import PHOTO_SUFFIXES, format_name, parse_name

GPS = ExifTags.GPS


class Position(NamedTuple):
    """Where and when a photo was taken."""

    latitude: float  # degrees, north positive
    longitude: float  # degrees, east positive
    heading_deg: float | None  # clockwise from north
    date: str  # "20150423"; "" where unknown


class Adopted(NamedTuple):
    """What became of a folder of photos."""

    folder: Path
    names: list[str]  # of the photos that are there now, in the convention
    left_out: dict[str, str]  # photo -> why


def adopt(photos: str | Path, to: str | Path, progress: bool = True) -> Adopted:
    """Copy photos under names that say where they were taken; the photos themselves aren't changed.

    Args:
        photos: folder of JPEGs or PNGs with GPS in their EXIF data, in subfolders too.
        to: `ROOT/<split>/queries` or `ROOT/<split>/database`; made if need be.
        progress: show a bar.

    Returns:
        What is there now, and what was left out and why. Photos adopted before are not copied again.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no photo has a position, or they lie in another UTM zone than the split's photos that are there.
    """
    photos, to = Path(photos), Path(to)
    if not photos.is_dir():
        raise FileNotFoundError(f"no folder at {photos}; expected one with photos")
    found, left_out = {}, {}
    for path in sorted(p for p in photos.rglob("*") if p.is_file() and to not in p.parents):
        try:
            found[path] = read_position(path)
        except ValueError as error:
            left_out[path.relative_to(photos).as_posix()] = str(error)
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
        raise ValueError(f"no photo in {photos} has a position ({reasons or 'there are none'})")
    zone = choose_zone(to.parent, next(iter(found.values())))
    names = []
    to.mkdir(parents=True, exist_ok=True)
    for path, position in tqdm(found.items(), unit="photo", desc=str(to), disable=not progress):
        name = name_photo(path.relative_to(photos), position, zone)
        if not (to / name).is_file() or (to / name).stat().st_size != path.stat().st_size:
            write_atomically(to / name, path.read_bytes())
        names.append(name)
    return Adopted(to, names, left_out)


def read_position(path: Path) -> Position:
    """GPS position, heading and date in a photo's EXIF data.

    Raises:
        ValueError: it is no JPEG or PNG, can't be read, or has no GPS position.
    """
    if not path.name.lower().endswith(PHOTO_SUFFIXES):
        raise ValueError(f"no photo ({', '.join(PHOTO_SUFFIXES)}); a phone's HEIC photos must be exported as JPEG")
    try:
        with Image.open(path) as photo:
            exif = photo.getexif()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not readable ({error})") from None
    return parse_exif(exif)


def parse_exif(exif: Image.Exif) -> Position:
    """GPS position, heading and date, as `read_position`.

    Raises:
        ValueError: there is no GPS position, or none on the UTM grid.

    Source: Exif 2.32 (CIPA DC-008), section 4.6.6.
    """
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    try:
        latitude = to_degrees(gps[GPS.GPSLatitude], gps[GPS.GPSLatitudeRef] == "S")
        longitude = to_degrees(gps[GPS.GPSLongitude], gps[GPS.GPSLongitudeRef] == "W")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ValueError("no GPS position in its EXIF data; switch on location in the camera app") from None
    if not (-80 <= latitude <= 84 and -180 <= longitude <= 180) or (latitude == 0 and longitude == 0):
        raise ValueError(f"its GPS position is {latitude:.5f}, {longitude:.5f}, where there is no UTM grid")
    taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime, "")
    try:
        heading = float(gps[GPS.GPSImgDirection]) % 360
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        heading = None
    return Position(latitude, longitude, heading, str(taken)[:10].replace(":", ""))


def to_degrees(parts: tuple[float, float, float], negative: bool) -> float:
    """Degrees, minutes and seconds -> degrees."""
    degrees, minutes, seconds = map(float, parts)
    value = degrees + minutes / 60 + seconds / 3600
    if value != value:  # 0/0, which some phones write before they know where they are
        raise ValueError("not a number")
    return -value if negative else value


def choose_zone(split: Path, position: Position) -> tuple[int, str]:
    """One UTM zone for a whole split, also where it crosses into the next: that of the photos there, else the first's.

    Raises:
        ValueError: the photos there are more than a zone away.
    """
    *_, number, letter = utm.from_latlon(position.latitude, position.longitude)
    there = (path.name for half in ("database", "queries") for path in (split / half).rglob("@*@*"))
    zone = next((zone for zone in (parse_name(name).zone for name in there) if zone[:-1].isdigit()), "")
    if not zone:
        return number, letter
    if (int(zone[:-1]) - number + 1) % 60 > 2:
        raise ValueError(f"{split} holds photos of UTM zone {zone}, these are of {number}{letter}")
    return int(zone[:-1]), zone[-1]


def name_photo(path: Path, position: Position, zone: tuple[int, str]) -> str:
    """A photo's name in the convention; its own name is kept as the id, so two photos of one spot stay two."""
    east, north, *_ = utm.from_latlon(position.latitude, position.longitude, *zone)
    heading = "" if position.heading_deg is None else f"{position.heading_deg:.2f}"
    return format_name(
        path.suffix.lower(),
        east=f"{east:.2f}",
        north=f"{north:.2f}",
        zone=zone[0],
        letter=zone[1],
        lat=f"{position.latitude:.6f}",
        lon=f"{position.longitude:.6f}",
        pano="-".join(path.with_suffix("").parts),
        heading=heading,
        date=position.date,
    )
