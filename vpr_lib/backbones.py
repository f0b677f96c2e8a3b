"""Image -> feature map: torchvision's ResNets, cropped after a stage and frozen up to a block."""

import io
import urllib.error
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck

from vpr_lib.checked_files import DamagedFile, check_zip, is_sealed
from vpr_lib.options import check_choice
from vpr_lib.settings import RESNETS, STAGES, list_blocks

CITY_WEIGHTS = Path(__file__).parent / "city" / "weights" / "resnet18.pt"  # made by vpr_lib.city.pretrain


class ResNet(nn.Module):
    """A torchvision ResNet cropped after a stage; parameters are named as in authors' weights, `model.conv1.weight`.

    Args:
        name: resnet18, resnet34 or resnet50.
        weights: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "city" (resnet18 up to layer3, trained on
            rendered streets, part of the kit, see city/weights/README.md), None for random ones, or the path of a
            checkpoint with torchvision's names, also below `backbone.model.`.
        crop_after: last stage to keep: layer1, layer2, layer3 or layer4.
        freeze_until: last part that is not trained: a stage ("conv1" to "layer4"), or a block within one ("layer3.0",
            the first of layer3); None trains all. Frozen parts get no gradient, and their BatchNorm stays in eval
            mode, so its statistics don't change.
        standardize: bring each channel of each image to mean 0 and standard deviation 1 first, which removes
            brightness and contrast. The weights "city" were trained so and need it; ImageNet's were not.

    Attributes:
        out_channels: channels of the feature map.
        stride: pixels of the image for one of the map.

    Raises:
        ValueError: an unknown name or stage, or weights that don't fit.
        FileNotFoundError: no file at the path in `weights`.
        ConnectionError: ImageNet weights can't be downloaded.

    Source: He et al., Deep Residual Learning for Image Recognition (CVPR 2016).
    """

    def __init__(
        self,
        name: str = "resnet18",
        weights: str | Path | None = None,
        crop_after: str = "layer3",
        freeze_until: str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.name = check_choice("backbone", name, RESNETS)
        kept = STAGES[: STAGES.index(check_choice("crop_after", crop_after, STAGES[1:])) + 1]
        blocks = list_blocks(name, crop_after)
        self.blocks = [*blocks.values()]  # in the order of their use
        self.num_frozen = 0
        if freeze_until is not None:
            self.num_frozen = [*blocks].index(check_choice("freeze_until", freeze_until, blocks)) + 1
        self.model = torchvision.models.get_model(name, weights=None)
        for unused in ("avgpool", "fc", *(layer for layer in STAGES if layer not in kept)):
            delattr(self.model, unused)
        if weights is not None:
            self._load(_read_weights(name, weights))
        self.standardize = standardize
        self.stages = kept[1:]
        self.stride = 2 ** len(kept)
        last_block = getattr(self.model, kept[-1])[-1]
        self.out_channels = (last_block.conv3 if name == "resnet50" else last_block.conv2).out_channels
        self.frozen = [self.model.get_submodule(block) for block in self.blocks[: self.num_frozen]]
        self.frozen += [self.model.bn1] if self.frozen else []
        for part in self.frozen:
            part.requires_grad_(False)
        self.train()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        x = self._forward_stem(images)
        for stage in self.stages:
            x = getattr(self.model, stage)(x)
        return x

    def forward_frozen(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> output of the last frozen block (B, C, h, w)."""
        x = self._forward_stem(images)
        for block in self.blocks[1 : self.num_frozen]:
            x = self.model.get_submodule(block)(x)
        return x

    def list_trained(self) -> list[nn.Module]:
        """The blocks that turn the output of `forward_frozen` into that of `forward`."""
        return [self.model.get_submodule(block) for block in self.blocks[self.num_frozen :]]

    def _forward_stem(self, images: torch.Tensor) -> torch.Tensor:
        if self.standardize:
            images = F.instance_norm(images)
        return self.model.maxpool(self.model.relu(self.model.bn1(self.model.conv1(images))))

    def train(self, mode: bool = True) -> "ResNet":
        """As in PyTorch, but frozen parts stay in eval mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def map_size(self, pixels: int) -> int:
        """Height or width of the feature map for an image of that many pixels."""
        return -(-pixels // self.stride)

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        """Load the stages that are kept; others in the file are ignored."""
        wanted = self.model.state_dict()
        missing = [key for key in wanted if key not in state]
        if missing:
            raise ValueError(f"the weights lack {len(missing)} tensors of {self.name}, {missing[0]} for one")
        try:
            self.model.load_state_dict({key: state[key] for key in wanted})
        except RuntimeError as error:
            raise ValueError(f"the weights don't fit {self.name}: {error}") from None


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Merge each BatchNorm of torchvision's ResNets and their blocks into the convolution before it, in place.

    The model must be in eval mode; its outputs stay the same up to rounding.
    """
    kinds = (BasicBlock, Bottleneck, torchvision.models.ResNet)  # not classes derived from them: they may differ
    for block in [part for part in model.modules() if type(part) in kinds]:
        for conv, bn in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")):
            if isinstance(getattr(block, bn, None), nn.BatchNorm2d):
                setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, bn)))
                setattr(block, bn, nn.Identity())
        downsample = getattr(block, "downsample", None)
        if downsample is not None and isinstance(downsample[1], nn.BatchNorm2d):
            block.downsample = fuse_conv_bn_eval(*downsample)
    return model


def _read_weights(name: str, weights: str | Path) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names, from "imagenet", "city" or a checkpoint file."""
    if weights == "city":
        check_choice("backbone with weights 'city'", name, ["resnet18"])
        weights = CITY_WEIGHTS
    if weights == "imagenet":
        try:
            return torchvision.models.get_model_weights(name).IMAGENET1K_V1.get_state_dict(check_hash=True)
        except (urllib.error.URLError, OSError) as error:
            raise ConnectionError(
                f"ImageNet weights of {name} can't be downloaded ({error}); without a network pass weights=None "
                "for random weights (--set weights=null --set freeze_until=null), 'city' for the kit's own "
                "(--set weights=city --set standardize=true), or the path of a weights file"
            ) from None
    state = read_checkpoint(weights)["state_dict"]
    prefix = "backbone.model."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)} or state


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
