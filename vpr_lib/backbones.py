"""Image -> feature map: a network cropped after one of its blocks and frozen up to another."""

import copy
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck

from vpr_lib.augmentation import IMAGENET_MEAN, IMAGENET_STD
from vpr_lib.blocks import DINOV2, RESNETS, find_points, list_blocks
from vpr_lib.efficientnet_lite0 import EfficientNetLite0, InvertedResidual
from vpr_lib.options import check_choice
from vpr_lib.trunks import Triple, build_trunk, read_weights, remove_unused


class Backbone(nn.Module):
    """A network cropped after a block; its parameters lie in `model`, under the names of their authors.

    Args:
        name: resnet18 and larger ones, efficientnet_lite0, another of torchvision's convolutional networks or Swin
            transformers (efficientnet_b0, swin_v2_t, ...), or dinov2_vits14 and larger ones (square photos only).
        weights: "imagenet", "city", None or a path.
            "imagenet": for efficientnet_lite0 from an installed package, without a network; for torchvision's networks
            IMAGENET1K_V1, downloaded once; for DINOv2 its authors' weights.
            "city": for resnet18 up to layer3, trained on rendered streets, part of the kit, see city/weights/README.md.
            None: random. A path: a checkpoint with the network's names, also below `backbone.model.`.
        crop_after: last block to keep, as `blocks.find_points` takes it: "layer3", "block11", or "stride16" for the
            last block with that stride.
        freeze_until: last block that is not trained, named in the same way, or "crop-1" for all kept blocks but one;
            None trains all. Frozen blocks get no gradient, and their BatchNorm stays in eval mode, so its statistics
            don't change.
        standardize: bring each channel of each image to mean 0 and standard deviation 1 first, which removes
            brightness and contrast. The weights "city" were trained so and need it; ImageNet's were not.

    Attributes:
        out_channels: channels of the feature map.
        stride: pixels of the image for one of the map.
        block_names: the blocks that are kept, in order.
        num_frozen: number of those that are not trained.

    Raises:
        ValueError: an unknown name or block, or weights that don't fit.
        FileNotFoundError: no file at the path in `weights`, or the package with the weights is not installed.
        ConnectionError: weights can't be downloaded.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path | None = None,
        crop_after: str = "stride16",
        freeze_until: str | None = None,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        num_kept, self.num_frozen = find_points(name, crop_after, freeze_until)
        self.block_names = [*list_blocks(name)][:num_kept]
        self.stride = list_blocks(name)[self.block_names[-1]]
        trunk = build_trunk(name, pretrained=weights == "imagenet")
        self.paths = [[*trunk.blocks[block]] for block in self.block_names]  # of each block's modules in `model`
        self.paths[-1] += trunk.tail
        self.model = trunk.network
        remove_unused(self.model, [*itertools.chain(*self.paths)])
        self.calls = _merge_paths(self.model, [*itertools.chain(*self.paths)])
        if weights is not None and not (weights == "imagenet" and name in DINOV2):
            self._load(read_weights(name, weights))
        self.prepare = InputNorm(standardize, trunk.mean, trunk.std)
        self.requires_grad_(True)
        for part in self.frozen_parts:
            part.requires_grad_(False)
        self.out_channels = self._measure_map(224)[0]  # a multiple of all strides
        self.train()

    @property
    def frozen_parts(self) -> list[nn.Module]:
        """The modules that are not trained, in the order of their calls: the normalization of photos and the blocks."""
        return [self.prepare, *self._list_modules(self.paths[: self.num_frozen])]

    @property
    def trained_parts(self) -> list[nn.Module]:
        """The modules that turn the output of `frozen_parts` into the feature map."""
        return self._list_modules(self.paths[self.num_frozen :])

    def _list_modules(self, blocks: list[list[str]]) -> list[nn.Module]:
        return [self.model.get_submodule(path) for path in itertools.chain(*blocks)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, out_channels, h, w), about H / stride and W / stride."""
        x = self.prepare(images)
        for path in self.calls:
            x = self.model.get_submodule(path)(x)
        return x

    def train(self, mode: bool = True) -> "Backbone":
        """As in PyTorch, but frozen parts stay in eval mode."""
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
        return self

    def map_size(self, pixels: int) -> int:
        """Height or width of the feature map for an image of that many pixels; a ValueError if they are too few."""
        if pixels < self.stride:
            raise ValueError(
                f"photos of {pixels} x {pixels} pixels are smaller than the stride {self.stride} of {self.name} at its "
                "crop; set a larger image_size or an earlier crop_after"
            )
        return self._measure_map(pixels)[1]

    @torch.no_grad()
    def _measure_map(self, pixels: int) -> torch.Size:
        """(C, h, w) of the feature map; nothing is computed."""
        backbone = copy.deepcopy(self).to("meta").eval()
        try:
            return backbone(torch.empty(1, 3, pixels, pixels, device="meta")).shape[1:]
        except RuntimeError as error:
            raise ValueError(f"{self.name} has no map for photos of {pixels} x {pixels} pixels: {error}") from None

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        """Load the blocks that are kept; others in the file are ignored."""
        wanted = self.model.state_dict()
        missing = [key for key in wanted if key not in state]
        if missing:
            raise ValueError(f"the weights lack {len(missing)} tensors of {self.name}, {missing[0]} for one")
        try:
            self.model.load_state_dict({key: state[key] for key in wanted})
        except RuntimeError as error:
            raise ValueError(f"the weights don't fit {self.name}: {error}") from None


class ResNet(Backbone):
    """A ResNet of torchvision, cropped after layer3 unless told otherwise; arguments as of `Backbone`.

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
        super().__init__(check_choice("ResNet", name, RESNETS), weights, crop_after, freeze_until, standardize)


class InputNorm(nn.Module):
    """Images as `augmentation.normalize` returns them -> as a network expects them.

    Args:
        standardize: each channel of each image to mean 0 and standard deviation 1; then `mean` and `std` don't matter.
        mean, std: of each channel in [0, 1], with which the network's weights were trained.
    """

    def __init__(self, standardize: bool, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.standardize = standardize
        pairs = zip(IMAGENET_MEAN, IMAGENET_STD, mean, std, strict=True)
        # x is (photo - old_mean) / old_std.
        self.shift, self.scale = zip(
            *(((old_mean - new_mean) / new_std, old_std / new_std) for old_mean, old_std, new_mean, new_std in pairs),
            strict=True,
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the same shape."""
        if self.standardize:
            return F.instance_norm(images)
        if set(self.scale) == {1.0} and set(self.shift) == {0.0}:
            return images
        shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (self.shift, self.scale))
        return torch.addcmul(shift, images, scale)


def _merge_paths(network: nn.Module, paths: list[str]) -> list[str]:
    """The same with `nn.Sequential`s in place of their parts, so that hooks on a stage are called."""
    parents = [path.rpartition(".")[0] for path in paths]
    is_sequential = [isinstance(network.get_submodule(parent), nn.Sequential) for parent in parents]
    merged = [*dict.fromkeys(np.where(is_sequential, parents, paths).tolist())]
    return paths if merged == paths else _merge_paths(network, merged)


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Merge each BatchNorm of known networks and their blocks into the convolution before it, in place.

    The model must be in eval mode; its outputs stay the same up to rounding.
    """
    for part in [*model.modules()]:
        for conv, bn in _list_pairs(part):
            if isinstance(getattr(part, bn, None), nn.BatchNorm2d):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, bn)))
                setattr(part, bn, nn.Identity())
        if type(part) in (BasicBlock, Bottleneck) and isinstance(part.downsample, nn.Sequential):
            part.downsample = fuse_conv_bn_eval(*part.downsample)
    return model


def _list_pairs(part: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's convolutions, each with that of the BatchNorm that is called after it.

    Classes derived from the known ones may call something in between, so they are left alone.
    """
    if type(part) in (BasicBlock, Bottleneck, torchvision.models.ResNet):
        return [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]
    if type(part) is InvertedResidual:
        return [("expand_conv", "bn0"), ("depthwise_conv", "bn1"), ("project_conv", "bn2")]
    if type(part) is EfficientNetLite0:
        return [("conv_stem", "bn0")]
    if type(part) in (FrozenPart, torchvision.ops.Conv2dNormActivation):
        pairs = itertools.pairwise(part._modules)
        return [(conv, bn) for conv, bn in pairs if isinstance(getattr(part, conv), nn.Conv2d)]
    return []


class FrozenPart(nn.Sequential):
    """The part of a model that is not trained: images (B, 3, H, W) -> features (B, C, h, w)."""
