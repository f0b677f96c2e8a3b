"""The notebooks as committed, as executed with preset smoke, and as Colab runs them."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import numpy as np
import prose
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
from execute import hash_code, run  # noqa: E402

PATHS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
NAMES = [path.stem for path in PATHS]


@pytest.fixture(params=PATHS, ids=NAMES)
def committed(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read_outputs(notebook, kind=""):
    return [o for cell in code_cells(notebook) for o in cell.outputs if o.output_type.startswith(kind)]


def read_pictures(notebook):
    data = [o.data for o in read_outputs(notebook, "execute_result")]
    files = [d[kind] for d in data for kind in ("image/png", "image/jpeg") if kind in d]
    return [np.array(Image.open(io.BytesIO(base64.b64decode(file)))) for file in files]


def figure_names(notebook):
    """The files that a notebook's calls of session.show write."""
    text = "\n".join(cell.source for cell in code_cells(notebook))
    names = re.findall(r'"(0\d_\w+(?:\.jpg)?)"', text)
    assert len(names) == len(re.findall(r"session\.show\(", text))
    return [name if "." in name else f"{name}.png" for name in names]


def check_outputs(notebook):
    assert not read_outputs(notebook, "error")
    pictures = read_pictures(notebook)
    assert len(pictures) == len(figure_names(notebook))
    assert all(picture.std() > 5 for picture in pictures)


# As committed


def test_committed_outputs_are_of_this_code(committed):
    assert committed.metadata["vpr"]["code"] == hash_code(committed), "run `make notebooks` and commit what it writes"
    assert committed.metadata["vpr"]["preset"] == "mini"
    assert all(cell.execution_count for cell in code_cells(committed))
    check_outputs(committed)


def test_there_are_six_small_files():
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05", "06"]
    assert max(path.stat().st_size for path in PATHS) <= 2e6


ABSOLUTE_PATH = r"(?<![\w.:/<])/\w[\w.-]*/[\w.-]+|[A-Z]:\\\w"


def test_outputs_name_no_folder_of_the_machine(committed):
    assert re.search(ABSOLUTE_PATH, "in /home/me/kit") and not re.search(ABSOLUTE_PATH, "R@1 / 5, 9 photos/s, runs/AVG")
    for output in read_outputs(committed):
        data = output.get("data", {})
        text = output.get("text", "") + data.get("text/plain", "") + data.get("text/markdown", "")
        assert not re.search(ABSOLUTE_PATH, text), text


def test_exercises_are_unfinished_and_stop_nothing(committed):
    checks = [cell for cell in code_cells(committed) if "check" in cell.metadata.get("tags", [])]
    assert 3 <= len(checks) <= 5
    assert all("to do" in cell.outputs[0].text for cell in checks)


def test_the_kit_is_found_alike_by_a_short_folded_first_cell():
    cells = [code_cells(nbformat.read(path, as_version=4))[0] for path in PATHS]
    (source,) = {cell.source for cell in cells}
    assert len([line for line in source.splitlines() if line]) <= 15
    assert source.startswith("# @title ") and {cell.metadata["cellView"] for cell in cells} == {"form"}  # Colab
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in cells)  # JupyterLab


def test_outputs_stay_valid_when_the_kit_gets_an_address(committed):
    before, first = hash_code(committed), code_cells(committed)[0]
    first.source = first.source.replace('"VPR_KIT", ""', '"VPR_KIT", "https://example.org/kit"')
    assert "example.org" in first.source and hash_code(committed) == before
    first.source += "\nprint(KIT)"
    assert hash_code(committed) != before


def test_cells_are_short_and_hold_no_path(committed):
    for cell in code_cells(committed)[1:]:
        assert len(cell.source.splitlines()) <= 25, cell.source
        assert not re.search(r'"/\w|~/|\.\./', cell.source), cell.source


RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_figures_in_boxes_were_recorded(committed):
    assert prose.find_unrecorded(committed, RESULTS) == set()


# As executed


QUICKER = """import dataclasses
session = dataclasses.replace(session, machine=dataclasses.replace(session.machine, num_workers=0))
settings = dataclasses.replace(session.settings, epochs=1)"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """All six in one kernel whose names are deleted in between: {name: notebook}, and the folder of reports."""
    folder = tmp_path_factory.mktemp("notebooks")
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}
    whole = nbformat.v4.new_notebook()
    for name, notebook in notebooks.items():
        for cell in notebook.cells:
            cell.id = f"{name[:2]}-{cell.id}"
            cell.source = cell.source.replace("settings = session.settings", QUICKER)
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    # Threads of a model this small cost more than they save.
    run(whole, "smoke", VPR_KEEP=str(folder), VPR_DATA=str(folder / "city"), OMP_NUM_THREADS="1")
    return notebooks, folder / "reports" / "smoke"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom(executed, name):
    notebook, reports = executed[0][name], executed[1]
    check_outputs(notebook)
    for file in figure_names(notebook):
        assert np.array(Image.open(reports / file)).std() > 5, file
    assert not [o.text for o in read_outputs(notebook, "stream") if o.name == "stderr"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_prose_quotes_no_result_that_another_machine_need_not_print(executed, name):
    committed = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert prose.find_unexplained(name, committed, executed[0][name]) == set()


def test_figures_of_results_in_the_prose_are_found():
    committed = nbformat.read(PATHS[1], as_version=4)
    committed.cells += [
        nbformat.v4.new_markdown_cell("ConvAP finds 83.25 percent, p = 0.0123, see notebook 05.\n\n> MixVPR 91.5"),
        nbformat.v4.new_markdown_cell("## 9.9 Title\n\nThe code `x = 77.7` has a figure of 1,234.5 and $88.8$."),
    ]
    assert prose.find_unexplained("02", committed, committed) == {"83.25", "0.0123", "1234.5"}
    assert prose.find_unrecorded(committed, RESULTS) == {"91.5"}


# As in Colab


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """An empty folder, a Python that has the packages but not the kit, a stand-in for `google.colab`."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    script = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    # A folder named in a .pth gives its packages, but what is installed there for editing stays unknown.
    (Path(site) / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    found = subprocess.run([python, "-c", "import torch, vpr_lib"], capture_output=True, text=True, cwd=tmp_path)
    assert "No module named 'vpr_lib'" in found.stderr
    (tmp_path / "stub" / "google" / "colab").mkdir(parents=True)
    (tmp_path / "stub" / "google" / "colab" / "__init__.py").write_text("", encoding="utf-8")
    drive = "from pathlib import Path\ndef mount(folder):\n    Path('mounted.txt').write_text(folder)\n"
    (tmp_path / "stub" / "google" / "colab" / "drive.py").write_text(drive)
    (tmp_path / "content").mkdir()
    return tmp_path, python


def copy_kit(folder):
    """A copy of the kit's files as they are now, committed or not."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def make_repository(folder):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "-m", "kit"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return f"file://localhost{folder}"


NUM_CELLS = 11  # of notebook 01, up to its first figure


def execute_alone(colab, num_cells=NUM_CELLS, **env):
    folder, python = colab
    name = PATHS[0].name
    notebook = nbformat.read(PATHS[0], as_version=4)
    notebook.cells = notebook.cells[:num_cells]
    nbformat.write(notebook, folder / "content" / name)
    env = {k: v for k, v in os.environ.items() if not k.startswith("VPR_")} | {"VPR_PRESET": "smoke"} | env
    command = [python, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", name]
    return subprocess.run(command, cwd=folder / "content", env=env, capture_output=True, text=True, timeout=300)


OFFLINE = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}  # its packages are there: nothing is fetched


@pytest.mark.slow
def test_runs_from_an_empty_folder_as_in_colab(colab):
    folder, _ = colab
    place = {"PYTHONPATH": str(folder / "stub"), "VPR_DRIVE": "1", "VPR_KEEP": str(folder / "drive")}
    done = execute_alone(colab, VPR_KIT=make_repository(copy_kit(folder / "kit")), **place, **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert (folder / "content" / "mounted.txt").read_text(encoding="utf-8") == "/content/drive"
    notebook = nbformat.read(folder / "content" / PATHS[0].name, as_version=4)
    check_outputs(notebook)
    assert sorted(p.name for p in (folder / "drive/reports/smoke").iterdir()) == sorted(figure_names(notebook))
    assert (folder / "content" / "data" / "smoke" / "city.json").is_file()  # on the local disk


@pytest.mark.slow
def test_installs_the_kit_from_a_zip_beside_the_notebook(colab):
    folder, python = colab
    copy_kit(folder / "kit-main")  # as code hosts pack it: all in one folder
    shutil.make_archive(folder / "content" / "kit-main", "zip", folder, "kit-main")
    done = execute_alone(colab, num_cells=2, **OFFLINE)
    assert done.returncode == 0, done.stderr
    script = "import vpr_lib; from vpr_lib.city import CitySettings; print(vpr_lib.__file__)"
    found = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, cwd=folder / "content")
    assert found.stdout.startswith(str(folder / "venv"))


@pytest.mark.slow
def test_without_the_kit_the_first_cell_says_what_to_do(colab):
    done = execute_alone(colab)
    assert done.returncode != 0
    assert all(remedy in done.stderr for remedy in ("make lab", "zip", "VPR_KIT"))
