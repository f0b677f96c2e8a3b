"""The project's own promises: packages, imports, layout."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import vpr_lib

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "vpr_lib"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# {room: the rooms it may import from}; the core is "".
ROOMS = {
    "": set(),
    "prepare": {""},
    "analysis": {"", "prepare"},
    "figures": {"", "analysis"},
    "study": {"", "analysis", "figures"},
    "gallery": {"", "prepare", "analysis", "figures"},
    "city": {""},
    "course": {"", "prepare", "analysis", "figures", "study", "gallery", "city"},
}
ROOMS["command_line"] = {*ROOMS}
PUBLIC = """read_images read_split find_positives recall_at_k PlaceSampler AvgPool GeM ConvAP MixVPR ResNet VPRModel
load_author_weights extract_descriptors search_database get_preset get_run evaluate_run open_gallery""".split()  # noqa: SIM905


def list_modules():
    """{path below the library: its room}."""
    paths = sorted(path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return {path: path.parent.as_posix().replace(".", "", 1) for path in paths}


def imports_of(path):
    """Modules of the library that a module imports, at its top or inside functions: ["images", "city.render"]."""
    modules = []
    for node in ast.walk(ast.parse((LIBRARY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vpr_lib":
            below = node.module.partition(".")[2]
            modules += [below] if below else [alias.name for alias in node.names]
    return modules


def test_rooms_import_in_one_direction():
    modules = list_modules()
    assert set(modules.values()) == set(ROOMS)
    for path, room in modules.items():
        if path.name == "__main__.py":
            continue  # it starts the command line
        for module in imports_of(path):
            first = module.partition(".")[0]
            other = first if (LIBRARY / first).is_dir() else ""
            assert other == room or other in ROOMS[room], f"{path} imports {module}"


def test_core_modules_do_not_import_each_other_in_a_circle():
    below = {path.stem: set(imports_of(path)) for path, room in list_modules().items() if room == ""}
    below = {name: imports for name, imports in below.items() if name not in ("__init__", "__main__")}
    while below:
        free = [name for name, imports in below.items() if not imports & set(below)]
        assert free, f"these import each other: {', '.join(below)}"
        for name in free:
            del below[name]


@pytest.mark.parametrize("path", list_modules(), ids=str)
def test_modules_and_functions_are_short(path):
    text = (LIBRARY / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name != "train":
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_room_says_what_it_is_for():
    for room in filter(None, ROOMS):
        docstring = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text(encoding="utf-8")))
        assert docstring and len(docstring) > 80, room
        assert f"`{room}`" in vpr_lib.__doc__ or room in vpr_lib.__doc__


@pytest.mark.slow
def test_public_names_are_loaded_when_first_used():
    script = f"import sys, vpr_lib; assert 'torch' not in sys.modules; [getattr(vpr_lib, n) for n in {PUBLIC}]"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(PUBLIC) <= set(dir(vpr_lib))
    with pytest.raises(AttributeError, match="get_runs"):
        _ = vpr_lib.get_runs


def test_environment_takes_its_packages_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert conda == [f"python{PYPROJECT['project']['requires-python']}", "pip"]
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]


def test_every_package_has_a_tested_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)  # names and versions only
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    assert extras["dev"][0] == "vpr_lib[lab,pretrained]"
    optional = extras["lab"] + extras["pretrained"] + extras["grading"] + extras["dev"][1:]
    for requirement in project["dependencies"] + optional:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()  # lower bounds only
        numbers = [[int(n) for n in version.split(".")[:3]] for version in (bound, pinned[name])]
        assert numbers[0] <= numbers[1], requirement


def test_hosted_machines_run_targets_that_exist():
    """GitHub's workflows and the development container are valid and call `make` only."""
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    commands = [container["postCreateCommand"]]
    paths = sorted((ROOT / ".github" / "workflows").glob("*"))
    assert [path.name for path in paths] == ["notebooks.yml", "test.yml"]
    for path in paths:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow[True] and workflow["permissions"] == {"contents": "read"}  # YAML reads "on" as True
        for job in workflow["jobs"].values():
            assert job["runs-on"] and job["timeout-minutes"] <= 60
            assert all(("run" in step) != ("uses" in step) for step in job["steps"])
            assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
            commands += [step["run"] for step in job["steps"] if "run" in step]
    targets = re.findall(r"^([a-z ]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = {name for line in targets for name in line.split()}
    called = [re.fullmatch(r"make (\w+)( [A-Z]+=\w+)?", command)[1] for command in commands]
    assert {"setup", "lint", "test", "notebooks"} <= set(called) <= targets


@pytest.mark.slow
def test_importing_does_no_work(tmp_path):
    names = [
        ".".join(path.with_suffix("").parts) for path in list_modules() if path.stem not in ("__init__", "__main__")
    ]
    script = f"""
import builtins, sys, torch, numpy, random, os, warnings
import pytorch_metric_learning.losses, faiss, scipy.spatial, scipy.stats, torchvision, tqdm.auto, PIL.Image, cv2
import torchvision.transforms.v2, matplotlib.figure, IPython.display, joblib
before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), dict(os.environ), random.getstate()
def refuse(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir") or (writes and "__pycache__" not in str(args[0])):
        raise RuntimeError(f"{{event}} {{args}} at import")
sys.addaudithook(refuse)
for name in {names!r}:
    __import__("vpr_lib." + name)
after = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), dict(os.environ), random.getstate()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_some_things_are_written_once():
    texts = {path: (LIBRARY / path).read_text(encoding="utf-8") for path in list_modules()}
    for text in ("0.485", "DecompressionBombError,", '.endswith("val")', "% 60 > 2"):
        holders = [str(path) for path, content in texts.items() if text in content]
        assert len(holders) <= 1, f"{text!r} is in {holders}"


def test_checkpoints_are_loaded_weights_only():
    for path in LIBRARY.rglob("*.py"):
        for call in re.findall(r"torch\.load\([^\n]*", path.read_text(encoding="utf-8")):
            assert "weights_only=True" in call, path


PAGES = ["README.md", "vpr_lib/city/weights/README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_pages_link_to_what_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#\s]+)", text) + re.findall(r'<img src="(?!http)([^"]+)"', text)
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target
    assert not re.findall(r"\b(?:TODO|TBD)\b", text)
    assert page != "README.md" or len(text.encode()) <= 10_000


def test_the_city_command_does_without_torch():
    """So it fits into a small machine's memory, and starts at once."""
    script = "import sys, vpr_lib.__main__, vpr_lib.city.render; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
