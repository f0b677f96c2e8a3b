"""Visual place recognition, small enough to read. The names below are loaded when first used.

The core, in reading order:
    settings, machine, options                           what is computed, how, and `--set key=value`
    file_names, pack_files, stored_zip                   names of photos; the files of a pack, and reading them
    images, data_roots                                   a folder -> tables of photos
    photos, loading, samplers, augmentation              tables -> batches of P places x K photos
    backbones, aggregators, models, author_weights       image -> feature map -> descriptor
    blocks, trunks                                       used by backbones: names of blocks, networks and weights
    torchvision_networks, efficientnet_lite0, dinov2     used by trunks
    pooling, further_aggregators                         used by aggregators; four beyond the published study
    centroid_loss, optimization                          loss, miner, optimizer and schedule
    checkpoints, progress, trainer, training             one step, the training loop
    descriptors, features, whitening                     photos -> descriptors; features that runs share
    ivf_index, index_folders, search                     nearest photos, exact or approximate
    recall, statistics                                   recall@k, intervals, tests
    identity, run_folders, predictions, evaluation, runs settings -> a run folder, and its recall on a split
    atomic_files, checked_files, devices, processes      used by several of these

Rooms, each with its own `__init__`: prepare, analysis, figures, study, gallery, city, course, command_line.
"""

import importlib
from typing import Any

_HOMES = {
    "read_images": "images",
    "read_split": "data_roots",
    **dict.fromkeys(("find_positives", "recall_at_k"), "recall"),
    "PlaceSampler": "samplers",
    **dict.fromkeys(("AvgPool", "GeM", "ConvAP", "MixVPR"), "aggregators"),
    **dict.fromkeys(("CosPlace", "NetVLAD", "SALAD", "BoQ"), "further_aggregators"),
    "ResNet": "backbones",
    "VPRModel": "models",
    "load_author_weights": "author_weights",
    "extract_descriptors": "descriptors",
    "search_database": "search",
    "get_preset": "settings",
    "get_run": "runs",
    "evaluate_run": "evaluation",
    "open_gallery": "gallery",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vpr_lib' has no attribute {name!r}; public names: {', '.join(_HOMES)}")
    return getattr(importlib.import_module(f"vpr_lib.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
