"""The project's own promises: packages, imports, layout."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Data flows one way: each module imports only from those above it.
ORDER = [
    *("settings", "files", "table", "devices", "datasets", "manifest", "archives", "packs", "adopt", "samplers"),
    *("photo_ops", "augment"),
    *("backbones", "aggregators", "model", "optimization", "checkpoints", "training", "descriptors", "search"),
    *("recall", "runs", "scenarios", "suggestions", "overlay", "locate", "published", "study", "text_tables"),
    *("figures", "page", "sections", "report", "tags", "browse", "thumbnails", "ground_map", "gallery_html"),
    *("gallery_page", "gallery_figures", "gallery_regions", "gallery_panels", "gallery"),
    *("exercises", "lab", "__main__"),
]
# Beside the core: only the command line and the notebooks' first call import it.
CITY = [
    *("camera", "scene", "light", "fronts", "facades", "sprites", "solids", "walls", "frame", "backdrop", "things"),
    *("drawing", "spots", "views", "render", "pretrain"),
]
# What the city takes from the core.
CITY_NEEDS = {"views": {"table"}, "render": {"files", "settings"}}
CITY_NEEDS["pretrain"] = {"checkpoints", "files", "runs", "settings"}


def test_environment_takes_its_packages_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert conda == [f"python{PYPROJECT['project']['requires-python']}", "pip"]
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]


def test_every_package_has_a_tested_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)  # names and versions only
    pinned = dict(line.lower().replace("_", "-").split("==") for line in lines)
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    assert extras["dev"][0] == "vpr_lib[lab]"
    for requirement in project["dependencies"] + extras["lab"] + extras["dev"][1:]:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()  # lower bounds only
        numbers = [[int(n) for n in version.split(".")[:3]] for version in (bound, pinned[name])]
        assert numbers[0] <= numbers[1], requirement


def imports_of(module):
    tree = ast.parse((ROOT / "vpr_lib" / f"{module}.py").read_text())
    return {n.module.removeprefix("vpr_lib.") for n in ast.walk(tree)
            if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("vpr_lib.")}  # fmt: skip


def test_modules_import_only_from_those_above_them():
    assert {p.stem for p in (ROOT / "vpr_lib").glob("*.py")} - {"__init__"} == set(ORDER)
    for number, module in enumerate(ORDER):
        city = {"city.render", "city.views"} if module in ("lab", "__main__") else set()
        assert imports_of(module) <= set(ORDER[:number]) | city, module
    assert {p.stem for p in (ROOT / "vpr_lib" / "city").glob("*.py")} - {"__init__"} == set(CITY)
    for number, module in enumerate(CITY):
        above = {f"city.{name}" for name in CITY[:number]}
        assert imports_of(f"city/{module}") <= above | CITY_NEEDS.get(module, set()), module


@pytest.mark.slow
def test_importing_does_no_work(tmp_path):
    script = f"""
import builtins, sys, torch, numpy, random, os, warnings
import pytorch_metric_learning.losses, faiss, scipy.spatial, scipy.stats, torchvision, tqdm.auto, PIL.Image, cv2
import matplotlib.figure, IPython.display
before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), dict(os.environ), random.getstate()
def refuse(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir") or (writes and "__pycache__" not in str(args[0])):
        raise RuntimeError(f"{{event}} {{args}} at import")
sys.addaudithook(refuse)
for module in {[*ORDER, *(f"city.{name}" for name in CITY)]!r}:
    __import__("vpr_lib." + module)
after = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), dict(os.environ), random.getstate()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


def test_imagenet_constants_live_once():
    holders = [p.name for p in (ROOT / "vpr_lib").glob("*.py") if "0.485" in p.read_text()]
    assert holders == ["datasets.py"]


def test_checkpoints_are_loaded_weights_only():
    for path in (ROOT / "vpr_lib").rglob("*.py"):
        for call in re.findall(r"torch\.load\([^\n]*", path.read_text()):
            assert "weights_only=True" in call, path


@pytest.mark.parametrize("page", ["README.md", "vpr_lib/city/weights/README.md"])
def test_pages_link_to_what_is_there(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
    assert not re.findall(r"\b(?:TODO|TBD|DEMO_\w+|STARTER|CARD|GAIN|STEPS|LOSS)\b", text)


def test_the_city_command_does_without_torch():
    """It then fits into a small machine's memory, and starts at once."""
    script = "import sys, vpr_lib.__main__, vpr_lib.city.render; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
