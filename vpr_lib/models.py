"""Backbone + aggregator = a model; building it from settings, saving and loading it."""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpr_lib.aggregators import AGGREGATORS, build_aggregator, check_aggregator_options
from vpr_lib.atomic_files import write_atomically
from vpr_lib.backbones import Backbone, FrozenPart
from vpr_lib.checkpoints import read_checked, to_bytes
from vpr_lib.options import check_choice
from vpr_lib.own_parts import measure_map
from vpr_lib.settings import OWN, Settings


class VPRModel(nn.Module):
    """Computes an image's descriptor.

    Args:
        backbone: images (B, 3, H, W) -> feature map (B, C, h, w), with an attribute `out_channels`.
        aggregator: feature map -> descriptors (B, D) of unit norm.
    """

    def __init__(self, backbone: nn.Module, aggregator: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.aggregator = aggregator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) -> (B, D) float32 descriptors of unit L2 norm."""
        return self.aggregator(self.backbone(images)).float()


class TrainedPart(nn.Module):
    """The rest: features of `FrozenPart` -> descriptors (B, D)."""

    def __init__(self, model: VPRModel) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*model.backbone.trained_parts)
        self.aggregator = model.aggregator

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """As the whole model for the photos of these features."""
        return self.aggregator(self.blocks(features)).float()


class ChunkedModel(nn.Module):
    """Computes a batch in chunks, so that a batch may be larger than the memory would allow (gradient caching).

    Of the forward pass, only the descriptors are kept; the backward pass computes each chunk again. Descriptors and
    gradients are those of the whole batch, because a descriptor depends on its own photo alone. BatchNorm that is
    trained is the exception: it normalizes by the mean and variance of each chunk.

    Args:
        model: inputs (B, ...) -> descriptors (B, D).
        chunk_size: photos in a forward pass.

    Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (RepL4NLP 2021).
    """

    def __init__(self, model: nn.Module, chunk_size: int) -> None:
        super().__init__()
        self.model, self.chunk_size = model, chunk_size

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...) -> descriptors (B, D)."""
        if len(inputs) <= self.chunk_size or not torch.is_grad_enabled():
            return self.model(inputs)
        from torch.utils.checkpoint import checkpoint  # here: its import sets an environment variable

        contexts = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), _keep_statistics(self.model))}
        return torch.cat([checkpoint(self.model, chunk, **contexts) for chunk in inputs.split(self.chunk_size)])


@contextmanager
def _keep_statistics(model: nn.Module) -> Iterator[None]:
    """Within, BatchNorm's running statistics stay as they are: the second pass of a chunk must not count."""
    parts = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    parts = [part for part in parts if part.track_running_stats]
    before = [(part.momentum, part.num_batches_tracked.clone()) for part in parts]
    for part in parts:
        part.momentum = 0.0  # weight of the new values
    try:
        yield
    finally:
        for part, (momentum, number) in zip(parts, before, strict=True):
            part.momentum = momentum
            part.num_batches_tracked.copy_(number)


def synchronize_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Let BatchNorm that is trained see the batch of all processes, in place; on a CPU, where it can't, warn."""
    for parent in [*model.modules()]:
        for name, part in [*parent.named_children()]:
            is_batchnorm = isinstance(part, nn.modules.batchnorm._BatchNorm)
            if not is_batchnorm or not any(parameter.requires_grad for parameter in part.parameters()):
                continue
            if device.type != "cuda":
                text = "each process normalizes by its own photos, so several don't train exactly what one trains"
                warnings.warn(f"BatchNorm is trained, and on a CPU {text}", stacklevel=4)
                return
            setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))


def split_model(model: nn.Module) -> tuple[FrozenPart | None, nn.Module]:
    """The frozen part of a model and the trained one, which share its modules.

    (None, model) if nothing is frozen, if model or backbone compute something of their own, or if weights that the
    backbone froze are trained after all.
    """
    is_known = getattr(type(model), "forward", None) is VPRModel.forward
    if is_known and getattr(type(model.backbone), "forward", None) is Backbone.forward and model.backbone.num_frozen:
        frozen = FrozenPart(*model.backbone.frozen_parts)
        if not any(parameter.requires_grad for parameter in frozen.parameters()):
            return frozen, TrainedPart(model)
    return None, model


def get_last_frozen(model: VPRModel) -> str:
    """Name of the last block that is not trained, of a model that `split_model` splits."""
    return model.backbone.block_names[model.backbone.num_frozen - 1]


def check_names(settings: Settings) -> None:
    """Raise a ValueError unless there is the aggregator of the settings, and those of their options with these."""
    check_choice("aggregator", settings.aggregator, AGGREGATORS)
    for name, options in settings.aggregator_options.items():
        check_aggregator_options(check_choice("aggregator in aggregator_options", name, AGGREGATORS), options)


def build_model(settings: Settings, aggregator: nn.Module | None = None, backbone: nn.Module | None = None) -> VPRModel:
    """The model that the settings describe, on the CPU; its initial weights follow from `settings.seed`.

    Args:
        settings: backbone, weights, aggregator, image size and seed.
        aggregator, backbone: instances to copy in place of those that the settings name; they stay as they are.

    Raises:
        ValueError: a name or option is not valid, or an instance doesn't fit, see `own_parts.measure_map`.
    """
    if aggregator is None:
        check_names(settings)
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state as it is
        torch.manual_seed(settings.seed)
        if backbone is None and settings.backbone.startswith(OWN):
            raise ValueError(f"{settings.backbone} is no backbone of the kit; pass it to this call, as backbone=...")
        if backbone is None:
            backbone = Backbone(
                settings.backbone, settings.weights, settings.crop_after, settings.freeze_until, settings.standardize
            )
            size = backbone.map_size(settings.image_size)
            shape = backbone.out_channels, size, size
        else:
            backbone = copy.deepcopy(backbone)
            shape = measure_map(backbone, settings.image_size)
        if aggregator is None:
            options = settings.aggregator_options.get(settings.aggregator, {})
            aggregator = build_aggregator(settings.aggregator, *shape, **options)
        else:
            aggregator = copy.deepcopy(aggregator)
    return VPRModel(backbone, aggregator)


def save_model(
    path: str | Path,
    state_dict: Mapping[str, torch.Tensor],
    settings: Settings,
    epoch: int,
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write weights, the settings that build their model, their epoch (from 0), and the history of their training."""
    content = {"state_dict": state_dict, "settings": settings.to_dict(), "epoch": epoch, "history": [*history]}
    write_atomically(path, to_bytes(content))


def read_model(path: str | Path) -> dict[str, Any]:
    """What `save_model` wrote: `state_dict`, `settings`, `epoch` and `history`; a damaged file is a `DamagedFile`."""
    advice = "delete it: the training that made it writes it again from its last checkpoint"
    content = read_checked(Path(path), advice)
    if not (isinstance(content, dict) and {"state_dict", "settings"} <= content.keys()):
        raise ValueError(f"{path} is no model of this kit: expected state_dict and settings in it")
    return content


def load_model(
    path: str | Path, aggregator: nn.Module | None = None, backbone: nn.Module | None = None
) -> tuple[VPRModel, Settings]:
    """The model that `save_model` wrote; a damaged file, or one of another model, is a ValueError.

    Args:
        path: of the file.
        aggregator, backbone: instances of what it was trained with, if it was not made by its name.

    Returns:
        The model in eval mode on the CPU, and its settings.
    """
    content = read_model(path)
    settings = Settings.from_dict(content["settings"])
    model = build_model(replace(settings, weights=None), aggregator, backbone)
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} was saved by another model than its settings build: {error}") from None
    return model.eval(), settings
