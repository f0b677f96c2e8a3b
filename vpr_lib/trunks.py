"""Networks that can be a backbone, each as a chain of blocks, and their weights."""

import importlib.resources
import io
import urllib.error
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn

from vpr_lib import efficientnet_lite0, torchvision_networks
from vpr_lib.augmentation import IMAGENET_MEAN, IMAGENET_STD
from vpr_lib.blocks import DINOV2, RESNETS
from vpr_lib.checked_files import DamagedFile, check_zip, is_sealed
from vpr_lib.dinov2 import load_dinov2
from vpr_lib.options import check_choice

Triple = tuple[float, float, float]


class Trunk(NamedTuple):
    """A network as a chain of blocks."""

    network: nn.Module
    blocks: dict[str, tuple[str, ...]]  # {name in `blocks.list_blocks`: paths of its modules, in the order of calls}
    tail: tuple[str, ...] = ()  # paths of modules that follow the last block that is kept
    mean: Triple = IMAGENET_MEAN  # of each channel in [0, 1], as the weights expect it
    std: Triple = IMAGENET_STD


def build_trunk(name: str, pretrained: bool = False) -> Trunk:
    """A network of a name in `blocks.list_blocks`, with random weights.

    `pretrained` matters for DINOv2 only, whose code and weights come together.
    """
    if name == "efficientnet_lite0":
        network = efficientnet_lite0.EfficientNetLite0()
        stem = {"stem": ("conv_stem", "bn0", "relu")}
        return Trunk(network, stem | _name_blocks(network), (), efficientnet_lite0.MEAN, efficientnet_lite0.STD)
    if name in DINOV2:
        network = load_dinov2(name, pretrained)
        return Trunk(network, {"tokens": ("tokens",)} | _name_blocks(network), ("to_map",))
    network = torchvision.models.get_model(name, weights=None)
    paths, tail = torchvision_networks.list_paths(network)
    if name in RESNETS:
        stem = {"conv1": ("conv1", "bn1", "relu", "maxpool")}
        return Trunk(network, stem | {path: (path,) for path in paths if path.startswith("layer")})
    weights = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Trunk(network, {path: (path,) for path in paths}, tail, tuple(weights.mean), tuple(weights.std))


def _name_blocks(network: nn.Module) -> dict[str, tuple[str, ...]]:
    return {f"block{i + 1}": (f"blocks.{i}",) for i in range(len(network.blocks))}


def remove_unused(network: nn.Module, paths: list[str]) -> None:
    """Delete the modules of a network that are not at one of the paths, above or below it."""
    for child, module in [*network.named_children()]:
        below = [path.removeprefix(f"{child}.") for path in paths if path.startswith(f"{child}.")]
        if below:
            remove_unused(module, below)
        elif child not in paths:
            delattr(network, child)


def find_city_weights() -> Path:
    """The file of the weights "city", made by `vpr_lib.city.pretrain`."""
    return Path(str(importlib.resources.files("vpr_lib"))) / "city" / "weights" / "resnet18.pt"


def read_weights(name: str, weights: str | Path) -> dict[str, torch.Tensor]:
    """A state dict with the names of `build_trunk(name).network`; arguments and errors as of `backbones.Backbone`."""
    if weights == "city":
        check_choice("backbone with weights 'city'", name, ["resnet18"])
        weights = find_city_weights()
    if weights == "imagenet" and name == "efficientnet_lite0":
        weights = efficientnet_lite0.find_weights()
    elif weights == "imagenet":
        choices = torchvision.models.get_model_weights(name)
        try:
            return getattr(choices, "IMAGENET1K_V1", choices.DEFAULT).get_state_dict(check_hash=True)
        except (urllib.error.URLError, OSError) as error:
            raise ConnectionError(
                f"ImageNet weights of {name} can't be downloaded ({error}); without a network take --set "
                "backbone=efficientnet_lite0, whose weights are installed with the kit; or pass weights=None for "
                "random ones (--set weights=null --set freeze_until=null), 'city' for the kit's own (--set "
                "weights=city --set standardize=true), or the path of a weights file"
            ) from None
    state = read_checkpoint(weights)["state_dict"]
    prefix = "backbone.model."
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)} or state
    if name == "efficientnet_lite0":  # `_blocks.0._bn1.weight` in the package's file
        state = {key.replace("._", ".").removeprefix("_"): value for key, value in state.items()}
    return state


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file on the CPU, with a `state_dict` also where the file is nothing but one.

    No code in the file is run. A file that doesn't exist is a FileNotFoundError; a damaged one, or one without a state
    dict, is a ValueError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}; pass a checkpoint, 'imagenet', 'city' or None")
    advice = "pass a file of torch.save with a state dict, which can be loaded with weights only"
    data = path.read_bytes()
    if not is_sealed(path, data):
        raise DamagedFile(path, "its checksum is wrong", advice)
    try:
        if data.startswith(b"PK"):  # torch itself doesn't check all checksums; files of torch before 1.6 have none
            check_zip(data)
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged or foreign file
        raise DamagedFile(path, error, advice) from None
    if isinstance(content, dict) and "state_dict" not in content:
        content = {"state_dict": content}
    state = content["state_dict"] if isinstance(content, dict) else None
    if not (isinstance(state, dict) and state and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise ValueError(f"{path} holds no state dict: expected a dict of tensors, or one under 'state_dict'")
    return content
