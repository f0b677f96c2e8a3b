"""Copies to work in: never overwritten, and a newer notebook lies beside."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
import copy_to_work  # noqa: E402


def make_notebook(path, text):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text, id="a")])
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def source(tmp_path):
    return make_notebook(tmp_path / "01_é.ipynb", "x = 1")


def edit(path, text):
    """What JupyterLab does: it reads the notebook and writes all of it again."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = text
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=text)]
    nbformat.write(notebook, path)
    return path.read_bytes()


def test_a_copy_is_the_notebook_and_is_never_overwritten(source, tmp_path):
    work = tmp_path / "work"
    copy = copy_to_work.copy_notebook(source, work)
    assert copy == work / source.name
    notebooks = [nbformat.read(path, as_version=4) for path in (source, copy)]
    nbformat.validate(notebooks[1])
    assert notebooks[0].cells == notebooks[1].cells
    mine = edit(copy, "x = 2")
    edit(source, "x = 1")  # other outputs are no other version
    assert copy_to_work.copy_notebook(source, work) is None
    assert copy.read_bytes() == mine and list(work.iterdir()) == [copy]


def test_a_newer_notebook_is_added_beside_once(source, tmp_path):
    work = tmp_path / "work"
    copy = copy_to_work.copy_notebook(source, work)
    mine = edit(copy, "x = 2")
    added = []
    for text in ("x = 3", "x = 4"):
        edit(source, text)
        added.append(copy_to_work.copy_notebook(source, work))
        assert copy_to_work.copy_notebook(source, work) is None
        assert nbformat.read(added[-1], as_version=4).cells[0].source == text
    assert len({copy, *added}) == 3 and copy.read_bytes() == mine
    edit(source, "x = 1")
    assert copy_to_work.copy_notebook(source, work) is None  # back at the version of the first copy


@pytest.mark.parametrize("content", ["{ not a notebook", "[]", json.dumps({"cells": [], "metadata": {}})])
def test_a_file_of_another_origin_is_kept(source, tmp_path, content):
    work = tmp_path / "work"
    work.mkdir()
    (work / source.name).write_text(content, encoding="utf-8")
    added = copy_to_work.copy_notebook(source, work)
    assert added != work / source.name and (work / source.name).read_text(encoding="utf-8") == content
    assert copy_to_work.copy_notebook(source, work) is None


def test_all_six_are_copied_and_what_is_newer_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["copy_to_work.py", "--out", str(tmp_path / "work")])
    names = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))
    copy_to_work.main()
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == names
    assert capsys.readouterr().out == ""
    (tmp_path / "work" / names[2]).write_text("{}", encoding="utf-8")
    copy_to_work.main()
    said = capsys.readouterr().out
    assert names[2] in said and names[1] not in said and len(list((tmp_path / "work").iterdir())) == 7
