"""How a run is computed: device, processes, memory. Nothing here is part of a run's identity."""

import os
from dataclasses import dataclass

from vpr_lib.options import CheckedNames, check_fields

INTERVALS = {  # what each number must lie in
    "num_workers": "[-1, 1000]", "save_every_s": "[0, inf)", "cache_gb": "[0, inf)", "features_gb": "[0, inf)",
    "eval_batch_size": "[0, 1e5]", "train_chunk_size": "[0, 1e5]",
}  # fmt: skip


@dataclass(frozen=True)
class Machine(CheckedNames):
    """How a run is computed; an unknown field, or a value of another type or out of range, is a ValueError."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    num_workers: int = -1  # loader processes; -1 is one for each core where they help, 0 is none
    save_every_s: float = 120.0  # seconds between checkpoints within an epoch: what a power cut costs at most
    cache_gb: float = 1.0  # memory for decoded photos, shared by the workers; a larger set is decoded every time
    features_gb: float = 2.0  # disk for frozen features beside the runs, see `open_features`; 0: none are kept
    eval_batch_size: int = 0  # photos in a forward pass of evaluation; 0: 64, on a CPU fewer if they are large
    train_chunk_size: int = 0  # photos in a forward pass of training, see `models.ChunkedModel`; 0: the whole batch
    progress: bool = True  # progress bars

    def __post_init__(self) -> None:
        check_fields(self, INTERVALS)


def count_cores() -> int:
    """Cores this process may use; torchrun's processes on one machine share its cores."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, number // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
