"""A uint8 batch on its device -> an augmented, normalised float batch on the same device.

RandAugment with torchvision's operations, magnitudes and distribution. On a GPU, the photos of a batch that drew the
same operation are changed together; on a CPU, each by itself (see `photo_ops`). The draws are the same.
Source: Cubuk et al., RandAugment (NeurIPS 2020).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from vpr_lib import photo_ops
from vpr_lib.loading import IMAGENET_MEAN, IMAGENET_STD
from vpr_lib.settings import Settings

MAX_MAGNITUDE = 30  # torchvision's 31 bins


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Scale to [0, 1], subtract ImageNet's mean and divide by its deviation.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, H, W) float32 in channels_last memory, the layout convolutions are fastest with.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1) * 255
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


def augment(images: torch.Tensor, seed: tuple[int, ...], settings: Settings) -> torch.Tensor:
    """What the settings ask for: a random crop, then RandAugment.

    Args and Returns: as `randaugment`.
    """
    if settings.crop_min < 1:
        images = random_crop(images, seed, settings.crop_min)
    return randaugment(images, seed, settings.randaugment_ops, settings.randaugment_magnitude)


def augments(settings: Settings) -> bool:
    """Whether `augment` changes anything."""
    return settings.crop_min < 1 or settings.randaugment_ops > 0


def random_crop(images: torch.Tensor, seed: tuple[int, ...], min_side: float) -> torch.Tensor:
    """Crop each photo to a share of its sides, drawn between `min_side` and 1, anywhere in it; resized back.

    Args:
        images: (B, 3, H, W) uint8, on any device; not changed.
        seed: determines the crops.
        min_side: smallest share of height and width, above 0.

    Returns:
        (B, 3, H, W) uint8, bilinear.
    """
    height, width = images.shape[-2:]
    draw = np.random.default_rng((*seed, 1))  # not the numbers that choose the operations
    side = draw.uniform(min_side, 1, len(images))
    shift = draw.uniform(-0.5, 0.5, (len(images), 2)) * (1 - side)[:, None] * (width, height)
    matrices = np.zeros((len(images), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = side
    matrices[:, :, 2] = shift
    if images.device.type != "cpu":
        return warp(images, matrices)
    images = images.clone()
    for photo, matrix in zip(images.permute(0, 2, 3, 1).numpy(), matrices, strict=True):
        photo[:] = photo_ops.warp_photo(photo, matrix)
    return images


def randaugment(images: torch.Tensor, seed: tuple[int, ...], num_ops: int = 3, magnitude: int = 9) -> torch.Tensor:
    """Apply `num_ops` random operations to each photo, drawn with replacement from `OPERATIONS`.

    Args:
        images: (B, 3, H, W) uint8, on any device; not changed.
        seed: determines the operations and their signs, on every device alike.
        num_ops: operations a photo.
        magnitude: strength, 0 to 30.

    Returns:
        (B, 3, H, W) uint8.
    """
    draw = np.random.default_rng(seed)
    images = images.clone()
    change = change_photos if images.device.type == "cpu" else change_batch
    for _ in range(num_ops):
        drawn = draw.integers(len(OPERATIONS), size=len(images))
        signs = draw.choice((-1.0, 1.0), size=len(images))
        change(images, drawn, signs, magnitude / MAX_MAGNITUDE)
    return images


def change_photos(images: torch.Tensor, drawn: np.ndarray, signs: np.ndarray, strength: float) -> None:
    """Apply one operation to each photo, in place, on a CPU.

    Args:
        images: (B, 3, H, W) uint8.
        drawn: (B,) indices into `OPERATIONS`.
        signs: (B,) of -1 or 1.
        strength: 0 to 1.
    """
    photos = images.permute(0, 2, 3, 1).numpy()  # (B, H, W, 3), the same memory
    for photo, number, sign in zip(photos, drawn, signs, strict=True):
        if number < len(WARPS):
            photo[:] = photo_ops.warp_photo(photo, np.array(WARPS[number](sign * strength, *photo.shape[:2])))
        else:
            photo[:] = photo_ops.COLOURS[number - len(WARPS)](photo, sign, strength)


def change_batch(images: torch.Tensor, drawn: np.ndarray, signs: np.ndarray, strength: float) -> None:
    """As `change_photos`, for any device: photos that drew the same operation together."""
    warped = np.flatnonzero(drawn < len(WARPS))
    if len(warped):
        size = images.shape[-2:]
        matrices = np.stack([WARPS[drawn[i]](signs[i] * strength, *size) for i in warped])
        images[warped] = warp(images[warped], matrices)
    for number in range(len(WARPS), len(OPERATIONS)):
        rows = np.flatnonzero(drawn == number)
        if len(rows):
            sign = torch.as_tensor(signs[rows], dtype=torch.float32, device=images.device)
            images[rows] = OPERATIONS[number](images[rows], sign.view(-1, 1, 1, 1), strength)


# Geometry: each gives the inverse map, output pixel -> input pixel, both measured from the centre.


def _shear_x(s: float, h: int, w: int) -> list[list[float]]:
    return [[1, 0.3 * s, 0.3 * s * h / 2], [0, 1, 0]]  # sheared about the upper left corner


def _shear_y(s: float, h: int, w: int) -> list[list[float]]:
    return [[1, 0, 0], [0.3 * s, 1, 0.3 * s * w / 2]]


def _translate_x(s: float, h: int, w: int) -> list[list[float]]:
    return [[1, 0, -int(150 / 331 * w * s)], [0, 1, 0]]


def _translate_y(s: float, h: int, w: int) -> list[list[float]]:
    return [[1, 0, 0], [0, 1, -int(150 / 331 * h * s)]]


def _rotate(s: float, h: int, w: int) -> list[list[float]]:
    cos, sin = math.cos(math.radians(30 * s)), math.sin(math.radians(30 * s))
    return [[cos, -sin, 0], [sin, cos, 0]]


def warp(images: torch.Tensor, matrices: np.ndarray) -> torch.Tensor:
    """Bilinear warp of each photo by its own inverse map; what comes from outside is black.

    Args:
        images: (B, 3, H, W) uint8.
        matrices: (B, 2, 3), output to input position in pixels from the centre.
    """
    height, width = images.shape[-2:]
    half = np.array([width / 2, height / 2])
    scale = matrices / half[:, None]  # input in units of half the size, as grid_sample wants it
    scale[:, :, :2] *= half  # output likewise
    theta = torch.as_tensor(scale, dtype=torch.float32, device=images.device)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False).round_().byte()


# Colour: images (n, 3, H, W) uint8, sign (n, 1, 1, 1) of -1 or 1, strength in [0, 1] -> uint8.


def _blend(images: torch.Tensor, other: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    return torch.lerp(other.float().expand(images.shape), images.float(), ratio).clamp_(0, 255).byte()


def _grey(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.float().unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor_().unsqueeze(1)


def _brightness(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    return (images * (1 + 0.9 * strength * sign)).clamp_(0, 255).byte()


def _colour(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    return _blend(images, _grey(images), 1 + 0.9 * strength * sign)


def _contrast(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), 1 + 0.9 * strength * sign)


def _sharpness(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    pixels = images.float()
    blurred = pixels.clone()  # the border stays as it is
    inner = F.avg_pool2d(pixels, 3, stride=1) * 9 + 4 * pixels[:, :, 1:-1, 1:-1]
    blurred[:, :, 1:-1, 1:-1] = (inner / 13).round_()
    return _blend(images, blurred, 1 + 0.9 * strength * sign)


def _posterize(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    dropped_bits = round(4 * strength)
    return images & (0xFF << dropped_bits & 0xFF)


def _solarize(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    return torch.where(images >= 255 * (1 - strength), 255 - images, images)


def _autocontrast(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    low = images.amin((2, 3), keepdim=True).float()
    high = images.amax((2, 3), keepdim=True).float()
    flat = high == low
    scale = torch.where(flat, 1.0, 255 / (high - low))
    return ((images - low.masked_fill(flat, 0)) * scale).clamp_(0, 255).byte()


def _equalize(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    planes = images.flatten(0, 1).flatten(1)  # (n * 3, H * W)
    offset = 256 * torch.arange(len(planes), device=images.device).unsqueeze(1)
    histogram = torch.bincount((planes + offset).flatten(), minlength=256 * len(planes)).view(-1, 256)
    levels = torch.arange(256, device=images.device)
    brightest = histogram.gather(1, torch.where(histogram > 0, levels, 0).amax(1, keepdim=True))
    step = (planes.shape[1] - brightest) // 255  # (n * 3, 1)
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.where(step > 0, table, levels)
    return table.gather(1, planes.long()).byte().view(images.shape)


def _identity(images: torch.Tensor, sign: torch.Tensor, strength: float) -> torch.Tensor:
    return images


WARPS = (_shear_x, _shear_y, _translate_x, _translate_y, _rotate)
COLOURS = (
    _identity,
    _brightness,
    _colour,
    _contrast,
    _sharpness,
    _posterize,
    _solarize,
    _autocontrast,
    _equalize,
)
OPERATIONS = WARPS + COLOURS
