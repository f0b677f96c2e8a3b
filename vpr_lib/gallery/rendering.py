"""HTML of a query and its predictions, for the notebook and the page alike. Text from file names is escaped here."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vpr_lib.analysis.local_features import MAX_PIXELS, extract_sift, find_inliers, match_features
from vpr_lib.analysis.saliency import HIGHLIGHT, OPACITY, blend_map, explain_similarity
from vpr_lib.analysis.scenarios import SCENARIOS
from vpr_lib.analysis.suggestions import Suggestion
from vpr_lib.figures.photo_grids import MAX_LINES, draw_matches, format_distance
from vpr_lib.gallery.browser import Browser, SelectionSummary
from vpr_lib.gallery.embedding_map import style_colorings
from vpr_lib.gallery.query_map import Mark, draw_map, style_links
from vpr_lib.gallery.thumbnails import encode_photo, format_img
from vpr_lib.images import ImageTable
from vpr_lib.models import VPRModel
from vpr_lib.photos import read_photo, read_thumbnail

SHAPES = ("circle", "diamond")  # of the models a and b on the map
SIGNS = ("●", "◆")  # the same in text
REGION_PIXELS = 320  # longer side of the photos with their regions
LEGEND = (
    "✓ and a green frame: right, close enough to the query; ✗ and a red frame: wrong, too far away. Margin: similarity "
    "of the first photo minus that of the first photo of another place. Spread: how far apart the first ten photos "
    "lie, weighted by similarity; a large spread means an uncertain answer. Inliers: points of the query found in the "
    "photo, too, in places that fit one motion of the camera; shown where they were computed. On the map north is up, "
    "the blue point is the query, rings are its positives and gray dots other database photos; point at a photo, or at "
    "its mark, to find the other."
)
LoadModel = Callable[[str], VPRModel]  # name -> model
Pair = list[tuple[ImageTable, int]]  # tables and rows of a query and of a photo
MakeImg = Callable[[str, int, str], str]  # ("queries" or "database", row, alternative text) -> HTML of a photo


def read_style() -> str:
    """Style sheet of the HTML made in this room."""
    files = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("gallery.css", "maps.css")]
    return "\n".join([*files, style_links(), style_colorings()])


def read_script() -> str:
    """Script of the HTML made in this room."""
    return Path(__file__).with_name("gallery.js").read_text(encoding="utf-8")


def render_query(browser: Browser, row: int, make_img: MakeImg, num_shown: int, show_positives: bool) -> str:
    """Render a query, its map, the first photos of each model and, if wanted, the first positives."""
    name = browser.queries.names[row]
    facts = _join_facts(list_photo_facts(browser.queries, row))
    if browser.known[row]:
        facts += f' <span class="vg-label">known scenario: {SCENARIOS[str(browser.known[row])]}</span>'
    sections = [_render_predictions(browser, row, i, make_img, num_shown) for i in range(len(browser.models))]
    if browser.without_positive[row]:
        note = f"No positive exists: no database photo lies within {browser.radius_m:g} m of this query."
        sections.append(f'<p class="vg-note">{note}</p>')
    elif show_positives:
        sections.append(_render_positives(browser, row, make_img, num_shown))
    if not browser.without_positive[row]:
        sections.append(_render_nearest(browser, row, make_img))
    query_map = _render_map(browser, row, num_shown)
    return render_columns(
        f"<figure>{make_img('queries', row, 'Query')}<figcaption><b>Query</b> {facts} "
        f"<code>{html.escape(name)}</code></figcaption></figure>{query_map}",
        sections,
    )


def render_regions(
    browser: Browser,
    row: int,
    rank: int,
    load_model: LoadModel,
    image_sizes: Mapping[str, int],
    models: Sequence[str] = (),
) -> str:
    """Render, for each model, the query and its photo of a rank with the regions that account for their similarity.

    `models` may name the wanted ones.
    """

    def render(model: str, pair: Pair) -> str:
        maps = explain_similarity(load_model(model), *(read_photo(*item, image_sizes[model]) for item in pair))
        cards = []
        for title, item, saliency in zip(("query", f"photo of rank {rank}"), pair, maps, strict=True):
            alt = f"The {title}, with the regions that account for the similarity for {model}"
            picture = blend_map(read_thumbnail(*item, REGION_PIXELS), saliency)
            cards.append(render_card(format_img(encode_photo(picture), alt), "", title, []))
        section = render_section(model, "regions that account for the similarity", cards)
        return f"<div>{section}{_render_scale()}</div>"

    return _render_pairs(browser, row, rank, "regions", render, models)


def _render_scale() -> str:
    """The colors of `blend_map` with their values."""
    red, green, blue = HIGHLIGHT
    colors = f"rgba({red},{green},{blue},0), rgba({red},{green},{blue},{OPACITY})"
    bar = f'<i style="background: linear-gradient(90deg, {colors})"></i>'
    text = "contribution, relative to the photo's largest; the white line is at 0.5"
    return f'<div class="vg-scale"><span>0</span>{bar}<span>1</span> <small>{text}</small></div>'


def render_matches(browser: Browser, row: int, rank: int, models: Sequence[str] = ()) -> str:
    """Render, for each model, the query beside its photo of a rank, with lines between their inliers.

    `models` may name the wanted ones.
    """

    def render(model: str, pair: Pair) -> str:
        photos = [read_thumbnail(*item, MAX_PIXELS) for item in pair]
        first, second = map(extract_sift, photos)
        inliers = find_inliers(first, second)
        title = f"{len(inliers)} inliers of {len(match_features(first, second))} matches"
        facts = [f"query and photo of rank {rank}"]
        if len(inliers) > MAX_LINES:
            facts.append(f"{MAX_LINES} of the inliers are drawn")
        picture = draw_matches(*photos, first.points[inliers[:, 0]], second.points[inliers[:, 1]])
        alt = f"The query and the photo of rank {rank} of {model}, with lines between their {len(inliers)} inliers"
        card = render_card(format_img(encode_photo(picture), alt), "", title, facts)
        return render_section(model, "points found in both photos", [card])

    return _render_pairs(browser, row, rank, "matches", render, models)


def _render_pairs(
    browser: Browser, row: int, rank: int, what: str, render: Callable[[str, Pair], str], models: Sequence[str]
) -> str:
    """A section for each model about the query and the model's photo of a rank, or why there is none."""
    sections = []
    for model in models or browser.models:
        photo = next((each.photo for each in browser.list_predictions(model, row, rank) if each.rank == rank), None)
        if photo is None:
            sections.append(render_warning(f"{model} has no photo of rank {rank}."))
            continue
        try:
            sections.append(render(model, [(browser.queries, row), (browser.database, photo)]))
        except (OSError, ValueError) as error:
            sections.append(render_warning(f"No {what}: {error}"))
    return f'<div class="vg-pairs vg-{what}">{"".join(sections)}</div>'


def render_suggestions(suggestions: Sequence[Suggestion]) -> str:
    """Render suggested scenarios with their reasons."""
    if not suggestions:
        return '<p class="vg-note">No scenario suggested.</p>'
    items = [f"<b>{SCENARIOS[item.scenario]}</b> ({item.score:.2f}): {html.escape(item.why)}" for item in suggestions]
    return f'<ul class="vg-suggestions">{"".join(f"<li>suggested: {item}</li>" for item in items)}</ul>'


def render_summary(summary: SelectionSummary, total: int, show_recall: bool = True) -> str:
    """Render counts and recall of a selection; without recall if the queries were chosen by their outcome."""
    parts = [f"<b>{summary.num_queries:,}</b> of {total:,} queries"]
    if summary.num_without_positive:
        parts[0] += f", {summary.num_without_positive:,} of them without a positive"
    for sign, (model, recall) in zip(SIGNS, summary.recall.items() if show_recall else (), strict=False):
        text = f"{sign} {html.escape(model)}: " + ", ".join(f"R@{k} {percent:.1f}" for k, percent in recall.items())
        low, high = summary.intervals[model]
        if low < high:  # equal if the model is right for all queries, or for none
            text += f" (R@1 95%: {low:.1f} to {high:.1f})"
        parts.append(text)
    return f'<p class="vg-summary">{" ".join(f"<span>{part}</span>" for part in parts)}</p>'


def render_warning(text: str) -> str:
    """Render a message that must not be overlooked."""
    return f'<p class="vg-note vg-warning">{html.escape(text)}</p>'


def render_columns(left: str, sections: Iterable[str]) -> str:
    """A query and its map beside the sections of the models."""
    return f'<div class="vg-query">{left}</div><div class="vg-models">{"".join(sections)}</div>'


def render_section(title: str, note: str, cards: Iterable[str], kind: str = "") -> str:
    """A heading with a row of cards; `kind` is a class of the style sheet."""
    return (
        f'<section class="{kind}"><h4>{html.escape(title)} <small>{html.escape(note)}</small></h4>'
        f'<div class="vg-cards">{"".join(cards)}</div></section>'
    )


def render_card(img: str, kind: str, title: str, facts: Iterable[str], key: str = "") -> str:
    """A framed photo with text below it; `kind` is "right", "wrong", "positive" or "", `key` that of its `Mark`."""
    text = f"<b>{html.escape(title)}</b> {_join_facts(facts)}"
    mark = f' data-mark="{key}"' if key else ""
    return f'<figure class="vg-card vg-{kind}"{mark}>{img}<figcaption>{text}</figcaption></figure>'


def list_photo_facts(table: ImageTable, row: int) -> list[str]:
    """Heading and date of a photo, where known."""
    heading = [f"heading {table.headings[row]:.0f}°"] if np.isfinite(table.headings[row]) else []
    return heading if np.isnat(table.dates[row]) else [*heading, str(table.dates[row])]


def _join_facts(facts: Iterable[str]) -> str:
    """Escaped facts side by side; lines break between them."""
    return " ".join(f"<span>{html.escape(fact)}</span>" for fact in facts)


def _render_predictions(browser: Browser, row: int, number: int, make_img: MakeImg, num_shown: int) -> str:
    """The first photos of one model, framed green with a tick if right, else red with a cross."""
    model = browser.models[number]
    cards = []
    for rank, photo, right, distance_m, similarity, inliers in browser.list_predictions(model, row, num_shown):
        sign, word = ("✓", "right") if right else ("✗", "wrong")
        distance = format_distance(distance_m)
        img = make_img("database", photo, f"Rank {rank} of {model}: {word}, {distance} from the query")
        facts = [f"rank {rank}", f"similarity {similarity:.2f}"]
        if inliers >= 0:
            facts.append(f"{inliers} inliers")
        facts += list_photo_facts(browser.database, photo)
        cards.append(render_card(img, word, f"{sign} {distance}", facts, f"{'ab'[number]}{rank}"))
    num_predictions = browser.evaluations[model].indices.shape[1]
    rank, margin = browser.ranks[number, row], browser.margins[number, row]
    note = f"no right photo among the first {num_predictions}"
    if rank < num_predictions:
        note = f"first right photo at rank {rank + 1}"
    if np.isfinite(margin):
        note += f" · margin {margin:.2f}"
    note += f" · spread {format_distance(browser.spreads_m[number, row])}"
    return render_section(f"{SIGNS[number]} {model}", note, cards)


def _render_positives(browser: Browser, row: int, make_img: MakeImg, num_shown: int) -> str:
    """The positives of a query, nearest first."""
    positives = browser.positives[row]
    distances_m = np.linalg.norm(browser.database.utm[positives] - browser.queries.utm[row], axis=1)
    cards = []
    for i in np.argsort(distances_m, kind="stable")[:num_shown]:
        distance = format_distance(distances_m[i])
        img = make_img("database", positives[i], f"A positive, {distance} from the query")
        cards.append(render_card(img, "positive", distance, list_photo_facts(browser.database, positives[i])))
    note = f"the nearest {len(cards)} of {len(positives)}" if len(cards) < len(positives) else f"all {len(positives)}"
    return render_section("Positives", note, cards, "vg-positives")


def _render_nearest(browser: Browser, row: int, make_img: MakeImg) -> str:
    """The nearest positive of a query, hidden: shown beside enlarged photos. Of equal meters, the least turned one."""
    positives = browser.positives[row]
    distances_m = np.linalg.norm(browser.database.utm[positives] - browser.queries.utm[row], axis=1)
    turns_deg = np.abs((browser.database.headings[positives] - browser.queries.headings[row] + 180) % 360 - 180)
    nearest = np.lexsort((np.nan_to_num(turns_deg, nan=0.0), np.floor(distances_m)))[0]
    photo, distance = positives[nearest], format_distance(distances_m[nearest])
    img = make_img("database", photo, f"Nearest positive, {distance} from the query")
    text = f"<b>{distance}</b> {_join_facts(list_photo_facts(browser.database, photo))}"
    return f'<figure class="vg-nearest" hidden>{img}<figcaption>{text}</figcaption></figure>'


def _render_map(browser: Browser, row: int, num_shown: int) -> str:
    """A map of the query, its positives and the first photos of each model."""
    utm = browser.database.utm
    marks = []
    for model, shape, letter in zip(browser.models, SHAPES, "ab", strict=False):
        for prediction in browser.list_predictions(model, row, num_shown):
            kind = "right" if prediction.right else "wrong"
            title = f"{model}, rank {prediction.rank}: {kind}, {format_distance(prediction.distance_m)}"
            key = f"{letter}{prediction.rank}"
            marks.append(Mark(utm[prediction.photo], kind, title, str(prediction.rank), shape, key))
    marks.sort(key=lambda mark: int(mark.text))
    marks += [Mark(utm[photo], "positive", "a positive", shape="ring") for photo in browser.positives[row]]
    heading_deg = float(browser.queries.headings[row])
    return draw_map(browser.queries.utm[row], browser.radius_m, marks, heading_deg, dots=utm)
