"""HTML pages: escaped, with pictures inside or beside them."""

import os
from urllib.parse import unquote

from conftest import ParsedPage, write_photo

from vpr_lib.figures import html_page
from vpr_lib.figures.html_page import Details, Links, Picture, Section, Table, Tables, write_page


def test_pictures_are_embedded_up_to_a_total_size_and_linked_beyond(tmp_path, monkeypatch):
    picture = tmp_path / "a b#1.png"
    write_photo(picture, 1)
    blocks = [Picture(picture, 'says "hi"', "<b>"), Table([["a"], ["<i>"]]), "1 < 2", Details("more", ["<u>"])]
    embedded = ParsedPage(write_page(tmp_path / "index.html", "<t>", [], [Section("One & two", blocks)]))
    embedded.check()
    assert embedded.images[0]["src"].startswith("data:image/png;base64,") and embedded.images[0]["alt"] == 'says "hi"'
    monkeypatch.setattr(html_page, "EMBED_BYTES", os.path.getsize(picture))  # base64 is a third longer
    linked = ParsedPage(write_page(tmp_path / "index.html", "<t>", [], [Section("One & two", blocks)]))
    linked.check()
    assert linked.images[0]["src"] == "a%20b%231.png"
    assert not {"b", "i", "t", "u"} & set(linked.tags)
    assert {"<t>", "<b>", "<i>", "<u>", "1 < 2", "One & two"} <= set(linked.text)


def test_the_contents_follow_the_lead_and_link_to_the_sections(tmp_path):
    write_photo(tmp_path / "a.png", 1)
    lead = [Tables([Table([["a"], ["1"]]), Table([["b"], ["2"]])]), Picture(tmp_path / "a.png", "alt")]
    links = Links({"<i>": "a.png", "code": "https://example.org/?a=1&b=2"})
    sections = [Section("Fig. 1: é & <b>", [links]), Section("Two")]
    page = ParsedPage(write_page(tmp_path / "index.html", "Title", lead, sections))
    page.check("https://example.org/?a=1&b=2")
    assert page.headings == ["Title", "Fig. 1: é & <b>", "Two"] and page.rows == [["a"], ["1"], ["b"], ["2"]]
    tags = page.tags[page.tags.index("h1") :]
    assert tags.index("table") < tags.index("img") < tags.index("nav") < tags.index("h2")
    assert [unquote(link[1:]) for link in page.links if link.startswith("#")] == page.anchors
    assert not {"b", "i"} & set(tags)
