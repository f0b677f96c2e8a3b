"""A map of positions around a point as SVG, with north up. It reaches as far as its marks lie."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vpr_lib.figures.plots import COLORS, GRAY, GREEN, RED

SIZE = 240  # width and height in SVG units
EDGE = 14  # free border
LOG_FROM = 4.0  # radii; if a mark lies farther away, the scale is logarithmic
DOT = 3  # SVG units; of several database photos within a square of this size, one is drawn
MAX_RANK = 25  # marks up to this rank are highlighted with their photo
BLUE, PINK = COLORS[0], COLORS[2]
MARK_COLORS = {"right": GREEN, "wrong": RED, "positive": GREEN, "predicted": BLUE, "exif": PINK}


class Mark(NamedTuple):
    """A position on the map."""

    utm: np.ndarray  # (2,) float64, meters
    kind: str  # key of `MARK_COLORS`
    title: str  # description
    text: str = ""  # short text on the mark, for example a rank
    shape: str = "circle"  # "circle", "diamond" or "ring"
    key: str = ""  # model (a or b) and rank, "a1": its photo has the same `data-mark`


class Scale(NamedTuple):
    """Meters to SVG units; logarithmic in the distance from the center, with the true direction, or linear."""

    reach_m: float  # drawn at the border
    unit_m: float  # of the logarithm: distances far below it are to scale
    is_log: bool

    def place(self, offsets_m: np.ndarray) -> np.ndarray:
        """(N, 2) east and north in meters -> (N, 2) right and up."""
        distances = np.linalg.norm(offsets_m, axis=1, keepdims=True)
        return offsets_m * self.measure(distances) / np.maximum(distances, 1e-9)

    def measure(self, distances_m: np.ndarray | float) -> np.ndarray:
        """Distances from the center in SVG units."""
        share = np.asarray(distances_m) / self.reach_m
        if self.is_log:
            share = np.log1p(np.asarray(distances_m) / self.unit_m) / math.log1p(self.reach_m / self.unit_m)
        return (SIZE / 2 - EDGE) * share


def draw_map(
    center_utm: np.ndarray,
    radius_m: float,
    marks: Sequence[Mark],
    heading_deg: float = math.nan,
    what: str = "query",
    dots: np.ndarray | None = None,
) -> str:
    """Draw a map around its center (`what`), as SVG, that reaches to the farthest mark.

    If that is farther away than `LOG_FROM` radii, distances are drawn on a logarithmic scale, with circles that say how
    far away they are. The first mark is drawn on top. The heading is clockwise from north, NaN if unknown. `dots`
    (N, 2) are the UTM positions of the database photos; those within reach are drawn.
    """
    offsets = np.array([mark.utm - center_utm for mark in marks], dtype=np.float64).reshape(-1, 2)
    farthest_m = float(np.linalg.norm(offsets, axis=1).max(initial=0.0))
    is_log = farthest_m > LOG_FROM * radius_m
    scale = Scale(max(farthest_m * (1.0 if is_log else 1.1), 2 * radius_m), radius_m, is_log)
    look = f'fill="{GREEN}" fill-opacity=".08" stroke="{GRAY}" stroke-dasharray="4 3"'
    parts = [f'<circle class="vg-radius" r="{scale.measure(radius_m):.1f}" {look}/>', *_draw_circles(scale)]
    if dots is not None:
        parts.append(_draw_dots(scale, np.asarray(dots) - center_utm))
    for mark, (x, y) in reversed(list(zip(marks, scale.place(offsets), strict=True))):
        parts.append(_draw_mark(mark, x, -y))  # y points down in SVG
    if math.isfinite(heading_deg):
        cone = f'<path d="M0 0L-7 -22A24 24 0 0 1 7 -22Z" fill="{BLUE}" fill-opacity=".35"/>'
        parts.append(f'<g transform="rotate({heading_deg:.0f})">{cone}</g>')
    parts.append(f'<circle r="4.5" fill="{BLUE}" stroke="#fff"><title>{html.escape(what)}</title></circle>')
    parts += _draw_frame(scale)
    kind = "logarithmic scale, " if is_log else ""
    label = html.escape(f"Map, north up, {kind}around the {what}: " + "; ".join(mark.title for mark in marks))
    box = f"{-SIZE / 2} {-SIZE / 2} {SIZE} {SIZE}"
    return f'<svg class="vg-map" role="img" aria-label="{label}" viewBox="{box}">{"".join(parts)}</svg>'


def style_links() -> str:
    """CSS rules that highlight a photo and its mark when the pointer is over either of them."""
    keys = [f"{model}{rank}" for model in "ab" for rank in range(1, MAX_RANK + 1)]
    rules = []
    for element, look in (("figure", "outline: 3px solid var(--vg-text)"), ("g", "stroke: #000; stroke-width: 2.5")):
        chosen = (f'.vg-view:has([data-mark="{key}"]:hover) {element}[data-mark="{key}"]' for key in keys)
        inner = " > :is(circle, rect)" if element == "g" else " > :is(img, .vg-photo, .vg-missing)"
        rules.append(", ".join(f"{each}{inner}" for each in chosen) + f" {{ {look}; }}")
    return "\n".join(rules)


def _draw_circles(scale: Scale) -> Iterator[str]:
    """On a logarithmic scale, circles at 100 m, 1 km, 10 km, ... with their distances."""
    power_m = 100
    while scale.is_log and power_m < scale.reach_m:
        r = float(scale.measure(power_m))
        if power_m > 1.5 * scale.unit_m:
            text = f"{power_m} m" if power_m < 1000 else f"{power_m // 1000} km"
            yield f'<circle r="{r:.1f}" fill="none" stroke="{GRAY}" stroke-opacity=".55" stroke-width=".7"/>'
            yield f'<text y="{r - 2:.1f}" font-size="9" fill="#555" text-anchor="middle">{text}</text>'
        power_m *= 10


def _draw_dots(scale: Scale, offsets_m: np.ndarray) -> str:
    """Database photos as gray dots, those close together as one."""
    near = offsets_m[np.linalg.norm(offsets_m, axis=1) <= scale.reach_m * 1.05]
    spots = np.unique((scale.place(near) / DOT).round().astype(int), axis=0) * DOT
    return f'<path class="vg-dots" d="{"".join(f"M{x} {-y}h0" for x, y in spots.tolist())}"/>'


def _draw_mark(mark: Mark, x: float, y: float) -> str:
    color = MARK_COLORS[mark.kind]
    look = f'fill="{color}" stroke="#fff"'
    shapes = {
        "ring": f'<circle r="3.5" fill="none" stroke="{color}" stroke-width="1.5"/>',
        "diamond": f'<rect x="-6.2" y="-6.2" width="12.4" height="12.4" transform="rotate(45)" {look}/>',
        "circle": f'<circle r="7.5" {look}/>',
    }
    parts = [f"<title>{html.escape(mark.title)}</title>", shapes[mark.shape]]
    if mark.text:
        parts.append(f'<text y="3.5" font-size="10" fill="#fff" text-anchor="middle">{html.escape(mark.text)}</text>')
    key = f' data-mark="{mark.key}"' if mark.key else ""
    return f'<g transform="translate({x:.1f} {y:.1f})"{key}>{"".join(parts)}</g>'


def _draw_frame(scale: Scale) -> list[str]:
    """A north arrow, and a scale bar or, on a logarithmic scale, a line that says so.

    The bar is the largest 1, 2 or 5 times a power of ten up to half of the reach.
    """
    half = SIZE / 2
    if scale.is_log:
        lower = f'<text x="{6 - half}" y="{half - 6}" font-size="9" fill="#222">log scale</text>'
    else:
        power_m = 10.0 ** math.floor(math.log10(scale.reach_m / 2))
        bar_m = max(step * power_m for step in (1, 2, 5) if step * power_m <= scale.reach_m / 2)
        lower = (
            f'<path d="M{8 - half} {half - 8}h{scale.measure(bar_m):.1f}" stroke="#222" stroke-width="2"/>'
            f'<text x="{8 - half}" y="{half - 13}" font-size="10" fill="#222">{bar_m:g} m</text>'
        )
    return [
        lower,
        f'<path d="M{half - 12} {24 - half}v-14m-4 5l4 -5l4 5" fill="none" stroke="#222" stroke-width="1.5"/>'
        f'<text x="{half - 12}" y="{35 - half}" font-size="10" fill="#222" text-anchor="middle">N</text>',
    ]
