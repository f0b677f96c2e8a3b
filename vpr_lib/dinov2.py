"""DINOv2, a vision transformer trained without labels, as a chain of blocks; code and weights come from torch.hub."""

import math
import urllib.error

import torch
from torch import nn

REPOSITORY = "facebookresearch/dinov2:main"
PATCH_SIZE = 14


class DINOv2(nn.Module):
    """Its parts in the order of their calls: `tokens`, each of `blocks`, `to_map`.

    Source: Oquab et al., DINOv2: Learning Robust Visual Features without Supervision (TMLR 2024).
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.blocks = transformer.blocks
        self.to_map = TokensToMap(transformer.norm, 1 + getattr(transformer, "num_register_tokens", 0))
        del transformer.blocks, transformer.norm
        self.tokens = Tokens(transformer)


class Tokens(nn.Module):
    """Cuts photos into patches of 14 x 14 pixels and embeds them; a class token comes first."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 1 + H / 14 * W / 14, C); registers, if any, follow the class token."""
        height, width = images.shape[2:]
        if height != width or height % PATCH_SIZE:
            near = height // PATCH_SIZE * PATCH_SIZE
            raise ValueError(
                f"photos have {height} x {width} pixels; DINOv2 takes squares of a multiple of {PATCH_SIZE}: set "
                f"image_size to {max(near, PATCH_SIZE)} or {near + PATCH_SIZE}"
            )
        return self.transformer.prepare_tokens_with_masks(images)


class TokensToMap(nn.Module):
    """Normalizes the tokens of the patches and arranges them as a square map."""

    def __init__(self, norm: nn.Module, num_others: int) -> None:
        super().__init__()
        self.norm = norm
        self.num_others = num_others  # tokens before those of the patches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, num_others + h * h, C) -> (B, C, h, h)."""
        x = self.norm(x)[:, self.num_others :]
        size = math.isqrt(x.shape[1])
        return x.transpose(1, 2).unflatten(2, (size, size))


def load_dinov2(name: str, pretrained: bool) -> DINOv2:
    """A DINOv2 model by its name in torch.hub, with the published or with random weights.

    Raises:
        ConnectionError: code or weights are neither here nor can be downloaded.
    """
    try:
        transformer = torch.hub.load(REPOSITORY, name, pretrained=pretrained, trust_repo=True, skip_validation=True)
    except (urllib.error.URLError, OSError) as error:
        advice = "without a network take --set backbone=efficientnet_lite0"
        raise ConnectionError(f"{name} can't be downloaded ({error}); {advice}") from None
    return DINOv2(transformer)
