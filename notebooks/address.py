"""Write the kit's address on GitHub into pyproject.toml, the notebooks' first cells and the README's part on Colab.

python notebooks/address.py owner/name        an empty argument removes the address
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT = """The kit has no public address yet. Open a notebook in Colab (File, Upload notebook), and upload a zip of the kit into the
folder that its file browser shows; `make handout` writes one. Or set `KIT` in the first cell (or `VPR_KIT`) to the address
of a git repository of yours that holds the kit."""


def replace_once(path: Path, pattern: str, new: str) -> None:
    """Replace the one match of a pattern in a file.

    Raises:
        ValueError: there are none or several.
    """
    text, count = re.subn(
        pattern, lambda _: new, path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"{path.name} has {count} matches of {pattern!r}; expected one")
    path.write_text(text, encoding="utf-8")


def set_address(github: str, root: Path = ROOT) -> None:
    """Set or remove the address of a kit.

    Args:
        github: owner/name, or "" for none.
        root: the kit's folder.

    Raises:
        ValueError: it isn't owner/name.
    """
    if github and not re.fullmatch(r"[\w.-]+/[\w.-]+", github):
        raise ValueError(f"{github!r} is no owner/name; run: make address GITHUB=owner/name")
    address = f"https://github.com/{github}" if github else ""
    notebooks = sorted((root / "notebooks").glob("0*.ipynb"))
    for path in notebooks:
        old = r'os\.environ\.get\(\\"VPR_KIT\\", \\"[^"]*\\"\)'
        replace_once(path, old, rf"os.environ.get(\"VPR_KIT\", \"{address}\")")
    line = f'Repository = "{address}"\n' if github else ""
    replace_once(
        root / "pyproject.toml",
        r"^\[project\.urls\]\n(Repository = .*?\n)?",
        f"[project.urls]\n{line}",
    )
    colab = f"https://colab.research.google.com/github/{github}/blob/main/notebooks"
    badges = [
        f"{p.name[:2]} [![Open in Colab](notebooks/pictures/colab.svg)]({colab}/{p.name})"
        for p in notebooks
    ]
    text = "\n".join(badges) if github else WITHOUT
    replace_once(
        root / "README.md",
        "<!-- address -->.*?<!-- /address -->",
        f"<!-- address -->\n{text}\n<!-- /address -->",
    )


def main() -> int:
    """Set the address; returns the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    set_address(sys.argv[1])
    print("Commit what has changed; the saved outputs of the notebooks stay valid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
