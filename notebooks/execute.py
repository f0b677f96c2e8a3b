"""Run the notebooks from top to bottom, each in a kernel of its own, and keep their outputs.

python notebooks/execute.py                    all six with preset mini, saved in place
python notebooks/execute.py --preset smoke --out DIR 01 05     two of them, saved elsewhere
"""

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from vpr_lib.atomic_files import write_atomically

FOLDER = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def hash_code(notebook: nbformat.NotebookNode) -> str:
    """16 hex digits that change with any code cell; the kit's address, which `make address` sets, doesn't matter."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    sources[:1] = [
        re.sub("^KIT = .*", "", source, flags=re.MULTILINE) for source in sources[:1]
    ]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def run(notebook: nbformat.NotebookNode, preset: str, cwd: Path = FOLDER, **env: str) -> None:
    """Run a notebook's cells, which then hold their outputs; what the outputs are of is noted in its metadata.

    Raises:
        CellExecutionError: a cell failed.
    """
    # Saved progress bars would say nothing.
    env = dict(os.environ, VPR_PRESET=preset, TQDM_DISABLE="1") | env
    start = time.monotonic()
    resources = {"metadata": {"path": str(cwd)}}
    options = {"timeout": 3600, "extra_arguments": ["--log-level=ERROR"]}
    NotebookClient(notebook, resources=resources, **options).execute(env=env)
    for cell in notebook.cells:
        # Times of day would make every run a change.
        cell.metadata.pop("execution", None)
        # A widget without its kernel is an error message, and its text as long as its photos.
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
    notebook.metadata.pop("widgets", None)
    seconds = round(time.monotonic() - start)
    notebook.metadata["vpr"] = {
        "preset": preset,
        "code": hash_code(notebook),
        "seconds": seconds,
    }


def main() -> int:
    """Run those named, or all; returns the exit status."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("names", nargs="*", help="how their file names begin: 01 05 (all)")
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where they go (in place)")
    options = parser.parse_args()
    begins = tuple(options.names) or "0"
    paths = [p for p in sorted(FOLDER.glob("0*.ipynb")) if p.name.startswith(begins)]
    options.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        print(f"{path.name}: ", end="", flush=True)
        notebook = nbformat.read(path, as_version=4)
        try:
            run(notebook, options.preset)
        except CellExecutionError as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        data = (nbformat.writes(notebook) + "\n").encode()
        write_atomically(options.out / path.name, data)
        print(f"{notebook.metadata['vpr']['seconds']} s, {len(data) / 1e6:.2f} MB")
    return 0 if paths else 2


if __name__ == "__main__":
    sys.exit(main())
