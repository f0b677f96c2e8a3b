"""Write the notebooks for a course: the students' without solutions and outputs, the teacher's with both.

python notebooks/handout.py [--out handout]

The folder is a course of nbgrader: teacher/ is its source, students/ its release, and its configuration lies beside
them. Exercises are cells of notebooks/*.ipynb with the tag "exercise", followed by their check (tag "check") and by
their solution, folded in a text cell; nothing else is read.
"""

import argparse
import ast
import copy
import re
import sys
import textwrap
import zipfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
KIT = (
    "LICENSE",
    "README.md",
    "constraints.txt",
    "data_download.sh",
    "pyproject.toml",
)  # besides vpr_lib/
SOLUTION = re.compile(
    r"<details><summary>Solution (\S+)</summary>\s*```python\n(.*?)```", re.DOTALL
)
BEGIN, END, STUB = "### BEGIN SOLUTION", "### END SOLUTION", "raise NotImplementedError"
ANSWER = "*Your answer*"
CONFIG = f"""c = get_config()  # noqa: F821
c.CourseDirectory.source_directory = "teacher"
c.CourseDirectory.release_directory = "students"
c.ClearSolutions.code_stub = {{"python": "{STUB}"}}
c.ClearSolutions.text_stub = "{ANSWER}"
c.Execute.timeout = 3600  # seconds for a cell: some train a model
"""


def fill_in(stub: str, solution: str) -> str:
    """The cell of an exercise with the solution's code, between nbgrader's marks, in place of its `raise`.

    What the solution has before its function, such as a class, moves into the function.
    """
    name = ast.parse(stub).body[-1].name
    (function,) = [
        node for node in ast.parse(solution).body if getattr(node, "name", "") == name
    ]
    lines = solution.splitlines()
    before = textwrap.indent("\n".join(lines[: function.lineno - 1]).strip(), " " * 4)
    body = "\n".join([before] * bool(before) + lines[function.returns.end_lineno :])
    return stub.replace(f"    {STUB}", f"    {BEGIN}\n{body}\n    {END}")


def describe(grade_id: str, points: int = 0, solution: bool = False) -> dict:
    """The nbgrader metadata of a cell: an answer, a check with points that nobody may edit, or both (graded by hand)."""
    grade = {"grade": points > 0, "points": points} if points else {"grade": False}
    common = {
        "schema_version": 3,
        "grade_id": grade_id,
        "locked": not solution,
        "solution": solution,
        "task": False,
    }
    return common | grade


def make_teachers(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its solutions in the cells of the exercises, and checks that raise when an answer is wrong."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("vpr", None)  # it tells of which code the outputs are
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        found = SOLUTION.match(cell.source) if cell.cell_type == "markdown" else None
        if not found:
            cell.source = re.sub(
                r"\s+The\s+solutions\s+are\s+folded;\s+try\s+first\.", "", cell.source
            )
            cells.append(cell)
            if cell.source.startswith("**Hand in:**"):
                metadata = {"nbgrader": describe("hand-in", points=2, solution=True)}
                cells.append(
                    nbformat.v4.new_markdown_cell(ANSWER, id="hand-in", metadata=metadata)
                )
            continue
        (number, code), (exercise, check) = found.groups(), cells[-2:]
        number = number.replace(".", "-")  # nbgrader allows no dot
        exercise.source = fill_in(exercise.source, code)
        exercise.metadata["nbgrader"] = describe(f"exercise-{number}", solution=True)
        check.source = re.sub(
            r"^(check_\w+\(\w+)\)$", r"\1, strict=True)", check.source, flags=re.MULTILINE
        )
        # With this tag, "Run all" goes on behind a wrong answer.
        check.metadata.update(
            nbgrader=describe(f"check-{number}", points=1), tags=["check", "raises-exception"]
        )
        check.update(outputs=[], execution_count=None)  # of the unfinished exercise
    notebook.cells = cells
    return notebook


def make_students(teachers: NotebookNode) -> NotebookNode:
    """The teacher's notebook without solutions and outputs."""
    notebook = copy.deepcopy(teachers)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(f"{BEGIN}.*?{END}", STUB, cell.source, flags=re.DOTALL)
            cell.update(outputs=[], execution_count=None)
    return notebook


def write_kit(path: Path) -> None:
    """Zip the library without notebooks, to be uploaded beside one in Colab."""
    library = (
        p
        for p in sorted((ROOT / "vpr_lib").rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file in (*(ROOT / name for name in KIT), *library):
            archive.write(file, Path("vpr-course-kit") / file.relative_to(ROOT))


def main() -> int:
    """Write all of them; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "handout")
    out = parser.parse_args().out
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        teachers = make_teachers(nbformat.read(path, as_version=4))
        for who, notebook in (("teacher", teachers), ("students", make_students(teachers))):
            folder = out / who / path.stem  # a folder for each hour: one assignment of nbgrader
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, folder / path.name)
    if not (out / "nbgrader_config.py").exists():  # a teacher may have changed it
        (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    write_kit(out / "vpr-course-kit.zip")
    print(
        f"students' and teacher's notebooks, and the kit as a zip for Colab, are in {out.name}/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
