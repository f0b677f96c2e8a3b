"""Tags by hand: written at once, merged by name, never lost."""

import csv

import numpy as np
import pytest

from vpr_lib.gallery.tags import Change, Tags, open_tags

QUERIES = ["a.jpg", "sub/b.jpg", "c,1.jpg"]


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_tags_are_written_at_once_and_found_again(tmp_path):
    path = tmp_path / "runs" / "tags-val.csv"
    tags = Tags(path, QUERIES)
    assert tags.undo() is None and not path.exists()
    assert tags.toggle("sub/b.jpg", "skyline") == Change("b.jpg", "skyline", True)
    assert read(path) == [["query", "scenario"], ["b.jpg", "skyline"]]
    tags.toggle("c,1.jpg", "occlusion")
    tags.toggle("b.jpg", "occlusion")
    again = Tags(path, QUERIES)
    assert again.list_scenarios("sub/b.jpg") == ["skyline", "occlusion"] and again.message == ""
    assert again.mark_queries("occlusion").tolist() == [False, True, True]
    assert again.toggle("b.jpg", "skyline").added is False  # the second click takes it off
    assert read(path)[1:] == [["c,1.jpg", "occlusion"], ["b.jpg", "occlusion"]]
    assert not list(path.parent.glob("*.tmp"))
    with pytest.raises(ValueError, match=r"rain.*viewpoint"):
        tags.toggle("a.jpg", "rain")


def test_undo_goes_back_step_by_step(tmp_path):
    path = tmp_path / "tags.csv"
    tags = Tags(path, QUERIES)
    states = [[]]
    for query, scenario in (("a.jpg", "skyline"), ("a.jpg", "viewpoint"), ("a.jpg", "skyline")):
        tags.toggle(query, scenario)
        states.append(sorted(read(path)[1:]))
    for state in states[-2::-1]:
        assert tags.undo() and sorted(read(path)[1:]) == state
    assert tags.undo() is None and not tags.mark_queries("viewpoint").any()


def test_two_sessions_keep_each_others_tags(tmp_path):
    path = tmp_path / "tags.csv"
    first, second = Tags(path, QUERIES), Tags(path, QUERIES)
    first.toggle("a.jpg", "skyline")
    second.toggle("b.jpg", "skyline")
    assert sorted(read(path)[1:]) == [["a.jpg", "skyline"], ["b.jpg", "skyline"]]
    assert second.list_scenarios("a.jpg") == ["skyline"]


def test_lines_edited_by_hand_are_kept_and_reported(tmp_path):
    path = tmp_path / "tags.csv"
    lines = ["scenario,query,note", "skyline,a.jpg,mine", "fog,b.jpg", "skyline,gone.jpg,x,y", "", "occlusion"]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    tags = Tags(path, QUERIES)
    assert tags.list_scenarios("a.jpg") == ["skyline"]
    assert all(word in tags.message for word in ("'fog' of b.jpg", "gone.jpg", "1 more"))
    tags.toggle("b.jpg", "skyline")
    kept = [line.split(",") for line in lines if line]
    assert read(path) == [*kept, ["skyline", "b.jpg", ""]]
    assert "fog" in tags.message


@pytest.mark.parametrize("content", [b"name,tag\na.jpg,skyline\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_table_of_tags_is_left_alone(tmp_path, content):
    path = tmp_path / "tags.csv"
    path.write_bytes(content)
    tags = Tags(path, QUERIES)
    assert "not written" in tags.message
    tags.toggle("a.jpg", "skyline")
    assert path.read_bytes() == content and tags.list_scenarios("a.jpg") == ["skyline"]


def test_a_folder_that_cant_be_written_loses_no_tag(tmp_path):
    folder = tmp_path / "runs"
    folder.write_text("a file in place of the folder")
    tags = Tags(folder / "tags.csv", QUERIES)
    tags.toggle("b.jpg", "occlusion")
    assert "this session only" in tags.message
    assert np.array_equal(tags.mark_queries("occlusion"), [False, True, False])
    folder.unlink()
    tags.toggle("a.jpg", "viewpoint")  # writes both
    assert tags.message == "" and len(read(tags.path)) == 3


def test_merging_tags_exported_by_a_page(tmp_path):
    tags = Tags(tmp_path / "tags.csv", QUERIES)
    tags.toggle("a.jpg", "skyline")
    other = tmp_path / "exported.csv"
    other.write_text("query,scenario\r\na.jpg,skyline\r\nb.jpg,skyline\r\nb.jpg,skyline\r\nb.jpg,fog\r\n")
    assert tags.merge(other) == 1
    assert read(tags.path)[1:] == [["a.jpg", "skyline"], ["b.jpg", "skyline"]]
    with pytest.raises(FileNotFoundError, match="query,scenario"):
        tags.merge(tmp_path / "nothing.csv")


def test_a_file_that_lost_rows_is_told(tmp_path):
    tags = Tags(tmp_path / "tags.csv", QUERIES)
    for query in ("a.jpg", "b.jpg"):
        tags.toggle(query, "skyline")
    lines = tags.path.read_text().splitlines()
    tags.path.write_text("\n".join(lines[:-1]) + "\n")
    assert "edited or damaged" in Tags(tags.path, QUERIES).message
    tags.toggle("c,1.jpg", "skyline")
    assert "edited or damaged" in tags.message
    assert Tags(tags.path, QUERIES).message == ""  # saved again


def test_two_data_roots_have_a_file_each(tmp_path):
    runs = tmp_path / "runs"
    first, second = (open_tags(runs, tmp_path / "data" / name, "val", QUERIES) for name in ("a", "b"))
    first.toggle("a.jpg", "skyline")
    assert first.path != second.path and second.toggle("a.jpg", "occlusion").added
    assert open_tags(runs, tmp_path / "data" / "a", "val", QUERIES).list_scenarios("a.jpg") == ["skyline"]
    assert open_tags(runs, tmp_path / "data" / "a", "test", QUERIES).list_scenarios("a.jpg") == []


def test_tags_of_a_file_for_all_roots_are_taken_over_once(tmp_path):
    earlier = Tags(tmp_path / "tags-val.csv", ["a.jpg", "other.jpg"])
    earlier.toggle("a.jpg", "skyline")
    earlier.toggle("other.jpg", "skyline")
    tags = open_tags(tmp_path, tmp_path / "mini", "val", QUERIES)
    assert read(tags.path)[1:] == [["a.jpg", "skyline"]] and tags.message == ""
    tags.toggle("a.jpg", "skyline")  # taken off, and not taken over again
    assert open_tags(tmp_path, tmp_path / "mini", "val", QUERIES).list_scenarios("a.jpg") == []
    (tmp_path / "tags-val.csv").write_text("no table")
    assert open_tags(tmp_path, tmp_path / "other", "val", QUERIES).message == ""
