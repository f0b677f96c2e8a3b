"""HTML of a query and its predictions, for the notebook and the page alike. Text from file names is escaped here."""

import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from vpr_lib.analysis.cues import Suggestion
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.figures.photo_grids import format_distance
from vpr_lib.gallery.browser import Browser, SelectionSummary
from vpr_lib.gallery.query_map import Mark, draw_map
from vpr_lib.images import ImageTable

SHAPES = ("circle", "diamond")  # of the models a and b on the map
SIGNS = ("●", "◆")  # the same in text
LEGEND = (
    "✓ and a green frame: right, close enough to the query; ✗ and a red frame: wrong, too far away. Margin: similarity "
    "of the first photo minus that of the first photo of another place. On the map north is up, the blue point is the "
    "query and rings are its positives; photos beyond the map are drawn hollow at its edge."
)
MakeImg = Callable[[str, int, str], str]  # ("queries" or "database", row, alternative text) -> HTML of a photo


def read_style() -> str:
    """Style sheet of the HTML made in this room."""
    return Path(__file__).with_name("gallery.css").read_text(encoding="utf-8")


def render_query(
    browser: Browser, row: int, make_img: MakeImg, radius_m: float, num_shown: int, show_positives: bool
) -> str:
    """Render a query, its map, and the first photos of each model.

    Args:
        browser: browser of the split.
        row: row of the query.
        make_img: makes the HTML of a photo.
        radius_m: distance within which a photo is right.
        num_shown: photos of each model.
        show_positives: whether to show the query's positives as well.
    """
    name = browser.queries.names[row]
    facts = list_photo_facts(browser.queries, row)
    if browser.known[row]:
        facts.append(f"known scenario: {SCENARIOS[str(browser.known[row])]}")
    sections = [_render_predictions(browser, row, i, make_img, num_shown) for i in range(len(browser.models))]
    if browser.without_positive[row]:
        note = f"No positive exists: no database photo lies within {radius_m:g} m of this query."
        sections.append(f'<p class="vg-note">{note}</p>')
    elif show_positives:
        sections.append(_render_positives(browser, row, make_img, num_shown))
    return (
        f'<div class="vg-query"><figure>{make_img("queries", row, f"The query {name}")}'
        f"<figcaption><b>Query</b> {join_facts(facts)} <code>{html.escape(name)}</code></figcaption></figure>"
        f"{_render_map(browser, row, radius_m, num_shown)}</div>"
        f'<div class="vg-models">{"".join(sections)}</div>'
    )


def render_section(title: str, note: str, cards: Sequence[str], kind: str = "") -> str:
    """Render a heading with a row of cards; `kind` is a class of the style sheet."""
    return (
        f'<section class="{kind}"><h4>{html.escape(title)} <small>{html.escape(note)}</small></h4>'
        f'<div class="vg-cards">{"".join(cards)}</div></section>'
    )


def render_card(img: str, kind: str, title: str, facts: Iterable[str]) -> str:
    """Render a framed photo with text below it; `kind` is "right", "wrong", "positive" or ""."""
    text = f"<b>{html.escape(title)}</b> {join_facts(facts)}"
    return f'<figure class="vg-card vg-{kind}">{img}<figcaption>{text}</figcaption></figure>'


def list_photo_facts(table: ImageTable, row: int) -> list[str]:
    """Heading and date of a photo, where known."""
    facts = []
    if np.isfinite(table.headings[row]):
        facts.append(f"heading {table.headings[row]:.0f}°")
    if not np.isnat(table.dates[row]):
        facts.append(str(table.dates[row]))
    return facts


def join_facts(facts: Iterable[str]) -> str:
    """Escape facts and put them side by side; lines break between them."""
    return " ".join(f"<span>{html.escape(fact)}</span>" for fact in facts)


def render_suggestions(suggestions: Sequence[Suggestion]) -> str:
    """Render suggested scenarios with their reasons."""
    items = []
    for suggestion in suggestions:
        title = html.escape(SCENARIOS[suggestion.scenario])
        items.append(f"<li>suggested: <b>{title}</b> ({suggestion.score:.2f}): {html.escape(suggestion.why)}</li>")
    if not items:
        return '<p class="vg-note">No scenario suggested.</p>'
    return f'<ul class="vg-suggestions">{"".join(items)}</ul>'


def render_summary(summary: SelectionSummary, total: int) -> str:
    """Render counts and recall of a selection."""
    count = f"<b>{summary.num_queries:,}</b> of {total:,} queries"
    if summary.num_without_positive:
        count += f", {summary.num_without_positive:,} of them without a positive"
    parts = [f"<span>{count}</span>"]
    for sign, (model, result) in zip(SIGNS, summary.models.items(), strict=False):
        text = f"{sign} {html.escape(model)}: " + ", ".join(
            f"R@{k} {recall:.1f}" for k, recall in result.recall.items()
        )
        low, high = result.interval
        if low < high:  # equal if the model is right for all queries, or for none
            text += f" (R@1 95%: {low:.1f} to {high:.1f})"
        parts.append(f"<span>{text}</span>")
    return f'<p class="vg-summary">{" ".join(parts)}</p>'


def render_warning(text: str) -> str:
    """Render a message that must not be overlooked."""
    return f'<p class="vg-note vg-warning">{html.escape(text)}</p>'


def _render_predictions(browser: Browser, row: int, number: int, make_img: MakeImg, num_shown: int) -> str:
    """The first photos of one model, framed green with a tick if right, else red with a cross."""
    model = browser.models[number]
    cards = []
    for prediction in browser.list_predictions(model, row, num_shown):
        sign, word = ("✓", "right") if prediction.right else ("✗", "wrong")
        distance = format_distance(prediction.distance_m)
        alt = f"Rank {prediction.rank} of {model}: {word}, {distance} from the query"
        facts = [f"rank {prediction.rank}", f"similarity {prediction.similarity:.2f}"]
        facts += list_photo_facts(browser.database, prediction.photo)
        cards.append(render_card(make_img("database", prediction.photo, alt), word, f"{sign} {distance}", facts))
    num_predictions = browser.evaluations[model].indices.shape[1]
    rank = int(browser.ranks[number, row])
    note = f"no right photo among the first {num_predictions}"
    if rank < num_predictions:
        note = f"first right photo at rank {rank + 1}"
    if np.isfinite(browser.margins[number, row]):
        note += f" · margin {browser.margins[number, row]:.2f}"
    return render_section(f"{SIGNS[number]} {model}", note, cards)


def _render_positives(browser: Browser, row: int, make_img: MakeImg, num_shown: int) -> str:
    """The positives of a query, nearest first."""
    positives = browser.positives[row]
    distances_m = np.linalg.norm(browser.database.utm[positives] - browser.queries.utm[row], axis=1)
    cards = []
    for i in np.argsort(distances_m, kind="stable")[:num_shown]:
        photo = int(positives[i])
        distance = format_distance(distances_m[i])
        img = make_img("database", photo, f"A positive, {distance} from the query")
        cards.append(render_card(img, "positive", distance, list_photo_facts(browser.database, photo)))
    note = f"the nearest {len(cards)} of {len(positives)}" if len(cards) < len(positives) else f"all {len(positives)}"
    return render_section("Positives", note, cards, "vg-positives")


def _render_map(browser: Browser, row: int, radius_m: float, num_shown: int) -> str:
    """A map of the query, its positives and the first photos of each model."""
    marks = []
    for model, shape in zip(browser.models, SHAPES, strict=False):
        for prediction in browser.list_predictions(model, row, num_shown):
            kind = "right" if prediction.right else "wrong"
            title = f"{model}, rank {prediction.rank}: {kind}, {format_distance(prediction.distance_m)}"
            marks.append(Mark(browser.database.utm[prediction.photo], kind, title, str(prediction.rank), shape))
    marks.sort(key=lambda mark: int(mark.text))
    for photo in browser.positives[row]:
        marks.append(Mark(browser.database.utm[photo], "positive", "a positive", shape="ring"))
    return draw_map(browser.queries.utm[row], radius_m, marks, float(browser.queries.headings[row]))
