"""A query and a photo that was found -> HTML of the regions that carry their similarity."""

from collections.abc import Callable

from vpr_lib.analysis.saliency import blend_map, explain_similarity
from vpr_lib.gallery.browser import Browser
from vpr_lib.gallery.rendering import render_card, render_section, render_warning
from vpr_lib.gallery.thumbnails import format_img, to_jpeg, to_uri
from vpr_lib.models import VPRModel
from vpr_lib.photos import read_photo, read_thumbnail

PIXELS = 320  # longer side of the pictures


def render_regions(
    browser: Browser, row: int, rank: int, load_model: Callable[[str], VPRModel], image_sizes: dict[str, int]
) -> str:
    """For each model, the query and the photo it has at a rank, bright where they are alike for the model.

    Args:
        browser: of the split.
        row: of the query.
        rank: from 1.
        load_model: name of a model -> the model.
        image_sizes: {model: pixels of its input}.
    """
    sections = []
    for name, found in browser.found.items():
        photo = int(found.indices[row, rank - 1]) if rank <= found.indices.shape[1] else -1
        if photo < 0:
            sections.append(render_warning(f"{name} has no photo of rank {rank}."))
            continue
        pair = {"query": (browser.queries, row), f"photo of rank {rank}": (browser.database, photo)}
        size = image_sizes[name]
        try:
            maps = explain_similarity(load_model(name), *(read_photo(*place, size) for place in pair.values()))
            photos = [read_thumbnail(*place, PIXELS) for place in pair.values()]
        except (OSError, ValueError) as error:
            sections.append(render_warning(f"No regions: {error}"))
            continue
        cards = []
        for title, image, heat in zip(pair, photos, maps, strict=True):
            alt = f"The {title}, with the regions that carry the similarity for {name}"
            cards.append(render_card(format_img(to_uri(to_jpeg(blend_map(image, heat))), alt), "", title, []))
        sections.append(render_section(name, "regions that carry the similarity", cards))
    return f'<div class="vg-regions">{"".join(sections)}</div>'
