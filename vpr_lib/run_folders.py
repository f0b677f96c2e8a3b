"""A run folder: what a training leaves behind.

<folder>/settings.json     settings, photos, code and versions
         checkpoint.pt     the state of the training
         model.pt          the kept weights and the history; it exists once the run is complete
         history.csv       a row for each epoch, to be read by people and other programs
         predictions/      results of `evaluate_run`, a file for each split
"""

import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from vpr_lib.aggregators import AGGREGATORS
from vpr_lib.backbones import Backbone
from vpr_lib.checked_files import hash_text, read_json
from vpr_lib.checkpoints import load_checkpoint
from vpr_lib.identity import hash_code, hash_module
from vpr_lib.models import VPRModel, load_model, read_model
from vpr_lib.options import list_changes
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
        if self.complete:
            return read_model(self.folder / "model.pt")["history"]
        checkpoint = load_checkpoint(self.folder)
        return checkpoint["progress"]["history"] if checkpoint else []

    @functools.cached_property
    def model_hash(self) -> str:
        """16 hex digits that change with the weights in `model.pt` and with the code that computes descriptors."""
        weights = hashlib.sha256(self._find_model().read_bytes()).hexdigest()
        return hash_text(f"{weights} {hash_model_code(self.settings, self.aggregator)}")

    def load_model(self) -> VPRModel:
        """The trained model, in eval mode on the CPU.

        Raises:
            ValueError: the code or arguments of its aggregator have changed, the file is damaged, or was trained with
                other settings than the run's.
        """
        path = self._find_model()
        if read_run_file(self.folder).get("code") != hash_model_code(self.settings, self.aggregator):
            raise ValueError(
                f"{self.folder} was trained with another version of {self.settings.aggregator}'s code or arguments; "
                "train it again, or pass the same instance: open_run(folder, aggregator=...)"
            )
        model, settings = load_model(path, self.aggregator)
        if changes := list_changes(settings.to_dict(), self.settings.to_dict()):
            raise ValueError(f"{path} was trained with other settings: {'; '.join(changes)}")
        return model

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
    return read_json(path, f"restore it, or remove {folder} and train again")


def has_weights(folder: Path) -> bool:
    """Whether a run folder holds a model or a checkpoint."""
    return any(folder.glob("*.pt"))


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time train in a folder; for a second one, a BlockingIOError says which one does."""
    owner = folder / "training.txt"
    lock = FileLock(folder / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.is_file() else "another process"
        advice = "wait until it ends, or stop it; the same call then continues"
        raise BlockingIOError(f"{folder} is being trained by {who}; {advice}") from None
    except NotImplementedError:  # a disk without locks
        pass
    try:
        who = f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M}"
        owner.write_text(who, encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def hash_model_code(settings: Settings, aggregator: nn.Module | None) -> str:
    """16 hex digits that change with the code of backbone and aggregator, and with an instance's arguments."""
    code = hash_module(aggregator) if aggregator is not None else ""
    if aggregator is None and settings.aggregator in AGGREGATORS:
        code = hash_code(AGGREGATORS[settings.aggregator])
    return hash_text(f"{hash_code(Backbone)} {hash_code(VPRModel)} {code}")
