"""The naming convention of photos; the only parser of names.

    @UTM_east@UTM_north@zone@letter@lat@lon@pano_id@tile@heading@pitch@roll@height@timestamp@note@.jpg

Every field but the two UTM coordinates may be empty. In a training set the note is `<place>_<City>`.
"""

import functools
import math
import re
import unicodedata
from typing import NamedTuple

import numpy as np

from vpr_lib.options import check_choice

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
FIELDS = (
    *("east", "north", "zone", "letter", "lat", "lon", "pano", "tile", "heading", "pitch", "roll", "height"),
    *("date", "note"),
)


class PhotoName(NamedTuple):
    """The fields of a photo's name. Missing ones: "" for note and zone, NaN for heading, NaT for date."""

    east_m: float
    north_m: float
    heading_deg: float  # in [0, 360); some names hold 398
    date: np.datetime64  # month resolution
    note: str  # Unicode form NFC: macOS may write the same name as NFD
    zone: str  # of UTM, with its letter: "10S"


def parse_name(name: str) -> PhotoName:
    """Read a photo's name, ignoring the folders before it; one without UTM coordinates is a ValueError."""
    stem = name[name.rfind("/") + 1 :].rpartition(".")[0]
    fields = stem.split("@")[1:] + [""] * len(FIELDS)
    east_m, north_m, heading_deg = (_parse_number(fields[i]) for i in (0, 1, 8))
    if not (math.isfinite(east_m) and math.isfinite(north_m)):
        raise ValueError(f"{name}: no UTM coordinates; expected a name like @544050.17@4174706.96@10@S@...@.jpg")
    note = unicodedata.normalize("NFC", fields[13])
    return PhotoName(east_m, north_m, heading_deg % 360.0, _parse_month(fields[12]), note, fields[2] + fields[3])


def format_name(suffix: str = ".jpg", **fields: object) -> str:
    """A photo's file name from any of `FIELDS` as they are to be written; an unknown field is a ValueError."""
    for field in fields:
        check_choice("field", field, FIELDS)
    texts = [str(fields.get(field, "")).replace("@", "-").replace("/", "-") for field in FIELDS]
    return "@" + "@".join(texts) + "@" + suffix


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@functools.lru_cache(maxsize=4096)  # half a million photos come from a few hundred months
def _parse_month(timestamp: str) -> np.datetime64:
    """`201104`, `20110423` or `2011-04-23` -> 2011-04; anything else is unknown."""
    match = re.match(r"(\d{4})[-_]?(0[1-9]|1[0-2])", timestamp)
    return np.datetime64("-".join(match.groups()) if match else "NaT", "M")
