"""HTML of the regions of a query and a predicted photo that account for their similarity."""

from collections.abc import Callable, Mapping

from vpr_lib.analysis.saliency import blend_map, explain_similarity
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.rendering import render_card, render_section, render_warning
from vpr_lib.gallery.thumbnails import encode_jpeg, format_data_uri, format_img
from vpr_lib.models import VPRModel
from vpr_lib.photos import read_photo, read_thumbnail

MAX_PIXELS = 320  # longer side of the photos


def render_regions(
    browser: Browser, row: int, rank: int, load_model: Callable[[str], VPRModel], image_sizes: Mapping[str, int]
) -> str:
    """Render, for each model, the query and its photo of a rank with their saliency maps.

    Args:
        browser: browser of the split.
        row: row of the query.
        rank: rank of the photo, from 1.
        load_model: returns a model by its name.
        image_sizes: {model: pixels of its input}.
    """
    sections = []
    for model in browser.models:
        predictions = {p.rank: p.photo for p in browser.list_predictions(model, row, rank)}
        if rank not in predictions:
            sections.append(render_warning(f"{model} has no photo of rank {rank}."))
            continue
        photo = predictions[rank]
        try:
            maps = explain_similarity(
                load_model(model),
                read_photo(browser.queries, row, image_sizes[model]),
                read_photo(browser.database, photo, image_sizes[model]),
            )
            thumbnails = [
                read_thumbnail(browser.queries, row, MAX_PIXELS),
                read_thumbnail(browser.database, photo, MAX_PIXELS),
            ]
        except (OSError, ValueError) as error:
            sections.append(render_warning(f"No regions: {error}"))
            continue
        cards = []
        for title, thumbnail, saliency in zip(("query", f"photo of rank {rank}"), thumbnails, maps, strict=True):
            img = format_img(
                format_data_uri(encode_jpeg(blend_map(thumbnail, saliency))),
                f"The {title}, with the regions that account for the similarity for {model}",
            )
            cards.append(render_card(img, "", title, []))
        sections.append(render_section(model, "regions that account for the similarity", cards))
    return f'<div class="vg-regions">{"".join(sections)}</div>'
