"""Positions -> a small map as SVG, north up, in metres around a point."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE = 240  # of the picture, in its own units
EDGE = 12  # what is farther away than the map reaches lies this far from its edge
BLUE, GREEN, RED, GREY, ORANGE = "#0072B2", "#009E73", "#D55E00", "#777777", "#E69F00"
COLORS = {"right": GREEN, "wrong": RED, "positive": GREEN, "found": BLUE, "estimate": ORANGE, "exif": "#CC79A7"}


@dataclass(frozen=True)
class Mark:
    """Something on the map."""

    utm: np.ndarray  # (2,) float64, metres
    kind: str  # in `COLORS`
    title: str  # what it is, in words
    text: str = ""  # on it: a rank
    shape: str = "circle"  # "circle", "diamond" or "ring"


def draw_map(
    center_utm: np.ndarray, radius_m: float, marks: Sequence[Mark], heading_deg: float = math.nan, what: str = "query"
) -> str:
    """A map around a point.

    Args:
        center_utm: (2,) float64, metres: the blue point.
        radius_m: of the dashed circle around it.
        marks: the first one lies on top. Those beyond the map's reach are drawn at its edge, hollow.
        heading_deg: which way the point looks, clockwise from north; NaN where unknown.
        what: the point, in words.

    Returns:
        SVG. The map reaches two to four radii, as far as the marks need.
    """
    offsets = np.array([mark.utm - center_utm for mark in marks], dtype=np.float64).reshape(-1, 2)
    farthest = float(np.abs(offsets).max(initial=0.0))
    reach_m = min(max(2 * radius_m, 1.1 * farthest), 4 * radius_m)
    scale = (SIZE / 2 - EDGE) / reach_m
    parts = [
        f'<circle r="{radius_m * scale:.1f}" fill="{GREEN}" fill-opacity=".08" stroke="{GREY}" stroke-dasharray="4 3"/>'
    ]
    for mark, offset in reversed(list(zip(marks, offsets, strict=True))):
        beyond = float(np.abs(offset).max()) / reach_m
        x, y = offset * scale / max(1.0, beyond)
        parts.append(draw_mark(mark, x, -y, hollow=beyond > 1))  # SVG's y points down
    if math.isfinite(heading_deg):
        cone = f'<path d="M0 0L-7 -22A24 24 0 0 1 7 -22Z" fill="{BLUE}" fill-opacity=".35"/>'
        parts.append(f'<g transform="rotate({heading_deg:.0f})">{cone}</g>')
    parts.append(f'<circle r="4.5" fill="{BLUE}" stroke="#fff"><title>{html.escape(what)}</title></circle>')
    half, bar_m = SIZE / 2, round_down(reach_m / 2)
    parts.append(
        f'<path d="M{8 - half} {half - 8}h{bar_m * scale:.1f}" stroke="#222" stroke-width="2"/>'
        f'<text x="{8 - half}" y="{half - 13}" font-size="10" fill="#222">{bar_m:g} m</text>'
        f'<path d="M{half - 12} {24 - half}v-14m-4 5l4 -5l4 5" fill="none" stroke="#222" stroke-width="1.5"/>'
        f'<text x="{half - 12}" y="{35 - half}" font-size="10" fill="#222" text-anchor="middle">N</text>'
    )
    label = html.escape(f"Map, north up, around the {what}: " + "; ".join(mark.title for mark in marks))
    box = f"{-half} {-half} {SIZE} {SIZE}"
    return f'<svg class="vg-map" role="img" aria-label="{label}" viewBox="{box}">{"".join(parts)}</svg>'


def draw_mark(mark: Mark, x: float, y: float, hollow: bool) -> str:
    """SVG of one mark."""
    color = COLORS[mark.kind]
    fill, ink = ("#fff", color) if hollow else (color, "#fff")
    look = f'fill="{fill}" stroke="{color if hollow else "#fff"}"'
    if mark.shape == "ring":
        shape = f'<circle r="3.5" fill="none" stroke="{color}" stroke-width="1.5"/>'
    elif mark.shape == "diamond":
        shape = f'<rect x="-6.2" y="-6.2" width="12.4" height="12.4" transform="rotate(45)" {look}/>'
    else:
        shape = f'<circle r="7.5" {look}/>'
    text = f'<text y="3.5" font-size="10" fill="{ink}" text-anchor="middle">{html.escape(mark.text)}</text>'
    title = f"<title>{html.escape(mark.title)}</title>"
    return f'<g transform="translate({x:.1f} {y:.1f})">{title}{shape}{text if mark.text else ""}</g>'


def round_down(length_m: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that isn't longer."""
    power = 10.0 ** math.floor(math.log10(length_m))
    return max(step * power for step in (1, 2, 5) if step * power <= length_m)
