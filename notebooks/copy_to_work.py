"""Copy the notebooks into a folder to work in, so that updating the kit never meets a student's changes.

python notebooks/copy_to_work.py [--out work]

A copy that is there is never overwritten. If the kit has another version than was copied, it is added beside the copy.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def hash_sources(notebook: dict) -> str:
    """12 hex digits that change with any code or text cell, not with outputs."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:12]


def read_version(path: Path) -> str | None:
    """Of which version of the kit's notebook a file is a copy, whatever was changed in it; None if it doesn't say."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["vpr_copy_of"]
    except (ValueError, KeyError, TypeError):
        return None


def copy_notebook(source: Path, folder: Path) -> Path | None:
    """Copy a notebook unless the folder has a copy of this version.

    Args:
        source: the kit's notebook.
        folder: where the copies are.

    Returns:
        The file that was written, under a name that was free; None if there was nothing to do.
    """
    notebook = json.loads(source.read_text(encoding="utf-8"))
    version = hash_sources(notebook)
    copies = [folder / source.name, *folder.glob(f"{source.stem}_new*.ipynb")]
    if version in [read_version(path) for path in copies if path.exists()]:
        return None
    free = [folder / source.name, folder / f"{source.stem}_new.ipynb"]
    free += [
        folder / f"{source.stem}_new{number}.ipynb" for number in range(2, len(copies) + 2)
    ]
    target = next(path for path in free if not path.exists())
    notebook["metadata"]["vpr_copy_of"] = version
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return target


def main() -> int:
    """Copy all of them; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "work")
    folder = parser.parse_args().out
    for source in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        target = copy_notebook(source, folder)
        if target and target.name != source.name:
            print(
                f"The kit has a newer {source.name}: it is now {folder.name}/{target.name}; your copy is unchanged."
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
