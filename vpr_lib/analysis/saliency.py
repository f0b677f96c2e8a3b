"""Saliency: which regions of two photos account for the similarity of their descriptors, for any aggregator."""

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
HIGHLIGHT = (214, 0, 147)  # magenta: hardly anything in a street has this color
OPACITY = 0.75  # of the largest value of a map


def explain_similarity(model: VPRModel, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute how much each position of two feature maps contributes to the similarity of the descriptors.

    The gradient of the descriptors' dot product with respect to a feature map is multiplied by the feature map and
    summed over channels: to first order, the similarity lost if the position were removed. Negative values are set
    to 0. Norms of descriptors are treated as constants; otherwise the gradient is zero for two equal photos.

    Args:
        model: backbone and any aggregator; not changed. It runs in eval mode and float32.
        first, second: (3, H, W) uint8 from `read_photo`, at the size the model was trained with.

    Returns:
        For each photo (h, w) float32, the size of its feature map, scaled to a maximum of 1, or all 0.

    Raises:
        ValueError: the photos have different sizes, are not uint8, or do not fit the aggregator.

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), with products per position as in Jiang et al., LayerCAM (TIP 2021),
    for a similarity as in Zhu et al., Visual Explanation for Deep Metric Learning (TIP 2021).
    """
    if first.shape != second.shape or first.ndim != 3 or len(first) != 3 or first.dtype != np.uint8:
        raise ValueError(f"photos of shapes {first.shape} and {second.shape}; expected two of (3, H, W) uint8")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    model = prepare_for_inference(model, device)
    images = normalize(torch.from_numpy(np.stack([first, second])).to(device))
    with torch.no_grad():
        features = model.backbone(images)  # (2, C, h, w)
    with torch.enable_grad(), _ConstantNorms():
        features.requires_grad_(True)
        descriptors = model.aggregator(features).float()  # (2, D)
        (gradient,) = torch.autograd.grad(descriptors[0] @ descriptors[1], features)
    maps = (gradient * features.detach()).sum(1).clamp(min=0)  # (2, h, w)
    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    first_map, second_map = maps.float().cpu().numpy()
    return first_map, second_map


class _ConstantNorms(TorchFunctionMode):
    """While active, norms (including those in `torch.nn.functional.normalize`) have no gradient."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = (_divide_by_norm if func is F.normalize else func)(*args, **(kwargs or {}))
        return result.detach() if func in NORMS else result


def _divide_by_norm(
    input: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> torch.Tensor:
    return input / torch.linalg.vector_norm(input.detach(), p, dim, keepdim=True).clamp(min=eps)


def blend_map(photo: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Lay a saliency map (h, w) over its photo (H, W, 3) uint8, which stays as it is where the map is 0.

    The map is `HIGHLIGHT`, more opaque the larger its value, up to `OPACITY` at 1. A white line surrounds values of at
    least one half, so that color is not the only cue.
    """
    height, width = photo.shape[:2]
    values = cv2.resize(saliency, (width, height), interpolation=cv2.INTER_LINEAR)
    weight = OPACITY * values[..., None]
    blended = np.round(photo * (1 - weight) + np.array(HIGHLIGHT) * weight).clip(0, 255).astype(np.uint8)
    outlines, _ = cv2.findContours((values >= 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(blended), outlines, -1, (255, 255, 255), max(1, width // 300))
