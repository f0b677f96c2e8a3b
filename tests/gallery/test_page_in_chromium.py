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
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), folder / "gallery.ipynb")
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

    # One scenario, stepped through by button and by arrow keys while the slider has the focus
    page.locator("select", has=page.locator("option", has_text="Occlusion")).first.select_option(label="Occlusion")
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('3 of 7')")
    page.wait_for_selector(".vg-query code:has-text('@101010')")  # drawn after the summary: the second of all queries
    first = shown_query(page)
    page.get_by_role("button", name="next ▶").click()
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText != name", arg=first)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    for _ in range(20):  # a key is lost if the slider is redrawn at that moment; at the first query it does nothing
        page.locator(".noUi-handle").first.press("ArrowLeft")
        page.wait_for_timeout(1000)
        if shown_query(page) == first:
            break
    assert shown_query(page) == first

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
