"""The gallery without a browser: its widgets driven in Python, its HTML parsed, its page's data read back."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import photo_name, write_photo
from PIL import Image

from vpr_lib.analysis.local_features import MAX_PIXELS, extract_sift, find_inliers, match_features
from vpr_lib.analysis.suggestions import Suggestion
from vpr_lib.analysis.verification import verify_predictions
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import evaluate_run
from vpr_lib.gallery import Gallery, View, open_gallery
from vpr_lib.gallery.query_grid import render_grid
from vpr_lib.gallery.thumbnails import Thumbnails
from vpr_lib.images import read_images
from vpr_lib.photos import read_thumbnail
from vpr_lib.run_folders import Run
from vpr_lib.runs import get_run
from vpr_lib.settings import replace


class Reader(HTMLParser):
    """Tags, classes and text of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f" {data}"

    def all(self, tag, kind=""):
        return [a for t, a in self.tags if t == tag and (not kind or kind in (a.get("class") or "").split())]


def count_widgets(widget):
    return 1 + sum(count_widgets(child) for child in getattr(widget, "children", ()))


# What is shown


def test_photos_are_framed_by_their_distance(gallery):
    view = Reader(gallery.layout.screen.value)
    evaluations = gallery.browser.evaluations
    errors_m = [np.linalg.norm(gallery.browser.database.utm[f.indices[0, :5]] - gallery.browser.queries.utm[0], axis=1)
                for f in evaluations.values()]  # fmt: skip
    expected = ["vg-right" if error <= 25 else "vg-wrong" for error in np.concatenate(errors_m)]
    cards = view.all("figure", "vg-card")
    assert [card["class"].split()[1] for card in cards] == expected and len(set(expected)) == 2
    signs = re.findall("[✓✗]", gallery.layout.screen.value)
    assert signs == ["✓" if kind == "vg-right" else "✗" for kind in expected]  # a second cue beside the color
    images = view.all("img")
    assert len(images) == 12 and all(image["alt"] for image in images)
    decoded = Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1])))
    assert decoded.size == (72, 72)
    similarity = 1 - evaluations["A"].distances[0, 0] ** 2 / 2
    for text in (f"{errors_m[0][0]:.0f} m", "rank 1", f"similarity {similarity:.2f}", "2016-04"):
        assert text in view.text


def test_positives_on_request_and_where_there_are_none(gallery):
    assert "Positives" not in gallery.layout.screen.value and "No positive exists" not in gallery.layout.screen.value
    gallery.layout.controls["positives"].value = True
    shown = Reader(gallery.layout.screen.value).all("figure", "vg-positive")
    assert len(shown) == min(5, len(gallery.browser.evaluations["A"].positives[0]))
    gallery.show(View(outcome="no_positive"))
    assert "No positive exists: no database photo lies within 25 m" in gallery.layout.screen.value


def read_facts(html):
    """Text of each card that shows a prediction."""
    return [Reader(card).text for card in re.findall(r'<figure class="vg-card vg-(?:right|wrong).*?</figure>', html)]


def test_inliers_are_shown_where_they_were_computed(gallery):
    known = gallery.browser.inliers["A"][:, 0] >= 0
    gallery.layout.controls["num_shown"].value = 10
    for row in (np.flatnonzero(known)[0], np.flatnonzero(~known)[0], 10):
        gallery.show(replace(gallery.view, query=str(gallery.browser.queries.names[row])))
        expected = []
        for model in "AB":
            counts = gallery.browser.inliers[model][row, gallery.browser.evaluations[model].indices[row] >= 0]
            expected += [[] if count < 0 else [str(count)] for count in counts]
        facts = read_facts(gallery.layout.screen.value)
        assert [re.findall(r"(\d+) inlier", text) for text in facts] == expected
    assert [] in expected and any(expected)  # query 10: of one model only


def test_the_spread_of_each_model_is_shown(gallery):
    spreads = re.findall(r"spread (\d+) m", gallery.layout.screen.value)
    assert spreads == [f"{spread_m:.0f}" for spread_m in gallery.browser.spreads_m[:, 0]]


def test_matches_are_drawn_on_request(gallery, machine):
    browser = gallery.browser
    assert "vg-matches" not in gallery.layout.screen.value
    gallery.layout.controls["matches"].value = 2
    features = [extract_sift(read_thumbnail(table, 0, MAX_PIXELS)) for table in (browser.queries, browser.database)]
    count = len(find_inliers(*features))  # all photos are the same one
    assert count > 20
    _, content = gallery.layout.screen.value.split("vg-matches")
    assert content.count(f"{count} inliers of {len(match_features(*features))} matches") == 2
    (first, _) = images = Reader(content).all("img")
    drawn = Image.open(io.BytesIO(base64.b64decode(first["src"].split(",")[1])))
    assert all("rank 2" in image["alt"] for image in images) and drawn.size[0] > 2 * 72 and drawn.size[1] == 72
    again = Gallery(browser, gallery.runs, json.loads(json.dumps(gallery.state)), machine)
    assert again.view.matches == 2 and "vg-matches" in again.layout.screen.value

    gallery.layout.controls["matches"].value = 8  # the first query has six photos
    assert "A has no photo of rank 8" in gallery.layout.screen.value
    photo = browser.evaluations["B"].indices[1, 7]
    assert photo not in browser.evaluations["A"].indices[1, 7:8]
    browser.database.names[photo] = "<gone>.jpg"
    gallery.step(1)
    _, content = gallery.layout.screen.value.split("vg-matches")
    assert content.count("inliers of") == 1 and content.count("No matches") == 1 and "&lt;gone&gt;.jpg" in content
    gallery.layout.controls["matches"].value = 0
    assert "vg-matches" not in gallery.layout.screen.value


def test_a_broken_photo_is_named(tmp_path):
    write_photo(tmp_path / photo_name(0, 0, pano="<b>"), 1)
    table = read_images(tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"no photo")
    text = Thumbnails({"database": table}).make_img("database", 0, "x")
    assert "&lt;b&gt;" in text and "<b>" not in text and "<img" not in text


def test_thumbnails_are_bounded(browser):
    thumbnails = Thumbnails({"database": browser.database}, max_cached=10)
    for row in range(30):
        thumbnails.make_img("database", row, "x")
    assert thumbnails.read.cache_info().currsize == 10
    thumbnails.make_img("database", 29, "x")
    assert thumbnails.read.cache_info().hits == 1


# What the widgets do


def test_stepping_filtering_and_restoring(gallery, machine):
    names = gallery.browser.queries.names
    number = count_widgets(gallery.widget)
    layout = gallery.layout
    layout.next.click()
    assert names[1] in Reader(layout.screen.value).text and gallery.state["query"] == names[1]
    layout.previous.click()
    layout.previous.click()
    assert gallery.row == 39  # round the corner
    layout.position.value = 4
    layout.controls["scenario"].value = "skyline"
    expected = gallery.browser.select(View(scenario="skyline"))
    assert layout.position.max == len(gallery.rows) == len(expected) and gallery.row == expected[0]
    assert f"{len(expected)}</b> of 40 queries" in layout.summary.value
    gallery.step(1)
    state = json.loads(json.dumps(gallery.state))
    layout.controls["outcome"].value = "no_positive"
    layout.controls["search"].value = "nowhere"
    assert gallery.row is None and "No query matches" in layout.screen.value and layout.next.disabled
    for button in (layout.next, layout.random, layout.tag_buttons["skyline"]):
        button.click()  # nothing to do, and no error
    again = Gallery(gallery.browser, gallery.runs, state, machine)
    assert again.row == expected[1] and again.layout.controls["scenario"].value == "skyline" and again.state == state
    assert count_widgets(gallery.widget) == number < 80  # never a widget for a query or photo


def test_another_order_starts_at_its_first_query(gallery):
    layout = gallery.layout
    layout.position.value = 7
    assert layout.place.value == "7 of 40"
    layout.controls["order"].value = "error_a"
    errors_m = [
        np.linalg.norm(gallery.browser.database.utm[photos[0]] - utm)
        for photos, utm in zip(gallery.browser.evaluations["A"].indices, gallery.browser.queries.utm, strict=True)
    ]
    assert gallery.row == np.argmin(errors_m) and layout.place.value == "1 of 40"
    layout.position.value = 5
    layout.controls["descending"].value = True
    assert gallery.row == np.argmax(errors_m) and layout.place.value == "1 of 40"
    layout.position.value = 5
    layout.controls["num_shown"].value = 10  # not another order
    assert layout.place.value == "5 of 40"
    layout.controls["search"].value = "nowhere"
    assert layout.place.value == "none"
    layout.reset.click()
    assert gallery.view == View(query=gallery.browser.queries.names[0], num_shown=10)
    assert layout.controls["order"].value == "name" and layout.controls["search"].value == ""


def test_the_grid_frames_queries_by_outcome_and_picks_one(gallery):
    layout, browser = gallery.layout, gallery.browser
    assert "vg-pick" not in layout.grid.value
    gallery.show(View(order="margin_b"))
    layout.grid_open.value = True
    picks = Reader(layout.grid.value).all("button", "vg-pick")
    assert [int(pick["data-row"]) for pick in picks] == gallery.rows.tolist()
    expected = []
    for row in gallery.rows:
        right = [evaluation.indices[row, 0] in evaluation.positives[row] for evaluation in browser.evaluations.values()]
        kinds = ["right" if each else "wrong" for each in right]
        expected.append((f"vg-pick vg-first-{kinds[0]} vg-last-{kinds[1]}", ["✓" if each else "✗" for each in right]))
    signs = re.findall(r"<i [^>]*>(.)</i><i [^>]*>(.)</i>", layout.grid.value)
    assert [(pick["class"], list(pair)) for pick, pair in zip(picks, signs, strict=True)] == expected
    assert len({kind for kind, _ in expected}) == 4
    assert [pick["data-row"] for pick in picks if "aria-current" in pick] == [str(gallery.row)]
    alts = [image["alt"] for image in Reader(layout.grid.value).all("img")]
    assert alts[0].endswith(", ".join(f"{model} {kind.split('-')[2]}" for model, kind in
                                      zip("AB", expected[0][0].split()[1:], strict=True)))  # fmt: skip
    layout.request.value = f"1 {picks[5]['data-ask']}"
    assert gallery.row == gallery.rows[5] and layout.grid.value.count("vg-pick") == 0 and not layout.grid_open.value


def test_a_long_grid_has_parts(gallery):
    rows = np.tile(np.arange(40), 7)  # 280

    def make_img(table, row, alt):
        return f'<img alt="{table} {row} {alt}">'

    for position, expected in ((0, [120]), (119, [120]), (130, [0, 240]), (279, [120])):
        grid = Reader(render_grid(gallery.browser, rows, position, make_img))
        asked = [button["data-ask"] for button in grid.all("button") if button["data-ask"].startswith("grid")]
        assert asked == [f"grid {start}" for start in expected]
        shown = [int(pick["data-row"]) for pick in grid.all("button", "vg-pick")]
        assert shown == rows[position // 120 * 120 :][:120].tolist()


def test_the_nearest_positive_is_the_least_turned_one(gallery):
    database = gallery.browser.database
    database.utm[11] = database.utm[10] + [0.3, 0.0]  # as near as that of the tenth query, in whole meters

    def find_nearest():
        gallery.show(replace(gallery.view, query=str(gallery.browser.queries.names[10])))
        (figure,) = re.findall(r'<figure class="vg-nearest" hidden>.*?</figure>', gallery.layout.screen.value)
        return Reader(figure).all("button")[0]["data-id"]

    assert find_nearest() == "database:10"  # both look where their names say: 100 and 110 degrees
    database.headings[10], database.headings[11] = 250, 105
    assert find_nearest() == "database:11"
    database.headings[10] = 95 + 360
    database.headings[11] = -250
    assert find_nearest() == "database:10"
    database.headings[:] = np.nan
    assert find_nearest() == "database:10"


@pytest.mark.slow
def test_enlarged_photos_are_sent_on_request(gallery, split):
    write_photo(split / "large.jpg", 7, size=2000)
    gallery.browser.queries.names[0] = "../../large.jpg"
    gallery.layout.request.value = "a1 photos queries:0 database:4"
    reply = Reader(gallery.layout.reply.value)
    assert reply.all("div")[0]["data-reply"] == "a1"
    assert [photo["data-id"] for photo in reply.all("button", "vg-photo")] == ["queries:0", "database:4"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(img["src"].split(",")[1]))).size for img in reply.all("img")]
    assert sizes == [(1024, 1024), (72, 72)]


def test_tagging_by_button(gallery):
    layout = gallery.layout
    button = layout.tag_buttons["occlusion"]
    button.click()
    line = f"{gallery.browser.queries.names[0]},occlusion"
    assert line in gallery.tags.path.read_text()
    assert (button.button_style, button.icon) == ("success", "check")
    gallery.step(1)
    assert button.button_style == ""
    layout.undo.click()
    assert line not in gallery.tags.path.read_text()
    layout.undo.click()
    layout.undo.click()
    assert "Nothing to undo" in layout.notes.value
    gallery.tags.path = gallery.tags.path / "below" / "a file"
    button.click()
    assert "this session only" in layout.notes.value and button.button_style == "success"


def test_suggestions_say_why_and_can_be_filtered(gallery):
    gallery.show(View(scenario="skyline", source="suggested"))
    assert gallery.rows.tolist() == [7] and "why" in gallery.layout.notes.value
    assert "for 2 queries" in gallery.layout.summary.value
    gallery.layout.suggest_all.click()
    assert len(gallery.browser.suggestions) == 40 and "suggest for all" not in gallery.layout.summary.value


def test_recall_of_each_scenario(gallery):
    accordion = gallery.widget.children[-1]
    accordion.selected_index = 0
    panel = gallery.widget.children[-1].children[0]
    table = Reader(panel.children[1].value)
    recall = gallery.browser.recall_by_scenario()["A"]["skyline"]
    assert f"{recall.recall:.1f} ({recall.interval[0]:.1f} to {recall.interval[1]:.1f})" in table.text
    assert table.all("img")[0]["src"].startswith("data:image/png")
    gallery.layout.suggest_all.click()
    gallery.browser.suggestions[0] = [Suggestion("repetitive", 0.9, "why"), Suggestion("skyline", 0.9, "why")]
    panel.children[0].value = "suggested"
    shown = Reader(panel.children[1].value)
    assert "Skyline" in shown.text and "Repetitive structures: left out" in shown.text
    assert "repetitive" not in gallery.browser.recall_by_scenario("suggested")["A"]


def test_recall_of_a_selection_by_outcome_is_not_shown(gallery):
    assert "R@1" in gallery.layout.summary.value
    for view in (View(outcome="a_right"), View(outcome="b_only"), View(outcome="no_positive"), View(hide_labels=True)):
        gallery.show(view)
        assert "of 40 queries" in gallery.layout.summary.value and "R@" not in gallery.layout.summary.value, view
    gallery.browser.suggestions[0] = [Suggestion("repetitive", 0.9, "why"), Suggestion("skyline", 0.9, "why")]
    gallery.show(View(scenario="repetitive", source="suggested"))
    assert "R@" not in gallery.layout.summary.value
    gallery.show(View(scenario="skyline", source="suggested"))
    assert "R@1" in gallery.layout.summary.value


@pytest.mark.slow
def test_saving(gallery, tmp_path):
    path = gallery.save_png(tmp_path / "new" / "selection.png")
    assert Image.open(path).size[0] == 1200
    assert gallery.draw_scenarios().axes
    gallery.show(View(search="nowhere"))
    with pytest.raises(ValueError, match="the selection is empty"):
        gallery.save_png(tmp_path / "none.png")
    with pytest.raises(ValueError, match="the selection is empty"):
        gallery.export_html(tmp_path / "none.html")


# The page


def read_page(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]), text


def test_the_page_holds_the_selection(gallery, tmp_path, capsys):
    rows = gallery.browser.select(View(scenario="skyline"))
    path = gallery.export_html(tmp_path / "page.html", View(scenario="skyline"))
    data, text = read_page(path)
    assert [q["name"] for q in data["queries"]] == [gallery.browser.queries.names[row] for row in rows]
    shown = set(re.findall(r'data-photo=\\?"(\w+)', text))
    assert shown == set(data["photos"]) and all(uri.startswith("data:image/jpeg") for uri in data["photos"].values())
    assert data["tags"] == {gallery.browser.queries.names[5]: ["skyline"]}
    assert "http" not in text  # nothing is fetched
    size_mb = float(re.search(r"about ([\d.]+) MB", capsys.readouterr().out)[1])
    assert size_mb == pytest.approx(path.stat().st_size / 1e6, rel=0.25)
    with pytest.raises(ValueError, match=r"40 queries .*max_mb="):
        gallery.export_html(tmp_path / "large.html", np.arange(40), max_mb=0.01)
    assert not list(tmp_path.glob("large*")) and not list(tmp_path.glob("*.tmp"))
    first = data["queries"][0]
    assert first["error"] == pytest.approx(gallery.browser.errors_m[:, rows[0]].tolist(), abs=0.01)
    assert [query["spread"] for query in data["queries"]] == gallery.browser.spreads_m[:, rows].T.tolist()
    for query, row in zip(data["queries"], rows, strict=True):
        counts = [gallery.browser.inliers[model][row, 0] for model in "AB"]
        assert query["inliers"] == [None if count < 0 else count for count in counts]
        shown = [f"{count} inlier" in text for count, text in zip(counts, read_facts(query["html"])[::5], strict=True)]
        assert shown == [count >= 0 for count in counts]
    assert "vg-matches" not in "".join(query["html"] for query in data["queries"])


def test_names_are_escaped_and_a_photo_that_is_gone_is_named(gallery, tmp_path):
    gallery.browser.queries.names[1] = evil = 'a</script><script>alert("1")</script>&quot;.jpg'  # no such photo
    gallery.tags.message = "<script>"
    gallery.step(1)
    for text in (gallery.layout.screen.value, gallery.layout.notes.value):
        assert not Reader(text).all("script")
    screen = Reader(gallery.layout.screen.value)
    assert evil in screen.text and screen.all("div", "vg-missing")
    assert "No suggestions: photo" in gallery.layout.notes.value
    path = gallery.export_html(tmp_path / "page.html", [0, 1])
    data, text = read_page(path)
    assert text.count("<script") == text.count("</script") == 2
    query = data["queries"][1]
    assert query["name"] == "script>&quot;.jpg" and not Reader(query["html"]).all("script")
    assert evil in Reader(query["html"]).text and Reader(query["html"]).all("div", "vg-missing")


# With a model


@pytest.mark.slow
def test_regions_and_inliers_of_runs(settings, data_root, tmp_path, machine):
    small = replace(settings, epochs=1, ks=(1, 5))
    runs = {name: get_run(replace(small, aggregator=name), data_root, tmp_path / "runs", machine=machine)
            for name in ("GeM", "AVG")}  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"no predictions .*vpr_lib evaluate --run"):
        open_gallery(runs, data_root, "val", machine=machine)
    evaluations = [evaluate_run(run, data_root, "val", machine) for run in runs.values()]
    some = evaluations[0].indices.copy()
    some[:, 3:] = some[4:] = -1
    counts = verify_predictions(read_split(data_root, "val"), some, tmp_path / "runs", "val", machine=machine).inliers
    gallery = open_gallery({name: run.folder for name, run in runs.items()}, data_root, "val", machine=machine)
    assert gallery.tags.path == tmp_path / "runs" / f"tags-{data_root.name}-val.csv"
    verified = {(row, some[row, i]): counts[row, i] for row in range(4) for i in range(3)}  # pairs of photos
    for model, evaluation in gallery.browser.evaluations.items():
        expected = [[verified.get((row, photo), -1) for photo in line] for row, line in enumerate(evaluation.indices)]
        assert gallery.browser.inliers[model].tolist() == expected
    gallery.layout.controls["regions"].value = 2
    view = Reader(gallery.layout.screen.value)
    assert len(view.all("section")) == 4 and len(view.all("img")) == 1 + 2 * 5 + 1 + 2 * 2
    gallery.layout.request.value = "3 regions b2"  # of the second model and its second photo
    reply = Reader(gallery.layout.reply.value)
    assert reply.all("div")[0]["data-reply"] == "3" and "AVG" in reply.text and "GeM" not in reply.text
    assert len(reply.all("section")) == 1 and len(reply.all("img")) == 2

    with pytest.raises(ValueError, match="GeM 25 m, AVG 10 m"):
        narrow = Run(runs["AVG"].folder, replace(small, radius_m=10.0))
        open_gallery({"GeM": runs["GeM"], "AVG": narrow}, data_root, "val")
