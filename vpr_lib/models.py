"""Backbone + aggregator = the model; saving, loading, and the weights the aggregators' authors published."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpr_lib.aggregators import AGGREGATORS, build_aggregator
from vpr_lib.backbones import ResNet, read_checkpoint
from vpr_lib.options import check_choice
from vpr_lib.settings import Settings


class VPRModel(nn.Module):
    """An image's descriptor.

    Args:
        backbone: images (B, 3, H, W) -> feature map (B, C, h, w), with an attribute `out_channels`.
        aggregator: feature map -> descriptors (B, D) of unit norm.
    """

    def __init__(self, backbone: nn.Module, aggregator: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.aggregator = aggregator

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) -> (B, D) float32 descriptors of unit L2 norm."""
        return self.aggregator(self.backbone(images)).float()


def build_model(settings: Settings, aggregator: nn.Module | None = None) -> VPRModel:
    """The model that the settings describe, on the CPU, its weights a function of `settings.seed`.

    Args:
        settings: what to build.
        aggregator: an instance whose copy is used in place of the aggregator the settings name; it stays untrained,
            so it can start the next run, too.
    """
    for name, options in settings.aggregator_options.items():
        check_choice("aggregator in aggregator_options", name, AGGREGATORS)
        if not isinstance(options, Mapping):
            raise ValueError(f"aggregator_options of {name} is {options!r}; expected {{argument: value}}")
    # The caller's random state is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        backbone = ResNet(
            settings.backbone, settings.weights, settings.crop_after, settings.freeze_until, settings.standardise
        )
        aggregator = copy.deepcopy(aggregator)
        if aggregator is None:
            size = backbone.map_size(settings.image_size)
            options = settings.aggregator_options.get(settings.aggregator, {})
            aggregator = build_aggregator(settings.aggregator, backbone.out_channels, size, size, **options)
    return VPRModel(backbone, aggregator)


def save_model(model: VPRModel, settings: Settings, path: str | Path, **notes: Any) -> None:
    """Write the weights, the settings that build the model, and notes in plain types."""
    torch.save({"state_dict": model.state_dict(), "settings": settings.to_dict(), **notes}, path)


def load_model(path: str | Path, aggregator: nn.Module | None = None) -> tuple[VPRModel, Settings]:
    """Read what `save_model` wrote.

    Args:
        path: the file.
        aggregator: an instance of the aggregator it was trained with, if `AGGREGATORS` doesn't hold it.

    Returns:
        The model in eval mode on the CPU, and its settings.
    """
    state = read_checkpoint(path)
    settings = Settings.from_dict(torch.load(path, map_location="cpu", weights_only=True)["settings"])
    model = build_model(replace(settings, weights=None), aggregator)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} was saved by another model than its settings build: {error}") from None
    return model.eval(), settings
