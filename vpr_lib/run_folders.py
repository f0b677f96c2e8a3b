"""TODO-DOC run_folders."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vpr_lib.identity import describe_module
from vpr_lib.models import VPRModel, load_model
from vpr_lib.settings import Settings


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    settings: Settings
    aggregator: nn.Module | None = None  # the instance it was trained with, if `AGGREGATORS` doesn't hold it

    @property
    def complete(self) -> bool:
        """Whether the training has ended and the weights are there."""
        return (self.folder / "model.pt").is_file()

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each finished epoch: epoch, loss, trivial_anchors, lr, photos_per_s, "<split> R@<k>"."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return []
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        return [{name: float(value) for name, value in row.items()} for row in rows]

    def load_model(self) -> VPRModel:
        """The trained model, in eval mode on the CPU.

        Raises:
            FileNotFoundError: the run isn't complete.
            ValueError: it was trained with another aggregator instance.
        """
        if not self.complete:
            raise FileNotFoundError(
                f"{self.folder} has no model.pt: its training hasn't ended; train it again to go on"
            )
        model = load_model(self.folder / "model.pt", self.aggregator)[0]
        trained = json.loads((self.folder / "settings.json").read_text()).get("aggregator")
        if trained is not None and trained != describe_module(model.aggregator):
            raise ValueError(
                f"{self.folder} was trained with an instance of {self.settings.aggregator} that differs from this one; "
                "pass one made as it was: open_run(folder, aggregator=...)"
            )
        return model


def open_run(folder: str | Path, aggregator: nn.Module | None = None) -> Run:
    """A run folder that is there.

    Raises:
        FileNotFoundError: it isn't one.
    """
    path = Path(folder) / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"no run at {folder} (no settings.json); python -m vpr_lib train makes one")
    return Run(Path(folder), Settings.from_dict(json.loads(path.read_text())["settings"]), aggregator)
