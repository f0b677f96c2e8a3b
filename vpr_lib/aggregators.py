"""Feature map (B, C, H, W) -> unit-norm descriptor (B, D).

To add one: a class whose output has unit norm, and a line in `AGGREGATORS`. Constructor arguments named
`in_channels`, `in_h` and `in_w` are filled in from the backbone and the image size. If it has a method `initialize`, a
training first calls it with local features of training photos, float32 (N, in_channels).
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vpr_lib.further_aggregators import SALAD, BoQ, CosPlace, NetVLAD
from vpr_lib.options import check_choice
from vpr_lib.pooling import generalized_mean, unit


class AvgPool(nn.Module):
    """AVG: the mean of each channel. D = C.

    Args:
        normalize: False gives the published table's variant: descriptors are not normalized although the loss
            normalizes them, so an L2 search also compares their lengths, which were not trained.
    """

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C)."""
        mean = x.float().mean((2, 3))
        return unit(mean) if self.normalize else mean


class GeM(nn.Module):
    """Generalized mean of each channel, with a trained exponent. D = C.

    Args:
        p: initial exponent; 1 is the mean, infinity the maximum.
        eps: smallest activation; the gradient of a power is infinite at 0 for p below 1.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation (TPAMI 2018), eq. 3.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), float(p)))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C)."""
        # float32: an activation of 41 cubed overflows float16.
        with torch.autocast(x.device.type, enabled=False):
            return unit(generalized_mean(x.float(), self.p.float(), self.eps))


class ConvAP(nn.Module):
    """A 1x1 convolution, then the mean over each of s1 x s2 regions. D = out_channels * s1 * s2.

    Args:
        in_channels: channels of the feature map.
        out_channels: channels after the convolution.
        s1, s2: regions vertically and horizontally; they keep the coarse layout of the scene.

    Source: Ali-bey et al., GSV-Cities: Toward Appropriate Supervised Visual Place Recognition
    (Neurocomputing 2022), section 4.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, s1: int = 2, s2: int = 2) -> None:
        super().__init__()
        self.channel_pool = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.pool = nn.AdaptiveAvgPool2d((s1, s2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, out_channels * s1 * s2)."""
        return unit(self.pool(self.channel_pool(x)))


class FeatureMixer(nn.Module):
    """A residual two-layer perceptron over all positions of a channel, the same for all channels."""

    def __init__(self, positions: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(positions * mlp_ratio)
        layers = [nn.LayerNorm(positions), nn.Linear(positions, hidden), nn.ReLU(), nn.Linear(hidden, positions)]
        self.mix = nn.Sequential(*layers)
        for layer in (self.mix[1], self.mix[3]):
            nn.init.trunc_normal_(layer.weight, std=0.02)  # starts near the identity, as published
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, positions) -> the same shape."""
        return x + self.mix(x)


class MixVPR(nn.Module):
    """Mixes the positions of each channel, then projects channels and positions. D = out_channels * out_rows.

    Args:
        in_channels: channels of the feature map.
        in_h, in_w: its height and width, which fix the image size.
        out_channels: channels after the projection.
        mix_depth: number of mixers.
        mlp_ratio: hidden width of a mixer, as a multiple of in_h * in_w.
        out_rows: positions after the projection.
        row_init: "random", as published: each row of the descriptor starts as a random mix of all positions.
            "regions": each row starts as the mean of one region of the map, so the untrained model is close to
            ConvAP and learns from few photos without pretrained weights.

    Source: Ali-bey et al., MixVPR: Feature Mixing for Visual Place Recognition (WACV 2023), section 3.
    """

    def __init__(
        self,
        in_channels: int,
        in_h: int,
        in_w: int,
        out_channels: int = 256,
        mix_depth: int = 4,
        mlp_ratio: float = 1.0,
        out_rows: int = 4,
        row_init: str = "random",
    ) -> None:
        super().__init__()
        self.map_shape = (in_channels, in_h, in_w)
        self.mix = nn.Sequential(*(FeatureMixer(in_h * in_w, mlp_ratio) for _ in range(mix_depth)))
        self.channel_proj = nn.Linear(in_channels, out_channels)
        self.row_proj = nn.Linear(in_h * in_w, out_rows)
        if check_choice("row_init", row_init, ("random", "regions")) == "regions":
            with torch.no_grad():
                self.row_proj.weight.copy_(_region_means(in_h, in_w, out_rows))
                self.row_proj.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, in_h, in_w) -> (B, out_channels * out_rows); another shape is a ValueError."""
        if x.shape[1:] != self.map_shape:
            raise ValueError(
                f"MixVPR was built for maps of (channels, height, width) {self.map_shape}, got {tuple(x.shape[1:])}: "
                "evaluate at the image size of the training"
            )
        x = self.mix(x.flatten(2))  # (B, C, H * W)
        x = self.channel_proj(x.transpose(1, 2)).transpose(1, 2)  # (B, out_channels, H * W)
        return unit(self.row_proj(x))  # (B, out_channels, out_rows) -> (B, D)


def _region_means(height: int, width: int, num_regions: int) -> torch.Tensor:
    """Weights (num_regions, height * width) that average regions of a map: 4 are 2 x 2, 6 are 2 x 3."""
    rows = max(n for n in range(1, math.isqrt(num_regions) + 1) if num_regions % n == 0)
    grid = (rows, num_regions // rows)
    if grid[0] > height or grid[1] > width:
        raise ValueError(f"a map of {height} x {width} can't be cut into {grid[0]} x {grid[1]} regions")
    # Pooling is linear: its matrix is its result on the unit maps.
    unit_maps = torch.eye(height * width).view(-1, height, width)
    return F.adaptive_avg_pool2d(unit_maps, grid).flatten(1).T


AGGREGATORS: dict[str, type[nn.Module]] = {
    "AVG": AvgPool,
    "GeM": GeM,
    "ConvAP": ConvAP,
    "MixVPR": MixVPR,
    "CosPlace": CosPlace,
    "NetVLAD": NetVLAD,
    "SALAD": SALAD,
    "BoQ": BoQ,
}
STUDY_AGGREGATORS = ("AVG", "GeM", "ConvAP", "MixVPR")  # those of the published study


def build_aggregator(name: str, in_channels: int, in_h: int, in_w: int, **options: Any) -> nn.Module:
    """Build an aggregator of `AGGREGATORS` for a feature map.

    Args:
        name: a key of `AGGREGATORS`.
        in_channels, in_h, in_w: the feature map's shape.
        options: further constructor arguments, over the class's defaults.
    """
    cls = AGGREGATORS[check_choice("aggregator", name, AGGREGATORS)]
    check_aggregator_options(name, options)
    parameters = inspect.signature(cls).parameters
    sizes = {"in_channels": in_channels, "in_h": in_h, "in_w": in_w}
    try:
        return cls(**{key: size for key, size in sizes.items() if key in parameters} | options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} can't be made with {options}: {error}") from None


def check_aggregator_options(name: str, options: Iterable[str]) -> None:
    """Raise a ValueError if the constructor of an aggregator of `AGGREGATORS` has no arguments of these names."""
    parameters = inspect.signature(AGGREGATORS[name]).parameters
    for key in options:
        check_choice(f"option of {name}", key, parameters)
