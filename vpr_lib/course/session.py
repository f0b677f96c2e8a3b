"""A preset's name -> what a notebook works with: settings, photos, and folders for runs and figures.

Notebooks contain no paths; environment variables change the defaults: VPR_PRESET (the preset), VPR_DATA (the data
root), VPR_KEEP (the folder of runs/ and reports/), VPR_DRIVE ("1" mounts Google Drive in Colab, and keeps them there).
"""

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from IPython.display import HTML, Image, Markdown
from matplotlib import pyplot
from matplotlib.figure import Figure

from vpr_lib.city import CitySettings, write_city
from vpr_lib.data_roots import DataRoot, is_validation
from vpr_lib.devices import choose_device
from vpr_lib.evaluation import Evaluation, evaluate_all
from vpr_lib.figures.live_curves import LiveCurves
from vpr_lib.figures.plots import save_figure
from vpr_lib.figures.tables import Rows, format_markdown
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.prepare.packs import copy_packs
from vpr_lib.run_folders import Run
from vpr_lib.runs import train_all
from vpr_lib.settings import Settings, get_preset

# Presets whose photos are rendered, with the fields of `CitySettings` that differ from its defaults.
CITIES: dict[str, dict[str, int]] = {
    "mini": {},
    "smoke": {  # rendered in seconds, for the tests
        "size": 96, "places": 24, "photos_per_place": 4, "val_database": 40, "val_queries": 24,
        "test_database": 40, "test_queries": 24, "tokyo_database": 40, "tokyo_places": 8,
    },
}  # fmt: skip
STRANGERS = {  # another city, as small as it may be but for the queries
    "seed": 1, "cities": 1, "places": 2, "photos_per_place": 2, "val_database": 32, "val_queries": 6,
    "test_database": 32, "test_queries": 100, "tokyo_database": 32, "tokyo_places": 1,
}  # fmt: skip
NUM_STRANGERS = 100


class DescribedImage(Image):
    """An image with alternative text that screen readers find in JupyterLab and in exported HTML.

    Both ignore `metadata["alt"]`, so the image is there as HTML, too.
    """

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(include, exclude)
        ((kind, content),) = data.items()
        alt = html.escape(self.metadata["alt"])
        text = f'<img src="data:{kind};base64,{content}" width="{self.width}" alt="{alt}">'
        return {**data, "text/html": text}, metadata


@dataclass(frozen=True)
class Session:
    """One preset with its photos and folders."""

    preset: str
    settings: Settings  # of the preset; notebooks vary them
    data_root: DataRoot
    runs_dir: Path
    reports_dir: Path  # of the figures
    machine: Machine

    @property
    def splits(self) -> list[str]:
        """Names of the evaluation splits, validation splits first."""
        return self.data_root.splits

    @property
    def validation(self) -> str:
        """Name of the split on which thresholds are chosen."""
        return self.splits[0]

    @property
    def tests(self) -> list[str]:
        """Names of the test splits; the validation split if there is no other."""
        return [split for split in self.splits if not is_validation(split)] or [self.validation]

    def train(self, variants: Mapping[str, Settings]) -> dict[str, Run]:
        """Train a run for each {label: settings}, or open the saved one; prints one line for each.

        While a run is trained, a notebook shows curves of its loss and recall.

        Raises:
            KeyboardInterrupt: a training was stopped. Running the cell again resumes it.
        """
        with LiveCurves(self.machine.progress) as curves:
            runs = train_all(variants, self.data_root, self.runs_dir, self.machine, on_batch=curves)
        for label, run in runs.items():
            if not run.complete:
                raise KeyboardInterrupt(f"the training of {label} was stopped; run the cell again to resume it")
            loss = run.history[-1]["loss"]
            print(f"{label}: {len(run.history)} epochs, last loss {loss:.3f}, runs/{run.folder.name}")
        return runs

    def evaluate(self, runs: Mapping[str, Run], split: str) -> dict[str, Evaluation]:
        """Evaluate runs on a split, or read the saved results: {label: evaluation}."""
        return evaluate_all(runs, self.data_root, split, self.machine)

    def read_strangers(self) -> ImageTable:
        """100 photos of places that are in no evaluation split: of another rendered city, or of the training places.

        The city is rendered once, into a folder beside the data root.
        """
        if self.preset not in CITIES or not (self.data_root.folder / "city.json").is_file():
            chosen = np.random.default_rng(0).permutation(len(self.data_root.train))[:NUM_STRANGERS]
            return self.data_root.train[np.sort(chosen)]
        folder = self.data_root.folder.with_name(f"{self.data_root.folder.name}-strangers")
        size = CITIES[self.preset].get("size", CitySettings().size)
        write_city(folder, CitySettings(**STRANGERS, size=size), progress=self.machine.progress)
        return DataRoot(folder).read_split("sf_test").queries[:NUM_STRANGERS]

    def show(self, figure: Figure, name: str, alt: str) -> DescribedImage:
        """Save a figure in `reports_dir` and return the saved image, to be the last value of a cell.

        Args:
            figure: of matplotlib. One made with pyplot is closed, so that the notebook does not show it twice.
            name: file name without folder. Without suffix the file is a PNG; `.jpg` suits photos.
            alt: description of the figure for readers who cannot see it.
        """
        path = self.reports_dir / (name if "." in name else f"{name}.png")
        save_figure(figure, path)
        pyplot.close(figure)
        width = round(100 * figure.get_figwidth())
        return DescribedImage(data=path.read_bytes(), width=width, metadata={"alt": alt})

    def link(self, path: str | Path) -> HTML:
        """A link that downloads an exported file, to be the last value of a cell.

        JupyterLab serves files below the folder that it was started in; `make lab` starts it in the checkout, so
        everything in runs/ and reports/ can be downloaded. In Colab, use its file browser.

        Args:
            path: the file, such as `gallery.export_html` returns.
        """
        target = Path(os.path.relpath(path)).as_posix()  # the kernel works in the notebook's folder
        return HTML(f'<a href="{quote(target)}" download>Download {html.escape(Path(path).name)}</a>')


def open_session(preset: str | None = None, machine: Machine | None = None) -> Session:
    """Find the photos of a preset, by default VPR_PRESET or "mini", and choose the folders for its runs and figures.

    A city that is missing or incomplete is rendered. Packs in VPR_KEEP are copied to the local disk. With VPR_DRIVE=1,
    Google Drive is mounted first, and VPR_KEEP is a folder there unless it is set.

    Raises:
        ModuleNotFoundError: VPR_DRIVE=1 outside of Colab.
        ValueError: no such preset.
        FileNotFoundError: the photos are missing; the message says how to get them.
    """
    if os.environ.get("VPR_DRIVE") == "1":
        _mount_drive()
    preset = preset or os.environ.get("VPR_PRESET") or "mini"
    settings = get_preset(preset)
    # Saved notebooks are executed with TQDM_DISABLE: a saved progress bar would only say "loading".
    machine = machine or Machine(progress="TQDM_DISABLE" not in os.environ)
    home = Path(__file__).resolve().parents[2]  # the checkout
    if not (home / "pyproject.toml").is_file():
        home = Path.cwd()  # the library was installed without one
    keep = Path(os.environ.get("VPR_KEEP") or home)
    folder = Path(os.environ.get("VPR_DATA") or home / "data" / preset)
    if preset in CITIES and (not folder.is_dir() or (folder / "city.json").is_file()):
        if not folder.is_dir():
            print(f"rendering the city of preset {preset}, once (mini: about a minute)", flush=True)
        write_city(folder, CitySettings(**CITIES[preset]), progress=machine.progress)
    elif not folder.is_dir() and any((keep / preset).glob("*.zip")):
        copy_packs(keep / preset, folder)
    elif not folder.is_dir():
        hint = "set VPR_DATA to the folder of a data root"
        hint = "in the kit's folder run: ./data_download.sh xs" if preset == "xs" else hint
        raise FileNotFoundError(f"no photos of preset {preset} yet; {hint}")
    session = Session(preset, settings, DataRoot(folder), keep / "runs", keep / "reports" / preset, machine)
    print(f"preset {preset} on {choose_device(machine.device).type}; splits: {', '.join(session.splits)}")
    return session


def show_table(rows: Rows) -> Markdown:
    """A table to be the last value of a cell; the first row is the header."""
    return Markdown(format_markdown(rows))


def _mount_drive() -> None:
    """Mount Google Drive in Colab."""
    try:
        from google.colab import drive
    except ModuleNotFoundError:
        raise ModuleNotFoundError("VPR_DRIVE=1 mounts Google Drive, which only Colab can; set it to 0") from None
    drive.mount("/content/drive")
    os.environ.setdefault("VPR_KEEP", "/content/drive/MyDrive/vpr-course-kit")
