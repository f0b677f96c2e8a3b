"""Loading the weights that the authors of ConvAP and MixVPR published."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vpr_lib.aggregators import ConvAP, MixVPR
from vpr_lib.backbones import ResNet
from vpr_lib.blocks import RESNET_STAGES
from vpr_lib.models import VPRModel
from vpr_lib.trunks import read_checkpoint


def load_author_weights(path_or_state_dict: str | Path | Mapping[str, torch.Tensor], **sizes: int) -> VPRModel:
    """Load a ConvAP or MixVPR model as published by its authors; names and shapes of the tensors tell its sizes.

    Args:
        path_or_state_dict: a checkpoint file (a Lightning checkpoint too), or what it holds.
        sizes: what the weights can't tell: `s1`, `s2` of ConvAP (default 2 and 2), `in_h`, `in_w` of MixVPR
            (default a square).

    Returns:
        The model in eval mode, nothing frozen. Weights of another model or other sizes are a ValueError.
    """
    is_path = isinstance(path_or_state_dict, str | Path)
    content = read_checkpoint(path_or_state_dict) if is_path else path_or_state_dict
    state = content.get("state_dict", content)
    unknown = set(sizes) - {"s1", "s2", "in_h", "in_w"}
    if unknown:
        raise ValueError(f"unknown sizes {sorted(unknown)}; valid: s1, s2 (ConvAP), in_h, in_w (MixVPR)")
    if not any(key.startswith("backbone.model.layer1.") for key in state):
        raise ValueError("no ResNet weights (backbone.model.layer1...); pass the authors' ConvAP or MixVPR checkpoint")
    name, crop_after = _infer_backbone(state)
    model = VPRModel(ResNet(name, crop_after=crop_after), _infer_aggregator(state, sizes))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights don't fit {name} cropped after {crop_after}: {error}") from None
    return model.eval()


def _infer_backbone(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    crop_after = [stage for stage in RESNET_STAGES if any(f"backbone.model.{stage}." in key for key in state)][-1]
    if "backbone.model.layer1.0.conv3.weight" in state:
        return "resnet50", crop_after
    return ("resnet34" if "backbone.model.layer1.2.conv1.weight" in state else "resnet18"), crop_after


def _infer_aggregator(state: Mapping[str, torch.Tensor], sizes: Mapping[str, int]) -> nn.Module:
    if "aggregator.channel_pool.weight" in state:
        out_channels, in_channels = state["aggregator.channel_pool.weight"].shape[:2]
        return ConvAP(in_channels, out_channels, sizes.get("s1", 2), sizes.get("s2", 2))
    if "aggregator.row_proj.weight" not in state:
        names = sorted({key.split(".")[1] for key in state if key.startswith("aggregator.")})
        raise ValueError(f"neither ConvAP (channel_pool) nor MixVPR (row_proj); the aggregator holds {names}")
    out_rows, positions = state["aggregator.row_proj.weight"].shape
    out_channels, in_channels = state["aggregator.channel_proj.weight"].shape
    hidden = state.get("aggregator.mix.0.mix.1.weight", torch.empty(positions, 0)).shape[0]
    mixers = {key.split(".")[2] for key in state if key.startswith("aggregator.mix.")}
    in_h = sizes.get("in_h", positions // sizes["in_w"] if "in_w" in sizes else math.isqrt(positions))
    in_w = sizes.get("in_w", positions // in_h)
    if in_h * in_w != positions:
        raise ValueError(f"the weights are for maps of {positions} positions, not {in_h} x {in_w}; pass in_h and in_w")
    # The half makes int(positions * mlp_ratio) equal `hidden` despite rounding.
    return MixVPR(in_channels, in_h, in_w, out_channels, len(mixers), (hidden + 0.5) / positions, out_rows)
