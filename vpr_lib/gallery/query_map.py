"""A map of positions around a point as SVG, with north up."""

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vpr_lib.figures.plots import COLORS, GRAY, GREEN, RED

SIZE = 240  # width and height in SVG units
EDGE = 12  # distance from the border at which marks beyond the map are drawn
BLUE, PINK = COLORS[0], COLORS[2]
MARK_COLORS = {"right": GREEN, "wrong": RED, "positive": GREEN, "predicted": BLUE, "exif": PINK}


class Mark(NamedTuple):
    """A position on the map."""

    utm: np.ndarray  # (2,) float64, meters
    kind: str  # key of `MARK_COLORS`
    title: str  # description
    text: str = ""  # short text on the mark, for example a rank
    shape: str = "circle"  # "circle", "diamond" or "ring"


def draw_map(
    center_utm: np.ndarray, radius_m: float, marks: Sequence[Mark], heading_deg: float = math.nan, what: str = "query"
) -> str:
    """Draw a map that reaches two to four radii from its center (`what`), as far as the marks require, as SVG.

    The first mark is drawn on top; marks beyond the map are drawn hollow at its edge. The heading is clockwise from
    north, NaN if unknown.
    """
    offsets = np.array([mark.utm - center_utm for mark in marks], dtype=np.float64).reshape(-1, 2)
    farthest = float(np.abs(offsets).max(initial=0.0))
    reach_m = min(max(2 * radius_m, 1.1 * farthest), 4 * radius_m)
    scale = (SIZE / 2 - EDGE) / reach_m
    look = f'fill="{GREEN}" fill-opacity=".08" stroke="{GRAY}" stroke-dasharray="4 3"'
    parts = [f'<circle r="{radius_m * scale:.1f}" {look}/>']
    for mark, offset in reversed(list(zip(marks, offsets, strict=True))):
        beyond = float(np.abs(offset).max()) / reach_m
        x, y = offset * scale / max(1.0, beyond)
        parts.append(_draw_mark(mark, x, -y, hollow=beyond > 1))  # y points down in SVG
    if math.isfinite(heading_deg):
        cone = f'<path d="M0 0L-7 -22A24 24 0 0 1 7 -22Z" fill="{BLUE}" fill-opacity=".35"/>'
        parts.append(f'<g transform="rotate({heading_deg:.0f})">{cone}</g>')
    parts.append(f'<circle r="4.5" fill="{BLUE}" stroke="#fff"><title>{html.escape(what)}</title></circle>')
    parts.append(_draw_scale_bar(reach_m, scale))
    label = html.escape(f"Map, north up, around the {what}: " + "; ".join(mark.title for mark in marks))
    box = f"{-SIZE / 2} {-SIZE / 2} {SIZE} {SIZE}"
    return f'<svg class="vg-map" role="img" aria-label="{label}" viewBox="{box}">{"".join(parts)}</svg>'


def _draw_mark(mark: Mark, x: float, y: float, hollow: bool) -> str:
    color = MARK_COLORS[mark.kind]
    fill, stroke, ink = ("#fff", color, color) if hollow else (color, "#fff", "#fff")
    look = f'fill="{fill}" stroke="{stroke}"'
    shapes = {
        "ring": f'<circle r="3.5" fill="none" stroke="{color}" stroke-width="1.5"/>',
        "diamond": f'<rect x="-6.2" y="-6.2" width="12.4" height="12.4" transform="rotate(45)" {look}/>',
        "circle": f'<circle r="7.5" {look}/>',
    }
    parts = [f"<title>{html.escape(mark.title)}</title>", shapes[mark.shape]]
    if mark.text:
        parts.append(f'<text y="3.5" font-size="10" fill="{ink}" text-anchor="middle">{html.escape(mark.text)}</text>')
    return f'<g transform="translate({x:.1f} {y:.1f})">{"".join(parts)}</g>'


def _draw_scale_bar(reach_m: float, scale: float) -> str:
    """A scale bar and a north arrow. The bar is the largest 1, 2 or 5 times a power of ten up to half of the reach."""
    power_m = 10.0 ** math.floor(math.log10(reach_m / 2))
    bar_m = max(step * power_m for step in (1, 2, 5) if step * power_m <= reach_m / 2)
    half = SIZE / 2
    return (
        f'<path d="M{8 - half} {half - 8}h{bar_m * scale:.1f}" stroke="#222" stroke-width="2"/>'
        f'<text x="{8 - half}" y="{half - 13}" font-size="10" fill="#222">{bar_m:g} m</text>'
        f'<path d="M{half - 12} {24 - half}v-14m-4 5l4 -5l4 5" fill="none" stroke="#222" stroke-width="1.5"/>'
        f'<text x="{half - 12}" y="{35 - half}" font-size="10" fill="#222" text-anchor="middle">N</text>'
    )
