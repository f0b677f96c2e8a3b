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
from vpr_lib.own_parts import AnyPart, make_part
from vpr_lib.settings import OWN, Settings


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    settings: Settings
    # The instances it was trained with; None: those that the settings name.
    aggregator: nn.Module | None = None
    backbone: nn.Module | None = None
    loss: nn.Module | None = None

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
        return hash_text(f"{weights} {self._hash_code()}")

    def load_model(self) -> VPRModel:
        """The trained model, in eval mode on the CPU.

        Raises:
            ValueError: the code or arguments of its backbone or aggregator have changed, the file is damaged, or was
                trained with other settings than the run's.
        """
        path = self._find_model()
        if read_run_file(self.folder).get("code") != self._hash_code():
            names = self.settings.aggregator
            names += f" or {self.settings.backbone}" if self.backbone is not None else ""
            raise ValueError(
                f"{self.folder} was trained with another version of {names}, in code or arguments; train it again, or "
                "pass what it was trained with: open_run(folder, aggregator=..., backbone=...)"
            )
        model, settings = load_model(path, self.aggregator, self.backbone)
        if changes := list_changes(settings.to_dict(), self.settings.to_dict()):
            raise ValueError(f"{path} was trained with other settings: {'; '.join(changes)}")
        return model

    def _hash_code(self) -> str:
        return hash_model_code(self.settings, self.aggregator, self.backbone)

    def _find_model(self) -> Path:
        if not self.complete:
            raise FileNotFoundError(f"{self.folder} has no model.pt: its training hasn't ended; train it to the end")
        return self.folder / "model.pt"


def open_run(folder: str | Path, aggregator: AnyPart = None, backbone: AnyPart = None, loss: AnyPart = None) -> Run:
    """Open an existing run folder.

    Args:
        folder: of the run.
        aggregator, backbone, loss: what was passed to `get_run` when it was trained. A loss may be left out, as the
            model can be loaded without it.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: it was trained with an aggregator or backbone of one's own and this is not passed, or a part is
            passed and the run was trained with one of the kit; the message says what to pass.
    """
    folder = Path(folder)
    saved = read_run_file(folder)
    settings = Settings.from_dict(saved["settings"])
    parts = {"aggregator": aggregator, "backbone": backbone, "loss": loss}
    _check_parts(folder, saved, parts)
    return Run(folder, settings, *(make_part(what, part, settings.seed) for what, part in parts.items()))


def _check_parts(folder: Path, saved: dict[str, Any], parts: dict[str, AnyPart]) -> None:
    """Raise a ValueError that says what to pass, unless all parts of one's own that a run needs are there."""
    own = {what: saved["settings"][what].removeprefix(OWN) for what in parts if f"{what}_weights" in saved}
    if missing := [what for what in own if parts[what] is None and what != "loss"]:
        names = " and ".join(f"the {what} {own[what]}" for what in missing)
        arguments = "".join(f", {what}={own[what]}" for what in missing)
        raise ValueError(
            f"{folder} was trained with {names} of a notebook or script, which the kit doesn't know; define it here as "
            f"it was, and pass it as it was passed to get_run, for example open_run({str(folder)!r}{arguments})"
        )
    for what, part in parts.items():
        if part is not None and what not in own:
            raise ValueError(f"{folder} was trained with the kit's {saved['settings'][what]}; leave out {what}=...")


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


def hash_model_code(settings: Settings, aggregator: nn.Module | None, backbone: nn.Module | None = None) -> str:
    """16 hex digits that change with the code of backbone and aggregator, and with an instance's arguments."""
    code = hash_module(aggregator) if aggregator is not None else ""
    if aggregator is None and settings.aggregator in AGGREGATORS:
        code = hash_code(AGGREGATORS[settings.aggregator])
    backbone_code = hash_module(backbone) if backbone is not None else hash_code(Backbone)
    return hash_text(f"{backbone_code} {hash_code(VPRModel)} {code}")
