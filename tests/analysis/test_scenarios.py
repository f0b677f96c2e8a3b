"""Scenarios of queries, read from a CSV and matched by name."""

import pytest

from vpr_lib.analysis.scenarios import (
    SCENARIOS,
    Label,
    find_light,
    group_lights,
    group_queries,
    label_lights,
    label_scenarios,
    read_labels,
)
from vpr_lib.checked_files import write_sealed


def write_labels(root, *lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / "scenarios.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return root


def test_reading_scenarios(tmp_path):
    assert read_labels(tmp_path) == {}
    write_labels(tmp_path, "query,scenario,detail", "a.jpg,occlusion,bus", '"b,1.jpg",illumination,night')
    assert read_labels(tmp_path) == {"a.jpg": Label("occlusion", "bus"), "b,1.jpg": Label("illumination", "night")}
    write_labels(tmp_path, "query,scenario", "a.jpg,ordinary", "a.jpg,ordinary")
    assert read_labels(tmp_path) == {"a.jpg": Label("ordinary")}
    assert list(SCENARIOS) == ["viewpoint", "repetitive", "skyline", "occlusion", "illumination", "ordinary"]


@pytest.mark.parametrize("lines, message", [
    (["query,scenario", "a.jpg,rain"], "unknown scenario in line 2 .* 'rain'; valid: viewpoint, repetitive"),
    (["query,scenario", "a.jpg"], "unknown scenario"),
    (["query,scenario", "a.jpg,skyline", "a.jpg,ordinary"], "a.jpg as skyline and as ordinary"),
    (["name,kind", "a.jpg,skyline"], "expected the header query,scenario,detail"),
    ([""], "expected the header"),
])  # fmt: skip
def test_bad_scenarios_are_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_labels(write_labels(tmp_path, *lines))


def test_labels_find_their_queries():
    labels = {"a.jpg": Label("illumination", "dusk"), "b.jpg": Label("ordinary", "night")}
    labels["c.jpg"] = Label("occlusion", "bus")
    names = ["queries/b.jpg", "x/y/c.jpg", "unknown.jpg", "a.jpg"]
    assert label_scenarios(names, labels).tolist() == ["ordinary", "occlusion", "", "illumination"]
    assert label_lights(names, labels).tolist() == ["night", "", "", "dusk"]


def test_queries_are_grouped_by_the_labels_that_occur():
    labels = {"a": Label("skyline", "night"), "b": Label("viewpoint"), "c": Label("illumination", "rain")}
    kinds, titles = group_queries(["c", "x", "a", "b", "a"], labels)
    assert kinds.tolist() == ["illumination", "", "skyline", "viewpoint", "skyline"]
    assert list(titles.items()) == [(key, title) for key, title in SCENARIOS.items() if key in kinds]
    kinds, titles = group_lights(["c", "x", "a"], labels)
    assert kinds.tolist() == ["", "", "night"] and titles == {"night": "night"}  # rain is no time of day


@pytest.mark.parametrize("group", [group_queries, group_lights])
def test_queries_without_labels_are_one_group(group):
    kinds, titles = group(["x", "y"], {"a": Label("skyline")})
    assert len(titles) == 1 and kinds.tolist() == 2 * list(titles)


def test_labels_that_do_not_fit_their_seal_are_refused(tmp_path):
    write_sealed(tmp_path / "scenarios.csv", b"query,scenario\na.jpg,ordinary\nb.jpg,skyline\n")
    assert len(read_labels(tmp_path)) == 2
    (tmp_path / "scenarios.csv").write_bytes(b"query,scenario\na.jpg,ordinary\n")  # a row fewer
    with pytest.raises(ValueError, match=r"scenarios\.csv .*sha256"):
        read_labels(tmp_path)
    (tmp_path / "scenarios.csv.sha256").unlink()  # the change was wanted
    assert len(read_labels(tmp_path)) == 1


@pytest.mark.parametrize("data", [b"query,scenario\n\xff.jpg,ordinary\n", b'query,scenario\r"a\rb,ordinary\r'])
def test_labels_that_are_no_csv_are_refused(tmp_path, data):
    (tmp_path / "scenarios.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"scenarios\.csv"):
        read_labels(tmp_path)


def test_the_light_is_read_from_a_name():
    names = ["a/@1@2@54@S@@@113q00168-night@@58@@@@@@.jpg", "@1@2@@@@@x@@@@@@@sunset@.jpg", "sunday.jpg", "night/x.jpg"]
    assert [find_light(name) for name in names] == ["night", "sunset", "", ""]
