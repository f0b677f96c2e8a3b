"""Parts of one's own, from a notebook for example: an aggregator, backbone or loss in place of the one that is named.

A part is an instance, or a class or function that makes one when it is called without arguments.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vpr_lib.settings import OWN, Settings

AnyPart = nn.Module | Callable[..., Any] | None


class FunctionLoss(nn.Module):
    """A plain function as a loss.

    Args:
        function: descriptors (B, D) and places (B,) int64 -> the loss, one number. A third argument that has no default
            or is named `indices_tuple` gets the miner's pairs, indices into the batch, or None without a miner.
    """

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.takes_pairs = not _accepts(function, 2) or "indices_tuple" in inspect.signature(function).parameters

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, indices_tuple: tuple[torch.Tensor, ...] | None = None
    ) -> torch.Tensor:
        """The loss of a batch; a ValueError if a miner has found pairs that the function doesn't take."""
        if self.takes_pairs:
            return self.function(embeddings, labels, indices_tuple)
        if indices_tuple is not None:
            raise ValueError(f"{_name(self.function)} takes no indices_tuple as a third argument")
        return self.function(embeddings, labels)


def make_part(what: str, part: AnyPart, seed: int) -> nn.Module | None:
    """The instance that a user gave or whose class or function a user gave; None stays None.

    Args:
        what: "aggregator", "backbone" or "loss"; a loss may also be a function for `FunctionLoss`.
        part: an instance, or a class or function that is called without arguments, with `seed`.
        seed: of the instance's random weights; the caller's random state stays as it is.

    Raises:
        ValueError: the part is something else, needs arguments, or makes something else.
    """
    if part is None or isinstance(part, nn.Module):
        return part
    if not callable(part):
        advice = f"; set a name in the settings: replace(settings, {what}={part!r})" if isinstance(part, str) else ""
        raise ValueError(
            f"{what} is {part!r}; expected a torch.nn.Module, or a class or function that makes one{advice}"
        )
    name = _name(part)
    if not _accepts(part, 0):
        if what == "loss" and not isinstance(part, type) and (_accepts(part, 2) or _accepts(part, 3)):
            return FunctionLoss(part)
        advice = f"pass an instance, {name}(...), or a function that makes one, lambda: {name}(...)"
        if what == "loss":
            advice += ", or a function of (embeddings, labels) or (embeddings, labels, indices_tuple)"
        raise ValueError(f"{what} {name} can't be called without arguments; {advice}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = part()
    if not isinstance(made, nn.Module):
        raise ValueError(f"{what}: {name}() returned {type(made).__name__}; expected a torch.nn.Module")
    return made


def name_parts(
    settings: Settings, aggregator: nn.Module | None, backbone: nn.Module | None, loss: nn.Module | None
) -> Settings:
    """Settings that name the classes of the instances; those that only concern what they replace have no effect."""
    if aggregator is not None:
        settings = replace(settings, aggregator=type(aggregator).__name__, aggregator_options={})
    if backbone is not None:
        unused = {"weights": None, "crop_after": "stride16", "freeze_until": None, "standardize": False}
        settings = replace(settings, backbone=OWN + type(backbone).__name__, **unused)
    if loss is not None:
        name = _name(loss.function) if isinstance(loss, FunctionLoss) else type(loss).__name__
        settings = replace(settings, loss=name, loss_options={})
    return settings


@torch.no_grad()
def measure_map(backbone: nn.Module, image_size: int) -> tuple[int, int, int]:
    """(C, h, w) of the feature map of a backbone of one's own, which must fit the kit's other parts.

    Args:
        backbone: images (B, 3, H, W) to feature maps.
        image_size: pixels, height and width.

    Raises:
        ValueError: it has no `out_channels`, can't compute photos of this size, or returns something else than finite
            maps with that many channels.
    """
    name = type(backbone).__name__
    try:
        with _eval_mode(backbone):
            maps = backbone(_make_images(image_size))
    except Exception as error:  # of code of one's own
        text = f"backbone {name} can't compute photos of {image_size} x {image_size} pixels: "
        raise ValueError(f"{text}{type(error).__name__}: {error}") from error
    if not (isinstance(maps, torch.Tensor) and maps.ndim == 4 and len(maps) == 2 and min(maps.shape) > 0):
        raise ValueError(f"backbone {name} returned {_describe(maps)} for 2 photos; expected feature maps (2, C, h, w)")
    if getattr(backbone, "out_channels", None) != maps.shape[1]:
        found = repr(backbone.out_channels) if hasattr(backbone, "out_channels") else "missing"
        advice = f"set self.out_channels = {maps.shape[1]}, the channels of its feature map"
        raise ValueError(f"backbone {name}: out_channels is {found}; {advice}")
    if not maps.isfinite().all():
        raise ValueError(f"backbone {name} returned a feature map with values that aren't finite, for random photos")
    return tuple(maps.shape[1:])


@torch.no_grad()
def measure_descriptor(model: nn.Module, image_size: int) -> int:
    """D of a model's descriptors, tried on two photos of random pixels in eval mode.

    Raises:
        ValueError: the model fails on them, or returns something else than finite descriptors (2, D).
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    size = f"{image_size} x {image_size} pixels"
    try:
        with _eval_mode(model):
            descriptors = model(_make_images(image_size).to(device))
    except Exception as error:  # an aggregator of one's own may raise anything
        raise ValueError(f"the model can't compute a descriptor of {size}: {type(error).__name__}: {error}") from error
    if not (isinstance(descriptors, torch.Tensor) and descriptors.ndim == 2 and len(descriptors) == 2):
        raise ValueError(f"the model returned {_describe(descriptors)} for 2 photos; expected descriptors (2, D)")
    if not descriptors.shape[1]:
        raise ValueError("the model's descriptor is empty; check aggregator_options")
    if not descriptors.isfinite().all():
        raise ValueError(f"the model's descriptors of random photos of {size} aren't finite")
    return descriptors.shape[1]


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def _make_images(image_size: int) -> torch.Tensor:
    """Two images of random pixels, (2, 3, image_size, image_size); the caller's random state stays as it is."""
    return torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def _describe(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _name(part: Callable[..., Any]) -> str:
    return getattr(getattr(part, "func", part), "__name__", type(part).__name__)  # `func` of a functools.partial


def _accepts(function: Callable[..., Any], number: int) -> bool:
    """Whether a function or class can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError:
        return False
    except ValueError:  # code in C may not say what it takes
        return number == 0
    return True
