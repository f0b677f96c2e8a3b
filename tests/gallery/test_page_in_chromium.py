"""The gallery in a real browser: in JupyterLab, and as a page opened from a file."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import make_root, photo_name, write_photo
from jupyter_server.serverapp import list_running_servers

from vpr_lib.evaluation import evaluate_run
from vpr_lib.gallery import View, open_gallery
from vpr_lib.gallery.browser import ORDERS
from vpr_lib.gallery.export import write_gallery_page
from vpr_lib.machine import Machine
from vpr_lib.runs import get_run
from vpr_lib.settings import get_preset, replace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CPU = Machine(device="cpu", num_workers=0, progress=False)
WAIT_MS = 60_000  # two busy cores
CELL = """
from vpr_lib.gallery import open_gallery
from vpr_lib.machine import Machine

open_gallery({runs}, "data", "val", machine=Machine(device="cpu", num_workers=0, progress=False))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no chromium: the browser tests need Debian's package of that name")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    yield page
    context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds data/ with a split val of 7 queries with scenarios."""
    folder = tmp_path_factory.mktemp("gallery")
    root = make_root(folder / "data")
    write_photo(root / "val" / "queries" / photo_name(9e5, 4e6, pano="alone"), 200)
    names = sorted(path.name for path in (root / "val" / "queries").iterdir())
    rows = [f"{name},{('skyline', 'occlusion')[i % 2]}" for i, name in enumerate(names)]
    (root / "scenarios.csv").write_text("\n".join(["query,scenario", *rows]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    """Two runs, evaluated on the split."""
    small = replace(get_preset("smoke"), image_size=32, num_places=3, crop_after="layer1", epochs=1, ks=(1, 5, 10))
    runs = {}
    for name in ("GeM", "AVG"):
        runs[name] = get_run(replace(small, aggregator=name), folder / "data", folder / "runs", machine=CPU)
        evaluate_run(runs[name], folder / "data", "val", CPU)
    return runs


@pytest.fixture
def gallery(folder, runs):
    return open_gallery(runs, folder / "data", "val", machine=CPU)


@pytest.fixture
def jupyter(folder, runs):
    """Address of a notebook that opens the gallery, in a JupyterLab that runs as long as the test."""
    cell = nbformat.v4.new_code_cell(CELL.format(runs={name: str(run.folder) for name, run in runs.items()}))
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    heading = nbformat.v4.new_markdown_cell("# A heading to jump to")
    notebook = nbformat.v4.new_notebook(cells=[heading, cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "gallery.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false"}')
    folders = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "spaces")}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        folders[name] = str(folder / name.lower())
    environment = {**os.environ, **folders, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    with open(folder / "jupyter.log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not (running := list(list_running_servers(folders["JUPYTER_RUNTIME_DIR"]))):
            assert server.poll() is None, (folder / "jupyter.log").read_text()[-3000:]
            time.sleep(0.5)
        yield f"{running[0]['url']}lab/tree/gallery.ipynb?token={running[0]['token']}"
    finally:
        server.terminate()
        server.wait(30)


def shown_query(page):
    return page.locator(".vg-query code").first.inner_text()


def check_frames(page):
    """Green within 25 m, red beyond, and a sign that says the same."""
    cards = page.locator(".vg-right, .vg-wrong").evaluate_all(
        "all => all.map(card => [getComputedStyle(card.children[0]).borderTopColor, card.innerText])"
    )
    assert cards
    for color, text in cards:
        sign, number, unit = text.split()[:3]
        right = float(number) * (1000 if unit == "km" else 1) <= 25
        assert (color, sign) == (("rgb(0, 158, 115)", "✓") if right else ("rgb(213, 94, 0)", "✗"))


def read_dialog(page):
    """Headings of the photos in the dialog, and whether all of them have loaded."""
    photos = page.locator("dialog .vg-dialog-photos")
    loaded = photos.locator("img").evaluate_all("all => all.every(img => img.naturalWidth > 0 && img.alt)")
    return photos.locator("h3").all_inner_texts(), loaded


def check_enlarging(page):
    """In a notebook: large photos from the kernel, matches on request, Esc."""
    card = page.locator(".vg-card[data-mark='b2'] .vg-photo")
    card.click()
    page.wait_for_selector("dialog[open]")
    headings, loaded = read_dialog(page)
    assert headings[0] == "Query" and headings[1].startswith("Rank 2 of AVG") and loaded
    assert len(headings) == 2 or headings[2].startswith("Nearest positive")
    page.get_by_role("button", name="matches").click()
    page.wait_for_selector("dialog .vg-matches figure, dialog .vg-matches .vg-warning")
    assert page.locator("dialog .vg-matches section").count() == 1
    page.get_by_role("button", name="regions").click()
    page.wait_for_selector("dialog .vg-regions img")
    assert page.locator("dialog .vg-matches").count() == 0
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert card.evaluate("card => card === document.activeElement")


def check_keys_stay_in_the_gallery(page):
    """After "next", after a click between the controls, on a photo and on the slider; other keys do nothing."""
    cells = page.locator(".jp-Cell")
    place = page.locator(".vg-gallery .widget-label", has_text=" of 7")

    def press(key, expected):
        page.keyboard.press(key)
        page.wait_for_function(
            "text => [...document.querySelectorAll('.vg-gallery .widget-label')].some(l => l.innerText === text)",
            arg=expected,
        )
        assert "jp-mod-active" in page.locator(".jp-CodeCell").last.get_attribute("class")

    page.get_by_role("button", name="next ▶").click()
    press("ArrowRight", "3 of 7")
    press("ArrowLeft", "2 of 7")
    page.locator(".vg-summary").first.click()
    press("ArrowRight", "3 of 7")
    page.locator(".vg-card .vg-photo").first.focus()
    press("ArrowLeft", "2 of 7")
    count = cells.count()
    for key in ("ArrowDown", "a", "d", "d", "ArrowUp"):  # in JupyterLab: another cell, a new one, delete
        page.keyboard.press(key)
    assert cells.count() == count and place.inner_text() == "2 of 7"
    press("ArrowLeft", "1 of 7")


def test_the_gallery_in_jupyterlab(jupyter, folder, page):
    page.goto(jupyter)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".vg-query img")
    assert page.locator(".vg-summary").first.inner_text().startswith("7 of 7 queries")
    assert page.locator(".vg-card img").count() == 10
    check_frames(page)
    assert all(page.locator(".vg img").evaluate_all("all => all.map(img => img.naturalWidth > 0 && img.alt != '')"))

    check_enlarging(page)
    check_keys_stay_in_the_gallery(page)

    # One scenario, stepped through by button and by arrow keys while the slider has the focus
    page.locator("select", has=page.locator("option", has_text="Occlusion")).first.select_option(label="Occlusion")
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('3 of 7')")
    page.wait_for_selector(".vg-query code:has-text('@101010')")  # drawn after the summary: the second of all queries
    assert page.locator(".vg-gallery .widget-label", has_text="1 of 3").count() == 1
    first = shown_query(page)
    page.get_by_role("button", name="next ▶").click()
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText != name", arg=first)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText === name", arg=first)

    # Picked in the grid
    page.get_by_role("button", name="grid").click()
    page.locator(".vg-pick").nth(2).click()
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText != name", arg=first)
    page.wait_for_selector(".vg-pick", state="detached")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText === name", arg=first)

    # A tag is in the file at once, and can be undone
    page.get_by_role("button", name="Viewpoint change").click()
    page.wait_for_selector("button.mod-success:has-text('Viewpoint change')")
    assert f"{first},viewpoint" in (folder / "runs" / "tags-data-val.csv").read_text(encoding="utf-8")
    page.get_by_role("button", name="undo").click()
    page.wait_for_selector("button:not(.mod-success):has-text('Viewpoint change')")


def test_the_page_opened_from_a_file(gallery, page, tmp_path):
    path = gallery.export_html(tmp_path / "a #1 <b>.html", np.arange(7))
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    assert page.locator("#summary").inner_text().startswith("7 of 7 queries")
    assert all(page.locator("#view img").evaluate_all("all => all.map(img => img.naturalWidth > 0 && img.alt != '')"))

    check_frames(page)
    page.select_option("#scenario", "occlusion")
    assert page.locator("#summary").inner_text().startswith("3 of 7 queries")
    names = [shown_query(page)]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.locator("body").press(key)
        names.append(shown_query(page))
    assert len(set(names[:3])) == 3 and names[3] == names[0] and names[4] == names[2]
    page.fill("#search", "alone")
    page.select_option("#scenario", "")
    assert "1 of 7 queries, 1 without a positive" in page.locator("#summary").inner_text()
    assert "No positive exists" in page.locator("#view").inner_text()
    page.fill("#search", "nowhere")
    assert "No query matches" in page.locator("#view").inner_text()
    assert page.locator("#next").is_disabled() and page.locator("#tags button").first.is_disabled()
    page.fill("#search", "")

    # Every choice shows as many queries as the notebook does
    for outcome in page.locator("#outcome option").evaluate_all("all => all.map(option => option.value)"):
        page.select_option("#outcome", outcome)
        expected = int(gallery.browser.mark_outcome(outcome).sum())
        assert page.locator("#summary").inner_text().startswith(f"{expected} of 7"), outcome

    # Tags outlive the page and are exported in the format of the notebook's file
    page.select_option("#outcome", "all")
    tagged = shown_query(page)
    page.get_by_role("button", name="Skyline").click()
    page.get_by_role("button", name="Occlusion").click()
    page.get_by_role("button", name="undo").click()
    page.reload()
    page.select_option("#source", "tagged")
    assert page.locator("#summary").inner_text().startswith("1 of 7")
    page.select_option("#source", "given")
    assert page.locator("[data-scenario=skyline]").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-scenario=occlusion]").get_attribute("aria-pressed") == "false"
    with page.expect_download() as download:
        page.get_by_role("button", name="export tags").click()
    download.value.save_as(tmp_path / "tags.csv")
    tags = gallery.tags
    assert tags.merge(tmp_path / "tags.csv") == 1 and tags.list_scenarios(tagged) == ["skyline"]
    assert download.value.suggested_filename == tags.path.name
    assert errors == []


def test_the_page_orders_queries_as_the_notebook_does(browser, page, tmp_path):
    page.goto(write_gallery_page(tmp_path / "page.html", browser, np.arange(len(browser))).as_uri())
    offered = page.locator("#order option").evaluate_all("all => all.map(option => option.value)")
    assert offered == list(browser.list_choices(ORDERS)) and "inliers_b" in offered
    for order in offered:
        page.select_option("#order", order)
        for descending in (False, True):
            page.set_checked("#descending", descending)
            rows = browser.select(View(order=order, descending=descending))
            assert page.evaluate("rows.map(query => query.name)") == list(browser.queries.names[rows]), order
            assert shown_query(page) == browser.queries.names[rows[0]]
    unknown = np.isnan(browser.first_inliers[1])
    assert 0 < unknown.sum() < len(browser) and unknown[rows[-unknown.sum() :]].all()  # order inliers_b, descending


def test_a_browser_without_storage_says_so(gallery, page, tmp_path):
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused'); }})")
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    assert "keeps no tags" in page.locator("#message").inner_text()
    page.get_by_role("button", name="Ordinary").click()
    assert page.locator("[data-scenario=ordinary]").get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.get_by_role("button", name="export tags").click()
    assert Path(download.value.path()).read_text().startswith("query,scenario\n")
    assert f"\n{shown_query(page)},ordinary\n" in Path(download.value.path()).read_text()


def test_names_run_no_script(runs, page, tmp_path):
    root = tmp_path / "data"
    for place, text in enumerate(["<script>evil=1;<", '"><img src=x onerror=evil=1>', "<!--<script>", "'${evil=1}"]):
        for half in ("database", "queries"):
            # A folder "...<" and a file "script>..." make a name that holds "</script>".
            name = f"script><script>evil=1;{photo_name(1e4 * place, 4e6, pano=text, note=text)}"
            write_photo(root / "val" / half / "a<" / name, place)
    with pytest.warns(UserWarning, match="no recall at k"):
        evaluate_run(runs["GeM"], root, "val", CPU)
        gallery = open_gallery({"</script><script>evil=1</script>": runs["GeM"]}, root, "val", machine=CPU)
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    for _ in range(4):
        assert "script>" in shown_query(page)
        page.get_by_role("button", name="next ▶").click()
    assert page.locator("script").count() == 2 and page.evaluate("typeof evil") == "undefined"
    # The HTML of the notebook
    page.set_content(gallery.layout.summary.value + gallery.layout.screen.value + gallery.layout.notes.value)
    assert page.locator("script").count() == 0 and page.evaluate("typeof evil") == "undefined"
    assert "script>" in shown_query(page)


def test_a_photo_of_the_page_is_enlarged(gallery, page, tmp_path):
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    card = page.locator(".vg-card[data-mark='a3'] .vg-photo")
    card.press("Enter")
    dialog = page.get_by_role("dialog", name="Rank 3 of GeM")
    assert dialog.is_visible()
    headings, loaded = read_dialog(page)
    assert headings[0] == "Query" and headings[1].startswith("Rank 3 of GeM") and loaded
    assert headings[2].startswith("Nearest positive") and len(headings) == 3
    boxes = [photo.bounding_box() for photo in page.locator("dialog .vg-frame").all()]
    assert all(box["y"] == boxes[0]["y"] and box["width"] > 300 for box in boxes)  # side by side
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    for locator in (page.locator("dialog button").all(), page.locator("dialog .vg-frame").all()):
        assert all(each.evaluate("e => (e.ariaLabel || e.innerText).length > 0") for each in locator)

    # Zoom: with keys all photos, with the wheel one of them around the pointer
    widths = "all => all.map(img => Math.round(img.clientWidth))"
    photos = page.locator("dialog .vg-frame img")
    before = photos.evaluate_all(widths)
    page.keyboard.press("+")
    assert photos.evaluate_all(widths) == pytest.approx([1.5 * width for width in before], abs=2)
    page.keyboard.press("0")
    assert photos.evaluate_all(widths) == before
    page.mouse.move(boxes[1]["x"] + boxes[1]["width"] - 20, boxes[1]["y"] + 20)
    page.mouse.wheel(0, -100)
    page.wait_for_function("document.querySelectorAll('dialog .vg-frame')[1].scrollLeft > 0")
    zoomed = photos.evaluate_all(widths)
    assert zoomed[0] == before[0] and zoomed[1] == pytest.approx(1.5 * before[1], abs=2)

    shown = shown_query(page)
    page.keyboard.press("ArrowRight")  # does not step behind the dialog
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert shown_query(page) == shown
    assert card.evaluate("card => card === document.activeElement")
    page.keyboard.press("ArrowRight")
    assert shown_query(page) != shown
    page.fill("#search", "alone")  # without a positive
    page.locator(".vg-query .vg-photo").click()
    assert read_dialog(page)[0] == ["Query"]


def test_an_address_shows_its_query(gallery, page, tmp_path):
    address = gallery.export_html(tmp_path / "page.html").as_uri()
    page.goto(address)
    names = list(gallery.browser.queries.names)
    assert shown_query(page) == names[0]
    page.keyboard.press("ArrowRight")
    moved = page.evaluate("location.href")
    assert moved.startswith(f"{address}#query=") and moved == page.locator("#link").evaluate("link => link.href")
    page.select_option("#scenario", "skyline")
    page.goto("about:blank")
    page.goto(moved)
    assert shown_query(page) == names[1] and page.locator("#number").inner_text() == "2 of 7"
    page.select_option("#order", "error_a")
    page.set_checked("#descending", True)
    page.fill("#search", "alone")
    assert shown_query(page) != names[1]
    page.evaluate("hash => { location.hash = hash; }", moved.partition("#")[2])  # a link in the page
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText === name", arg=names[1])
    page.fill("#search", "p2")
    page.get_by_role("button", name="reset").click()
    assert shown_query(page) == names[0] and page.locator("#number").inner_text() == "1 of 7"
    assert page.locator("#search").input_value() == "" and not page.locator("#descending").is_checked()
    for damaged in ("#query=nothing", "#query=%E0%A4%A"):
        page.goto("about:blank")
        page.goto(address + damaged)
        assert shown_query(page) == names[0]


def test_queries_are_picked_in_the_grid(gallery, page, tmp_path):
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    page.select_option("#order", "margin_b")
    page.get_by_role("button", name="grid").click()
    rows = gallery.browser.select(View(order="margin_b"))
    picks = page.locator(".vg-pick")
    assert picks.evaluate_all("all => all.map(pick => Number(pick.dataset.row))") == rows.tolist()
    colors = {"✓": "rgb(0, 158, 115)", "✗": "rgb(213, 94, 0)"}
    for pick, row in zip(picks.all(), rows, strict=True):
        signs = pick.inner_text().split()
        assert signs == ["✓" if rank == 0 else "✗" for rank in gallery.browser.ranks[:, row]]
        left, right = pick.evaluate("e => [getComputedStyle(e).borderLeftColor, getComputedStyle(e).borderRightColor]")
        assert (left, right) == (colors[signs[0]], colors[signs[1]])
    assert page.locator(".vg-pick[aria-current]").get_attribute("data-row") == str(rows[0])
    picks.nth(3).click()
    assert shown_query(page) == gallery.browser.queries.names[rows[3]] and page.locator(".vg-pick").first.is_hidden()
    assert page.locator("#number").inner_text() == "4 of 7"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080), (390, 800)])
def test_the_page_fits_its_window(gallery, page, tmp_path, width, height):
    page.set_viewport_size({"width": width, "height": height})
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    query, view = page.locator(".vg-query figure"), page.locator("#view").bounding_box()
    assert view["width"] > 0.94 * width
    if width > 1000:  # without scrolling
        assert view["y"] + view["height"] <= height
    page.locator(".vg-cards").last.evaluate("cards => cards.scrollIntoView({block: 'end'})")
    assert 0 <= query.bounding_box()["y"] < height / 2  # still in sight
