"""torchvision's networks for classification as chains: modules that are called one after another up to the pooling."""

import functools
import math

import torch
import torchvision
from torch import nn

# Families whose layers before the pooling are such a chain; those of Inception are not.
FAMILIES = (
    "alexnet", "convnext", "densenet", "efficientnet", "mobilenet", "regnet", "resnet", "resnext", "shufflenet",
    "squeezenet", "swin", "vgg", "wide_resnet",
)  # fmt: skip
HEADS = ("avgpool", "fc", "classifier", "head")  # names of what follows the chain


def list_networks() -> list[str]:
    """Names of the networks that can be a backbone."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if name.startswith(FAMILIES)]


def list_paths(network: nn.Module) -> tuple[list[str], tuple[str, ...]]:
    """Paths of the modules of the chain in the order of their calls, and of one to call wherever the chain is cropped.

    The latter is there for Swin transformers, whose maps are (B, H, W, C) within the chain.
    """
    children = [child for child, _ in network.named_children()]
    children = children[: min(children.index(head) for head in HEADS if head in children)]
    tail = tuple(child for child in children if child == "permute")
    return [path for child in children if child not in tail for path in _list_below(network, child)], tail


def _list_below(network: nn.Module, path: str) -> list[str]:
    """Paths of the modules that a child runs one after another, at most two levels down."""
    module = network.get_submodule(path)
    is_chain = isinstance(module, nn.Sequential) and not isinstance(module, torchvision.ops.Conv2dNormActivation)
    # A map is not to be cut where the order of its dimensions changes.
    if not is_chain or path.count(".") == 2 or torchvision.ops.Permute in map(type, module):
        return [path]
    return [below for child, _ in module.named_children() for below in _list_below(network, f"{path}.{child}")]


@functools.cache
def measure_blocks(name: str) -> dict[str, int]:
    """{path of each module of the chain: pixels of the image for one of its output}; nothing is computed."""
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state as it is
        network = torchvision.models.get_model(name, weights=None).eval().to("meta")
    paths, tail = list_paths(network)
    pixels, strides = 256, {}
    x = torch.empty(1, 3, pixels, pixels, device="meta")
    for path in paths:
        x = network.get_submodule(path)(x)
        # Some networks round sizes down, so this is not exactly a power of two.
        strides[path] = 2 ** round(math.log2(pixels / x.shape[1 if tail else 2]))
    return strides
