"""What a run is a function of: its settings, photos, starting weights and code. It names the run's folder."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from vpr_lib.checked_files import hash_text
from vpr_lib.data_roots import DataRoot
from vpr_lib.identity import hash_module, hash_weights
from vpr_lib.optimization import DEFAULT_OPTIONS
from vpr_lib.options import list_changes
from vpr_lib.run_folders import hash_model_code, read_run_file
from vpr_lib.settings import Settings
from vpr_lib.trunks import find_city_weights

Identity = dict[str, Any]


def make_identity(
    settings: Settings,
    data_root: DataRoot,
    aggregator: nn.Module | None,
    backbone: nn.Module | None,
    loss: nn.Module | None,
) -> Identity:
    """What a run is a function of: settings, photos (names and contents), starting weights, the model's code."""
    parts = ["train", *data_root.list_validation_splits(settings.val_splits)]
    identity = {"settings": settings.to_dict(), "data": hash_text(" ".join(map(data_root.fingerprint, parts)))}
    identity["code"] = hash_model_code(settings, aggregator, backbone)
    weights = find_city_weights() if settings.weights == "city" else Path(settings.weights or "")
    if weights.is_file():
        identity["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    names = (settings.loss if loss is None else None, settings.miner)
    identity["default_options"] = [DEFAULT_OPTIONS.get(name or "") for name in names]
    for what, part in {"aggregator": aggregator, "backbone": backbone, "loss": loss}.items():
        if part is not None:
            identity[f"{what}_weights"] = hash_weights(part)
    if loss is not None:
        identity["loss_code"] = hash_module(loss)
    return identity


def flatten_identity(identity: Identity) -> dict[str, Any]:
    """{setting or what else there is: value}, under names for messages."""
    names = {"data": "photos", "code": "model code", "weights": "weights file", "loss_code": "loss code"}
    names |= {f"{what}_weights": f"initial weights of the {what}" for what in ("aggregator", "backbone", "loss")}
    names["default_options"] = "default options of loss and miner"
    return identity["settings"] | {name: identity.get(key) for key, name in names.items()}


def refuse_other(folder: Path, saved: Identity, wanted: Identity) -> None:
    """Raise a ValueError that lists how a run folder differs from what is asked for."""
    if changes := list_changes(flatten_identity(saved), flatten_identity(wanted)):
        raise ValueError(f"{folder} holds another run: {'; '.join(changes)}. Choose another folder")


def name_folder(runs_dir: Path, settings: Settings, identity: Identity) -> Path:
    """The folder of a run in `runs_dir`."""
    digest = hash_text(json.dumps(identity, sort_keys=True))[:8]
    return runs_dir / f"{settings.aggregator}-{settings.optimizer}-lr{settings.lr:g}-seed{settings.seed}-{digest}"


def find_twin(folder: Path, identity: Identity) -> Path | None:
    """A complete run beside a folder that differs from its run in nothing but the photos."""
    for path in sorted(folder.resolve().parent.glob("*/settings.json")):
        with contextlib.suppress(ValueError, OSError):  # a damaged one is nobody's twin
            saved = read_run_file(path.parent)
            differing = {key for key in identity | saved if saved.get(key) != identity.get(key)}
            if differing - {"versions"} == {"data"} and (path.parent / "model.pt").is_file():
                return folder.parent / path.parent.name
    return None
