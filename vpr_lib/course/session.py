"""A preset's name -> what a notebook works with: settings, photos, and folders for runs and figures.

Notebooks hold no paths. Environment variables change the defaults: VPR_PRESET (the preset), VPR_DATA (the data root),
VPR_KEEP (the folder of runs/ and reports/; in Colab, a folder on Drive).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Image, Markdown
from matplotlib import pyplot
from matplotlib.figure import Figure

from vpr_lib.data_roots import DataRoot
from vpr_lib.devices import choose_device
from vpr_lib.evaluation import Evaluation, evaluate_all
from vpr_lib.figures.plots import save_figure
from vpr_lib.figures.tables import Rows, format_markdown
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


@dataclass(frozen=True)
class Session:
    """One preset with its photos and folders.

    Attributes:
        preset: its name.
        settings: of the preset; notebooks vary them.
        data_root: the photos.
        runs_dir: folder of the run folders.
        reports_dir: folder of the figures.
        machine: device, workers, progress bars.
    """

    preset: str
    settings: Settings
    data_root: DataRoot
    runs_dir: Path
    reports_dir: Path
    machine: Machine

    @property
    def splits(self) -> list[str]:
        """Names of the evaluation splits, validation splits first."""
        return self.data_root.splits

    def train(self, variants: Mapping[str, Settings]) -> dict[str, Run]:
        """Train a run for each settings, or open the saved one; prints one line for each.

        Args:
            variants: {label: settings}.

        Returns:
            {label: complete run}.

        Raises:
            KeyboardInterrupt: a training was stopped. Running the cell again resumes it.
        """
        runs = train_all(variants, self.data_root, self.runs_dir, self.machine)
        for label, run in runs.items():
            if not run.complete:
                raise KeyboardInterrupt(f"the training of {label} was stopped; run the cell again to resume it")
            print(
                f"{label}: {len(run.history)} epochs, last loss {run.history[-1]['loss']:.3f}, runs/{run.folder.name}"
            )
        return runs

    def evaluate(self, runs: Mapping[str, Run], split: str) -> dict[str, Evaluation]:
        """Evaluate runs on a split, or read the saved results: {label: evaluation}."""
        return evaluate_all(runs, self.data_root, split, self.machine)

    def show(self, figure: Figure, name: str, alt: str) -> Image:
        """Save a figure in `reports_dir` and return the saved image, to be the last value of a cell.

        Args:
            figure: of matplotlib. One made with pyplot is closed, so that the notebook does not show it twice.
            name: file name without folder. Without suffix the file is a PNG; `.jpg` suits photos.
            alt: description of the figure for readers who cannot see it.
        """
        path = self.reports_dir / (name if "." in name else f"{name}.png")
        save_figure(figure, path)
        pyplot.close(figure)
        return Image(data=path.read_bytes(), width=round(100 * figure.get_figwidth()), metadata={"alt": alt})


def open_session(preset: str | None = None, machine: Machine | None = None) -> Session:
    """Find or render the photos of a preset, and choose the folders for its runs and figures.

    A city that is not there yet is rendered. Packs in VPR_KEEP are copied to the local disk.

    Args:
        preset: a name in `settings.PRESETS`; default: VPR_PRESET, or "mini".
        machine: device, workers, progress bars.

    Raises:
        ValueError: no such preset.
        FileNotFoundError: the photos are not there; the message says how to get them.
    """
    preset = preset or os.environ.get("VPR_PRESET") or "mini"
    settings = get_preset(preset)
    # Saved notebooks are executed with TQDM_DISABLE: a saved progress bar would only say "loading".
    machine = machine or Machine(progress="TQDM_DISABLE" not in os.environ)
    home = _find_home()
    keep = Path(os.environ.get("VPR_KEEP") or home)
    folder = Path(os.environ.get("VPR_DATA") or home / "data" / preset)
    if preset in CITIES and (not folder.is_dir() or (folder / "city.json").is_file()):
        _render_city(preset, folder, machine.progress)
    elif not folder.is_dir():
        _copy_kept_packs(preset, folder, keep)
    session = Session(preset, settings, DataRoot(folder), keep / "runs", keep / "reports" / preset, machine)
    print(f"preset {preset} on {choose_device(machine.device).type}; splits: {', '.join(session.splits)}")
    return session


def show_table(rows: Rows) -> Markdown:
    """A table to be the last value of a cell; the first row is the header."""
    return Markdown(format_markdown(rows))


def _find_home() -> Path:
    """The checkout that holds the library, or the working folder if the library was installed without one."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def _render_city(preset: str, folder: Path, progress: bool) -> None:
    """Render the photos of a preset that are missing."""
    from vpr_lib.city import CitySettings, write_city  # only these presets need the city

    if not folder.is_dir():
        print(f"rendering the city of preset {preset}, once (mini: 1 to 3 minutes)", flush=True)
    write_city(folder, CitySettings(**CITIES[preset]), progress=progress)


def _copy_kept_packs(preset: str, folder: Path, keep: Path) -> None:
    """Copy the packs of a data root from `<keep>/<preset>`; raise FileNotFoundError if there are none."""
    packs = keep / preset
    if list(packs.glob("*.zip")):
        copy_packs(packs, folder)
    elif preset == "xs":
        raise FileNotFoundError("no real photos yet; in the kit's folder run: ./data_download.sh xs")
    else:
        raise FileNotFoundError(f"no photos of preset {preset} yet; set VPR_DATA to the folder of a data root")
