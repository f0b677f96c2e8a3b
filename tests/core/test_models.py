"""Backbones, aggregators, the model, and the authors' checkpoints."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from pytorch_metric_learning import losses
from torch import nn

from vpr_lib import backbones
from vpr_lib.aggregators import AGGREGATORS, STUDY_AGGREGATORS, AvgPool, ConvAP, GeM, MixVPR, build_aggregator
from vpr_lib.author_weights import load_author_weights
from vpr_lib.backbones import ResNet
from vpr_lib.models import ChunkedModel, VPRModel, build_model, load_model, save_model
from vpr_lib.settings import Settings, replace
from vpr_lib.trunks import find_city_weights, read_checkpoint


@pytest.fixture(params=AGGREGATORS)
def name(request):
    return request.param


@pytest.mark.parametrize("shape", [(16, 5, 5), (256, 20, 20)], ids=str)
def test_every_aggregator_gives_unit_norm_and_a_gradient(name, shape):
    torch.manual_seed(0)
    aggregator = build_aggregator(name, *shape)
    x = torch.rand(3, *shape, requires_grad=True)
    descriptors = aggregator(x)
    assert descriptors.shape[0] == 3 and descriptors.ndim == 2 and descriptors.dtype == torch.float32
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(3))
    descriptors.square().mul(torch.rand_like(descriptors)).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in aggregator.parameters())


def test_every_aggregator_takes_a_batch_of_one_and_treats_images_alike(name):
    torch.manual_seed(0)
    aggregator = build_aggregator(name, 16, 5, 5).eval()
    x = torch.rand(3, 16, 5, 5)
    together = aggregator(x)
    for i in range(3):
        torch.testing.assert_close(aggregator(x[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-6)


def test_every_aggregator_survives_half_precision(name):
    torch.manual_seed(0)
    aggregator = build_aggregator(name, 16, 5, 5)
    x = 60 * torch.rand(2, 16, 5, 5)  # 60^3 overflows float16
    expected = aggregator(x)
    found = copy.deepcopy(aggregator).half()(x.half())
    assert torch.isfinite(found).all()
    assert (F.cosine_similarity(found, expected) > 0.999).all()


def test_published_sizes():
    sizes = {name: build_aggregator(name, 256, 20, 20)(torch.rand(1, 256, 20, 20)).shape[1] for name in AGGREGATORS}
    assert {name: sizes.pop(name) for name in STUDY_AGGREGATORS} == {
        "AVG": 256,
        "GeM": 256,
        "ConvAP": 1024,
        "MixVPR": 1024,
    }
    assert sizes == {"CosPlace": 512, "NetVLAD": 16 * 256, "SALAD": 256 + 64 * 128, "BoQ": 1024}


def test_avg_and_gem_by_hand():
    x = torch.rand(2, 3, 4, 5) + 0.1
    for b in range(2):
        mean = [sum(x[b, c].flatten().tolist()) / 20 for c in range(3)]
        cubes = [(sum(v**3 for v in x[b, c].flatten().tolist()) / 20) ** (1 / 3) for c in range(3)]
        for found, by_hand in ((AvgPool()(x)[b], mean), (GeM()(x)[b], cubes)):
            torch.testing.assert_close(found.detach(), torch.tensor(by_hand) / np.linalg.norm(by_hand))
    torch.testing.assert_close(AvgPool(normalize=False)(x), x.mean((2, 3)))  # the published variant
    torch.testing.assert_close(GeM(p=1.0)(x), AvgPool()(x))


@pytest.mark.parametrize("p, eps", [(1.0, 1e-6), (3.0, 1e-6), (7.5, 1e-6), (20.0, 1e-6), (50.0, 1e-6), (100.0, 1e-3)])
def test_gem_and_its_gradients_are_those_of_the_plain_formula(p, eps):
    """In float64, which holds eps ** p; with channels that are dead or nearly so."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 8, 4, 5)).astype(np.float32)).relu()
    x[:, 2] = 0
    x[:, 5] *= 1e-2
    weights = torch.linspace(-1, 1, 8)
    gem, found_x = GeM(p, eps), x.clone().requires_grad_()
    found = gem(found_x)
    (found @ weights).sum().backward()
    plain_p, plain_x = torch.tensor(p, dtype=torch.float64, requires_grad=True), x.double().requires_grad_()
    plain = F.normalize(plain_x.clamp(min=eps).pow(plain_p).mean((2, 3)).pow(1 / plain_p))
    (plain @ weights.double()).sum().backward()
    torch.testing.assert_close(found.double(), plain, rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(found_x.grad.double(), plain_x.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(gem.p.grad[0].double(), plain_p.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3])  # a power of 100 of any of them is beyond float32
def test_gem_with_a_large_exponent_has_finite_gradients(scale):
    gem, x = GeM(100.0), (scale * torch.rand(2, 4, 5, 5)).requires_grad_()
    descriptors = gem(x)
    descriptors[:, 0].sum().backward()
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))
    assert torch.isfinite(x.grad).all() and torch.isfinite(gem.p.grad).all()


def test_convap_is_a_matrix_product_and_means_of_regions():
    torch.manual_seed(0)
    module, x = ConvAP(3, 4, 2, 2), torch.rand(1, 3, 6, 8)
    weight, bias = module.channel_pool.weight[:, :, 0, 0], module.channel_pool.bias
    mapped = (weight @ x[0].flatten(1) + bias[:, None]).view(4, 6, 8)
    regions = [mapped[:, r : r + 3, c : c + 4].mean((1, 2)) for r in (0, 3) for c in (0, 4)]
    by_hand = torch.stack(regions, dim=1).flatten()
    torch.testing.assert_close(module(x)[0], by_hand / by_hand.norm())


def test_mixvpr_in_loops():
    torch.manual_seed(0)
    module, x = MixVPR(3, 2, 2, out_channels=5, mix_depth=2, mlp_ratio=1.5, out_rows=2), torch.rand(1, 3, 2, 2)
    channels = [x[0, c].flatten() for c in range(3)]
    for mixer in module.mix:
        norm, first, _, second = mixer.mix
        assert first.out_features == 6
        mixed = []
        for v in channels:
            n = (v - v.mean()) / torch.sqrt(v.var(unbiased=False) + 1e-5) * norm.weight + norm.bias
            mixed.append(v + second.weight @ torch.relu(first.weight @ n + first.bias) + second.bias)
        channels = mixed
    columns = torch.stack(channels)  # (C, positions)
    projected = module.channel_proj.weight @ columns + module.channel_proj.bias[:, None]
    rows = projected @ module.row_proj.weight.T + module.row_proj.bias
    torch.testing.assert_close(module(x)[0], rows.flatten() / rows.norm())


def test_mixvpr_with_region_rows_and_idle_mixers_is_convap():
    torch.manual_seed(0)
    for shape in ((8, 8), (5, 7)):
        mixvpr, convap = MixVPR(3, *shape, out_channels=6, row_init="regions"), ConvAP(3, 6, 2, 2)
        convap.channel_pool.weight.data = mixvpr.channel_proj.weight.data[:, :, None, None]
        convap.channel_pool.bias.data = mixvpr.channel_proj.bias.data
        x = torch.rand(2, 3, *shape)
        near = F.cosine_similarity(mixvpr(x), convap(x))
        for mixer in mixvpr.mix:
            nn.init.zeros_(mixer.mix[3].weight)
        torch.testing.assert_close(mixvpr(x), convap(x))
        assert (near > 0.9).all()  # the mixers start near the identity
    with pytest.raises(ValueError, match="2 x 3 regions"):
        MixVPR(3, 4, 2, out_rows=6, row_init="regions")
    with pytest.raises(ValueError, match="valid: random, regions"):
        MixVPR(3, 4, 4, row_init="pool")


def test_mixvpr_names_the_image_size_it_was_built_for():
    with pytest.raises(ValueError, match=r"\(3, 4, 4\), got \(3, 5, 5\)"):
        MixVPR(3, 4, 4)(torch.rand(1, 3, 5, 5))


def test_unknown_aggregators_and_options_list_the_valid_ones():
    with pytest.raises(ValueError, match="AVG, GeM, ConvAP, MixVPR, CosPlace, NetVLAD, SALAD, BoQ"):
        build_aggregator("mix", 16, 5, 5)
    with pytest.raises(ValueError, match="option of GeM 'q'; valid: p, eps"):
        build_aggregator("GeM", 16, 5, 5, q=2)
    assert build_aggregator("GeM", 16, 5, 5, p=4.0).p.item() == 4.0


def test_options_do_not_leak_between_models():
    first = build_aggregator("GeM", 16, 5, 5)
    with torch.no_grad():
        first.p += 1
    assert build_aggregator("GeM", 16, 5, 5).p.item() == 3.0
    options = Settings().aggregator_options
    assert Settings().aggregator_options is not options


@pytest.mark.slow
@pytest.mark.parametrize("backbone, crop, channels, size", [
    ("resnet18", "layer3", 256, 4), ("resnet18", "layer4", 512, 2), ("resnet34", "layer2", 128, 8),
    ("resnet50", "layer3", 1024, 4), ("resnet18", "layer1", 64, 16),
])  # fmt: skip
def test_backbone_is_torchvisions_up_to_the_crop(backbone, crop, channels, size):
    torch.manual_seed(0)
    whole = torchvision.models.get_model(backbone, weights=None).eval()
    ours = ResNet(backbone, crop_after=crop)
    ours._load(whole.state_dict())
    x = torch.rand(1, 3, 63, 64)
    stages = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    expected = x
    for stage in stages[: stages.index(crop) + 1]:
        expected = getattr(whole, stage)(expected)
    found = ours.eval()(x)
    torch.testing.assert_close(found, expected)
    assert found.shape == (1, channels, size, size) and ours.out_channels == channels
    assert (ours.map_size(63), ours.map_size(64)) == (size, size)
    torch.testing.assert_close(backbones.fold_batchnorm(copy.deepcopy(ours))(x), expected, rtol=1e-3, atol=1e-4)


def test_folding_merges_moving_statistics_too():
    torch.manual_seed(0)
    for backbone in ("resnet18", "resnet50"):
        ours = ResNet(backbone, crop_after="layer2")
        for _ in range(3):
            ours(torch.rand(4, 3, 32, 32) * 5)
        ours.eval()
        folded = backbones.fold_batchnorm(copy.deepcopy(ours))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        x = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(folded(x), ours(x), rtol=1e-3, atol=1e-4)


def test_frozen_stages_get_neither_gradient_nor_statistics():
    torch.manual_seed(0)
    ours = ResNet("resnet18", freeze_until="layer2")
    ours.eval()
    ours.train()
    before = copy.deepcopy(ours.state_dict())
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], lr=0.1)
    ours(torch.rand(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    changed = {k.split(".")[1] for k, v in ours.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"layer3"}
    assert ours.model.layer3[0].bn1.training and not ours.model.layer2[0].bn1.training and not ours.model.bn1.training
    assert {n.split(".")[1] for n, p in ours.named_parameters() if p.requires_grad} == {"layer3"}


def test_standardized_photos_look_alike_dark_or_bright():
    torch.manual_seed(0)
    plain, standardized = ResNet(crop_after="layer1").eval(), ResNet(crop_after="layer1", standardize=True).eval()
    standardized.load_state_dict(plain.state_dict())
    bright = torch.rand(2, 3, 32, 32)
    dark = 0.2 * bright - torch.tensor([1.0, 1.5, 2.0])[:, None, None]
    torch.testing.assert_close(standardized(dark), standardized(bright), rtol=1e-2, atol=1e-3)
    by_hand = (bright - bright.mean((2, 3), keepdim=True)) / bright.std((2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(standardized(bright), plain(by_hand), rtol=1e-3, atol=1e-3)


def test_unknown_backbones_and_stages():
    with pytest.raises(ValueError, match="valid: resnet18, resnet34, resnet50"):
        ResNet("resnet")
    with pytest.raises(ValueError, match=r"crop_after .*'layer5'; valid: conv1, .*layer4\.1, .*layer4, .*stride32"):
        ResNet(crop_after="layer5")
    with pytest.raises(ValueError, match=r"freeze_until .*'layer4'; valid: conv1, .*layer3, .*stride16, crop-1$"):
        ResNet(freeze_until="layer4")


def test_imagenet_without_a_network_says_what_to_pass(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(ConnectionError, match="pass weights=None"):
        ResNet(weights="imagenet")


@pytest.mark.slow
def test_weights_from_a_file(tmp_path):
    whole = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(whole, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"backbone.model.{k}": v for k, v in whole.items()}}, tmp_path / "lightning.ckpt")
    for file in ("plain.pt", "lightning.ckpt"):
        loaded = ResNet(weights=tmp_path / file)
        assert torch.equal(loaded.model.layer3[1].conv2.weight, whole["layer3.1.conv2.weight"])
    with pytest.raises(FileNotFoundError, match="no weights file"):
        ResNet(weights=tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match="lack"):
        ResNet("resnet34", weights=tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="don't fit"):
        torch.save(whole | {"conv1.weight": torch.zeros(1)}, tmp_path / "odd.pt")
        ResNet(weights=tmp_path / "odd.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="with weights only"):
        ResNet(weights=tmp_path / "text.pt")
    torch.save({"a": 1}, tmp_path / "int.pt")
    with pytest.raises(ValueError, match="no state dict"):
        read_checkpoint(tmp_path / "int.pt")


@pytest.mark.slow
def test_starter_weights_come_along():
    backbone = ResNet("resnet18", weights="city", freeze_until="layer2", standardize=True)
    stored = torch.load(find_city_weights(), weights_only=True)
    assert find_city_weights().stat().st_size <= 6e6
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    assert set(backbone.model.state_dict()) == set(stored)  # up to layer3
    for key, value in backbone.model.state_dict().items():
        torch.testing.assert_close(value, stored[key].to(value.dtype))
    with pytest.raises(ValueError, match=r"resnet50.*valid: resnet18"):
        ResNet("resnet50", weights="city")
    with pytest.raises(ValueError, match=r"lack .* layer4"):
        ResNet("resnet18", weights="city", crop_after="layer4")
    with pytest.raises(ValueError, match="standardize=true"):
        Settings(weights="city")


def test_checkpoints_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="weights only"):
        load_author_weights(tmp_path / "evil.pt")
    assert not (tmp_path / "owned").exists()


class PublishedMixer(nn.Module):
    """The layout of the authors' state dicts, rebuilt from their published names alone."""

    def __init__(self, positions, hidden):
        super().__init__()
        self.mix = nn.Sequential(
            nn.LayerNorm(positions), nn.Linear(positions, hidden), nn.ReLU(), nn.Linear(hidden, positions)
        )


def author_state(name, aggregator, drop):
    whole = torchvision.models.get_model(name, weights=None)
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(drop)}
    published = {f"backbone.model.{k}": v for k, v in state.items()}
    return published | {f"aggregator.{k}": v for k, v in aggregator.state_dict().items()}


@pytest.mark.parametrize(
    "name, drop",
    [
        ("resnet18", ("fc", "layer4")),
        pytest.param("resnet50", ("fc",), marks=pytest.mark.slow),
        pytest.param("resnet34", ("fc",), marks=pytest.mark.slow),
    ],
)
def test_published_convap_weights_load(name, drop, tmp_path):
    channels = {"resnet18": 256, "resnet34": 512, "resnet50": 2048}[name]
    aggregator = nn.Module()
    aggregator.channel_pool = nn.Conv2d(channels, 24, 1)
    state = author_state(name, aggregator, drop)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "lightning.ckpt")
    for source in (state, {"state_dict": state}, tmp_path / "lightning.ckpt"):
        model = load_author_weights(source)
        assert not model.training
        assert model(torch.rand(1, 3, 64, 64)).shape == (1, 96)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert load_author_weights(state, s1=3, s2=1)(torch.rand(1, 3, 96, 96)).shape == (1, 72)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [16, 24])
def test_published_mixvpr_weights_load(hidden):
    aggregator = nn.Module()
    aggregator.mix = nn.Sequential(*(PublishedMixer(16, hidden) for _ in range(3)))
    aggregator.channel_proj, aggregator.row_proj = nn.Linear(1024, 32), nn.Linear(16, 4)
    state = author_state("resnet50", aggregator, ("fc", "layer4"))
    model = load_author_weights(state)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 128)
    assert len(model.aggregator.mix) == 3
    assert load_author_weights(state, in_h=2)(torch.rand(1, 3, 32, 128)).shape == (1, 128)
    with pytest.raises(ValueError, match="maps of 16 positions, not 5"):
        load_author_weights(state, in_h=5, in_w=3)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_errors():
    aggregator = nn.Module()
    aggregator.channel_pool = nn.Conv2d(256, 24, 1)
    state = author_state("resnet18", aggregator, ("fc", "layer4"))
    with pytest.raises(ValueError, match="don't fit"):
        load_author_weights({k: v for k, v in state.items() if k != "backbone.model.bn1.weight"})
    with pytest.raises(ValueError, match="don't fit"):
        load_author_weights(state | {"aggregator.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="no ResNet weights"):
        load_author_weights({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"holds \['centroids'\]"):
        load_author_weights(author_state("resnet18", nn.Module(), ("fc",)) | {"aggregator.centroids": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown sizes"):
        load_author_weights(state, rows=2)


def test_a_model_is_a_function_of_its_settings_and_comes_back_from_disk(tmp_path):
    settings = replace(Settings(), weights=None, image_size=64, aggregator_options={"MixVPR": {"out_rows": 2}})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = build_model(settings).eval()
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(build_model(settings).eval()(images), model(images))
    assert not torch.equal(build_model(replace(settings, seed=1)).eval()(images), model(images))
    assert model(images).shape == (2, 512)
    save_model(tmp_path / "m.pt", model.state_dict(), settings, epoch=0)
    loaded, its_settings = load_model(tmp_path / "m.pt")
    assert its_settings == settings
    assert torch.equal(loaded(images), model(images))


@pytest.mark.slow
def test_an_aggregator_of_ones_own(tmp_path):
    class Max(nn.Module):
        def forward(self, x):
            return F.normalize(x.amax((2, 3)))

    settings = replace(Settings(), weights=None, aggregator="Max")
    model = build_model(settings, Max())
    assert isinstance(model, VPRModel)
    save_model(tmp_path / "m.pt", model.state_dict(), settings, epoch=0)
    assert load_model(tmp_path / "m.pt", Max())[0](torch.rand(1, 3, 64, 64)).shape == (1, 256)
    with pytest.raises(ValueError, match="unknown aggregator 'Max'"):
        load_model(tmp_path / "m.pt")


class CountingBlocks(nn.Module):
    """A small model with dropout; notes the size of each forward pass."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.sizes = []
        self.layers = nn.Sequential(nn.Linear(5, 8), norm(), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x):
        self.sizes.append(len(x))
        return nn.functional.normalize(self.layers(x), dim=1)


def step_in_chunks(model, inputs, chunk_size):
    """Descriptors and gradients of a loss over all pairs of the batch."""
    torch.manual_seed(3)
    descriptors = (ChunkedModel(model, chunk_size) if chunk_size else model)(inputs)
    loss = losses.MultiSimilarityLoss(1, 50, 0)(descriptors, torch.arange(len(inputs)) // 2)
    gradients = torch.autograd.grad(loss, [*model.parameters()])
    return descriptors.detach(), gradients


@pytest.mark.parametrize("chunk_size", [1, 4, 5, 12])
def test_a_batch_in_chunks_has_the_gradients_of_the_whole(chunk_size):
    model = CountingBlocks().double()
    model.layers[2].p = 0.0
    inputs = torch.randn(12, 5, dtype=torch.float64)
    expected = step_in_chunks(model, inputs, 0)
    model.sizes.clear()
    found = step_in_chunks(model, inputs, chunk_size)
    assert max(model.sizes) == chunk_size
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_chunk_computed_again_draws_the_same_random_numbers():
    model = CountingBlocks().double()
    inputs = torch.randn(12, 5, dtype=torch.float64)
    descriptors, gradients = step_in_chunks(model, inputs, 4)
    torch.manual_seed(3)
    by_hand = torch.cat([model(chunk) for chunk in inputs.split(4)])  # one graph, so no second pass
    loss = losses.MultiSimilarityLoss(1, 50, 0)(by_hand, torch.arange(12) // 2)
    torch.testing.assert_close(descriptors, by_hand)
    torch.testing.assert_close(gradients, torch.autograd.grad(loss, [*model.parameters()]))


def test_batchnorm_counts_each_chunk_once():
    model = CountingBlocks(lambda: nn.BatchNorm1d(8)).double()
    other = copy.deepcopy(model)
    inputs = torch.randn(12, 5, dtype=torch.float64)
    step_in_chunks(model, inputs, 4)
    for chunk in inputs.split(4):
        other(chunk)
    assert model.layers[1].num_batches_tracked == 3 and model.layers[1].track_running_stats
    torch.testing.assert_close(model.layers[1].running_var, other.layers[1].running_var)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_batch_in_chunks_needs_less_memory(tmp_path):
    """The peak of a step with 64 photos of 64 px, all of ResNet-18 until layer2 trained, in a process of its own."""
    script = """
import torch
from vpr_lib.models import ChunkedModel, VPRModel
from vpr_lib.backbones import ResNet
from vpr_lib.aggregators import AvgPool
def peak():
    return next(int(line.split()[1]) / 1e3 for line in open('/proc/self/status') if line.startswith('VmHWM'))
model = VPRModel(ResNet(crop_after='layer2'), AvgPool())
images = torch.zeros(64, 3, 64, 64)
ChunkedModel(model, 4)(images[:8]).sum().backward()
peaks = [peak()]
for chunk_size in (4, 64):
    ChunkedModel(model, chunk_size)(images).sum().backward()
    peaks.append(peak())
print(*peaks)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    before, chunks, whole = map(float, done.stdout.split())
    assert chunks - before < (whole - before) / 3, (before, chunks, whole)
