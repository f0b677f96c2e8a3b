"""A query and what the models found -> HTML, the same for the notebook's gallery and for its page.

Everything that comes from file names is escaped here.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.photo_grids import format_distance
from vpr_lib.gallery.browser import Browser, measure_errors, to_similarity
from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.images import ImageTable

SHAPES = ("circle", "diamond")  # of model a and b on the map
SIGNS = {"circle": "●", "diamond": "◆"}  # the same in text
LEGEND = (
    "✓ and a green frame: near enough to the query to be right; ✗ and a red one: too far. Margin: by how much the "
    "first photo is more similar than the first one of another place. On the map north is up, the blue point is the "
    "query, rings are its positives; what lies beyond the map is drawn hollow at its edge."
)
MakeImg = Callable[[str, int, str], str]  # ("queries" or "database", row, alt text) -> HTML of a photo


def read_style() -> str:
    """The style sheet of all that is made here."""
    return Path(__file__).with_name("gallery.css").read_text(encoding="utf-8")


def render_query(
    browser: Browser, row: int, make_img: MakeImg, radius_m: float, num_shown: int, positives: bool
) -> str:
    """A query, its map, and each model's best photos.

    Args:
        browser: of the split.
        row: of the query.
        make_img: HTML of a photo.
        radius_m: within it, a photo is right.
        num_shown: photos of each model.
        positives: whether to show the query's positives, too.
    """
    queries = browser.queries
    name = queries.names[row]
    scenario = SCENARIOS.get(str(browser.known[row]), "")
    facts = [*describe_photo(queries, row), *([f"known scenario: {scenario}"] if scenario else [])]
    sections = [render_predictions(browser, row, number, make_img, num_shown) for number in range(len(browser.models))]
    if browser.without_positive[row]:
        note = f"No positive exists: no database photo lies within {radius_m:g} m of this query."
        sections.append(f'<p class="vg-note">{note}</p>')
    elif positives:
        sections.append(render_positives(browser, row, make_img, num_shown))
    return (
        f'<div class="vg-query"><figure>{make_img("queries", row, f"The query {name}")}'
        f"<figcaption><b>Query</b> {join(facts)} <code>{html.escape(name)}</code></figcaption></figure>"
        f"{render_map(browser, row, radius_m, num_shown)}</div>"
        f'<div class="vg-models">{"".join(sections)}</div>'
    )


def render_predictions(browser: Browser, row: int, number: int, make_img: MakeImg, num_shown: int) -> str:
    """The best photos of a model, with a frame each: green and ticked if right, else red and crossed."""
    model = browser.models[number]
    found, rank = browser.found[model], int(browser.ranks[number, row])
    shown = found.indices[row, :num_shown]
    errors_m = measure_errors(browser.database, browser.queries[row : row + 1], shown[None])[0]
    cards = []
    for i, photo in enumerate(shown):
        if photo < 0:  # an approximate search may find fewer
            continue
        right = bool(np.isin(photo, found.positives[row]))
        sign, word = ("✓", "right") if right else ("✗", "wrong")
        distance = format_distance(errors_m[i])
        similarity = to_similarity(found.distances[row, i])
        alt = f"Rank {i + 1} of {model}: {word}, {distance} from the query"
        facts = [f"rank {i + 1}", f"similarity {similarity:.2f}", *describe_photo(browser.database, photo)]
        cards.append(render_card(make_img("database", photo, alt), word, f"{sign} {distance}", facts))
    if rank < found.indices.shape[1]:
        verdict = f"first right photo at rank {rank + 1}"
    else:
        verdict = f"no right photo among the first {found.indices.shape[1]}"
    margin = browser.margins[number, row]
    verdict += f" · margin {margin:.2f}" if np.isfinite(margin) else ""
    return render_section(f"{SIGNS[SHAPES[number]]} {model}", verdict, cards)


def render_positives(browser: Browser, row: int, make_img: MakeImg, num_shown: int) -> str:
    """The database photos that count as right, nearest first."""
    positives = next(iter(browser.found.values())).positives[row]
    distances_m = np.linalg.norm(browser.database.utm[positives] - browser.queries.utm[row], axis=1)
    cards = []
    for i in np.argsort(distances_m, kind="stable")[:num_shown]:
        photo, distance = int(positives[i]), format_distance(distances_m[i])
        img = make_img("database", photo, f"A positive, {distance} from the query")
        cards.append(render_card(img, "positive", distance, describe_photo(browser.database, photo)))
    some = f"the nearest {len(cards)} of {len(positives)}" if len(cards) < len(positives) else f"all {len(positives)}"
    return render_section("Positives", some, cards, "vg-positives")


def render_map(browser: Browser, row: int, radius_m: float, num_shown: int) -> str:
    """The query, its positives and each model's photos on the ground."""
    utm, marks = browser.queries.utm[row], []
    for number, (model, found) in enumerate(browser.found.items()):
        for i, photo in enumerate(found.indices[row, :num_shown]):
            if photo >= 0:
                kind = "right" if np.isin(photo, found.positives[row]) else "wrong"
                distance = format_distance(float(np.linalg.norm(browser.database.utm[photo] - utm)))
                title = f"{model}, rank {i + 1}: {kind}, {distance}"
                marks.append(Mark(browser.database.utm[photo], kind, title, str(i + 1), SHAPES[number]))
    marks.sort(key=lambda mark: int(mark.text))
    for photo in next(iter(browser.found.values())).positives[row]:
        marks.append(Mark(browser.database.utm[photo], "positive", "a positive", shape="ring"))
    return draw_map(utm, radius_m, marks, float(browser.queries.headings[row]))


def render_section(title: str, note: str, cards: Sequence[str], kind: str = "") -> str:
    """A heading with a row of cards; kind is a class for the style sheet."""
    return (
        f'<section class="{kind}"><h4>{html.escape(title)} <small>{html.escape(note)}</small></h4>'
        f'<div class="vg-cards">{"".join(cards)}</div></section>'
    )


def render_card(img: str, kind: str, title: str, facts: Iterable[str]) -> str:
    """A photo in a frame with text below it; kind is "right", "wrong", "positive" or ""."""
    text = f"<b>{html.escape(title)}</b> {join(facts)}"
    return f'<figure class="vg-card vg-{kind}">{img}<figcaption>{text}</figcaption></figure>'


def describe_photo(table: ImageTable, row: int) -> list[str]:
    """Heading and date of a photo, as far as they are known."""
    heading, date = table.headings[row], table.dates[row]
    facts = [f"heading {heading:.0f}°" if np.isfinite(heading) else "", "" if np.isnat(date) else str(date)]
    return [fact for fact in facts if fact]


def join(facts: Iterable[str]) -> str:
    """Facts side by side, escaped; lines break between them."""
    return " ".join(f"<span>{html.escape(fact)}</span>" for fact in facts)


def render_suggestions(suggestions: Sequence[Any]) -> str:
    """Suggested scenarios with their reasons."""
    titles = [html.escape(SCENARIOS.get(s.scenario, s.scenario)) for s in suggestions]
    items = [
        f"<li>suggested: <b>{title}</b> ({s.score:.2f}): {html.escape(s.why)}</li>"
        for title, s in zip(titles, suggestions, strict=True)
    ]
    return f'<ul class="vg-suggestions">{"".join(items)}</ul>' if items else '<p class="vg-note">Nothing suggested.</p>'


def render_summary(summary: Mapping[str, Any], total: int) -> str:
    """Counts and recall of a selection."""
    count = f"<b>{summary['queries']:,}</b> of {total:,} queries"
    if summary["without_positive"]:
        count += f", {summary['without_positive']:,} of them without a positive"
    models = []
    for shape, (model, result) in zip(SHAPES, summary["models"].items(), strict=False):
        ks = ", ".join(f"R@{k} {percent:.1f}" for k, percent in result["recall"].items())
        low, high = result["interval"]
        interval = (
            f" (R@1 95%: {low:.1f} to {high:.1f})" if low < high else ""
        )  # else all went one way, by choice or luck
        models.append(f"<span>{SIGNS[shape]} {html.escape(model)}: {ks}{interval}</span>")
    return f'<p class="vg-summary"><span>{count}</span> {" ".join(models)}</p>'


def render_warning(text: str) -> str:
    """Something the user should know."""
    return f'<p class="vg-note vg-warning">{html.escape(text)}</p>'
