"""The maps and one's own photo in a real browser: in the page, and in JupyterLab."""

# ruff: noqa: F811 - fixtures have the names of the arguments that take them
import re

import numpy as np
import pytest
from conftest import write_photo

from vpr_lib.gallery.own_photo import MAX_UPLOAD

from .test_page_in_chromium import chromium, folder, gallery, jupyter, page, runs, shown_query  # noqa: F401

pytestmark = pytest.mark.slow


def find_center(page, row):
    """Position of a query's point on the map that is shown."""
    box = page.locator(f'.vg-embedding:visible [data-row="{row}"]').bounding_box()
    return np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])


def draw_around(page, centers, size=9):
    """Draw a line around the points with the mouse."""
    low, high = np.min(centers, axis=0) - size, np.max(centers, axis=0) + size
    page.mouse.move(*low)
    page.mouse.down()
    for corner in ((high[0], low[1]), high, (low[0], high[1]), low):
        page.mouse.move(*corner, steps=5)
    page.mouse.up()


def choose_points(page, num_queries):
    """A point with no other nearby, the centers of it and of its neighbor, and the rows in the box around the two."""
    centers = np.array([find_center(page, row) for row in range(num_queries)])
    away = np.linalg.norm(centers[:, None] - centers[None], axis=2) + 1e9 * np.eye(num_queries)
    alone = int(away.min(1).argmax())
    pair = [alone, int(away[alone].argmin())]
    low, high = centers[pair].min(0) - 9, centers[pair].max(0) + 9
    return alone, centers[pair], [i for i, c in enumerate(centers) if (c > low).all() and (c < high).all()]


def test_the_embedding_map_of_the_page(gallery, page, tmp_path):
    names = gallery.browser.queries.names
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(gallery.export_html(tmp_path / "page.html", np.arange(7)).as_uri())
    page.locator("summary", has_text="Embedding map").click()
    page.select_option("#embedding-method", "PCA")
    page.locator("#embedding").scroll_into_view_if_needed()
    alone, around, inside = choose_points(page, 7)

    page.mouse.click(*find_center(page, alone))
    assert shown_query(page) == names[alone]
    ring = page.locator(".vg-embedding:visible .vg-ring")
    point = page.locator(f'.vg-embedding:visible [data-row="{alone}"]')
    assert ring.get_attribute("transform") == point.get_attribute("transform") and ring.is_visible()
    assert names[alone] in page.locator("#embedding-query").inner_text()

    draw_around(page, around)
    assert page.locator("#summary").inner_text().startswith(f"{len(inside)} of 7 queries") and 0 < len(inside) < 7
    dimmed = page.locator(".vg-embedding:visible .out").evaluate_all("all => all.map(path => Number(path.dataset.row))")
    assert sorted(dimmed) == sorted(set(range(7)) - set(inside))
    page.select_option("#scenario", "occlusion")  # together with the other filters
    of_scenario = [row for row in inside if gallery.browser.known[row] == "occlusion"]
    assert page.locator("#summary").inner_text().startswith(f"{len(of_scenario)} of 7 queries")
    page.select_option("#scenario", "")
    page.locator("#embedding-all").click()
    assert page.locator("#summary").inner_text().startswith("7 of 7 queries")

    # The color follows the choice, and so does the legend
    def read_fill():
        return point.evaluate("path => getComputedStyle(path).fill")

    before = read_fill()
    page.select_option("#embedding-color", "scenario")
    assert read_fill() != before or gallery.browser.known[alone] == ""
    (legend,) = page.locator(".vg-legend:visible").all_inner_texts()
    assert "Skyline (" in legend and "Occlusion (" in legend and "right" in legend  # colors and shapes
    page.select_option("#embedding-model", "1")
    assert page.locator(".vg-embedding:visible").get_attribute("data-map") == "1-PCA"
    assert errors == []


def test_pointing_at_a_photo_highlights_its_mark_and_the_other_way_round(gallery, page, tmp_path):
    page.goto(gallery.export_html(tmp_path / "page.html", np.arange(7)).as_uri())
    card, mark = page.locator('#view figure[data-mark="a2"]'), page.locator('#view g[data-mark="a2"]')

    def read_looks():
        outline = card.evaluate("card => getComputedStyle(card.children[0]).outlineStyle")
        return outline, mark.locator("circle").first.evaluate("circle => getComputedStyle(circle).stroke")

    assert read_looks() == ("none", "rgb(255, 255, 255)")
    card.hover()
    assert read_looks() == ("solid", "rgb(0, 0, 0)")
    page.mouse.move(1, 1)
    assert read_looks() == ("none", "rgb(255, 255, 255)")
    mark.locator("circle").first.hover(force=True)
    keys = page.locator("#view g:hover").evaluate_all("all => all.map(g => g.dataset.mark)")
    lit = page.locator("#view figure[data-mark]").evaluate_all(
        "all => all.filter(f => getComputedStyle(f.children[0]).outlineStyle == 'solid').map(f => f.dataset.mark)"
    )
    assert lit == keys and len(keys) == 1  # another mark may lie on top


def test_hidden_labels(gallery, page, tmp_path):
    gallery.browser.suggest(0)
    page.goto(gallery.export_html(tmp_path / "page.html", np.arange(7)).as_uri())
    assert (
        re.search("[✓✗]", page.locator("#view").inner_text()) and "known scenario" in page.locator("#view").inner_text()
    )
    embedding = page.locator(".vg-embedding-box")
    page.locator("details", has=embedding).evaluate("details => details.open = true")
    assert embedding.is_visible()
    page.check("#hide_labels")
    assert not embedding.is_visible()
    for _ in range(7):
        text = page.locator("#view").inner_text()
        assert not re.search("[✓✗]|known scenario|first right|no right|No positive", text) and "rank 1" in text
        assert not page.locator("#view .vg-map").is_visible() and page.locator("#suggestions").inner_text() == ""
        colors = page.locator("#view .vg-card:not(.vg-positive) img").evaluate_all(
            "all => [...new Set(all.map(i => getComputedStyle(i).borderTopColor))]"
        )
        assert len(colors) == 1
        assert "R@" not in page.locator("#summary").inner_text()
        page.locator("#next").click()
    page.uncheck("#hide_labels")
    assert "R@1" in page.locator("#summary").inner_text() and page.locator("#view .vg-map").is_visible()


def test_maps_and_ones_own_photo_in_jupyterlab(jupyter, gallery, page, tmp_path):
    names = gallery.browser.queries.names
    page.goto(jupyter)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".vg-query img")

    page.locator(".jupyter-widget-Collapse-header", has_text="Embedding map").click()
    page.wait_for_selector(".vg-embedding svg [data-row]")
    page.locator(".vg-embedding > svg").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    alone, around, inside = choose_points(page, 7)
    page.mouse.click(*find_center(page, alone))
    page.wait_for_selector(f".vg-embedding-columns code:has-text('{names[alone]}')")
    assert shown_query(page) == names[alone] and page.locator(".vg-ring").is_visible()
    draw_around(page, around)
    page.wait_for_function(
        "text => document.querySelector('.vg-summary').innerText.startsWith(text)", arg=f"{len(inside)} of 7"
    )
    page.get_by_role("button", name="all queries").click()
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('7 of 7')")

    # A photo of the user's own, a file that is none, and one that is too big
    write_photo(tmp_path / "holiday.jpg", 101, 7)
    (tmp_path / "notes.jpg").write_text("no photo")
    (tmp_path / "large.jpg").write_bytes(bytes(MAX_UPLOAD + 1))
    page.locator(".jupyter-widget-Collapse-header", has_text="A photo of your own").click()
    former = None
    for name, answer in (
        ("holiday.jpg", "estimate:"),
        ("notes.jpg", "is not located"),
        ("holiday.jpg", "estimate:"),
        ("large.jpg", "is too big"),
    ):
        with page.expect_file_chooser() as chooser:
            page.locator(".vg-own-photo", has_text="upload a photo").locator("label.vg-chooser").click()
        chooser.value.set_files(tmp_path / name)
        page.wait_for_selector(f".vg-own-photo >> text={answer}")
        shown = page.locator(".vg-own-photo").inner_text()
        assert name in shown and (former is None or former not in shown)
        former = answer
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
