"""A small data root of made-up places, and the real photos where they are at hand."""

import os
import signal
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from vpr_lib.city import CitySettings, write_city
from vpr_lib.machine import Machine
from vpr_lib.settings import get_preset

SF_PHOTOS = Path(os.environ.get("SF_PHOTOS", Path(__file__).parents[2] / "shared/data/sf_photos"))


def photo_name(east, north, heading="", date="", note="", pano="x"):
    return f"@{east:.2f}@{north:.2f}@10@S@37.7@-122.5@{pano}@@{heading}@@@@{date}@{note}@.jpg"


def write_photo(path, place, view=0, size=72):
    """A photo of a made-up place: the same coarse blocks of color each time, shifted and with noise."""
    blocks = np.random.default_rng(place).integers(0, 256, (4, 4, 3))
    pixels = np.kron(blocks, np.ones((size // 4, size // 4, 1)))
    noise = np.random.default_rng((place, view)).normal(0, 12, pixels.shape)
    pixels = np.roll(pixels, view % 3, axis=1) + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def make_root(root, num_places=8, photos=4):
    """train/ with two cities that both number their places from 0, and a split val/."""
    for place in range(num_places):
        city = ("Aba", "Éze")[place % 2]
        for view in range(photos):
            name = photo_name(
                1000 * place + view, 4e6, 398, f"2015{view + 1:02}", f"{place // 2:05}_{city}", f"p{view}"
            )
            write_photo(root / "train" / city.lower() / name, place, view)
    for place in range(100, 106):
        for view in range(3):
            half = "queries" if view == 2 else "database"
            name = photo_name(1000 * place + 5 * view, 4e6, 90, f"2016{view + 1:02}", pano=f"p{view}")
            write_photo(root / "val" / half / name, place, view)
    return root


class ParsedPage(HTMLParser):
    """An HTML page as a browser would read it: its tags, texts, headings, table rows, images, links and anchors."""

    def __init__(self, path):
        super().__init__()
        self.path, self.images, self.tags, self.links, self.text, self.rows = path, [], [], [], [], []
        self.headings, self.anchors = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.images += [attrs] if tag == "img" else []
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        self.anchors += [attrs["id"]] if "id" in attrs else []
        self.rows += [[]] if tag == "tr" else []

    def handle_data(self, data):
        self.text.append(data)
        if data.strip() and self.tags[-1] in ("td", "th"):
            self.rows[-1].append(data)
        if data.strip() and self.tags[-1] in ("h1", "h2"):
            self.headings.append(data)

    def check(self, *addresses):
        """Images are described, links lead somewhere or to one of the addresses, no script runs."""
        assert self.images and all(image["alt"].strip() for image in self.images)
        assert len(self.anchors) == len(set(self.anchors))
        for link in self.links:
            if link.startswith("#"):
                assert unquote(link[1:]) in self.anchors, link
            elif not link.startswith("data:image/") and link not in addresses:
                assert (self.path.parent / unquote(link)).is_file(), link
        assert "script" not in self.tags


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    return make_root(tmp_path_factory.mktemp("a@b") / "root")  # an @ in a parent folder must not matter


@pytest.fixture(scope="session")
def city_settings():
    """Settings of a rendered city of 168 photos."""
    return CitySettings(
        size=64, cities=2, places=5, photos_per_place=3, val_database=40, val_queries=14, test_database=40,
        test_queries=14, tokyo_database=36, tokyo_places=3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def rendered_city(tmp_path_factory, city_settings):
    """The data root of `city_settings`; copy it before changing it."""
    return write_city(tmp_path_factory.mktemp("city") / "root", city_settings, workers=2, progress=False)


@pytest.fixture(scope="session")
def sf_photos():
    if not SF_PHOTOS.is_dir():
        pytest.skip(f"no real photos at {SF_PHOTOS}; set SF_PHOTOS to their data root")
    return SF_PHOTOS


SUMMARY = pytest.StashKey[list[str]]()


@pytest.fixture
def summary(request):
    """A function that takes a line to be printed when all tests have run."""
    return request.config.stash.setdefault(SUMMARY, []).append


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(SUMMARY, []):
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(config.stash[SUMMARY]))


@pytest.fixture
def settings():
    return replace(get_preset("smoke"), aggregator="GeM", image_size=32, num_places=3, crop_after="layer1")


@pytest.fixture
def small(settings):
    """Settings of a run that takes a second."""
    return replace(settings, epochs=1, ks=(1, 5))


@pytest.fixture
def machine():
    return Machine(device="cpu", num_workers=0, progress=False)


@pytest.fixture
def press_ctrl_c():
    """A function that does what Ctrl-C does, also where the tests were started with SIGINT ignored or blocked."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGINT, handler)
