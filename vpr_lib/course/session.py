"""A preset's name -> all that a notebook needs: settings, photos, where runs and figures are kept.

Nothing in a notebook is a path. Environment variables say where things are, for those who want them elsewhere:
VPR_PRESET (which preset), VPR_DATA (the data root), VPR_KEEP (the folder of runs/ and reports/: in Colab, on Drive).
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Image, Markdown
from matplotlib.figure import Figure

from vpr_lib.data_roots import find_splits
from vpr_lib.devices import choose_device
from vpr_lib.evaluation import Evaluation, evaluate_run
from vpr_lib.figures.plots import save_figure
from vpr_lib.figures.tables import Rows, format_markdown
from vpr_lib.machine import Machine
from vpr_lib.prepare.packs import copy_packs
from vpr_lib.run_folders import Run
from vpr_lib.runs import get_run
from vpr_lib.settings import Settings, get_preset

# Presets on photos that can be rendered here, with what differs from `CitySettings`. The tests' city takes seconds.
CITIES: dict[str, dict[str, int]] = {
    "mini": {},
    "smoke": {
        "size": 96,
        "places": 24,
        "photos_per_place": 4,
        **{"val_database": 40, "val_queries": 24, "test_database": 40, "test_queries": 24},
        **{"tokyo_database": 40, "tokyo_places": 8},
    },
}


@dataclass(frozen=True)
class Session:
    """Where one preset's work is done."""

    preset: str
    settings: Settings  # of the preset: what the notebook varies
    data_root: Path
    runs_dir: Path
    reports_dir: Path  # figures go here
    machine: Machine

    @property
    def splits(self) -> list[str]:
        """The evaluation splits; the validation split, on which choices are made, comes first."""
        return sorted(find_splits(self.data_root), key=lambda split: (not split.endswith("val"), split))

    def train(self, variants: Mapping[str, Settings]) -> dict[str, Run]:
        """Train one run for each settings, or read it if it is there; a line for each says where it is.

        Args:
            variants: {label: settings}.

        Returns:
            {label: complete run}.

        Raises:
            KeyboardInterrupt: a training was stopped; what it reached is saved, and the same cell goes on from there.
        """
        runs = {}
        for label, settings in variants.items():
            run = get_run(settings, self.data_root, self.runs_dir, machine=self.machine)
            if not run.complete:
                raise KeyboardInterrupt(f"{label} was stopped; run the cell again and it goes on from there")
            last = run.history[-1]
            print(f"{label}: {len(run.history)} epochs, last loss {last['loss']:.3f}, runs/{run.folder.name}")
            runs[label] = run
        return runs

    def evaluate(self, runs: Mapping[str, Run], split: str) -> dict[str, Evaluation]:
        """What each run finds on a split; kept in its folder and read the next time.

        Returns:
            {label: evaluation}, in the order of the runs.
        """
        return {label: evaluate_run(run, self.data_root, split, self.machine) for label, run in runs.items()}

    def show(self, figure: Figure, name: str, alt: str) -> Image:
        """Save a figure under the preset's reports and show the saved file, as a cell's last value.

        Args:
            figure: of matplotlib; one made with pyplot is closed, else the notebook would show it twice.
            name: of the file; with `.jpg` for one of photos, which is a tenth of the size, else PNG.
            alt: what is to be seen, for who can't see it.
        """
        path = self.reports_dir / (name if "." in name else f"{name}.png")
        save_figure(figure, path)
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close(figure)
        return Image(data=path.read_bytes(), width=round(100 * figure.get_figwidth()), metadata={"alt": alt})


def open_session(preset: str | None = None, machine: Machine | None = None) -> Session:
    """Find or make what a preset needs.

    Args:
        preset: a name in `settings.PRESETS`; None takes VPR_PRESET, or mini.
        machine: device, workers, progress bars.

    Returns:
        The lab. A rendered city that isn't there yet is rendered; packs kept on Drive are copied to the local disk.

    Raises:
        ValueError: no such preset.
        FileNotFoundError: its photos aren't there; the message holds the command that gets them.
    """
    preset = preset or os.environ.get("VPR_PRESET") or "mini"
    settings = get_preset(preset)
    # Saved outputs hold no bars: they would only say "loading".
    machine = machine or Machine(progress="TQDM_DISABLE" not in os.environ)
    home = find_home()
    keep = Path(os.environ.get("VPR_KEEP") or home)
    data_root = Path(os.environ.get("VPR_DATA") or home / "data" / preset)
    if preset in CITIES and (not data_root.is_dir() or (data_root / "city.json").is_file()):
        render_city(preset, data_root, machine.progress)
    elif not data_root.is_dir():
        find_photos(preset, data_root, keep)
    lab = Session(preset, settings, data_root, keep / "runs", keep / "reports" / preset, machine)
    print(f"preset {preset} on {choose_device(lab.machine.device).type}; splits: {', '.join(lab.splits)}")
    return lab


def find_home() -> Path:
    """The checkout the library is in; the working folder if it was installed without one."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def render_city(preset: str, data_root: Path, progress: bool) -> None:
    """Render the photos of a preset, or what is missing of them."""
    from vpr_lib.city.render import write_city  # the city stays beside the core
    from vpr_lib.city.views import CitySettings

    if not data_root.is_dir():
        print(f"rendering the city of preset {preset}, once (mini: 1 to 3 minutes)", flush=True)
    write_city(data_root, CitySettings(**CITIES[preset]), progress=progress)


def find_photos(preset: str, data_root: Path, keep: Path) -> None:
    """Copy the packs of a data root from where runs are kept.

    Raises:
        FileNotFoundError: there are none; the message says what to do.
    """
    packs = keep / preset
    if list(packs.glob("*.zip")):
        copy_packs(packs, data_root)
    elif preset == "xs":
        raise FileNotFoundError("no real photos yet; in the kit's folder run: ./data_download.sh xs")
    else:
        raise FileNotFoundError(f"no photos of preset {preset} yet; set VPR_DATA to the folder of a data root")


def show_table(rows: Rows) -> Markdown:
    """A table as a cell's last value; the first row is the head."""
    return Markdown(format_markdown(rows))
