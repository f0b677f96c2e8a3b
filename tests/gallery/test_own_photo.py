"""A photo of one's own: uploaded or read, shown beside its answers, and warned of where they can't be trusted."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from vpr_lib.evaluation import evaluate_run
from vpr_lib.gallery import open_gallery
from vpr_lib.gallery.own_photo import MAX_UPLOAD, warn_of_similarity
from vpr_lib.runs import get_run
from vpr_lib.settings import replace


@pytest.fixture
def own(settings, data_root, tmp_path, machine):
    """A gallery of one run, and its panel."""
    run = get_run(replace(settings, epochs=1, ks=(1, 5)), data_root, tmp_path / "runs", machine=machine)
    evaluate_run(run, data_root, "val", machine)
    gallery = open_gallery({"<GeM>": run}, data_root, "val", machine=machine)
    return gallery, gallery.panels["A photo of your own"]


def upload(panel, name, content, announce=True):
    """What own_photo.js sends: first the name and the size, then the content if it isn't too large."""
    text = base64.b64encode(content).decode()
    for number, data in enumerate([None, text] if announce else [text]):
        sent = {"name": name, "size": len(content), "data": data, "time": number}
        panel.upload.value = json.dumps(sent)


@pytest.mark.slow
def test_a_photo_is_shown_beside_its_answers(own, data_root):
    gallery, panel = own
    path = data_root / "val" / "queries" / str(gallery.browser.queries.names[2])
    panel.path.value = str(path)
    html = panel.screen.value
    assert 'alt="Your photo @' in html and f"<b>{path.name}</b>" in html
    assert "UTM 10S 102" in html and "latitude, longitude" in html and "no GPS position" in html
    assert html.count('class="vg-card ') == 10 and "&lt;GeM&gt;" in html and "<GeM>" not in html

    upload(panel, "<b>holiday.jpg", path.read_bytes())
    assert "&lt;b&gt;holiday.jpg" in panel.screen.value and path.name not in panel.screen.value
    upload(panel, "notes.jpg", b"no photo")
    assert "notes.jpg is not located" in panel.screen.value and "holiday" not in panel.screen.value
    panel.path.value = str(data_root)
    assert "Is a directory" in panel.screen.value


@pytest.mark.slow
def test_the_former_answer_disappears_at_once_and_a_photo_that_is_too_big_is_named(own, data_root):
    gallery, panel = own
    panel.path.value = str(data_root / "val" / "queries" / str(gallery.browser.queries.names[2]))
    assert "estimate" in panel.screen.value
    panel.upload.value = json.dumps({"name": "next.jpg", "size": 1000, "data": None, "time": 1})
    assert "estimate" not in panel.screen.value and "Uploading next.jpg" in panel.screen.value
    panel.upload.value = json.dumps({"name": "large.jpg", "size": MAX_UPLOAD + 1_000_000, "data": None, "time": 2})
    assert "large.jpg has 8.5 MB and is too big" in panel.screen.value and "path" in panel.screen.value


@pytest.mark.slow
def test_an_answer_that_is_less_similar_than_wrong_ones_is_not_given_as_0_m(own):
    gallery, panel = own
    browser = gallery.browser
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    browser.ranks[0, :3] = 5  # wrong, and more similar than anything
    browser.similarities[0] = 1.0
    upload(panel, "noise.png", buffer.getvalue())
    assert "Don&#x27;t trust these answers" in panel.screen.value
    assert "0 m from" not in panel.screen.value.partition("<figcaption>")[2].replace("alt=", "")
    browser.similarities[0] = -1.0
    upload(panel, "noise.png", buffer.getvalue())
    assert "trust" not in panel.screen.value and "m from the estimate" in panel.screen.value


def test_the_warning_is_below_the_median_of_the_wrong_answers(browser):
    for model, number in (("A", 0), ("B", 1)):
        wrong = sorted(
            browser.similarities[number, row] for row in range(len(browser)) if browser.ranks[number, row] > 0
        )
        middle = (wrong[(len(wrong) - 1) // 2] + wrong[len(wrong) // 2]) / 2
        assert f"more than {middle:.2f}" in warn_of_similarity(browser, model, middle - 1e-6)
        assert warn_of_similarity(browser, model, middle + 1e-6) == ""
    browser.ranks[:] = 0
    lowest = browser.similarities[0].min()
    assert f"{lowest:.2f} or more" in warn_of_similarity(browser, "A", lowest - 1e-6)
    assert warn_of_similarity(browser, "A", lowest) == ""
