"""A selection of queries -> the gallery as one HTML page: it opens from a file, with its photos inside, and needs no
notebook.

The queries are drawn by `gallery_html`, as in the notebook; the page's script (page.html) only chooses among
them and keeps tags.
"""

import hashlib
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, base_name
from vpr_lib.atomic_files import write_atomically
from vpr_lib.figures.html_page import render_table
from vpr_lib.figures.tables import label_rows
from vpr_lib.gallery.browser import ORDERS, OUTCOMES, SOURCES, Browser
from vpr_lib.gallery.rendering import LEGEND, MakeImg, read_style, render_query, render_suggestions
from vpr_lib.gallery.thumbnails import Thumbnails, format_placeholder

PAGE_PIXELS = 160  # longer side of the page's photos
MAX_MB = 50  # a browser opens that at once, and it can still be sent
KS = (1, 5, 10)


class PagePhotos:
    """The photos of a page, each in it once however many queries show it.

    Attributes:
        sources: {key: data URI}; the page's HTML names the key.
    """

    def __init__(self, thumbnails: Thumbnails) -> None:
        self.thumbnails = thumbnails
        self.sources: dict[str, str] = {}

    def make_img(self, table: str, row: int, alt: str) -> str:
        """As `Thumbnails.make_img`."""
        key = f"{table}{row}"
        try:
            if key not in self.sources:
                self.sources[key] = self.thumbnails.read(table, int(row))
        except (OSError, ValueError) as error:
            return format_placeholder(self.thumbnails.tables[table].names[row], str(error))
        return f'<img data-photo="{key}" alt="{html.escape(alt)}">'


def write_gallery_page(
    path: str | Path,
    browser: Browser,
    rows: np.ndarray,
    radius_m: float,
    num_shown: int = 5,
    max_mb: float = MAX_MB,
    say: Callable[[str], Any] = print,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        browser: of the split.
        rows: (n,) of the queries to show; scenarios suggested for them so far are in the page, too.
        radius_m: within it, a photo is right.
        num_shown: photos of each model, and of the positives.
        max_mb: refuse to write a page larger than this.
        say: is told the size before anything is written.

    Returns:
        The path.

    Raises:
        ValueError: the selection is empty, or the page would be too large.
    """
    if not len(rows):
        raise ValueError("the selection is empty; choose another scenario, outcome or name")
    thumbnails = Thumbnails({"database": browser.database, "queries": browser.queries}, PAGE_PIXELS, max_kept=100)
    size_mb = estimate_mb(browser, rows, radius_m, num_shown, thumbnails)
    text = f"a page of {len(rows):,} queries takes about {size_mb:.1f} MB"
    if size_mb > max_mb:
        raise ValueError(f"{text}, more than {max_mb:g} MB; select fewer queries, or pass max_mb={size_mb * 1.1:.0f}")
    say(f"{Path(path).name}: {text}")
    photos = PagePhotos(thumbnails)
    queries = [describe_query(browser, int(row), photos.make_img, radius_m, num_shown) for row in sorted(rows)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, fill_page(browser, queries, photos.sources).encode(errors="replace"))
    return Path(path)


def estimate_mb(
    browser: Browser, rows: np.ndarray, radius_m: float, num_shown: int, thumbnails: Thumbnails, sample: int = 20
) -> float:
    """About how large a page will be, from a sample of its queries and the number of its photos."""
    photos = PagePhotos(thumbnails)
    chosen = rows[:: max(1, len(rows) // sample)]
    queries = [describe_query(browser, int(row), photos.make_img, radius_m, num_shown) for row in chosen]
    positives = next(iter(browser.found.values())).positives
    shown = [found.indices[rows, :num_shown].ravel() for found in browser.found.values()]
    shown += [positives[row][:num_shown] for row in rows]
    num_photos = len(rows) + len(np.unique(np.concatenate(shown)))
    photo_bytes = np.mean([len(source) for source in photos.sources.values()] or [0])
    return float(len(rows) * len(json.dumps(queries)) / len(chosen) + num_photos * photo_bytes) / 1e6


def describe_query(browser: Browser, row: int, make_img: MakeImg, radius_m: float, num_shown: int) -> dict[str, Any]:
    """What the page knows about a query, in plain types: numbers to choose by, and HTML to show."""
    suggested = browser.suggestions.get(row)
    return {
        "name": base_name(browser.queries.names[row]),
        "known": str(browser.known[row]),
        "suggested": [suggestion.scenario for suggestion in suggested or ()],
        "why": "" if suggested is None else render_suggestions(suggested),
        "ranks": browser.ranks[:, row].tolist(),
        "none": bool(browser.without_positive[row]),
        "error": to_json(browser.errors_m[:, row], 2),
        "similarity": to_json(browser.similarities[:, row], 4),
        "margin": to_json(browser.margins[:, row], 4),
        "html": render_query(browser, row, make_img, radius_m, num_shown, positives=True),
    }


def to_json(values: np.ndarray, digits: int) -> list[float | None]:
    """Rounded numbers; None for those JSON has no word for."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def fill_page(browser: Browser, queries: list[dict[str, Any]], sources: Mapping[str, str]) -> str:
    """The page's HTML."""
    split = next(iter(browser.found.values())).split
    names = [query["name"] for query in queries]
    tags = {name: browser.tags.list_scenarios(name) for name in names}
    # Where the browser keeps changed tags: another page, or the same one with other tags, starts afresh.
    key = hashlib.sha256(json.dumps([split, tags]).encode()).hexdigest()[:16]
    data = {
        "models": browser.models,
        "ks": [k for k in KS if all(k <= found.indices.shape[1] for found in browser.found.values())],
        "scenarios": SCENARIOS,
        "sources": SOURCES,
        "outcomes": browser.list_choices(OUTCOMES),
        "orders": browser.list_choices(ORDERS),
        "queries": queries,
        "photos": sources,
        "tags": {name: scenarios for name, scenarios in tags.items() if scenarios},
        "key": f"vpr-gallery-{key}",
        "file": browser.tags.path.name,
    }
    found = browser.recall_by_scenario("known")
    table = render_table(label_rows(found, SCENARIOS), "Of the whole split.") if any(found.values()) else "<p>None.</p>"
    # Inside a script element, "<" could end it or begin a comment; in a JSON string \\u003c means the same.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    title = html.escape(f"{' and '.join(browser.models)} on {split}")
    return template.safe_substitute(title=title, style=read_style(), table=table, legend=LEGEND, data=text)
