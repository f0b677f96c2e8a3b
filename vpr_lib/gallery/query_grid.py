"""A grid of small queries to pick from, each framed by whether the models' first photos are right."""

import html
from collections.abc import Sequence

import numpy as np

from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.rendering import SIGNS, MakeImg

GRID_PIXELS = 72  # longer side of the small photos
PART = 120  # queries in the grid at a time, in a notebook


def render_grid(browser: Browser, rows: np.ndarray, position: int, make_img: MakeImg) -> str:
    """Render a part of the selected queries (n,), that with a position (from 0), and buttons for the other parts."""
    start = position // PART * PART
    shown = rows[start : start + PART]
    buttons = "".join(
        f'<button type="button" data-ask="grid {first}">{title}</button>'
        for title, first in ((f"◀ {PART} before", start - PART), (f"{PART} after ▶", start + PART))
        if 0 <= first < len(rows)
    )
    part = f"<span>{start + 1} to {start + len(shown)} of {len(rows):,} {buttons}</span>" if buttons else ""
    picks = "".join(render_pick(browser, int(row), make_img, row == rows[position]) for row in shown)
    return f'<p class="vg-note">{describe_grid(browser.models)} {part}</p><div class="vg-grid">{picks}</div>'


def render_pick(browser: Browser, row: int, make_img: MakeImg, is_current: bool = False) -> str:
    """Render a query as a button, with a frame and a sign for each model."""
    words = ["right" if rank == 0 else "wrong" for rank in browser.ranks[:, row]]
    outcome = ", ".join(f"{model} {word}" for model, word in zip(browser.models, words, strict=True))
    name = str(browser.queries.names[row])
    signs = "".join(f'<i class="vg-{word}">{"✓" if word == "right" else "✗"}</i>' for word in words)
    kinds = f"vg-first-{words[0]} vg-last-{words[-1]}"
    img = make_img("queries", row, f"Query {row + 1}: {outcome}")
    data = f'data-row="{row}" data-ask="query {row}" title="{html.escape(name)}"'
    current = ' aria-current="true"' if is_current else ""
    return (
        f'<button type="button" class="vg-pick {kinds}" {data}{current}>{img}'
        f'<span aria-hidden="true">{signs}</span></button>'
    )


def describe_grid(models: Sequence[str]) -> str:
    """How to read the grid."""
    if len(models) == 1:
        return "✓ and a green frame: the first photo is right; ✗ and a red frame: wrong."
    first, last = (f"{sign} {html.escape(model)}" for sign, model in zip(SIGNS, models, strict=True))
    signs = "✓ and green: the first photo is right, ✗ and red: wrong"
    return f"Left sign, left half of the frame: {first}; right: {last}. {signs}."
