"""A run folder: what a training leaves behind.

<folder>/settings.json     settings, photos, code and versions
         history.csv       a row for each epoch
         model.pt          the kept weights; it exists once the run is complete
         predictions/      results of `evaluate_run`, a file for each split
"""

import csv
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vpr_lib.aggregators import AGGREGATORS
from vpr_lib.backbones import ResNet
from vpr_lib.identity import hash_code, hash_module, hash_text
from vpr_lib.models import VPRModel, load_model
from vpr_lib.settings import Settings


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    settings: Settings
    aggregator: nn.Module | None = None  # the instance it was trained with, if `AGGREGATORS` doesn't hold its class

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

    @functools.cached_property
    def model_hash(self) -> str:
        """16 hex digits that change with the weights in `model.pt` and with the code that computes descriptors."""
        weights = hashlib.sha256(self._find_model().read_bytes()).hexdigest()
        return hash_text(f"{weights} {hash_model_code(self.settings, self.aggregator)}")

    def load_model(self) -> VPRModel:
        """The trained model, in eval mode on the CPU; a ValueError if its code or arguments have changed."""
        path = self._find_model()
        if read_run_file(self.folder).get("code") != hash_model_code(self.settings, self.aggregator):
            raise ValueError(
                f"{self.folder} was trained with another version of {self.settings.aggregator}'s code or arguments; "
                "train it again, or pass the same instance: open_run(folder, aggregator=...)"
            )
        return load_model(path, self.aggregator)[0]

    def _find_model(self) -> Path:
        if not self.complete:
            raise FileNotFoundError(f"{self.folder} has no model.pt: its training hasn't ended; train it to the end")
        return self.folder / "model.pt"


def open_run(folder: str | Path, aggregator: nn.Module | None = None) -> Run:
    """Open an existing run folder; `aggregator` is the instance it was trained with, if any."""
    return Run(Path(folder), Settings.from_dict(read_run_file(Path(folder))["settings"]), aggregator)


def read_run_file(folder: Path) -> dict[str, Any]:
    """The content of a run's `settings.json`; raises FileNotFoundError if there is none."""
    path = folder / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"no run at {folder} (no settings.json); python -m vpr_lib train makes one")
    return json.loads(path.read_text(encoding="utf-8"))


def hash_model_code(settings: Settings, aggregator: nn.Module | None) -> str:
    """16 hex digits that change with the code of backbone and aggregator, and with an instance's arguments."""
    code = hash_module(aggregator) if aggregator is not None else ""
    if aggregator is None and settings.aggregator in AGGREGATORS:
        code = hash_code(AGGREGATORS[settings.aggregator])
    return hash_text(f"{hash_code(ResNet)} {hash_code(VPRModel)} {code}")
