"""The embedding map: the queries of a split as points, near each other if a model takes them for alike. As SVG.

Pointer events are handled in embedding_map.js, in the notebook and in the page alike.
"""

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.analysis.embedding import MAX_DATABASE, MAX_QUERIES, METHODS, Embedding, embed_descriptors, sample_rows
from vpr_lib.analysis.scenarios import LIGHTS, SCENARIOS, base_name
from vpr_lib.figures.plots import COLORS, GRAY, GREEN, RED
from vpr_lib.gallery.browser import OUTCOMES, Browser

WIDTH, HEIGHT, EDGE = 560, 420, 12  # SVG units
PALETTE = (*COLORS, GRAY, GREEN, RED)
UNKNOWN = len(COLORS)  # and values for which there is no further color
# Outcomes with their color in `PALETTE` and their shape; those of two models and of one.
LOOKS = {
    "both_right": (PALETTE.index(GREEN), "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0"),
    "a_only": (0, "M0-5.2L4.8 3.4H-4.8Z"),
    "b_only": (1, "M0 5.2L4.8-3.4H-4.8Z"),
    "both_wrong": (PALETTE.index(RED), "M0-5.4L5.4 0 0 5.4-5.4 0Z"),
    "no_positive": (UNKNOWN, "M-3.8-3.8h7.6v7.6h-7.6Z"),
}
LOOKS |= {"a_right": LOOKS["both_right"], "a_wrong": LOOKS["both_wrong"]}
HELP = (
    "A click on a point shows its query, and a line drawn around points selects them; a click beside them selects all."
)


class Coloring(NamedTuple):
    """What the color of a query says."""

    title: str
    values: np.ndarray  # (Q,) str, a key of `labels` for each query
    labels: dict[str, str]  # {value: what it means}
    colors: dict[str, int]  # {value: number in `PALETTE`}


class SplitMap(NamedTuple):
    """The embedding of a split, or of a sample of it."""

    embedding: Embedding
    queries: np.ndarray  # (n,) int64, rows of its queries
    note: str  # what it shows and what can't be read off


# (model, "database" or "queries", rows) -> descriptors (n, D)
Describe = Callable[[str, str, np.ndarray], np.ndarray]
Embed = Callable[[str, str, tuple[int, ...]], SplitMap]  # (model, method, rows of queries) -> the map


def embed_split(
    browser: Browser, describe: Describe, model: str, method: str, queries: tuple[int, ...] = ()
) -> SplitMap:
    """Embed the queries and the database photos of a split.

    Of more than `MAX_QUERIES` or `MAX_DATABASE` photos, a random sample is taken; of the queries, from the rows
    `queries` if they are given.
    """
    parts = {"database": (browser.database, MAX_DATABASE), "queries": (browser.queries, MAX_QUERIES)}
    rows = {name: sample_rows(len(table), limit) for name, (table, limit) in parts.items()}
    if queries and len(browser) > MAX_QUERIES:
        rows["queries"] = np.array(queries)[sample_rows(len(queries), MAX_QUERIES)]
    embedding = embed_descriptors(*(describe(model, name, rows[name]) for name in parts), method)
    counts = []
    for name, what in (("queries", "queries"), ("database", "database photos (dots)")):
        total, number = len(parts[name][0]), len(rows[name])
        how = "" if name == "queries" and queries else "a random sample of "
        counts.append(f"{number:,} {what}" if number == total else f"{how}{number:,} of {total:,} {what}")
    return SplitMap(embedding, rows["queries"], f"{model}: {' and '.join(counts)}. {embedding.note}")


def mark_outcomes(browser: Browser) -> np.ndarray:
    """(Q,) str, the outcome of each query: a key of `LOOKS`."""
    names = ("both_right", "a_only", "b_only", "both_wrong") if len(browser.models) == 2 else ("a_right", "a_wrong")
    outcomes = np.full(len(browser), "no_positive")
    for name in names:
        outcomes[browser.mark_outcome(name) & ~browser.without_positive] = name
    return outcomes


def list_colorings(browser: Browser) -> dict[str, Coloring]:
    """{name: coloring} of those by which the queries differ."""
    titles = browser.list_choices(OUTCOMES)
    outcomes = {name: titles[name] for name in LOOKS if name in titles}
    looks = {name: color for name, (color, _) in LOOKS.items()}
    colorings = {"outcome": Coloring("outcome", mark_outcomes(browser), outcomes, looks)}
    tagged = [next(iter(browser.tags.list_scenarios(name)), "") for name in browser.tags.names]
    scenarios = np.where(browser.known == "", tagged, browser.known)
    for name, values, labels in (
        ("light", browser.lights, {light: light for light in LIGHTS}),
        ("scenario", scenarios, SCENARIOS),
        ("city", _list_cities(browser), {}),
    ):
        found = [value for value in np.unique(values).tolist() if value]
        labels = {**labels, **{value: value for value in found if value not in labels}}
        # The same value has the same color in every split, as far as the colors go.
        colors = {value: min(number, UNKNOWN) for number, value in enumerate(labels)}
        if len(np.unique(values)) > 1:
            labels = {value: labels[value] for value in labels if value in found}
            colorings[name] = Coloring(name, values, {**labels, "": "unknown"}, {**colors, "": UNKNOWN})
    return colorings


def _list_cities(browser: Browser) -> np.ndarray:
    """(Q,) str: the first folder of a query's name, or the city in its place; "" where there is neither."""
    folders = [name.rpartition("/")[0].partition("/")[0] for name in browser.queries.names.tolist()]
    cities = [place.rpartition("_")[2] for place in browser.queries.places.tolist()]
    return np.array([folder or city for folder, city in zip(folders, cities, strict=True)], dtype=str)


def draw_embedding(browser: Browser, split_map: SplitMap, shown: np.ndarray, chosen: np.ndarray) -> str:
    """Draw an embedding as SVG with the colors of all colorings, of which the style sheet shows one.

    Args:
        browser: the split.
        split_map: its embedding.
        shown: (Q,) bool, the queries to draw.
        chosen: (Q,) bool, those among them that are not dimmed.
    """
    colorings = list_colorings(browser)
    database, queries = place_points(split_map.embedding)
    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in np.unique(database.round(), axis=0))
    parts = [f'<path class="vg-dots" d="{dots}"/>']
    outcomes = colorings["outcome"].values
    for row, (x, y) in zip(split_map.queries.tolist(), queries, strict=True):
        if not shown[row]:
            continue
        codes = [f'data-{name}="{each.colors[str(each.values[row])]}"' for name, each in colorings.items()]
        meanings = [each.labels[str(each.values[row])] for each in colorings.values() if each.values[row]]
        title = html.escape(f"{'; '.join(meanings)}: {base_name(str(browser.queries.names[row]))}")
        out = "" if chosen[row] else ' class="out"'
        look = f'd="{LOOKS[str(outcomes[row])][1]}" transform="translate({x:.1f} {y:.1f})"'
        parts.append(f'<path data-row="{row}"{out} {" ".join(codes)} {look}><title>{title}</title></path>')
    parts.append('<circle class="vg-ring" r="9"/><polyline class="vg-lasso"/>')
    label = html.escape(f"Embedding map. {split_map.note}")
    box = f"0 0 {WIDTH} {HEIGHT}"
    return f'<svg role="img" aria-label="{label}" viewBox="{box}">{"".join(parts)}</svg>'


def place_points(embedding: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) and (Q, 2) of the photos in the drawing, with the same scale on both axes."""
    points = np.concatenate([embedding.database, embedding.queries]).astype(np.float64)
    low, high = points.min(0), points.max(0)
    scale = ((np.array([WIDTH, HEIGHT]) - 2 * EDGE) / np.maximum(high - low, 1e-9)).min()
    placed = (points - (low + high) / 2) * [scale, -scale] + [WIDTH / 2, HEIGHT / 2]
    return placed[: len(embedding.database)], placed[len(embedding.database) :]


def render_embedding(
    browser: Browser, split_map: SplitMap, shown: np.ndarray, chosen: np.ndarray, color: str, name: str = ""
) -> str:
    """Render an embedding with its legends and its note; `color` is a key of `list_colorings`, `name` the map's."""
    handler = html.escape(_read_handler())
    events = " ".join(
        f'on{event}="{handler}"' for event in ("pointerdown", "pointermove", "pointerup", "pointercancel")
    )
    drawing = draw_embedding(browser, split_map, shown, chosen)
    colorings = list_colorings(browser)
    legends = "".join(_render_legend(key, colorings, shown) for key in colorings)
    start = f'<div class="vg-embedding" data-map="{html.escape(name)}" data-by="{color}" {events}>'
    return f'<div>{start}{drawing}{legends}</div><p class="vg-note">{html.escape(split_map.note)} {HELP}</p></div>'


@functools.cache
def _read_handler() -> str:
    """The handler of pointer events, without its comments."""
    lines = Path(__file__).with_name("embedding_map.js").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip() for line in lines if not line.strip().startswith("//"))


def _render_legend(name: str, colorings: dict[str, Coloring], shown: np.ndarray) -> str:
    """What the colors of a coloring mean, with the number of queries, and the shapes, which show the outcome."""
    coloring, outcome = colorings[name], colorings["outcome"]
    if name == "outcome":
        items = _list_legend_items(outcome, shown, {value: (PALETTE[color], d) for value, (color, d) in LOOKS.items()})
    else:
        squares = {value: (PALETTE[coloring.colors[value]], "M-4-4h8v8h-8Z") for value in coloring.labels}
        shapes = {value: (GRAY, d) for value, (_, d) in LOOKS.items()}
        items = [*_list_legend_items(coloring, shown, squares), "<br>", *_list_legend_items(outcome, shown, shapes)]
    return f'<div class="vg-legend" data-legend="{name}">{"".join(items)}</div>'


def _list_legend_items(coloring: Coloring, shown: np.ndarray, icons: dict[str, tuple[str, str]]) -> list[str]:
    """The values that occur, with their icons: {value: (color, path)}."""
    items = []
    for value, label in coloring.labels.items():
        if count := int((coloring.values[shown] == value).sum()):
            color, path = icons[value]
            icon = f'<svg viewBox="-6 -6 12 12"><path fill="{color}" d="{path}"/></svg>'
            items.append(f"<span>{icon} {html.escape(label)} ({count:,})</span>")
    return items


def style_colorings() -> str:
    """CSS rules that show the color and the legend of the chosen coloring."""
    rules = []
    for name in ("outcome", "light", "scenario", "city"):
        rules.append(f'.vg-embedding[data-by="{name}"] [data-legend="{name}"] {{ display: block; }}')
        for number, color in enumerate(PALETTE):
            rules.append(f'.vg-embedding[data-by="{name}"] [data-{name}="{number}"] {{ fill: {color}; }}')
    return "\n".join(rules)


def render_page_maps(browser: Browser, embed: Embed, rows: np.ndarray) -> str:
    """Render the maps of all models for the page, by t-SNE and PCA, with what chooses among them.

    Raises what `embed` raises.
    """
    queries = tuple(sorted(np.asarray(rows).tolist())) if len(browser) > MAX_QUERIES else ()
    methods = ("tsne", "pca")
    maps = {(model, METHODS[method]): embed(model, method, queries) for model in browser.models for method in methods}
    shown = np.isin(np.arange(len(browser)), rows)
    choices = {
        "model": {str(browser.models.index(model)): model for model, _ in maps},
        "method": {method: method for _, method in maps},
        "color": {key: each.title for key, each in list_colorings(browser).items()},
    }
    selects = []
    for name, options in choices.items():
        items = "".join(f'<option value="{html.escape(k)}">{html.escape(v)}</option>' for k, v in options.items())
        selects.append(f'<label>{name} <select id="embedding-{name}">{items}</select></label>')
    drawn = [
        render_embedding(browser, each, shown, shown, "outcome", f"{browser.models.index(model)}-{method}")
        for (model, method), each in maps.items()
    ]
    return (
        f'<div class="vg-embedding-box"><div class="bar">{"".join(selects)} '
        '<button type="button" id="embedding-all">all queries</button></div><input type="hidden" class="vg-picked">'
        f'<div class="vg-embedding-columns"><div>{"".join(drawn)}</div><div id="embedding-query"></div></div></div>'
    )
