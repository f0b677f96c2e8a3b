"""The commands and Python snippets of README.md and docs/: each is run on small photos, or listed below.

A block without a language, or in bash, holds commands; a block in text holds none. Commands within sentences, as in
`make demo`, are checked for their names and options.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_root, photo_name, write_photo
from PIL import ExifTags, Image

from vpr_lib.command_line.parser import main, make_parser
from vpr_lib.settings import PRESETS, get_preset
from vpr_lib.study.published import CITATION, CODE

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

TINY = replace(get_preset("smoke"), image_size=32, num_places=3, crop_after="layer1", epochs=1, ks=(1, 5, 10))
# What a reader has -> what is used here. The photos of all data roots are made up, see `make_root`.
SUBSTITUTIONS = {
    "preset mini": TINY,
    "preset photos": TINY,
    "preset xs": TINY,
    "data/mini": "folder",  # so no city is rendered
    "pack folder/": "pack spare/",  # a pack beside its folder would make other runs of the pages after it
}
# {page: what its snippets continue}
BEFORE = {
    "docs/scale.md": """
from dataclasses import replace

import vpr_lib
from vpr_lib.machine import Machine

settings = replace(vpr_lib.get_preset("xs"), seed=1)
"""
}

# {part of a command: why it is parsed only}
PARSED_ONLY = {
    "torchrun": "starts several processes, or needs several GPUs or SLURM",
    "data/xs": "needs the real sets",
    "sf_photos": "needs the real photos",
    "vpr_lib city": "renders 3,500 photos; tests/city renders fewer",
    "vpr_lib report": "trains twelve runs; tests/study runs it",
}
# {start of a command that isn't the kit's: why it isn't run}
NOT_RUN = {
    "./data_download.sh": "needs a network; tests/prepare/test_download.py runs it on local archives",
    "conda ": "needs conda and a network",
    "pip ": "needs a network",
    ".venv/bin/uv pip ": "needs a network",
    ". .venv/bin/activate": "activates an environment",
    "source .venv/bin/activate": "the same",
    "cd handout": "is the folder of the commands that follow",
    "nbgrader ": "needs nbgrader; tests/course/test_handout.py runs it where it is installed",
    "first=$(scontrol ": "needs SLURM",
}
# What a command within a sentence may lack.
COMPLETIONS = {
    "train": ["--data", "folder", "--out", "run"],
    "evaluate": ["--run", "run", "--data", "folder", "--split", "val"],
    "city": ["--out", "root"],
    "report": ["--data", "folder"],
}


def read_blocks(page):
    """[(language, text)] of a page's fenced blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def list_commands(block):
    """Commands of a block: lines without comments, joined where they end in a backslash, with single spaces."""
    lines = [" ".join(line.split()) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def list_inline_commands(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if span.startswith(("python ", "make ", "torchrun ", "pip ", "conda ", "./", ". "))]


def read_arguments(command):
    """What the kit's command line gets from a command, or None if another program is started."""
    words = shlex.split(command, comments=True)
    return words[words.index("vpr_lib") + 1 :] if "-m vpr_lib" in command else None


def check_other_program(command):
    """A target of the Makefile, a script of the repository, or a program that is listed."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), command
    else:
        assert command.startswith(tuple(NOT_RUN)), f"{command!r} is neither run nor listed"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader's folder, as the present one: photos with splits val and sf_test, photos of a phone, a trained run."""
    place = tmp_path_factory.mktemp("reader")
    root = make_root(place / "folder")
    write_photo(root / "val" / "queries" / photo_name(9e5, 4e6), 1)  # has no positive
    shutil.copytree(root / "val", root / "sf_test")
    shutil.copytree(root, place / "spare")
    shutil.copytree(root / "val", place / "spare" / "sf_val")
    shutil.copytree(root, place / "data" / "xs")
    for name, seconds in (("holiday", 0.1), ("archive", 0.0)):
        (place / name).mkdir()
        for number, photo in enumerate(sorted((root / "val" / "database").glob("*.jpg"))):
            exif = Image.Exif()
            exif[ExifTags.IFD.GPSInfo] = {
                ExifTags.GPS.GPSLatitude: (37, number, seconds), ExifTags.GPS.GPSLatitudeRef: "N",
                ExifTags.GPS.GPSLongitude: (122, 25, 0.0), ExifTags.GPS.GPSLongitudeRef: "W",
            }  # fmt: skip
            Image.open(photo).save(place / name / f"IMG_{number}.jpg", exif=exif, quality=80 if seconds else 90)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("TQDM_DISABLE", "1")
        patch.setenv("VPR_DATA", SUBSTITUTIONS["data/mini"])
        patch.setenv("VPR_KEEP", str(place))
        for preset in ("mini", "photos", "xs"):
            patch.setitem(PRESETS, preset, SUBSTITUTIONS[f"preset {preset}"])
        # The pages speak of runs/my_run.
        train = "train --data folder --out runs/my_run --preset photos --aggregator ConvAP"
        run_command(train.split())
        yield place


def run_command(arguments):
    with warnings.catch_warnings():  # the command line prints them
        assert main(arguments) == 0, arguments


def run_python(reader, code):
    """Run code as a module of its own file, so that the source of its classes is found."""
    file = reader / "snippets.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("snippets", file)
    module = sys.modules["snippets"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["snippets"]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if read_blocks(page)])
def test_commands_and_snippets_work(page, reader):
    snippets = [BEFORE.get(page, "")]
    for language, block in read_blocks(page):
        assert language in ("", "bash", "text", "python"), f"nothing runs blocks in {language}"
        snippets += [block] if language == "python" else []
        for command in list_commands(block) if language in ("", "bash") else ():
            arguments = read_arguments(command.replace("pack folder/", SUBSTITUTIONS["pack folder/"]))
            if arguments is None:
                check_other_program(command)
                continue
            make_parser().parse_args(arguments)
            if not any(part in command for part in PARSED_ONLY):
                run_command(arguments)
    run_python(reader, "\n\n".join(snippets))


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist(page):
    for command in list_inline_commands(page):
        arguments = read_arguments(command)
        if arguments is None:
            check_other_program(command)
        elif arguments:
            make_parser().parse_args([*arguments, *COMPLETIONS.get(arguments[0], [])])


def test_the_makefile_calls_commands_that_exist():
    for arguments in (["demo"], ["demo", "DATA=folder"]):
        done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
        commands = [line for line in done.stdout.splitlines() if "-m vpr_lib" in line]
        assert commands
        for command in commands:
            make_parser().parse_args(read_arguments(command))


def test_lists_hold_nothing_that_no_page_needs():
    blocks = [block for page in PAGES for language, block in read_blocks(page) if language in ("", "bash")]
    commands = [command for block in blocks for command in list_commands(block)]
    commands += [command for page in PAGES for command in list_inline_commands(page)]
    for part in (*PARSED_ONLY, *NOT_RUN):
        assert any(part in command for command in commands), part
    assert set(BEFORE) <= set(PAGES)


def test_the_readme_begins_with_the_study_it_repeats():
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n- ")[0]
    assert CITATION in " ".join(text.split()) and CODE in text
