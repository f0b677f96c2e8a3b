import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from vpr_lib import augmentation as augment
from vpr_lib.settings import get_preset, replace


@pytest.fixture
def images():
    """Smooth noise, as photos are, with one dark and one flat image among them."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, 9, 9)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(noise, (48, 64), mode="bicubic")
    pixels = (smooth * 60 + 120).clamp(0, 255)
    pixels[3] /= 4
    pixels[4] = 77
    return pixels.byte()


@pytest.mark.parametrize("by_photo", [True, False])  # the second way is that of a GPU, and runs on any device
@pytest.mark.parametrize("magnitude", [9, 23])
@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_each_operation_is_torchvisions(images, by_photo, name, magnitude):
    for sign in (-1.0, 1.0):
        check_operation(images, by_photo, name, sign, magnitude)


def check_operation(images, by_photo, name, sign, magnitude):
    reference = autoaugment.RandAugment(magnitude=magnitude)
    magnitudes, signed = reference._augmentation_space(31, images.shape[-2:])[name]
    value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    value *= sign if signed else 1.0
    ours = images.clone()
    names = np.full(len(images), name)
    augment.apply_operations(ours, names, np.full(len(images), sign), magnitude / augment.MAX_MAGNITUDE, by_photo)
    for image, mine in zip(images, ours.int(), strict=True):
        # torchvision has two of each, for tensors and for Pillow, which differ a little.
        both = [image, to_pil_image(image)]
        both = [autoaugment._apply_op(i, name, value, InterpolationMode.BILINEAR, None) for i in both]
        differences = [(mine - theirs.int()).abs() for theirs in (both[0], pil_to_tensor(both[1]))]
        # A rounding step apart at most, but for warps: their edge pixels may be in or out, and OpenCV before 5 rounds
        # positions to 1/32 pixel. That moves values by up to 1/64 of the step to a neighbor, here up to 70 levels.
        is_warp = name in augment.WARPS
        share = min((difference > (2 if is_warp and by_photo else 1)).float().mean() for difference in differences)
        assert share < (0.003 if is_warp else 1e-9)


def test_all_operations_are_there_and_equally_likely():
    assert set(augment.OPERATIONS) == set(autoaugment.RandAugment()._augmentation_space(31, (48, 64)))
    noise = np.random.default_rng(0).integers(10, 240, (1, 3, 24, 24), dtype=np.uint8)
    many = torch.from_numpy(noise).expand(14 * 200, -1, -1, -1)
    done = augment.randaugment(many, (3,), num_ops=1, magnitude=9)
    different = torch.unique(done.flatten(1), dim=0, return_counts=True)
    # 14 operations, 9 of them signed: 23 outcomes. The unsigned ones come twice as often.
    assert len(different[0]) == 23
    assert different[1].min() > 60 and different[1].max() < 280


def test_a_batch_is_a_function_of_its_seed_alone(images):
    before = images.clone()
    first = augment.randaugment(images, (0, 1, 2))
    torch.rand(3)
    assert torch.equal(first, augment.randaugment(images, (0, 1, 2)))
    assert not torch.equal(first, augment.randaugment(images, (0, 1, 3)))
    assert torch.equal(images, before)
    assert torch.equal(augment.randaugment(images, (0,), num_ops=0), images)


def test_random_crop_is_a_crop_resized():
    """On a linear ramp a crop tells its box: the value at each corner is its position."""
    ramp = torch.stack([torch.arange(100.0).expand(100, 100), torch.arange(100.0)[:, None].expand(100, 100)])
    ramp = torch.cat([ramp, ramp[:1]])[None].expand(200, -1, -1, -1).byte()
    crops = augment.random_crop(ramp, (4,), 0.6).float()
    sides = []
    for crop in crops:
        left, right = crop[0, 50, 10].item(), crop[0, 50, 90].item()
        top, bottom = crop[1, 10, 50].item(), crop[1, 90, 50].item()
        sides.append((right - left) / 80)
        assert abs((right - left) - (bottom - top)) <= 2  # the aspect ratio is kept
        assert crop[0, 50, 50].item() == pytest.approx((left + right) / 2, abs=1.1)
        assert crop[0].max() <= 99 and crop[0, 5:-5, 5:-5].min() >= 0
    assert 0.58 <= min(sides) < 0.65 and 0.95 < max(sides) <= 1.02
    assert torch.equal(augment.random_crop(ramp, (4,), 0.6).float(), crops)
    whole = augment.random_crop(ramp, (4,), 1.0)
    assert torch.equal(whole, ramp)


def test_the_settings_say_what_is_done(images):
    settings = replace(get_preset("smoke"), randaugment_ops=0)
    assert torch.equal(augment.augment(images, (1,), settings), images)
    cropped = augment.augment(images, (1,), replace(settings, crop_min=0.5))
    assert torch.equal(cropped, augment.random_crop(images, (1,), 0.5))
    both = augment.augment(images, (1,), replace(settings, crop_min=0.5, randaugment_ops=2))
    assert torch.equal(both, augment.randaugment(cropped, (1,), 2))


def test_normalize_is_totensor_and_normalize(images):
    slow = torch.stack(
        [(images[:, c] / 255 - augment.IMAGENET_MEAN[c]) / augment.IMAGENET_STD[c] for c in range(3)], dim=1
    )
    found = augment.normalize(images)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_both_ways_draw_the_same_operations(images):
    """Their rounding differs, and later operations may amplify that; another operation differs by tens of levels."""
    alone = [augment.randaugment(images, (seed,), by_photo=True).int() for seed in range(20)]
    together = [augment.randaugment(images, (seed,), by_photo=False).int() for seed in range(20)]
    differences = [(a - b).abs().float().mean().item() for a, b in zip(alone, together, strict=True)]
    assert max(differences) < 3 and np.median(differences) < 0.3
    assert min((a - b).abs().float().mean().item() for a, b in zip(alone, together[1:], strict=False)) > 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_does_what_a_batch_on_the_cpu_does(images):
    on_gpu = augment.randaugment(images.cuda(), (5,)).cpu().int()
    on_cpu = augment.randaugment(images, (5,), by_photo=False).int()
    assert ((on_gpu - on_cpu).abs() > 1).float().mean() < 0.01
