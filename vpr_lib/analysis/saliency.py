"""Two photos -> which regions of each carry the similarity of their descriptors; the same way for every aggregator."""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from vpr_lib.augmentation import normalize
from vpr_lib.descriptors import prepare_for_inference
from vpr_lib.models import VPRModel

NORMS = (torch.norm, torch.Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm)
HIGHLIGHT = (240, 228, 66)  # Okabe and Ito's yellow; on a darkened photo its brightness tells it, too


def explain_similarity(model: VPRModel, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the similarity of two photos comes from.

    The gradient of the descriptors' dot product with respect to each feature map, times that map, summed over
    channels: to first order, what the similarity would lose without a position. Negative values are cut off, as they
    speak against it. Descriptors' lengths are held constant: their change would take from each position what the
    photo as a whole has in common with the other, which leaves nothing where the two are the same.

    Args:
        model: backbone and aggregator, `AGGREGATORS` or any other module; it is not changed. It runs in eval mode and
            in float32, else as in `descriptors.extract`.
        first, second: (3, H, W) uint8, as `datasets.read_photo` gives, of the size the model was trained at.

    Returns:
        For each photo (h, w) float32 in [0, 1], the size of its feature map; 1 where most comes from, all 0 where
        nothing speaks for similarity.

    Raises:
        ValueError: the photos aren't two of one size, or don't fit the aggregator.

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), with the products kept by position, as in Jiang et al., LayerCAM
    (TIP 2021), for a similarity, as in Zhu et al., Visual Explanation for Deep Metric Learning (TIP 2021).
    """
    if first.shape != second.shape or first.ndim != 3 or len(first) != 3 or first.dtype != np.uint8:
        raise ValueError(f"photos of shapes {first.shape} and {second.shape}; expected two of (3, H, W) uint8")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model = prepare_for_inference(model, device)
    images = normalize(torch.from_numpy(np.stack([first, second])).to(device))
    with torch.no_grad():
        features = model.backbone(images)  # (2, C, h, w)
    with torch.enable_grad(), ConstantNorms():
        features.requires_grad_(True)
        descriptors = model.aggregator(features).float()  # (2, D)
        (gradient,) = torch.autograd.grad(descriptors[0] @ descriptors[1], features)
    maps = (gradient * features.detach()).sum(1).clamp(min=0)  # (2, h, w)
    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    first_map, second_map = maps.float().cpu().numpy()
    return first_map, second_map


class ConstantNorms(TorchFunctionMode):
    """Within it, PyTorch's norms are constants to gradients, those in `torch.nn.functional.normalize` too."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by PyTorch in place of each of its functions."""
        if func is F.normalize:
            return divide_by_norm(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        return result.detach() if func in NORMS else result


def divide_by_norm(
    input: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> torch.Tensor:
    """`torch.nn.functional.normalize`, its norm a constant to gradients."""
    return input / torch.linalg.vector_norm(input.detach(), p, dim, keepdim=True).clamp(min=eps)


def blend_map(photo: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """A map of `explain_similarity` over its photo: dark and grey where nothing is, yellow and bright where most is.

    Args:
        photo: (H, W, 3) uint8.
        regions: (h, w) in [0, 1]; it is stretched over the photo.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = photo.shape[:2]
    share = cv2.resize(regions.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = photo.mean(2, keepdims=True) * 0.5
    bright = 0.5 * photo + 0.5 * np.array(HIGHLIGHT)
    return np.round(grey * (1 - share) + bright * share).clip(0, 255).astype(np.uint8)
