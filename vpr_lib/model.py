"""Backbone + aggregator = the model; saving, loading, and the weights the aggregators' authors published."""

import copy
import hashlib
import inspect
import math
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vpr_lib.aggregators import AGGREGATORS, ConvAP, MixVPR, build_aggregator
from vpr_lib.backbones import STAGES, ResNet, read_checkpoint
from vpr_lib.settings import Settings, check_choice


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


def load_author_weights(path_or_state_dict: str | Path | Mapping[str, torch.Tensor], **sizes: int) -> VPRModel:
    """Load a ConvAP or MixVPR model as published by its authors; every tensor must fit.

    Backbone, crop and sizes are read from the tensors' names and shapes.

    Args:
        path_or_state_dict: a checkpoint file (a Lightning checkpoint too), or what it holds.
        sizes: what the weights can't tell: `s1`, `s2` of ConvAP (default 2 and 2), `in_h`, `in_w` of MixVPR
            (default a square).

    Returns:
        The model in eval mode, nothing frozen.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the weights are of another model, or don't fit the sizes.
    """
    state = path_or_state_dict
    state = dict(state.get("state_dict", state)) if isinstance(state, Mapping) else read_checkpoint(state)
    unknown = set(sizes) - {"s1", "s2", "in_h", "in_w"}
    if unknown:
        raise ValueError(f"unknown sizes {sorted(unknown)}; valid: s1, s2 (ConvAP), in_h, in_w (MixVPR)")
    if not any(key.startswith("backbone.model.layer1.") for key in state):
        raise ValueError(
            "no ResNet weights (backbone.model.layer1...) among the tensors; not a checkpoint of the authors"
        )
    name, crop_after = _infer_backbone(state)
    model = VPRModel(ResNet(name, crop_after=crop_after), _infer_aggregator(state, sizes))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights don't fit {name} cropped after {crop_after}: {error}") from None
    return model.eval()


def _infer_backbone(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    crop_after = [s for s in STAGES if any(key.startswith(f"backbone.model.{s}.") for key in state)][-1]
    if "backbone.model.layer1.0.conv3.weight" in state:
        name = "resnet50"
    else:
        name = "resnet34" if "backbone.model.layer1.2.conv1.weight" in state else "resnet18"
    return name, crop_after


def _infer_aggregator(state: Mapping[str, torch.Tensor], sizes: Mapping[str, int]) -> nn.Module:
    if "aggregator.channel_pool.weight" in state:
        out_channels, in_channels = state["aggregator.channel_pool.weight"].shape[:2]
        return ConvAP(in_channels, out_channels, sizes.get("s1", 2), sizes.get("s2", 2))
    if "aggregator.row_proj.weight" not in state:
        found = sorted({key.split(".")[1] for key in state if key.startswith("aggregator.")})
        raise ValueError(f"neither ConvAP (channel_pool) nor MixVPR (row_proj); the aggregator holds {found}")
    out_rows, positions = state["aggregator.row_proj.weight"].shape
    out_channels, in_channels = state["aggregator.channel_proj.weight"].shape
    hidden = state.get("aggregator.mix.0.mix.1.weight", torch.empty(positions, 0)).shape[0]
    mixers = {key.split(".")[2] for key in state if key.startswith("aggregator.mix.")}
    in_h = sizes.get("in_h", positions // sizes["in_w"] if "in_w" in sizes else math.isqrt(positions))
    in_w = sizes.get("in_w", positions // in_h)
    if in_h * in_w != positions:
        raise ValueError(f"the weights are for maps of {positions} positions, not {in_h} x {in_w}; pass in_h and in_w")
    # A hair more, so that int(positions * mlp_ratio) is `hidden` again.
    return MixVPR(in_channels, in_h, in_w, out_channels, len(mixers), (hidden + 0.5) / positions, out_rows)


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


def fingerprint(model: nn.Module) -> str:
    """Hex digits that change with the model's classes, arguments, code or any weight."""
    return hashlib.sha256("\n".join([*describe_module(model), hash_weights(model)]).encode()).hexdigest()


def describe_module(module: nn.Module) -> list[str]:
    """A line for each submodule: name, class, attributes, shapes and code, but not its weights.

    A class of one's own is known by the code of all its methods, as a notebook cell may have been edited.
    """
    lines = []
    for name, part in module.named_modules():
        attributes = {k: _describe(v) for k, v in sorted(vars(part).items()) if k[0] != "_" and k != "training"}
        shapes = {k: tuple(p.shape) for k, p in part.named_parameters(recurse=False)}
        own = [c for c in type(part).__mro__ if not c.__module__.startswith(("torch", "builtins"))]
        methods = [_describe(f) for c in own for _, f in sorted(vars(c).items()) if inspect.isfunction(f)]
        code = hashlib.sha256(repr(methods).encode()).hexdigest()[:8]
        lines.append(f"{name}: {type(part).__name__} {attributes} {shapes} {code}")
    return lines


def _describe(value: Any) -> Any:
    """A value in words that are the same in the next session: no addresses, no line numbers."""
    if inspect.isfunction(value):
        function = inspect.unwrap(value)
        cells = [_describe(cell.cell_contents) for cell in function.__closure__ or () if cell != types.CellType()]
        return [_describe(function.__code__), _describe(function.__defaults__), cells]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, [_describe(c) for c in value.co_consts]]
    if isinstance(value, Mapping):
        return {str(k): _describe(v) for k, v in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_describe(v) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return repr(value) if isinstance(value, bool | int | float | str | bytes | None) else type(value).__name__


def hash_weights(module: nn.Module) -> str:
    """Hex digits that change with any parameter or buffer of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
