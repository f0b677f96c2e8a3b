"""uint8 batches -> augmented uint8 batches -> normalized float batches.

RandAugment with torchvision's operations, magnitudes and distribution. The draws are the same on all devices; on a CPU
`augmentation_opencv` changes each photo, elsewhere torchvision changes those with the same operation together.

Source: Cubuk et al., RandAugment (NeurIPS 2020).
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torchvision.transforms.v2 import functional as tv

from vpr_lib import augmentation_opencv
from vpr_lib.settings import Settings

# Channel statistics of ImageNet in [0, 1]; all published backbones were trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_MAGNITUDE = 30  # torchvision has 31 bins
Part = tuple[int, int]
WHOLE: Part = (0, 0)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Scale to [0, 1], subtract ImageNet's mean and divide by its standard deviation.

    (B, 3, H, W) uint8 -> float32 in channels_last memory, the layout in which convolutions are fastest.
    """
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) * 255 for x in (IMAGENET_MEAN, IMAGENET_STD))
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def is_augmented(settings: Settings) -> bool:
    """Whether `augment` changes anything."""
    return settings.crop_min < 1 or settings.randaugment_ops > 0


def augment(images: torch.Tensor, seed: tuple[int, ...], settings: Settings, part: Part = WHOLE) -> torch.Tensor:
    """A random crop, then RandAugment, as the settings say; arguments and result as in `randaugment`."""
    if settings.crop_min < 1:
        images = random_crop(images, seed, settings.crop_min, part)
    return randaugment(images, seed, settings.randaugment_ops, settings.randaugment_magnitude, part=part)


def _find_draws(num_images: int, part: Part) -> tuple[np.ndarray, int]:
    """Positions of the images in their whole batch, and its size; repeated images take the draws of the last one."""
    first, total = part
    total = total or num_images
    return np.minimum(np.arange(first, first + num_images), total - 1), total


def random_crop(images: torch.Tensor, seed: tuple[int, ...], min_side: float, part: Part = WHOLE) -> torch.Tensor:
    """Random crops, `min_side` or more of height and width, resized to the photo's size; images as in `randaugment`."""
    rng = np.random.default_rng((*seed, 1))  # not the numbers that choose the operations
    rows, total = _find_draws(len(images), part)
    side = rng.uniform(min_side, 1, total)[rows, None]
    size = (images.shape[3], images.shape[2])
    center = rng.uniform(-0.5, 0.5, (total, 2))[rows] * (1 - side) * size
    matrices = np.concatenate([np.eye(2) * side[:, :, None], center[:, :, None]], axis=2)
    if images.device.type != "cpu":
        return _warp(images, matrices)
    images = images.clone()
    for photo, matrix in zip(_as_arrays(images), matrices, strict=True):
        photo[:] = augmentation_opencv.warp(photo, matrix)
    return images


def randaugment(
    images: torch.Tensor,
    seed: tuple[int, ...],
    num_ops: int = 3,
    magnitude: int = 9,
    by_photo: bool | None = None,
    part: Part = WHOLE,
) -> torch.Tensor:
    """A copy of the photos with `num_ops` random operations applied to each, drawn with replacement from `OPERATIONS`.

    Args:
        images: (B, 3, H, W) uint8, on any device.
        seed: determines operations and signs, on every device alike.
        magnitude: strength, 0 to 30.
        by_photo: each photo by itself with OpenCV (CPU only), or all with the same operation together; None: by device.
        part: of a batch that several processes share, see `loading.BatchRequest`; the photos change as in one process.
    """
    rng = np.random.default_rng(seed)
    rows, total = _find_draws(len(images), part)
    images = images.clone()
    for _ in range(num_ops):
        names = np.array(OPERATIONS)[rng.integers(len(OPERATIONS), size=total)][rows]
        signs = rng.choice((-1.0, 1.0), size=total)[rows]
        apply_operations(images, names, signs, magnitude / MAX_MAGNITUDE, by_photo)
    return images


def apply_operations(
    images: torch.Tensor, names: np.ndarray, signs: np.ndarray, strength: float, by_photo: bool | None = None
) -> None:
    """Apply an operation of `OPERATIONS` to each photo, in place; (B,) signs are -1 or 1, strength is 0 to 1."""
    size = images.shape[2:]
    warped = [row for row, name in enumerate(names) if name in WARPS]
    matrices = {row: np.array(WARPS[names[row]](signs[row] * strength, *size)) for row in warped}
    if by_photo or (by_photo is None and images.device.type == "cpu"):
        for row, photo in enumerate(_as_arrays(images)):
            if row in matrices:
                photo[:] = augmentation_opencv.warp(photo, matrices[row])
            else:
                photo[:] = augmentation_opencv.COLORS[names[row]](photo, signs[row], strength)
        return
    if warped:
        images[warped] = _warp(images[warped], np.stack(list(matrices.values())))
    for name, sign in sorted({*zip(names.tolist(), signs.tolist(), strict=True)}):
        if name in COLORS:
            rows = np.flatnonzero((names == name) & (signs == sign))
            images[rows] = COLORS[name](images[rows], sign, strength)


def _as_arrays(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) on a CPU -> (B, H, W, 3), the same memory."""
    return images.permute(0, 2, 3, 1).numpy()


def _warp(images: torch.Tensor, matrices: np.ndarray) -> torch.Tensor:
    """Warp (B, 3, H, W) by inverse maps (B, 2, 3) as in `WARPS`; bilinear, black outside."""
    half = np.array([images.shape[3] / 2, images.shape[2] / 2])
    theta = matrices / half[:, None]  # input positions in units of half the size, as grid_sample takes them
    theta[:, :, :2] *= half  # output positions, too
    theta = torch.as_tensor(theta, dtype=torch.float32, device=images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False).round_().byte()


# (signed strength, height, width) -> inverse map (2, 3): output to input position in pixels from the center.
WARPS: dict[str, Callable[[float, int, int], ArrayLike]] = {
    "ShearX": lambda s, height, width: [[1, 0.3 * s, 0.3 * s * height / 2], [0, 1, 0]],  # about the upper left corner
    "ShearY": lambda s, height, width: [[1, 0, 0], [0.3 * s, 1, 0.3 * s * width / 2]],
    "TranslateX": lambda s, height, width: [[1, 0, -int(150 / 331 * width * s)], [0, 1, 0]],
    "TranslateY": lambda s, height, width: [[1, 0, 0], [0, 1, -int(150 / 331 * height * s)]],
    "Rotate": lambda s, height, width: cv2.getRotationMatrix2D((0, 0), -30 * s, 1),
}
# (images (B, 3, H, W) uint8, sign, strength) -> uint8
COLORS: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "Identity": lambda images, sign, strength: images,
    "Brightness": lambda images, sign, strength: tv.adjust_brightness(images, 1 + 0.9 * strength * sign),
    "Color": lambda images, sign, strength: tv.adjust_saturation(images, 1 + 0.9 * strength * sign),
    "Contrast": lambda images, sign, strength: tv.adjust_contrast(images, 1 + 0.9 * strength * sign),
    "Sharpness": lambda images, sign, strength: tv.adjust_sharpness(images, 1 + 0.9 * strength * sign),
    "Posterize": lambda images, sign, strength: tv.posterize(images, 8 - round(4 * strength)),
    "Solarize": lambda images, sign, strength: tv.solarize(images, 255 * (1 - strength)),
    "AutoContrast": lambda images, sign, strength: tv.autocontrast(images),
    "Equalize": lambda images, sign, strength: tv.equalize(images),
}
OPERATIONS = (*WARPS, *COLORS)
