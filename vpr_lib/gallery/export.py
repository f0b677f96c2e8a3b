"""Export of a selection of queries as one HTML page, which opens from a file with its photos inside.

Queries are rendered as in the notebook; the script in page.html selects among them and stores tags in the browser.
"""

import functools
import hashlib
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, base_name
from vpr_lib.analysis.suggestions import FROM_MISTAKES
from vpr_lib.atomic_files import write_atomically
from vpr_lib.figures.html_page import render_table
from vpr_lib.figures.tables import label_rows
from vpr_lib.gallery.browser import ORDERS, OUTCOMES, SOURCES, Browser
from vpr_lib.gallery.embedding_map import Embed, render_page_maps
from vpr_lib.gallery.layout import TOOLTIPS
from vpr_lib.gallery.query_grid import describe_grid, render_pick
from vpr_lib.gallery.rendering import LEGEND, read_script, read_style, render_query, render_suggestions
from vpr_lib.gallery.thumbnails import Thumbnails

PAGE_PIXELS = (480, 320, 240, 160)  # longer side of the photos: the first with which the page has the wanted size
WANTED_MB = 25
KS = (1, 5, 10)
SAMPLE = 20  # queries rendered to estimate the size


def write_gallery_page(
    path: Path,
    browser: Browser,
    rows: np.ndarray,
    num_shown: int = 5,
    max_mb: float = 50,
    report: Callable = print,
    embed: Embed | None = None,
) -> Path:
    """Write a page of some queries with the suggestions made so far; its size is reported before. Returns its path.

    `embed` computes the embedding maps; if it can't, which is reported, or is None, the page has none.

    Raises:
        ValueError: the selection is empty, or the page would be too large.
    """
    if not len(rows):
        raise ValueError("the selection is empty; choose another scenario, outcome or name")
    for pixels in PAGE_PIXELS:
        thumbnails = Thumbnails({"database": browser.database, "queries": browser.queries}, pixels)
        sources: dict[str, str] = {}
        collect = functools.partial(
            _collect_query, browser, thumbnails=thumbnails, sources=sources, num_shown=num_shown
        )
        size_mb = _estimate_size(browser, rows, num_shown, collect, sources) / 1e6
        if size_mb <= min(WANTED_MB, max_mb):
            break
    text = f"a page of {len(rows):,} queries takes about {size_mb:.1f} MB"
    if size_mb > max_mb:
        raise ValueError(f"{text}, more than {max_mb:g} MB; select fewer queries, or pass max_mb={size_mb * 1.1:.0f}")
    report(f"{path.name}: {text}")
    maps = ""
    try:
        maps = render_page_maps(browser, embed, rows) if embed else ""
    except (OSError, ValueError) as error:
        report(f"{path.name}: without embedding maps: {error}")
    page = _fill_page(browser, [collect(row) for row in sorted(rows)], sources, maps)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode(errors="replace"))
    return path


def _estimate_size(
    browser: Browser, rows: np.ndarray, num_shown: int, collect: Callable, sources: Mapping[str, str]
) -> float:
    """Bytes of the page, from a sample of its queries, whose photos are added to `sources`."""
    sample = [collect(row) for row in rows[:: max(1, len(rows) // SAMPLE)]]
    shown = [evaluation.indices[rows, :num_shown].ravel() for evaluation in browser.evaluations.values()]
    shown += [browser.positives[row][:num_shown] for row in rows]
    num_photos = len(rows) + len(np.unique(np.concatenate(shown)))
    photo_bytes = float(np.mean([len(source) for source in sources.values()] or [0]))
    return len(rows) * len(json.dumps(sample)) / len(sample) + num_photos * photo_bytes


def _collect_query(
    browser: Browser, row: int, thumbnails: Thumbnails, sources: dict[str, str], num_shown: int
) -> dict[str, Any]:
    """Data of a query for the page's script, in plain types."""
    suggestions = browser.suggestions.get(int(row))
    make_img = functools.partial(thumbnails.make_img, sources=sources)
    make_plain_img = functools.partial(thumbnails.make_plain_img, sources=sources)
    return {
        "row": int(row),
        "name": base_name(browser.queries.names[row]),
        "known": str(browser.known[row]),
        "suggested": [suggestion.scenario for suggestion in suggestions or ()],
        "why": "" if suggestions is None else render_suggestions(suggestions),
        "ranks": browser.ranks[:, row].tolist(),
        "none": bool(browser.without_positive[row]),
        "error": _round_finite(browser.errors_m[:, row], 4),
        "similarity": _round_finite(browser.similarities[:, row], 8),
        "margin": _round_finite(browser.margins[:, row], 8),
        "spread": _round_finite(browser.spreads_m[:, row], 2),
        "inliers": _round_finite(browser.first_inliers[:, row], 0),
        "pick": render_pick(browser, int(row), make_plain_img),
        "html": render_query(browser, row, make_img, num_shown, show_positives=True),
    }


def _round_finite(values: np.ndarray, digits: int) -> list[float | None]:
    """Rounded numbers; None for those that JSON can't hold."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def _fill_page(browser: Browser, queries: list[dict[str, Any]], sources: Mapping[str, str], maps: str) -> str:
    tags = {query["name"]: browser.tags.list_scenarios(query["name"]) for query in queries}
    # Changed tags are stored in the browser under a key of split and tags, so another export does not see them.
    key = hashlib.sha256(json.dumps([browser.split, tags]).encode()).hexdigest()[:16]
    num_predictions = min(evaluation.indices.shape[1] for evaluation in browser.evaluations.values())
    data = {
        "models": browser.models,
        "ks": [k for k in KS if k <= num_predictions],
        "scenarios": SCENARIOS,
        "sources": SOURCES,
        "fromMistakes": FROM_MISTAKES,
        "outcomes": browser.list_choices(OUTCOMES),
        "orders": browser.list_choices(ORDERS),
        "queries": queries,
        "photos": sources,
        "tags": {name: scenarios for name, scenarios in tags.items() if scenarios},
        "tooltips": TOOLTIPS,
        "key": f"vpr-gallery-{key}",
        "file": browser.tags.path.name,
    }
    recalls = browser.recall_by_scenario("known")
    table = render_table(label_rows(recalls, SCENARIOS), "All queries of the split.")
    return Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8")).safe_substitute(
        title=html.escape(f"{' and '.join(browser.models)} on {browser.split}"),
        style=read_style(),
        table=table if any(recalls.values()) else "<p>None.</p>",
        legend=LEGEND,
        grid=describe_grid(browser.models),
        script=read_script(),
        embedding=f"<details id='embedding'><summary>Embedding map</summary>{maps}</details>" if maps else "",
        embedding_script=Path(__file__).with_name("embedding_page.js").read_text(encoding="utf-8"),
        # "<" could end the script element or begin a comment; in a JSON string \\u003c means the same.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
