"""Checkpoints: written atomically, checked when read, the one before kept."""

import io
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpr_lib.atomic_files import write_atomically
from vpr_lib.checked_files import DamagedFile, read_zip, seal_zip
from vpr_lib.processes import count_processes

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_PENDING = "checkpoint.new.pt"  # complete, too: the process ended between writing and renaming it


def to_bytes(state: dict[str, Any]) -> bytes:
    """The bytes of `torch.save`, with a checksum that `read_checked` compares."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return seal_zip(buffer.getvalue())


def save_checkpoint(folder: str | Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain types into a run's folder; the checkpoint before it is kept."""
    pending, newest, previous = (Path(folder) / name for name in (_PENDING, NEWEST, PREVIOUS))
    write_atomically(pending, to_bytes(state))
    if newest.exists():
        os.replace(newest, previous)
    os.replace(pending, newest)


def load_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """The newest undamaged checkpoint, or None; warns of damaged ones, and raises a ValueError if all are damaged."""
    damaged = []
    for path in (Path(folder) / name for name in (_PENDING, NEWEST, PREVIOUS)):
        try:
            if path.exists():
                return read_checked(path, "trying the checkpoint before it")
        except (OSError, DamagedFile) as error:
            damaged.append(path.name)
            warnings.warn(str(error), stacklevel=2)
    if damaged:
        raise ValueError(f"all checkpoints in {folder} are damaged ({', '.join(damaged)}); remove them to train again")
    return None


def read_checked(path: Path, advice: str) -> dict[str, Any]:
    """Load what `to_bytes` made. A damaged or missing file is a `DamagedFile` error that ends with `advice`."""
    if not path.is_file():
        raise DamagedFile(path, "it is missing", advice)
    return torch.load(read_zip(path, advice), map_location="cpu", weights_only=True)


def get_random_states() -> dict[str, Any]:
    """The states of all random generators a training step may use, in types a weights-only load accepts."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(gpu) for gpu in _list_gpus()],
    }


def _list_gpus() -> list[int]:
    """The GPUs this process may use: of several processes, its own one; touching another would take memory there."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if count_processes() > 1 else [*range(torch.cuda.device_count())]


def set_random_states(states: dict[str, Any]) -> None:
    """The inverse of `get_random_states`; GPU states are restored where the GPUs are as many as they were."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == len(gpus := _list_gpus()):
        for gpu, state in zip(gpus, states["cuda"], strict=True):
            torch.cuda.set_rng_state(state, gpu)
