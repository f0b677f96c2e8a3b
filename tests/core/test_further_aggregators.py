"""CosPlace, NetVLAD, SALAD and BoQ, each computed a second time in loops or by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vpr_lib import runs as runs_module
from vpr_lib.aggregators import build_aggregator
from vpr_lib.data_roots import DataRoot
from vpr_lib.descriptors import sample_local_features
from vpr_lib.further_aggregators import SALAD, BoQ, BoQBlock, CosPlace, NetVLAD, transport
from vpr_lib.models import build_model
from vpr_lib.runs import get_run
from vpr_lib.settings import replace


def list_positions(feature_map):
    """(C, H, W) -> H * W float64 arrays (C,)."""
    return [*feature_map.detach().flatten(1).T.double().numpy()]


def to_unit(vector):
    return vector / np.linalg.norm(vector)


def assert_equal(found, by_hand):
    np.testing.assert_allclose(found.detach().numpy(), by_hand, atol=2e-6)


def test_cosplace_by_hand():
    torch.manual_seed(0)
    module, x = CosPlace(3, out_dim=4), torch.rand(2, 3, 4, 5)
    with torch.no_grad():
        module.p.fill_(2.5)
    for descriptor, feature_map in zip(module(x), x, strict=True):
        powers = sum(to_unit(position) ** 2.5 for position in list_positions(feature_map))
        pooled = (powers / 20) ** (1 / 2.5)
        by_hand = module.linear.weight.detach().numpy() @ pooled + module.linear.bias.detach().numpy()
        assert_equal(descriptor, to_unit(by_hand))


def test_netvlad_in_loops():
    torch.manual_seed(0)
    module, x = NetVLAD(5, clusters_num=3), torch.rand(1, 5, 3, 4)
    weights, centroids = (p.detach().flatten(1).double().numpy() for p in (module.conv.weight, module.centroids))
    by_hand = np.zeros((3, 5))
    for position in map(to_unit, list_positions(x[0])):
        exponentials = [math.exp(weight @ position) for weight in weights]
        for k in range(3):
            by_hand[k] += exponentials[k] / sum(exponentials) * (position - centroids[k])
    assert_equal(module(x)[0], to_unit(np.concatenate([to_unit(row) for row in by_hand])))


def make_clusters(num_clusters=4, channels=6, seed=0):
    """Local features of any length in clear clusters, shuffled; their clusters; the directions of the clusters."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(channels, channels)))[0][:num_clusters]
    labels = rng.permutation(np.repeat(np.arange(num_clusters), 50))
    features = directions[labels] + rng.normal(0, 0.02, (len(labels), channels))
    return (features * rng.uniform(0.5, 20, (len(labels), 1))).astype(np.float32), labels, directions


def test_netvlad_starts_from_the_clusters_of_local_features():
    features, labels, directions = make_clusters()
    module = NetVLAD(6, clusters_num=4)
    module.initialize(features)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    centroids = module.centroids.detach().numpy()
    order = (directions @ centroids.T).argmax(1)  # cluster -> row of the module
    assert sorted(order) == [0, 1, 2, 3]
    for cluster, row in enumerate(order):
        np.testing.assert_allclose(centroids[row], units[labels == cluster].mean(0), atol=1e-5)
    logits = units @ module.conv.weight.detach().flatten(1).numpy().T
    np.testing.assert_array_equal(logits.argmax(1), order[labels])
    assigned = np.sort(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), axis=1)
    assert assigned[:, -1].min() > 0.9
    ratios = assigned[:, -1] / assigned[:, -2]
    assert np.exp(np.log(ratios).mean()) == pytest.approx(100, rel=1e-3)
    again = NetVLAD(6, clusters_num=4)
    again.initialize(features)
    assert all(torch.equal(*pair) for pair in zip(module.parameters(), again.parameters(), strict=True))
    assert all(p.requires_grad for p in module.parameters())


def test_netvlad_names_what_is_too_few():
    with pytest.raises(ValueError, match="3 local features are too few for 4 clusters"):
        NetVLAD(6, clusters_num=4).initialize(np.ones((3, 6), np.float32))
    with pytest.raises(ValueError, match="clusters_num is 1"):
        NetVLAD(6, clusters_num=1)


def test_netvlad_of_equal_local_features_is_finite():
    module = NetVLAD(6, clusters_num=2)
    module.initialize(np.ones((10, 6), np.float32))
    assert torch.isfinite(module(torch.ones(1, 6, 2, 2))).all()


def transport_slowly(scores, masses, num_iterations):
    """(K, positions): exponentials scaled in loops, in float64."""
    plan = [[math.exp(score) for score in row] for row in scores.tolist()]
    for _ in range(num_iterations):
        for column in range(len(plan[0])):
            total = sum(row[column] for row in plan)
            for row in plan:
                row[column] /= total
        for k, row in enumerate(plan):
            plan[k] = [mass * masses[k] / sum(row) for mass in row]
    return np.array(plan)


@pytest.mark.parametrize("num_iterations", [1, 3, 10])
def test_transport_in_loops(num_iterations):
    scores = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)) * 3
    masses = [1.0, 1.0, 1.0, 6.0]
    found = transport(scores, torch.tensor(masses), num_iterations)
    for plan, own in zip(found, scores, strict=True):
        assert_equal(plan, transport_slowly(own, masses, num_iterations))


@pytest.mark.parametrize(("num_clusters", "positions", "mass"), [(3, 20, 1.0), (64, 25, 25 / 65)])
def test_every_position_and_cluster_gets_its_mass(num_clusters, positions, mass):
    """Also on a map with fewer positions than clusters."""
    torch.manual_seed(0)
    module = SALAD(4, num_clusters=num_clusters, num_iterations=200)
    plan = module.assign(torch.randn(2, num_clusters, positions))
    assert plan.min() >= 0
    torch.testing.assert_close(plan.sum(1), torch.ones(2, positions), atol=1e-3, rtol=0)
    torch.testing.assert_close(plan[:, :-1].sum(2), torch.full((2, num_clusters), mass))
    torch.testing.assert_close(plan[:, -1].sum(1), torch.full((2,), positions - num_clusters * mass))


def test_the_dustbin_takes_positions_that_fit_no_cluster():
    module = SALAD(4, num_clusters=2)
    scores = torch.full((1, 2, 10), -5.0)
    scores[0, 0, 3] = scores[0, 1, 7] = 10.0
    plan = module.assign(scores)[0]
    assert plan[0, 3] > 0.9 and plan[1, 7] > 0.9
    others = [i for i in range(10) if i not in (3, 7)]
    assert plan[2, others].min() > 0.9 and plan[2, [3, 7]].max() < 0.1


def test_transport_of_large_scores_is_finite():
    scores = (200 * torch.randn(1, 5, 30, generator=torch.Generator().manual_seed(0))).requires_grad_()
    plan = transport(scores, torch.tensor([1.0, 1, 1, 1, 26]), 3)
    plan.square().sum().backward()
    assert torch.isfinite(plan).all() and torch.isfinite(scores.grad).all()


def apply_perceptron(module, x):
    first, _, second = (layer.double() if isinstance(layer, nn.Linear) else layer for layer in module)
    hidden = np.maximum(first.weight.detach().numpy() @ x + first.bias.detach().numpy(), 0)
    return second.weight.detach().numpy() @ hidden + second.bias.detach().numpy()


def test_salad_in_loops():
    torch.manual_seed(0)
    module, x = SALAD(5, num_clusters=3, cluster_dim=4, token_dim=6, hidden_dim=7), torch.rand(1, 5, 3, 4)
    with torch.no_grad():
        module.dustbin.fill_(0.5)
    found = module(x)[0]
    positions = list_positions(x[0])
    scores = np.array([[*apply_perceptron(module.score, position), 0.5] for position in positions]).T  # (4, 12)
    plan = transport_slowly(scores, [1, 1, 1, 9], 3)
    clusters = np.zeros((3, 4))
    for k in range(3):
        for column, position in enumerate(positions):
            clusters[k] += plan[k, column] * apply_perceptron(module.reduction, position)
    token = apply_perceptron(module.token, sum(positions) / 12)
    assert_equal(found, to_unit(np.concatenate([to_unit(token), *map(to_unit, clusters)])))


def attend_by_hand(module, queries, keys):
    """Multi-head attention with the weights of torch's module: (N, C), (M, C) -> (N, C)."""
    weights = [*zip(module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)]
    q, k, v = (x @ w.T + b for x, (w, b) in zip((queries, keys, keys), weights, strict=True))
    heads = []
    for part in torch.arange(q.shape[1]).chunk(module.num_heads):
        logits = q[:, part] @ k[:, part].T / math.sqrt(len(part))
        shares = logits.exp() / logits.exp().sum(1, keepdim=True)
        heads.append(shares @ v[:, part])
    return torch.cat(heads, dim=1) @ module.out_proj.weight.T + module.out_proj.bias


def normalize_layer(module, x):
    centered = x - x.mean(1, keepdim=True)
    return centered / torch.sqrt(x.var(1, unbiased=False, keepdim=True) + module.eps) * module.weight + module.bias


@torch.no_grad()
@pytest.mark.parametrize(("channels", "num_heads"), [(8, 1), (128, 2)])
def test_boq_by_hand(channels, num_heads):
    torch.manual_seed(0)
    module, x = BoQ(5, proj_channels=channels, num_queries=3, num_layers=2, row_dim=2), torch.rand(1, 5, 3, 4)
    local = module.proj_c(x)[0].flatten(1).T  # (12, channels)
    local = normalize_layer(module.norm_input, local)
    answers = []
    for block in module.boqs:
        encoder, queries = block.encoder, block.queries[0]
        assert encoder.self_attn.num_heads == block.cross_attn.num_heads == num_heads
        local = normalize_layer(encoder.norm1, local + attend_by_hand(encoder.self_attn, local, local))
        hidden = torch.relu(local @ encoder.linear1.weight.T + encoder.linear1.bias)
        local = normalize_layer(encoder.norm2, local + hidden @ encoder.linear2.weight.T + encoder.linear2.bias)
        queries = normalize_layer(block.norm_q, queries + attend_by_hand(block.self_attn, queries, queries))
        answers.append(normalize_layer(block.norm_out, attend_by_hand(block.cross_attn, queries, local)))
    rows = module.fc.weight @ torch.cat(answers) + module.fc.bias[:, None]  # (row_dim, channels)
    for mode in (True, False):  # in eval mode, torch takes another path
        assert_equal(module.train(mode)(x)[0], to_unit(rows.T.flatten().numpy()))


def test_boq_names_channels_that_heads_cannot_share():
    with pytest.raises(ValueError, match="proj_channels is 200"):
        BoQ(16, proj_channels=200)


@pytest.mark.parametrize("name", ["CosPlace", "NetVLAD", "SALAD", "BoQ"])
def test_the_order_of_positions_does_not_count(name):
    """It does in BoQ's first convolution, so this takes the middle of its kernels only."""
    torch.manual_seed(0)
    module, x = build_aggregator(name, 16, 4, 5), torch.rand(2, 16, 4, 5)
    if name == "BoQ":
        with torch.no_grad():
            module.proj_c.weight *= torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    shuffled = x.flatten(2)[:, :, torch.randperm(20)].view_as(x)
    torch.testing.assert_close(module(shuffled), module(x), rtol=1e-4, atol=1e-5)


def test_the_answers_of_a_bag_are_those_of_each_photo_alone():
    torch.manual_seed(0)
    block, x = BoQBlock(8, num_queries=3), torch.rand(2, 6, 8)
    for encoded, answer, alone in zip(*block(x), x, strict=True):
        for found, expected in zip((encoded, answer), block(alone[None]), strict=True):
            torch.testing.assert_close(found, expected[0])


@pytest.mark.parametrize("name", ["CosPlace", "NetVLAD", "SALAD", "BoQ"])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_changes_little(name, training):
    torch.manual_seed(0)
    module, x = build_aggregator(name, 16, 6, 6).train(training), 10 * torch.rand(4, 16, 6, 6)
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
        found = module(x.bfloat16())
    assert found.dtype == torch.float32
    assert (F.cosine_similarity(found, module(x)) > 0.99).all()


@pytest.fixture
def netvlad(small):
    """Settings whose training hardly changes the initial weights."""
    return replace(small, aggregator="NetVLAD", aggregator_options={"NetVLAD": {"clusters_num": 4}}, lr=1e-9)


def test_local_features_are_columns_of_the_photos_maps(netvlad, data_root, machine):
    table = DataRoot(data_root).train
    backbone = build_model(netvlad).backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}

    def sample(seed, **options):
        return sample_local_features(backbone, table, netvlad.image_size, seed, machine, **options)

    everything = sample(0)
    assert everything.shape == (len(table) * 64, 64) and everything.dtype == np.float32  # maps of 8 x 8
    few = sample(0, num_photos=5, per_photo=7)
    assert few.shape == (35, 64)
    rows = {row.tobytes() for row in everything.round(4)}
    assert all(row.tobytes() in rows for row in few.round(4))
    assert np.array_equal(few, sample(0, num_photos=5, per_photo=7))
    assert not np.array_equal(few, sample(1, num_photos=5, per_photo=7))
    assert backbone.training and all(torch.equal(t, before[name]) for name, t in backbone.state_dict().items())


@pytest.mark.slow
def test_a_run_starts_from_its_training_photos(netvlad, data_root, tmp_path, machine, monkeypatch):
    model = build_model(netvlad)
    random = model.aggregator.centroids.detach().clone()
    table = DataRoot(data_root).train
    model.aggregator.initialize(sample_local_features(model.backbone, table, netvlad.image_size, netvlad.seed, machine))
    expected = model.aggregator.centroids
    runs = [get_run(netvlad, data_root, tmp_path / name, machine=machine) for name in ("a", "b")]
    found = [run.load_model().aggregator for run in runs]
    for module in found:
        torch.testing.assert_close(module.centroids, expected, atol=1e-5, rtol=0)
    assert (expected - random).abs().max() > 0.05
    assert all(torch.equal(*pair) for pair in zip(found[0].parameters(), found[1].parameters(), strict=True))
    assert runs[0].folder.name == runs[1].folder.name

    (runs[0].folder / "model.pt").unlink()  # as if stopped before its end
    monkeypatch.setattr(runs_module, "sample_local_features", None)  # a run that resumes needs none
    resumed = get_run(netvlad, data_root, tmp_path / "a", machine=machine).load_model().aggregator
    assert torch.equal(resumed.centroids, found[0].centroids)


@pytest.mark.slow
def test_an_instance_is_initialized_as_a_copy(netvlad, data_root, tmp_path, machine):
    torch.manual_seed(0)
    instance = NetVLAD(64, clusters_num=4)
    before = instance.centroids.detach().clone()
    trained = get_run(netvlad, data_root, tmp_path, instance, machine).load_model().aggregator
    assert torch.equal(instance.centroids, before)
    assert (trained.centroids - before).abs().max() > 0.05
