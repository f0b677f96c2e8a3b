"""Locating a single photo: found as in an evaluation, located, or refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
import utm
from conftest import make_root
from PIL import ExifTags, Image

from vpr_lib.analysis import locating
from vpr_lib.analysis.locating import locate_photo
from vpr_lib.data_roots import read_split
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.models import build_model

GPS = ExifTags.GPS


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return read_split(make_root(tmp_path_factory.mktemp("locate")), "val")


@pytest.fixture
def find(split, settings, machine):
    """Locates bytes in the split's database, with a random model."""
    model = build_model(settings)
    descriptors = extract_descriptors(
        model, split[0], settings.image_size, precision=settings.precision, machine=machine
    )

    def find(photo, k=5):
        return locate_photo(model, settings, split[0], descriptors, photo, k, machine)

    find.model, find.descriptors = model, descriptors
    return find


def to_bytes(pixels, kind="PNG", exif=None):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, exif=exif or Image.Exif())
    return buffer.getvalue()


def gps_exif(latitude, longitude):
    exif = Image.Exif()
    gps = {GPS.GPSLatitude: (abs(latitude), 0, 0), GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S"}
    gps |= {GPS.GPSLongitude: (abs(longitude), 0, 0), GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W"}
    exif[ExifTags.IFD.GPSInfo] = gps
    return exif


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
JPEG = to_bytes(PIXELS, "JPEG")


def test_a_query_is_found_as_in_an_evaluation(find, split, settings, machine):
    queries = split[1]
    expected = extract_descriptors(
        find.model, queries, settings.image_size, precision=settings.precision, machine=machine
    )
    for row in range(len(queries)):
        found = find(queries.read_bytes(row))
        np.testing.assert_allclose(found.descriptor, expected[row], atol=1e-3)
        distances = np.sqrt(((find.descriptors - found.descriptor) ** 2).sum(1))
        np.testing.assert_array_equal(found.indices, np.argsort(distances, kind="stable")[:5])
        np.testing.assert_allclose(found.distances, np.sort(distances)[:5], atol=1e-3)
        assert found.indices.dtype == np.int64 and found.utm.dtype == np.float64
        assert found.exif_utm is None and "no GPS position" in found.exif_note
    found = find(split[0].read_bytes(3))  # of the database
    assert found.indices[0] == 3 and found.distances[0] < 1e-2
    assert np.linalg.norm(found.utm - split[0].utm[3]) < 25


def estimate_slowly(positions, distances):
    weights = [np.exp((float(distances[0]) - float(d)) / 0.05) for d in distances]
    best = (-1.0, None)
    for center in positions:
        members = [i for i, p in enumerate(positions) if np.hypot(*(p - center)) <= 25]
        total = sum(weights[i] for i in members)
        if total > best[0] + 1e-12:
            best = (total, sum(weights[i] * positions[i] for i in members) / total)
    return best[1]


def measure_spread_slowly(positions, distances):
    """The root of the variance of the positions, weighted by descriptor distance, averaged over both axes."""
    weights = [np.exp(-100 * (float(d) - float(distances[0]))) for d in distances]
    mean = sum(w * p for w, p in zip(weights, positions, strict=True)) / sum(weights)
    offsets = [np.clip(p - mean, -500, 500) for p in positions]
    return np.sqrt(sum(w * (o @ o) / 2 for w, o in zip(weights, offsets, strict=True)) / sum(weights))


@pytest.fixture
def locate_at(find, split, settings, machine):
    """Locates one photo in a database of given positions, whose descriptors are at given distances from its own."""
    own = find(JPEG).descriptor
    other = np.random.default_rng(0).normal(size=own.shape)
    other -= (other @ own) * own
    other /= np.linalg.norm(other)

    def locate_at(positions, distances):
        database = replace(split[0][: len(positions)], utm=np.asarray(positions))
        angles = 2 * np.arcsin(np.asarray(distances) / 2)[:, None]
        descriptors = (np.cos(angles) * own + np.sin(angles) * other).astype(np.float32)
        return locate_photo(find.model, settings, database, descriptors, JPEG, len(positions), machine)

    return locate_at


def test_the_estimate_against_a_loop(locate_at):
    rng = np.random.default_rng(0)
    for _ in range(8):
        positions = np.array([5e5, 4e6]) + rng.normal(0, 30, (8, 2))
        location = locate_at(positions, np.sort(rng.uniform(0.5, 0.8, 8)))
        assert location.indices.tolist() == list(range(8))
        expected = estimate_slowly(positions, location.distances)
        np.testing.assert_allclose(location.utm, expected, atol=1e-3, rtol=0)
        assert location.spread_m == pytest.approx(measure_spread_slowly(positions, location.distances), rel=1e-4)


def test_far_wrong_photos_do_not_pull_the_estimate(locate_at):
    true = np.array([551_000.0, 4_178_000.0])
    right = true + np.random.default_rng(1).normal(0, 5, (8, 2))
    for wrong in ([0], [0, 1], [3, 7], [8, 9]):  # ranks; first ones too, if no more similar than the others
        positions = np.insert(right, [min(w, 8) for w in wrong], true + [[900.0, -2000.0]], axis=0)[:10]
        location = locate_at(positions, np.linspace(0.9, 0.95, len(positions)))
        assert np.linalg.norm(location.utm - true) < 10 < 100 < np.linalg.norm(positions.mean(0) - true)
        assert location.spread_m > 30  # but the spread shows them
    assert locate_at(right, np.linspace(0.9, 0.95, 8)).spread_m < 15


def test_photos_are_turned_upright(find):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees clockwise
    find.model.train()
    turned = find(to_bytes(np.rot90(PIXELS), exif=exif))
    assert find.model.training  # not changed
    np.testing.assert_allclose(turned.descriptor, find(to_bytes(PIXELS)).descriptor, atol=1e-6)


def test_exif_positions_are_in_the_database_zone(find, split, settings, machine):
    """The database's names say 10S. 37.7 N, 119.9 W is in zone 11, but near; 139.7 E is in Japan."""
    found = find(to_bytes(PIXELS, "JPEG", gps_exif(37.5, -122.25)))
    np.testing.assert_allclose(found.exif_utm, utm.from_latlon(37.5, -122.25)[:2], atol=0.5)
    beyond = find(to_bytes(PIXELS, "JPEG", gps_exif(37.5, -119.75)))
    edge = np.array(utm.from_latlon(37.5, -120.0, 10, "S")[:2])  # a quarter degree of longitude is 22.1 km here
    assert np.linalg.norm(beyond.exif_utm - edge) == pytest.approx(22_100, rel=0.01)
    south = find(to_bytes(PIXELS, "JPEG", gps_exif(-0.5, -122.25)))  # meters go on below the equator
    assert south.exif_utm[1] == pytest.approx(-utm.from_latlon(0.5, -122.25)[1], abs=0.5)
    photo = to_bytes(PIXELS, "JPEG", gps_exif(35.68, 139.77))
    far = find(photo)
    assert far.exif_utm is None and "54S" in far.exif_note and "10S" in far.exif_note
    no_zones = replace(split[0], names=np.array(["@551000@4178000@@@.jpg"] * len(split[0]), dtype=object))
    found = locate_photo(find.model, settings, no_zones, find.descriptors, photo, 3, machine)
    assert found.exif_utm is None and "UTM zone" in found.exif_note


def test_many_kinds_of_photos(find):
    transparent = np.dstack([PIXELS, PIXELS[..., :1]])
    for pixels, kind in ((PIXELS, "WEBP"), (PIXELS[..., 0] > 99, "PNG"), (PIXELS, "MPO"), (transparent, "PNG")):
        assert len(find(to_bytes(pixels, kind)).indices) == 5


@pytest.mark.slow
@pytest.mark.parametrize(("photo", "message"), [
    (b"", "JPEG, PNG or WebP"),
    (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 100, "HEIC"),
    (JPEG[:-200], "not a readable photo"),
    (to_bytes(PIXELS)[:-3000], "not readable"),
    (to_bytes(PIXELS, "GIF"), "JPEG, PNG or WebP"),
], ids=["nothing", "heic", "cut", "cut png", "gif"])  # fmt: skip
def test_files_that_are_no_photo(find, photo, message):
    with pytest.raises(ValueError, match=message) as error:
        find(photo)
    assert " at 0x" not in str(error.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(10_000, 8_100), (20_000, 20_000)])  # the first only exceeds the kit's own limit
def test_huge_photos_are_refused_before_they_are_decoded(find, size, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")  # a few kilobytes
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="at most 80 million pixels"):
        find(buffer.getvalue())


def test_huge_files_are_refused(find, monkeypatch):
    monkeypatch.setattr(locating, "MAX_BYTES", 1_000_000)
    with pytest.raises(ValueError, match="has 2 MB; at most 1 MB"):
        find(JPEG + bytes(1_500_000))


def test_descriptors_of_another_database(find, split, settings, machine):
    for descriptors, message in ((find.descriptors[:-1], "again"), (find.descriptors[:, :-1], r"\(N, D\)")):
        with pytest.raises(ValueError, match=message):
            locate_photo(find.model, settings, split[0], descriptors, JPEG, 3, machine)
    with pytest.raises(ValueError, match="k must be 1 to 12"):
        find(JPEG, k=13)
