"""The gallery in a real browser: in JupyterLab, and as a page opened from a file."""

import csv
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from conftest import make_root, photo_name, write_photo

from vpr_lib.evaluation import evaluate_run
from vpr_lib.gallery.notebook import open_gallery
from vpr_lib.machine import Machine
from vpr_lib.run_folders import open_run
from vpr_lib.runs import get_run
from vpr_lib.settings import get_preset, replace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CPU = Machine(device="cpu", num_workers=0, progress=False)
pytestmark = pytest.mark.slow
WAIT_MS = 60_000  # two busy cores
RUN_MS = 300_000  # for the notebook, which renders a city and trains two models first
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_qualitative_gallery.ipynb"


@pytest.fixture(scope="module")
def sync_playwright():
    if CHROMIUM is None:
        pytest.skip("no chromium: the browser tests need Debian's package of that name (apt-get install chromium)")
    reason = "no playwright: the browser tests need the package of that name (pip install playwright)"
    return pytest.importorskip("playwright.sync_api", reason=reason).sync_playwright


@pytest.fixture(scope="module")
def browser(sync_playwright):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    yield page
    context.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data root whose queries have scenarios, and two evaluated runs."""
    folder = tmp_path_factory.mktemp("gallery")
    root = make_root(folder / "data")
    write_photo(root / "val" / "queries" / photo_name(9e5, 4e6, pano="alone"), 200)
    names = sorted(path.name for path in (root / "val" / "queries").iterdir())
    rows = [f"{name},{('skyline', 'occlusion')[i % 2]}" for i, name in enumerate(names)]
    (root / "scenarios.csv").write_text("\n".join(["query,scenario", *rows]))
    small = replace(get_preset("smoke"), image_size=32, num_places=3, crop_after="layer1", epochs=1, ks=(1, 5, 10))
    for aggregator in ("GeM", "AVG"):
        run = get_run(replace(small, aggregator=aggregator), root, folder / "runs", machine=CPU)
        evaluate_run(run, root, "val", CPU)
    return folder


def find_runs(folder):
    return {name: next((folder / "runs").glob(f"{name}-*")) for name in ("GeM", "AVG")}


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    """A copy of notebook 05, as JupyterLab saves what it opens; its data and runs lie beside it."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOK, folder / NOTEBOOK.name)
    return folder


@pytest.fixture(scope="module")
def jupyter(lab_folder):
    """JupyterLab's address of the notebook; it is stopped by its process id."""
    folder = lab_folder
    settings = {
        "apputils-extension/notification": '{"fetchNews": "false"}',
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # else cells out of sight aren't in the page
    }
    for name, text in settings.items():
        path = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    home = {f"JUPYTER_{kind}_DIR": str(folder / f".{kind.lower()}") for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment = os.environ | home | {
        "PYTHONPATH": str(NOTEBOOK.parents[2]), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces"), "IPYTHONDIR": str(folder / ".ipython"),
        "VPR_PRESET": "smoke", "VPR_DATA": str(folder / "city"), "VPR_KEEP": str(folder),
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    with open(folder / "jupyter.log", "wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert server.poll() is None, (folder / "jupyter.log").read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=5).read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        yield f"{url}/lab/tree/{NOTEBOOK.name}?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def read_tags(folder):
    path = folder / "runs" / "tags-sf_test.csv"
    return list(csv.reader(path.read_text().splitlines()))[1:] if path.is_file() else []


def run_notebook(page, restart):
    """Run all cells, in a new kernel if need be; waits for the gallery."""
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    if restart:
        page.get_by_text("Restart Kernel and Run All Cells").click()
        page.locator(".jp-Dialog button.jp-mod-accept").click()
        page.wait_for_selector(".vg-query", state="detached")
    else:
        page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector(".vg-query img", timeout=RUN_MS)
    # Cells that are still to run would take the focus.
    running = "[...document.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.innerText.includes('*'))"
    page.wait_for_function(f"!{running}", timeout=RUN_MS)
    assert not page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()


def choose(page, option):
    """Choose an option of the dropdown that has it."""
    page.locator("select", has=page.locator("option", has_text=option)).first.select_option(label=option)


def upload(page, path):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="upload a photo").click()
    chooser.value.set_files(path)


def press(page, key):
    """Press a key when the kernel has answered the last one."""
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.wait_for_timeout(300)
    page.keyboard.press(key)


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


def test_notebook_05_in_jupyterlab(jupyter, lab_folder, page, tmp_path):
    page.goto(jupyter)
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    run_notebook(page, restart=False)
    assert page.locator(".vg-summary").first.inner_text().startswith("24 of 24 queries")
    assert page.locator(".vg-card img").count() == 10
    check_frames(page)
    assert all(page.locator(".vg img").evaluate_all("all => all.map(img => img.naturalWidth > 0 && img.alt != '')"))

    # One scenario, stepped through by button and by arrow keys while the slider has the focus
    choose(page, "Occlusion")
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('3 of 24')")
    names = [shown_query(page)]
    page.get_by_role("button", name="next ▶").click()
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText != name", arg=names[0])
    names.append(shown_query(page))
    handle = page.locator(".noUi-handle").first
    handle.focus()
    press(page, "ArrowRight")
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText != name", arg=names[1])
    names.append(shown_query(page))
    press(page, "ArrowLeft")
    page.wait_for_function("name => document.querySelector('.vg-query code').innerText == name", arg=names[1])
    assert len(set(names)) == 3

    # A tag is in the file at once; after a restart of the kernel it is there again
    page.get_by_role("button", name="Viewpoint change").click()
    page.wait_for_selector("button.mod-success:has-text('Viewpoint change')")
    assert read_tags(lab_folder) == [[names[1], "viewpoint"]]
    run_notebook(page, restart=True)
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('24 of 24')")
    choose(page, "tagged by hand")  # four others are known to be of that scenario
    choose(page, "Viewpoint change")
    page.wait_for_function("document.querySelector('.vg-summary').innerText.startsWith('1 of 24')")
    assert shown_query(page) == names[1]
    page.wait_for_selector("button.mod-success:has-text('Viewpoint change')")

    # A photo of one's own
    photo = tmp_path / "holiday.jpg"
    write_photo(photo, 101, 7)
    page.locator(".jupyter-widget-Collapse-header", has_text="A photo of your own").click()
    upload(page, photo)
    page.wait_for_selector("text=estimate:")
    assert page.locator("section:has-text('What ConvAP finds') .vg-card").count() == 10
    nonsense = tmp_path / "notes.jpg"
    nonsense.write_text("no photo")
    upload(page, nonsense)
    page.wait_for_selector("text=Not located")


def test_the_page_opened_from_a_file(folder, page, tmp_path):
    gallery = open_gallery(find_runs(folder), folder / "data", "val", machine=CPU)
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
    page.select_option("#outcome", "all")
    for order in page.locator("#order option").evaluate_all("all => all.map(option => option.value)"):
        page.select_option("#order", order)
        first = gallery.browser.select(replace(gallery.view, order=order))[0]
        assert shown_query(page) == gallery.browser.queries.names[first], order

    # Tags outlive the page and are exported in the format of the notebook's file
    page.select_option("#order", "name")
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
    tags = gallery.browser.tags
    assert tags.merge(tmp_path / "tags.csv") == 1 and tags.list_scenarios(tagged) == ["skyline"]
    assert download.value.suggested_filename == tags.path.name
    assert errors == []


def test_a_browser_that_keeps_nothing_says_so(folder, page, tmp_path):
    gallery = open_gallery(find_runs(folder), folder / "data", "val", machine=CPU)
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused'); }})")
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    assert "keeps no tags" in page.locator("#message").inner_text()
    page.get_by_role("button", name="Ordinary").click()
    assert page.locator("[data-scenario=ordinary]").get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.get_by_role("button", name="export tags").click()
    assert Path(download.value.path()).read_text().startswith("query,scenario\n")
    assert f"\n{shown_query(page)},ordinary\n" in Path(download.value.path()).read_text()


def test_names_and_notes_do_no_harm(folder, page, tmp_path):
    root = tmp_path / "data"
    evil = ["<script>evil=1;<", '"><img src=x onerror=evil=1>', "<!--<script>", "'&amp;${evil=1}&lt;"]
    for place, text in enumerate(evil):
        for half in ("database", "queries"):
            name = photo_name(1e4 * place, 4e6, pano=text, note=text)
            # A folder "...<" and a file "script>..." make a name that holds "</script>".
            write_photo(root / "val" / half / "a<" / f"script><script>evil=1;{name}", place)
    run = open_run(find_runs(folder)["GeM"])
    with pytest.warns(UserWarning, match="no recall at k"):
        evaluate_run(run, root, "val", CPU)
    broken = next((root / "val" / "database" / "a<").iterdir())
    broken.write_bytes(b"x" * broken.stat().st_size)
    with pytest.warns(UserWarning, match="no recall at k"):
        gallery = open_gallery({"</script><script>evil=1</script>": run}, root, "val", machine=CPU)
    gallery.browser.tags.message = evil[0]
    page.goto(gallery.export_html(tmp_path / "page.html").as_uri())
    scripts = page.locator("script").count()
    for _ in range(4):
        assert "script>" in shown_query(page)
        assert page.locator(".vg-missing").count() >= 1
        page.get_by_role("button", name="next ▶").click()
    assert scripts == page.locator("script").count() == 2
    assert page.evaluate("typeof evil") == "undefined"
    # The notebook's HTML, as a browser takes it
    page.set_content(gallery.summary.value + gallery.screen.value + gallery.notes.value)
    assert page.locator("script").count() == 0 and page.evaluate("typeof evil") == "undefined"
    assert "script>" in shown_query(page)
