"""Run the notebooks from top to bottom, each in a kernel of its own, and keep their outputs.

python notebooks/execute.py                    all five with preset mini, saved in place
python notebooks/execute.py --preset smoke --out DIR 01 05     two of them, saved elsewhere
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def hash_code(notebook: nbformat.NotebookNode) -> str:
    """16 hex digits that change with any code cell."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def run(notebook: nbformat.NotebookNode, preset: str, cwd: Path = FOLDER, **env: str) -> None:
    """Run a notebook's cells, which then hold their outputs; what the outputs are of is noted in its metadata.

    Raises:
        CellExecutionError: a cell failed.
    """
    env = (
        dict(os.environ, VPR_PRESET=preset, TQDM_DISABLE="1") | env
    )  # saved bars would say nothing
    start = time.monotonic()
    resources = {"metadata": {"path": str(cwd)}}
    NotebookClient(
        notebook, timeout=3600, resources=resources, extra_arguments=["--log-level=ERROR"]
    ).execute(env=env)
    for cell in notebook.cells:
        cell.metadata.pop(
            "execution", None
        )  # times of day, which would make every run a change
        # A widget without its kernel is an error message, and its text as long as its photos.
        outputs = [o for o in cell.get("outputs", []) if WIDGET not in o.get("data", {})]
        cell.update({"outputs": outputs} if "outputs" in cell else {})
    notebook.metadata.pop("widgets", None)
    seconds = round(time.monotonic() - start)
    notebook.metadata["vpr"] = {
        "preset": preset,
        "code": hash_code(notebook),
        "seconds": seconds,
    }


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    path.with_suffix(".tmp").replace(path)


def main() -> int:
    """Run those named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="how their file names begin: 01 05 (all)"
    )
    parser.add_argument("--preset", default="mini")
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help="where they are saved (in place)",
    )
    options = parser.parse_args()
    paths = [
        p
        for p in sorted(FOLDER.glob("0*.ipynb"))
        if p.name.startswith(tuple(options.names) or "0")
    ]
    for path in paths:
        print(f"{path.name}: ", end="", flush=True)
        notebook = nbformat.read(path, as_version=4)
        try:
            run(notebook, options.preset)
        except CellExecutionError as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        save(notebook, options.out / path.name)
        print(
            f"{notebook.metadata['vpr']['seconds']} s, {(options.out / path.name).stat().st_size / 1e6:.2f} MB"
        )
    return 0 if paths else 2


if __name__ == "__main__":
    sys.exit(main())
