"""Regions of similarity, against contributions computed by hand and by finite differences."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vpr_lib.aggregators import AGGREGATORS, AvgPool, NetVLAD, build_aggregator
from vpr_lib.analysis.saliency import blend_map, explain_similarity
from vpr_lib.augmentation import normalize
from vpr_lib.backbones import ResNet
from vpr_lib.models import VPRModel

MAP = 8  # positions of a feature map, height and width


class OwnMean(nn.Module):
    """Somebody's own aggregator: AVG, its norm written in another way."""

    def forward(self, x):
        mean = x.mean((2, 3))
        return mean / mean.norm(dim=1, keepdim=True)


def make_model(aggregator):
    torch.manual_seed(0)
    backbone = ResNet("resnet18", weights="city", crop_after="layer2")
    if isinstance(aggregator, str):
        aggregator = build_aggregator(aggregator, backbone.out_channels, MAP, MAP)
    if isinstance(aggregator, NetVLAD):  # from random centers, no region increases the similarity
        with torch.no_grad():
            maps = backbone.eval()(normalize(torch.from_numpy(make_photos())))
        aggregator.initialize(maps.movedim(1, 3).flatten(0, 2).numpy())
    return VPRModel(backbone, aggregator)


def make_photos(seed=0):
    """Two photos of coarse blocks that differ in all but the top left quadrant."""
    rng = np.random.default_rng(seed)
    photos = rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    photos[1, :, :4, :4] = photos[0, :, :4, :4]
    return photos.repeat(8, 2).repeat(8, 3)


@torch.no_grad()
def explain_slowly(model, photos, monkeypatch):
    """What the similarity gains or loses, at constant lengths, as one position of a map grows or shrinks a little."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # small differences need float64 throughout
    model = model.double().eval()
    features = model.backbone(normalize(torch.from_numpy(photos)).double())
    plain = model.aggregator(features)
    lengths = []  # of everything the aggregator normalizes, in order

    def record(x, dim=1):
        lengths.append(x.norm(dim=dim, keepdim=True).clamp(min=1e-12))
        return x / lengths[-1]

    monkeypatch.setattr(F, "normalize", record)
    torch.testing.assert_close(model.aggregator(features), plain)
    maps = np.zeros((2, MAP, MAP))
    for photo, y, x in np.ndindex(maps.shape):
        for sign in (1, -1):
            recorded = iter(lengths)
            monkeypatch.setattr(F, "normalize", lambda x, dim=1, recorded=recorded: x / next(recorded))
            changed = features.clone()
            changed[photo, :, y, x] *= 1 + sign * 1e-6
            a, b = model.aggregator(changed)
            maps[photo, y, x] += sign * float(a @ b)
    return [m.clip(0) / m.max() for m in maps]


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_maps_are_what_finite_differences_say(aggregator, monkeypatch):
    model, photos = make_model(aggregator), make_photos()
    found = explain_similarity(model, *photos)
    for quick, slow in zip(found, explain_slowly(model, photos, monkeypatch), strict=True):
        assert quick.shape == (MAP, MAP) and quick.dtype == np.float32
        np.testing.assert_allclose(quick, slow, atol=2e-3)
        assert quick.min() >= 0 and quick.max() == 1
        assert quick.std() > 0.05


@pytest.mark.parametrize("aggregator", ["AVG", OwnMean()], ids=str)
def test_averages_by_hand(aggregator):
    """The share of a position in the product of two means is its own product with the other mean."""
    model, photos = make_model(aggregator).eval(), make_photos()
    with torch.no_grad():
        a, b = model.backbone(normalize(torch.from_numpy(photos)))
    by_hand = [torch.einsum("chw,c->hw", x, other.mean((1, 2))) for x, other in ((a, b), (b, a))]
    for found, expected in zip(explain_similarity(model, *photos), by_hand, strict=True):
        np.testing.assert_allclose(found, expected / expected.max(), atol=1e-4)


def test_the_same_photo_twice_has_regions_too():
    """A gradient through the descriptors' lengths would be zero here."""
    photo = make_photos()[0]
    first, second = explain_similarity(make_model("ConvAP"), photo, photo)
    np.testing.assert_array_equal(first, second)
    assert 0.2 < first.mean() < 0.95


def test_the_model_is_left_as_it_was():
    model = make_model("GeM").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        explain_similarity(model, *make_photos())
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_nothing_in_common_is_a_map_of_zeros():
    class Opposite(nn.Module):
        def forward(self, x):
            return AvgPool()(x) * torch.tensor([[1.0], [-1.0]])

    first, second = explain_similarity(make_model(Opposite()), *make_photos())
    assert not first.any() and not second.any()


@pytest.mark.slow
def test_pairs_that_dont_fit_are_refused():
    first, second = make_photos()
    for pair in ((first, second[:, :32]), (first[0], second[0]), (first / 255, second / 255)):
        with pytest.raises(ValueError, match=r"expected two of \(3, H, W\) uint8"):
            explain_similarity(make_model("AVG"), *pair)
    with pytest.raises(ValueError, match="image size"):
        explain_similarity(make_model("MixVPR"), first[:, :32], second[:, :32])


def test_a_map_colors_its_photo_only_where_it_is_large():
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    regions = np.zeros((4, 6), np.float32)
    regions[:, 3:] = 1
    blended = blend_map(photo, regions)
    assert blended.shape == photo.shape and blended.dtype == np.uint8
    np.testing.assert_array_equal(blended[:, :20], photo[:, :20])  # not darkened
    inside = (slice(5, 35), slice(40, 55))
    by_hand = 0.25 * photo[inside] + 0.75 * np.array([214, 0, 147])
    np.testing.assert_allclose(blended[inside], by_hand, atol=0.51)
    is_white = (blended == 255).all(2)
    assert is_white[5:35, 25:40].any(1).all()  # a line where the value is one half


def test_more_of_the_photo_is_colored_where_the_value_is_larger():
    photo = np.full((8, 8, 3), 128, np.uint8)
    shifts = [
        np.abs(blend_map(photo, np.full((2, 2), value, np.float32))[4, 4].astype(int) - 128).sum()
        for value in (0, 0.2, 0.4, 0.6, 1)
    ]
    assert shifts[0] == 0 and shifts == sorted(shifts) and len(set(shifts)) == 5
