"""Backbones beyond ResNet: EfficientNet-Lite0 and its weights, torchvision's networks, DINOv2."""

import copy
import importlib.util
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from vpr_lib import efficientnet_lite0, extract_descriptors, find_positives, read_split, recall_at_k, search_database
from vpr_lib.aggregators import AvgPool, GeM
from vpr_lib.augmentation import normalize
from vpr_lib.backbones import Backbone, fold_batchnorm
from vpr_lib.blocks import DINOV2, find_points, list_blocks
from vpr_lib.efficientnet_lite0 import PACKAGE, SameConv2d, find_weights
from vpr_lib.features import open_features
from vpr_lib.loading import BatchRequest
from vpr_lib.models import VPRModel, build_model, split_model
from vpr_lib.settings import Settings, replace
from vpr_lib.torchvision_networks import list_networks, list_paths

HAS_WEIGHTS = importlib.util.find_spec(PACKAGE) is not None
needs_weights = pytest.mark.skipif(not HAS_WEIGHTS, reason=f"{PACKAGE} is not installed")
SMALL = Settings(weights=None, freeze_until=None, image_size=64, aggregator="GeM")


def pad_by_hand(x, kernel, stride):
    """TensorFlow's "SAME", side by side: as many zeros as the last position needs, the odd one at the end."""
    padding = []
    for size in (x.shape[3], x.shape[2]):
        last_start = (int(np.ceil(size / stride)) - 1) * stride
        missing = max(0, last_start + kernel - size)
        padding += [missing // 2, missing - missing // 2]
    return F.pad(x, padding)


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("height, width", [(8, 8), (7, 8), (9, 5), (1, 2)])
def test_convolutions_are_padded_as_in_tensorflow(kernel, stride, height, width):
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, kernel, stride=stride, groups=4, bias=False)
    x = torch.rand(2, 4, height, width)
    expected = F.conv2d(pad_by_hand(x, kernel, stride), conv.weight, None, stride, groups=4)
    assert expected.shape[2:] == (-(-height // stride), -(-width // stride))
    torch.testing.assert_close(conv(x), expected)


def run_lite0_by_hand(state, photos, num_blocks):
    """The published network as a list of operations on the tensors of the package's file; photos uint8."""

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(
            pad_by_hand(x, weight.shape[2], stride), weight, None, stride, groups=x.shape[1] // weight.shape[1]
        )

    x = norm(conv((photos.float() - 127) / 128, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for i in range(num_blocks):
        block, before = f"_blocks.{i}", x
        if i > 0:
            x = norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
        x = norm(conv(x, f"{block}._depthwise_conv", 2 if i in (1, 3, 5, 11) else 1), f"{block}._bn1").clamp(0, 6)
        x = norm(conv(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x + before if x.shape == before.shape else x
    return x


@pytest.mark.slow
@needs_weights
@pytest.mark.parametrize("crop_after, num_blocks, channels, size", [
    ("block11", 11, 112, 4), ("stride16", 11, 112, 4), ("block8", 8, 80, 4), ("stride8", 5, 40, 8),
    ("block16", 16, 320, 2),
])  # fmt: skip
def test_lite0_with_the_weights_of_the_package(crop_after, num_blocks, channels, size):
    photos = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 63, 64), dtype=np.uint8))
    state = torch.load(find_weights(), weights_only=True)
    backbone = Backbone("efficientnet_lite0", "imagenet", crop_after).eval()
    expected = run_lite0_by_hand(state, photos, num_blocks)
    with torch.no_grad():
        found = backbone(normalize(photos))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        folded = fold_batchnorm(copy.deepcopy(backbone))
        torch.testing.assert_close(folded(normalize(photos)), expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert found.shape == (2, channels, size, size) and backbone.out_channels == channels
    assert (backbone.map_size(63), backbone.map_size(64), backbone.stride * size) == (size, size, 64)


def test_lite0_without_its_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match=r"no-such-package.*make setup"):
        Backbone("efficientnet_lite0", "imagenet")
    Backbone("efficientnet_lite0")  # random weights need no package


@needs_weights
def test_another_file_in_the_package_is_an_error(tmp_path, monkeypatch):
    package = tmp_path / PACKAGE
    shutil.copytree(find_weights().parents[1], package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(package / "__init__.py")))
    path = find_weights()
    assert path.is_relative_to(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"efficientnet-lite0-57934424\.pth"):
        Backbone("efficientnet_lite0", "imagenet")


@pytest.mark.slow
def test_weights_of_another_backbone_are_named(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pt")
    with pytest.raises(ValueError, match=r"lack .* tensors of efficientnet_lite0"):
        Backbone("efficientnet_lite0", tmp_path / "resnet18.pt")
    with pytest.raises(ValueError, match=r"lack .* tensors of efficientnet_b0"):
        Backbone("efficientnet_b0", tmp_path / "resnet18.pt")
    with pytest.raises(ValueError, match="valid: resnet18"):
        Backbone("efficientnet_lite0", "city")


class BothPoolings(torch.nn.Module):
    """The descriptors of average pooling and of GeM side by side, from one feature map."""

    def forward(self, x):
        return torch.cat([AvgPool()(x), GeM()(x)], dim=1)


@needs_weights
@pytest.mark.slow
def test_lite0_on_real_photos(sf_photos):
    """What was measured when the kit was extended: average pooling 86.5, GeM 87.5, nothing trained."""
    database, queries = read_split(sf_photos, "val")
    model = VPRModel(Backbone("efficientnet_lite0", "imagenet"), BothPoolings())
    vectors = [extract_descriptors(model, half, 224, precision="float32") for half in (database, queries)]
    positives = find_positives(database.utm, queries.utm)
    for start, expected in ((0, 86.5), (112, 87.5)):
        _, indices = search_database(*(half[:, start : start + 112] for half in vectors), 1)
        assert recall_at_k(indices, positives, (1,))[1] == pytest.approx(expected, abs=1.5)


CHAINS = [
    ("alexnet", "features"), ("efficientnet_b0", "features.5"), ("mobilenet_v3_small", "features"),
    ("regnet_y_400mf", "trunk_output.block3"), ("shufflenet_v2_x0_5", "stage3"), ("squeezenet1_1", "features"),
    ("swin_v2_t", "permute"), ("vgg11_bn", "features.20"), ("densenet121", "features.norm5"), ("swin_t", "permute"),
    ("convnext_tiny", "features.5"), ("mobilenet_v2", "features.13"), ("resnext50_32x4d", "layer3"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name, node", CHAINS)
def test_chains_are_what_torchvision_cuts(name, node):
    """Compared with torchvision's own feature extraction, which follows the operations of the whole network."""
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, weights=None).eval()
    crop = "norm" if node == "permute" else node
    backbone = Backbone(name, None, crop).eval()
    backbone._load(whole.state_dict())
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        expected = create_feature_extractor(whole, {node: "map"})(backbone.prepare(images))["map"]
        found = backbone(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape[1] == backbone.out_channels
    assert [96 // backbone.stride, 128 // backbone.stride] == pytest.approx([*found.shape[2:]], abs=1)
    assert backbone.map_size(96) == found.shape[2]
    folded = fold_batchnorm(copy.deepcopy(backbone))
    with torch.no_grad():
        torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in list_networks() if name.endswith(("0", "1", "_s", "t", "18", "tiny"))]
)
def test_every_network_has_ordered_strides_and_points(name):
    blocks = list_blocks(name)
    strides = [*blocks.values()]
    assert strides == sorted(strides) and 16 in strides and len(blocks) >= 5
    num_kept, num_frozen = find_points(name, "stride16", "stride8")
    assert strides[num_frozen - 1] <= 8 < strides[num_frozen] and strides[num_kept - 1] == 16
    assert all(stride > 16 for stride in strides[num_kept:])
    assert find_points(name, "stride16", "crop-1") == (num_kept, num_kept - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "swin_v2_t", "resnet101"])
def test_the_two_parts_of_other_backbones_are_the_model(name):
    settings = replace(SMALL, backbone=name, freeze_until="stride8")
    model = build_model(settings)
    frozen, trained = split_model(model)
    images = torch.randn(2, 3, 64, 64)
    model.train()
    model.eval()
    with torch.no_grad():
        assert torch.equal(trained(frozen(images)), model(images))
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert all(weight.requires_grad for weight in trained.parameters())
    before = copy.deepcopy(model.state_dict())
    model.train()
    model(images).square().mul(torch.rand(model.backbone.out_channels)).sum().backward()
    frozen_names = {
        f"backbone.model.{path}" for block in model.backbone.paths[: model.backbone.num_frozen] for path in block
    }
    for key, value in model.state_dict().items():
        if any(key.startswith(f"{path}.") for path in frozen_names):
            assert torch.equal(value, before[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_v2_t", "efficientnet_lite0"])
def test_features_of_other_backbones_are_stored(name, data_root, tmp_path, machine):
    settings = replace(SMALL, backbone=name, freeze_until="stride8", randaugment_ops=0, precision="float32")
    model = build_model(settings).eval()
    table = read_split(data_root, "val")[0]
    features = open_features(model, settings, table, tmp_path, machine)[BatchRequest(np.array([2, 0]))].inputs
    photos = np.stack([np.asarray(Image.open(table.root / table.names[i]).resize((64, 64), 2)) for i in (2, 0)])
    frozen, trained = split_model(model)
    with torch.no_grad():
        expected = frozen(normalize(torch.from_numpy(photos.transpose(0, 3, 1, 2))))
        torch.testing.assert_close(features, expected, rtol=0.05, atol=0.05)  # decoded in another way
        assert trained(features).shape == (2, model.backbone.out_channels)


@pytest.mark.slow
def test_photos_are_normalized_as_the_weights_expect():
    photos = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), dtype=np.uint8))
    prepared = Backbone("efficientnet_lite0").prepare(normalize(photos))
    torch.testing.assert_close(prepared, (photos.float() - 127) / 128, rtol=1e-5, atol=1e-5)
    assert Backbone("resnet18").prepare(photos) is photos  # ImageNet's statistics
    large = Backbone("efficientnet_v2_l", crop_after="features.0").prepare(
        normalize(photos)
    )  # trained with 0.5 and 0.5
    torch.testing.assert_close(large, photos / 127.5 - 1, rtol=1e-5, atol=1e-5)


def test_names_of_backbones_and_blocks_are_listed():
    with pytest.raises(
        ValueError, match=r"resnet18, .*efficientnet_lite0, dinov2_vits14, .*efficientnet_b0, .*swin_v2_t"
    ):
        Settings(backbone="efficientnet")
    with pytest.raises(ValueError, match=r"crop_after of efficientnet_lite0 'layer3'; valid: stem, block1, .*stride16"):
        Settings(backbone="efficientnet_lite0", crop_after="layer3")
    with pytest.raises(
        ValueError, match=r"freeze_until of swin_v2_t.*'features.5'; valid: features\.0, .*features\.3\.1"
    ):
        Settings(backbone="swin_v2_t", crop_after="features.3", freeze_until="features.5")
    with pytest.raises(ValueError, match=r"freeze_until of efficientnet_lite0.*'block12'"):
        Settings(backbone="efficientnet_lite0", crop_after="block11", freeze_until="block12")
    with pytest.raises(ValueError, match=r"freeze_until of dinov2_vits14.*'stride8'; valid: tokens, block1, "):
        Settings(backbone="dinov2_vits14", freeze_until="stride8")


@pytest.mark.slow
@pytest.mark.parametrize("name, pixels", [("efficientnet_lite0", 15), ("resnet18", 8), ("swin_v2_t", 4)])
def test_photos_smaller_than_the_stride_are_an_error(name, pixels):
    with pytest.raises(ValueError, match=rf"{pixels} x {pixels} pixels .*stride 16"):
        build_model(replace(SMALL, backbone=name, image_size=pixels))
    build_model(replace(SMALL, backbone=name, image_size=32))


@needs_weights
def test_gray_and_16_bit_photos(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "@1@2@a@.png")
    Image.fromarray(pixels.astype(np.uint16) * 256 + 7).save(tmp_path / "@1@2@b@.png")
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(tmp_path / "@1@2@c@.png")
    descriptors = extract_descriptors(VPRModel(Backbone("efficientnet_lite0", "imagenet"), GeM()), tmp_path, 48)
    assert descriptors.shape == (3, 112) and np.allclose(descriptors, descriptors[:1], atol=1e-5)


class TinyDino(nn.Module):
    """A transformer with the parts of DINOv2's that the kit uses, and its forward pass for features."""

    def __init__(self, num_register_tokens=0):
        super().__init__()
        self.num_register_tokens = num_register_tokens
        self.patch_embed = nn.Conv2d(3, 24, 14, 14)
        self.others = nn.Parameter(torch.randn(1, 1 + num_register_tokens, 24))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True) for _ in range(12))
        self.norm = nn.LayerNorm(24)

    def prepare_tokens_with_masks(self, x, masks=None):
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        return torch.cat([self.others.expand(len(x), -1, -1), patches], dim=1)

    def forward(self, x):
        height, width = x.shape[2] // 14, x.shape[3] // 14
        x = self.prepare_tokens_with_masks(x)
        for block in self.blocks:
            x = block(x)
        patches = self.norm(x)[:, 1 + self.num_register_tokens :]
        return torch.stack([patches[:, row * width : (row + 1) * width] for row in range(height)], 1).permute(
            0, 3, 1, 2
        )


@pytest.mark.slow
@pytest.mark.parametrize("name, registers", [("dinov2_vits14", 0), ("dinov2_vits14_reg", 4)])
def test_dinov2_is_a_chain(monkeypatch, name, registers, data_root, tmp_path, machine):
    torch.manual_seed(0)
    asked, transformer = [], TinyDino(registers).eval()

    def load(repository, name, pretrained, **options):
        asked.append((repository.partition(":")[0], name, pretrained))
        return copy.deepcopy(transformer)

    monkeypatch.setattr(torch.hub, "load", load)
    settings = replace(
        SMALL, backbone=name, weights="imagenet", freeze_until="block10", image_size=56, randaugment_ops=0,
        precision="float32",
    )  # fmt: skip
    model = build_model(settings)
    assert asked == [("facebookresearch/dinov2", name, True)]
    images = torch.rand(2, 3, 56, 56)
    frozen, trained = split_model(model.eval())
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(images), transformer(images))
        torch.testing.assert_close(trained(frozen(images)), model(images))
    assert (model.backbone.out_channels, model.backbone.stride, model.backbone.map_size(56)) == (24, 14, 4)
    table = read_split(data_root, "val")[0]
    stored = open_features(model, settings, table, tmp_path, machine)[BatchRequest(np.array([0, 1]))].inputs
    assert stored.shape == (2, 17 + registers, 24) and trained(stored).shape == (2, 24)
    with pytest.raises(ValueError, match="308 or 322"):
        build_model(replace(settings, image_size=320))


def test_dinov2_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="dinov2_vits14"):
        Backbone("dinov2_vits14")
    assert len(list_blocks("dinov2_vitl14_reg")) == 25 and len(DINOV2) == 8


def test_paths_of_a_chain_stop_before_the_head():
    paths, tail = list_paths(torchvision.models.mobilenet_v2(weights=None))
    assert paths[0] == "features.0" and paths[-1] == "features.18" and tail == ()
