"""The sets for students and teachers, and what nbgrader makes of them."""

import os
import re
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vpr_lib.course.checking import WrongAnswer
from vpr_lib.recall import find_positives

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
import handout  # noqa: E402

PATHS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
NAMES = [path.stem for path in PATHS]
IMPORTS = "import numpy as np\nimport torch\nimport torch.nn.functional as F\nfrom vpr_lib.recall import find_positives"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("course")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["handout.py", "--out", str(out)])
        assert handout.main() == 0
    return out


def read(folder, who, name):
    return nbformat.read(folder / who / name / f"{name}.ipynb", as_version=4)


def cells_with(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("name", NAMES)
def test_students_get_the_exercises_without_solutions_and_outputs(folder, name):
    committed, students = (
        nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4),
        read(folder, "students", name),
    )
    stubs = [[cell.source for cell in cells_with(notebook, "exercise")] for notebook in (committed, students)]
    assert stubs[0] == stubs[1] and len(stubs[0]) >= 3
    code = [cell for cell in students.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    solutions = [cell.source for cell in committed.cells if "<details><summary>Solution" in cell.source]
    assert len(solutions) == len(stubs[0])
    sources = "\n".join(cell.source for cell in students.cells)
    lines = {line.strip() for solution in solutions for line in solution.splitlines() if line.startswith("    ")}
    assert not [line for line in lines if line in sources.splitlines() or (line.count(" ") > 3 and line in sources)]
    assert not re.search(r"\bsolutions?\b", sources, re.IGNORECASE)
    kept = [cell.source for cell in committed.cells if cell.source in sources]
    assert len(kept) >= len(committed.cells) - 2 * len(solutions) - 1  # but for solutions, checks and one sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_teachers_answers_are_right_and_the_students_are_not_yet(folder, name, capsys):
    for who in ("teacher", "students"):
        notebook = read(folder, who, name)
        for exercise, check in zip(cells_with(notebook, "exercise"), cells_with(notebook, "check"), strict=True):
            names = {"np": np, "torch": torch, "F": F, "find_positives": find_positives}
            exec(exercise.source, names)
            if who == "teacher":
                exec(check.source, names)
                assert capsys.readouterr().out == "✓ right\n"
            else:
                with pytest.raises(WrongAnswer, match="to do"):
                    exec(check.source, names)


@pytest.mark.parametrize("name", NAMES)
def test_cells_carry_nbgraders_metadata(folder, name):
    by_who = {who: read(folder, who, name) for who in ("teacher", "students")}
    grades = {who: [c.metadata.get("nbgrader") for c in notebook.cells] for who, notebook in by_who.items()}
    assert grades["teacher"] == grades["students"]
    found = [grade for grade in grades["teacher"] if grade]
    hour, count = int(name[:2]), len(cells_with(by_who["teacher"], "check"))
    expected = [f"{kind}-{hour}-{i + 1}" for i in range(count) for kind in ("exercise", "check")]
    assert [grade["grade_id"] for grade in found if grade["grade_id"] != "hand-in"] == expected
    for grade in found:
        answer = not grade["grade_id"].startswith("check")
        assert grade["solution"] == answer and grade["locked"] != answer
        assert (grade.get("points", 0) > 0) == grade["grade"] == (not grade["grade_id"].startswith("exercise"))


def test_the_teachers_set_keeps_the_outputs_of_the_text(folder):
    outputs = []
    for notebook in (read(folder, "teacher", NAMES[0]), nbformat.read(PATHS[0], as_version=4)):
        text = [cell for cell in notebook.cells if cell.cell_type == "code" and not cell.metadata.get("tags")]
        outputs.append([cell.outputs for cell in text])
    assert outputs[0] == outputs[1] and sum(map(len, outputs[0])) > 10


def test_writing_again_changes_nothing_and_keeps_a_changed_configuration(folder, monkeypatch):
    (folder / "nbgrader_config.py").write_text("c = get_config()\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".ipynb", ".py")}
    assert len(before) == 13
    monkeypatch.setattr(sys, "argv", ["handout.py", "--out", str(folder)])
    handout.main()
    assert {path: path.read_bytes() for path in before} == before
    (folder / "nbgrader_config.py").write_text(handout.CONFIG, encoding="utf-8")


def test_the_zip_holds_the_library_and_no_solution(folder):
    with zipfile.ZipFile(folder / "vpr-course-kit.zip") as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"vpr-course-kit"}
    library = [p for p in (ROOT / "vpr_lib").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {f"vpr-course-kit/{p.relative_to(ROOT).as_posix()}" for p in library} <= set(names)
    assert "vpr-course-kit/pyproject.toml" in names and not [
        name for name in names if name.endswith((".ipynb", ".pyc"))
    ]


# With nbgrader


@pytest.fixture
def course(folder, tmp_path, monkeypatch):
    """nbgrader on the exercises of one hour: the rest of a notebook would have to train."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install -c constraints.txt -e '.[grading]'")
    from nbgrader.apps import NbGraderAPI
    from traitlets.config.loader import PyFileConfigLoader

    for who in ("teacher", "students"):
        notebook = read(folder, who, NAMES[1])
        first = nbformat.v4.new_code_cell(IMPORTS, id="imports")
        notebook.cells = [first, *(cell for cell in notebook.cells if "nbgrader" in cell.metadata)]
        (tmp_path / who / "hour").mkdir(parents=True)
        nbformat.write(notebook, tmp_path / who / "hour" / "hour.ipynb")
    config = PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()
    config.CourseDirectory.root = str(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # nbgrader calls alembic
    return NbGraderAPI(config=config), tmp_path


@pytest.mark.slow
def test_nbgrader_makes_the_students_set_of_the_teachers(course):
    api, folder = course
    ours = nbformat.read(folder / "students" / "hour" / "hour.ipynb", as_version=4)
    assert api.generate_assignment("hour", force=True)["success"]
    made = nbformat.read(folder / "students" / "hour" / "hour.ipynb", as_version=4)
    assert [cell.source for cell in made.cells] == [cell.source for cell in ours.cells]
    assert all("checksum" in cell.metadata.nbgrader for cell in made.cells[1:])


@pytest.mark.slow
@pytest.mark.parametrize(("who", "num_failed"), [("teacher", 0), ("students", 4)])
def test_nbgraders_validator_passes_the_teachers_answers_only(course, who, num_failed):
    from nbgrader.validator import Validator

    result = Validator().validate(str(course[1] / who / "hour" / "hour.ipynb"))
    assert len(result.get("failed", [])) == num_failed and not result.get("type_changed")


@pytest.mark.slow
def test_nbgrader_grades_a_submission(course):
    api, folder = course
    assert api.generate_assignment("hour", force=True)["success"]
    notebook = nbformat.read(folder / "students" / "hour" / "hour.ipynb", as_version=4)
    answers = nbformat.read(folder / "teacher" / "hour" / "hour.ipynb", as_version=4)
    for i in (1, 5):  # two of four exercises; a check that the student made harmless counts all the same
        notebook.cells[i].source = answers.cells[i].source
    notebook.cells[4].source = "print('✓ right')"
    (folder / "submitted" / "ann" / "hour").mkdir(parents=True)
    nbformat.write(notebook, folder / "submitted" / "ann" / "hour" / "hour.ipynb")
    result = api.autograde("hour", "ann", create=True)
    assert result["success"], result
    with api.gradebook as gradebook:
        submission = gradebook.find_submission("hour", "ann")
        assert (submission.score, submission.max_score) == (2, 4)
