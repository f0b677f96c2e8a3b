"""The kit's address: none by default, and everywhere the same once it is set."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks"))
from address import set_address  # noqa: E402

NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))
FILES = ["README.md", "pyproject.toml", *(f"notebooks/{name}" for name in NAMES)]


@pytest.fixture
def kit(tmp_path):
    """A copy of the files that hold the address, without one."""
    (tmp_path / "notebooks").mkdir()
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path / file)
    set_address("", tmp_path)
    return tmp_path


def read(kit, file):
    return (kit / file).read_text(encoding="utf-8")


def read_addresses(kit):
    """What the notebooks' first cells and pyproject.toml say."""
    first = [nbformat.reads(read(kit, f"notebooks/{name}"), as_version=4).cells[1].source for name in NAMES]
    found = {re.search(r'"VPR_KIT", "([^"]*)"', source)[1] for source in first}
    return found | {tomllib.loads(read(kit, "pyproject.toml"))["project"]["urls"].get("Repository", "")}


def read_badges(kit):
    return re.findall(r"\]\((https://colab\.research\.google\.com/[^)]*)\)", read(kit, "README.md"))


def test_the_kit_as_it_is_has_one_address():
    (address,) = read_addresses(ROOT)
    assert len(read_badges(ROOT)) == (len(NAMES) if address else 0)


def test_without_an_address_no_link_leads_to_a_strangers_repository(kit):
    assert read_addresses(kit) == {""} and not read_badges(kit)
    colab = re.search(r"^## Colab\n(.*?)^## ", read(kit, "README.md"), re.DOTALL | re.MULTILINE)[1]
    assert "zip" in colab and "VPR_KIT" in colab and "http" not in colab
    assert all("github.com" not in nbformat.reads(read(kit, f), as_version=4).cells[1].source for f in FILES[2:])


def test_an_address_is_written_everywhere_and_can_be_removed(kit):
    before = {file: (kit / file).read_bytes() for file in FILES}
    for github in ("me/kit", "a-b/c.d_2"):  # a second one replaces the first
        set_address(github, kit)
        assert read_addresses(kit) == {f"https://github.com/{github}"}
        base = f"https://colab.research.google.com/github/{github}/blob/main/notebooks/"
        assert read_badges(kit) == [base + name for name in NAMES]
    assert len((kit / "README.md").read_bytes()) <= 10_000
    set_address("", kit)
    assert {file: (kit / file).read_bytes() for file in FILES} == before


def test_only_the_address_of_notebooks_changes(kit):
    before = [nbformat.reads(read(kit, file), as_version=4) for file in FILES[2:]]
    set_address("me/kit", kit)
    for old, file in zip(before, FILES[2:], strict=True):
        new = nbformat.reads(read(kit, file), as_version=4)
        assert new != old
        old.cells[1].source = new.cells[1].source
        assert new == old


@pytest.mark.parametrize("github", ["kit", "https://github.com/me/kit", "me/kit/", "me/k it"])
def test_what_is_no_address_is_an_error_and_changes_nothing(kit, github):
    before = {file: (kit / file).read_bytes() for file in FILES}
    with pytest.raises(ValueError, match=re.escape(github)):
        set_address(github, kit)
    assert {file: (kit / file).read_bytes() for file in FILES} == before
