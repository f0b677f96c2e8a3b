"""TODO-DOC file_names."""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
FIELDS = (
    *("east", "north", "zone", "letter", "lat", "lon", "pano", "tile", "heading", "pitch", "roll", "height"),
    *("date", "note"),
)
EMPTY = [""] * len(FIELDS)


class PhotoName(NamedTuple):
    """What a photo's file name says. Missing fields: "" for note and zone, NaN for heading, NaT for date."""

    east_m: float
    north_m: float
    heading_deg: float  # 0 <= heading < 360; some names hold 398
    date: np.datetime64  # month resolution
    note: str
    zone: str  # of UTM, with its letter: "10S"


def parse_name(name: str) -> PhotoName:
    """Read the fields of one photo's name; folders before it are ignored, `@` in them too.

    Raises:
        ValueError: the name has no UTM coordinates.
    """
    stem = name[name.rfind("/") + 1 :].rpartition(".")[0]
    found = stem.split("@")[1:] + EMPTY
    try:
        east, north = float(found[0]), float(found[1])
    except ValueError:
        east = north = math.nan
    if not (math.isfinite(east) and math.isfinite(north)):
        raise ValueError(f"{name}: no UTM coordinates; expected a name like @544050.17@4174706.96@10@S@...@.jpg")
    try:
        heading = float(found[8] or "nan") % 360.0
    except ValueError:
        heading = math.nan
    return PhotoName(east, north, heading, _parse_month(found[12]), found[13], found[2] + found[3])


def format_name(suffix: str = ".jpg", **fields: object) -> str:
    """A photo's file name in the convention.

    Args:
        suffix: of the file.
        fields: any of `FIELDS`, as they are to be written; the others stay empty.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown fields {', '.join(unknown)}; valid: {', '.join(FIELDS)}")
    texts = [str(fields.get(field, "")).replace("@", "-").replace("/", "-") for field in FIELDS]
    return "@" + "@".join(texts) + "@" + suffix


@functools.lru_cache(maxsize=4096)  # half a million photos are of a few hundred months
def _parse_month(timestamp: str) -> np.datetime64:
    """`201104`, `20110423` or `2011-04-23` -> 2011-04; anything else is unknown."""
    match = re.match(r"(\d{4})[-_]?(0[1-9]|1[0-2])", timestamp)
    return np.datetime64("-".join(match.groups()) if match else "NaT", "M")
