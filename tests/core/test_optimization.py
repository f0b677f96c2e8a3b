"""Losses, miners, optimizers and schedules: the ones asked for, by exact name."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from torch import nn

from vpr_lib.centroid_loss import CentroidTripletLoss
from vpr_lib.optimization import (
    DEFAULT_OPTIONS,
    check_options,
    make_loss,
    make_miner,
    make_optimizer,
    make_scheduler,
    step_scheduler,
    warm_up,
)
from vpr_lib.settings import Settings, replace
from vpr_lib.training import share_of_trivial_anchors


def descriptors(num=12, size=8, seed=0):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(num, size)).astype(np.float32))
    return nn.functional.normalize(x), torch.arange(num) // 3


def slow_multi_similarity(x, labels, alpha=1.0, beta=50.0, base=0.0, epsilon=0.1):
    """Wang et al., Multi-Similarity Loss (CVPR 2019), eq. 11, 12 and 15, pair by pair; and who has a pair."""
    total, anchors = 0.0, set()
    for i in range(len(x)):
        similar = {j: float(x[i] @ x[j]) for j in range(len(x)) if j != i}
        positives = [j for j in similar if labels[j] == labels[i]]
        negatives = [j for j in similar if labels[j] != labels[i]]
        hard_negative = max(similar[j] for j in negatives)
        hard_positive = min(similar[j] for j in positives)
        mined_positives = [j for j in positives if similar[j] - epsilon < hard_negative]
        mined_negatives = [j for j in negatives if similar[j] + epsilon > hard_positive]
        if mined_positives or mined_negatives:
            anchors.add(i)
        pull = sum(math.exp(-alpha * (similar[j] - base)) for j in mined_positives)
        push = sum(math.exp(beta * (similar[j] - base)) for j in mined_negatives)
        total += math.log1p(pull) / alpha + math.log1p(push) / beta
    return total / len(x), anchors


def test_loss_and_miner_are_the_published_ones():
    x, labels = descriptors()
    x[3:6] = nn.functional.normalize(x[3:4] + 0.01 * x[3:6])  # a place too easy to be mined
    pairs = make_miner(Settings())(x, labels)
    loss = make_loss(Settings(), 4, 8)(x, labels, pairs)
    by_hand, anchors = slow_multi_similarity(x.double(), labels)
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert set(pairs[0].tolist()) == anchors and len(anchors) < 12
    assert share_of_trivial_anchors(pairs, 12) == pytest.approx(1 - len(anchors) / 12)
    assert share_of_trivial_anchors(None, 12) == 0.0


def slow_triplet(x, positives, negatives, margin):
    found = [
        float((x[i] - x[p]).norm() - (x[i] - x[n]).norm()) + margin
        for i in range(len(x)) for p in positives[i] for n in negatives[i]
    ]  # fmt: skip
    return mean_above_0(found)


def slow_contrastive(x, positives, negatives, pos_margin, neg_margin):
    pull = [float((x[i] - x[p]).norm()) - pos_margin for i in range(len(x)) for p in positives[i]]
    push = [neg_margin - float((x[i] - x[n]).norm()) for i in range(len(x)) for n in negatives[i]]
    return mean_above_0(pull) + mean_above_0(push)


def slow_supcon(x, positives, negatives, temperature):
    """Khosla et al. (NeurIPS 2020), eq. 2: the outer sum over positives, outside of the logarithm."""
    found = []
    for i in range(len(x)):
        total = sum(math.exp(float(x[i] @ x[j]) / temperature) for j in (*positives[i], *negatives[i]))
        terms = [math.log(total) - float(x[i] @ x[p]) / temperature for p in positives[i]]
        found.append(sum(terms) / max(len(terms), 1))
    return mean_above_0(found)


def slow_ntxent(x, positives, negatives, temperature):
    """van den Oord et al. (arXiv:1807.03748), eq. 4, for each positive pair."""
    found = []
    for i in range(len(x)):
        push = sum(math.exp(float(x[i] @ x[n]) / temperature) for n in negatives[i])
        pulls = [math.exp(float(x[i] @ x[p]) / temperature) for p in positives[i]]
        found += [-math.log(pull / (pull + push)) for pull in pulls]
    return sum(found) / len(found)


def slow_circle(x, positives, negatives, m, gamma):
    """Sun et al. (CVPR 2020), eq. 6 with the optima and margins of section 3.3."""
    found = []
    for i in range(len(x)):
        pull = [math.exp(-gamma * max(0, 1 + m - s) * (s - 1 + m)) for s in (x[i] @ x[positives[i]].T).tolist()]
        push = [math.exp(gamma * max(0, s + m) * (s - m)) for s in (x[i] @ x[negatives[i]].T).tolist()]
        found.append(math.log1p(sum(pull) * sum(push)))
    return mean_above_0(found)


def slow_lifted_structure(x, positives, negatives, pos_margin, neg_margin):
    """Song et al. (CVPR 2016), eq. 4."""
    found = []
    for i in range(len(x)):
        for p in positives[i]:
            away = [(x[a] - x[n]).norm() for a in (i, p) for n in negatives[a]]
            push = math.log(sum(math.exp(neg_margin - distance) for distance in away)) if away else 0
            found.append(max(0, push + float((x[i] - x[p]).norm()) - pos_margin) ** 2 / 2)
    return sum(found) / len(found)


def mean_above_0(values):
    """pytorch-metric-learning's AvgNonZeroReducer."""
    return sum(v for v in values if v > 0) / max(sum(v > 0 for v in values), 1)


SLOW = {
    "ContrastiveLoss": slow_contrastive, "TripletMarginLoss": slow_triplet, "SupConLoss": slow_supcon,
    "NTXentLoss": slow_ntxent, "CircleLoss": slow_circle, "LiftedStructureLoss": slow_lifted_structure,
}  # fmt: skip


@pytest.mark.parametrize("miner", ["MultiSimilarityMiner", None])
@pytest.mark.parametrize("name", SLOW)
def test_losses_are_their_equations_with_the_default_options(name, miner):
    x, labels = descriptors()
    x = nn.functional.normalize(x + 2 * x[labels * 3])  # places with some likeness; the miner then leaves pairs out
    settings = replace(Settings(), loss=name, miner=miner)
    mined = make_miner(settings)(x, labels) if miner else None
    positives, negatives = [], []
    for i in range(len(x)):
        positives.append([j for j in range(len(x)) if labels[j] == labels[i] and j != i])
        negatives.append([j for j in range(len(x)) if labels[j] != labels[i]])
    if mined:
        assert 0 < len(mined[0]) < sum(map(len, positives)) and 0 < len(mined[2]) < sum(map(len, negatives))
        positives = [mined[1][mined[0] == i].tolist() for i in range(len(x))]
        negatives = [mined[3][mined[2] == i].tolist() for i in range(len(x))]
    expected = SLOW[name](x.double(), positives, negatives, **DEFAULT_OPTIONS[name])
    assert make_loss(settings, 4, 8)(x, labels, mined).item() == pytest.approx(expected, rel=1e-4)


def test_centroid_triplet_loss_is_its_equation():
    """Wieczorek et al. (ICONIP 2021), eq. 2; places of 2, 3 and 4 photos in mixed order."""
    x = descriptors(9)[0]
    labels = torch.tensor([7, 2, 2, 5, 7, 5, 5, 2, 5])
    found = []
    for i in range(9):
        others = [j for j in range(9) if labels[j] == labels[i] and j != i]
        to_own = (x[i] - nn.functional.normalize(x[others].mean(0), dim=0)).norm()
        for place in {2, 5, 7} - {int(labels[i])}:
            to_place = (x[i] - nn.functional.normalize(x[labels == place].mean(0), dim=0)).norm()
            found.append(float(to_own - to_place) + 0.05)
    loss = make_loss(replace(Settings(), loss="CentroidTripletLoss"), 3, 8)
    assert loss(x, labels).item() == pytest.approx(mean_above_0(found), rel=1e-5)
    with pytest.raises(ValueError, match="place 2 has one photo"):
        CentroidTripletLoss()(x[:7], torch.tensor([7, 2, 7, 5, 7, 5, 5]))


@pytest.mark.parametrize("name", [name for name in DEFAULT_OPTIONS if name.endswith("Loss")])
def test_the_losses_of_the_table_train_with_the_settings_it_names(name):
    settings = replace(Settings(), loss=name)
    if name == "CentroidTripletLoss":
        with pytest.raises(ValueError, match=f"{name} .*set miner=None"):
            check_options(settings)
        settings = replace(settings, miner=None)
    check_options(settings)
    x, labels = descriptors(32, 16)
    weights = nn.Parameter(torch.eye(16))
    loss, miner = make_loss(settings, 11, 16), make_miner(settings)
    optimizer = torch.optim.SGD([weights], lr=0.01)
    values = []
    for _ in range(20):
        y = nn.functional.normalize(x @ weights)
        values.append(loss(y, labels, miner(y, labels) if miner else None))
        optimizer.zero_grad()
        values[-1].backward()
        assert torch.isfinite(values[-1]) and torch.isfinite(weights.grad).all() and weights.grad.any()
        optimizer.step()
    assert values[-1] < values[0]


def test_options_go_over_the_default_ones():
    x, labels = descriptors()
    settings = replace(Settings(), loss_options={"beta": 10.0}, miner_options={"epsilon": 0.3})
    loss = make_loss(settings, 4, 8)(x, labels, make_miner(settings)(x, labels))
    assert loss.item() == pytest.approx(slow_multi_similarity(x.double(), labels, beta=10.0, epsilon=0.3)[0], rel=1e-5)


# Wrappers of another loss, and losses that take no labels.
WRAPPERS = {"CrossBatchMemory", "SelfSupervisedLoss", "MultipleLosses", "GenericPairLoss"}
NOT_FOR_PLACES = WRAPPERS | {"ManifoldLoss", "VICRegLoss"}
NEEDS_OPTIONS = {"RankedListLoss": {"margin": 0.4, "Tn": 10}}
NAMES = sorted(
    name
    for name, cls in vars(losses).items()
    if isinstance(cls, type) and issubclass(cls, losses.BaseMetricLossFunction) and not name.startswith("Base")
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_FOR_PLACES])
def test_every_loss_of_the_library_can_be_chosen(name):
    torch.manual_seed(0)
    x, labels = descriptors()
    x.requires_grad_()
    loss = make_loss(replace(Settings(), loss=name, loss_options=NEEDS_OPTIONS.get(name, {})), 4, 8)
    assert type(loss) is getattr(losses, name)
    value = loss(x, labels, None)
    value.backward()
    assert torch.isfinite(value) and x.grad is not None


@pytest.mark.parametrize("field, wrong, valid", [
    ("loss", "multisimilarityloss", "MultiSimilarityLoss"),
    ("loss", "MultiSimilarity", "TripletMarginLoss"),
    ("miner", "MultiSimilarityMinerr", "MultiSimilarityMiner"),
    ("optimizer", "adam", "Adam, AdamW, SGD"),
    ("scheduler", "Cosine", "MultiStepLR, CosineAnnealingLR, ReduceLROnPlateau"),
])  # fmt: skip
def test_a_mistyped_name_is_an_error_that_lists_the_valid_ones(field, wrong, valid):
    with pytest.raises(ValueError, match=f"unknown {field} '{wrong}'; valid: .*{valid}"):
        check_options(replace(Settings(), **{field: wrong}))


@pytest.mark.parametrize("wrong, offender", [
    ({"loss": "TripletMarginLoss", "loss_options": {"alpah": 1}}, "TripletMarginLoss .*alpah"),
    ({"loss": "RankedListLoss"}, "RankedListLoss .*'margin'"),  # an option without a default
    ({"loss": "TripletMarginLoss", "loss_options": {"distance": "far"}}, "TripletMarginLoss .*far"),
    ({"loss_options": {"beta": "fast"}}, "MultiSimilarityLoss .*fast"),  # an option that only computing it tries
    ({"loss": "PNPLoss"}, "PNPLoss .*MultiSimilarityMiner .*set miner=None"),  # it takes no miner
    ({"loss": "VICRegLoss", "miner": None}, "VICRegLoss"),  # it takes no labels
    ({"miner_options": {"epsilom": 0.1}}, "MultiSimilarityMiner .*epsilom"),
    ({"miner_options": {"epsilon": "small"}}, "MultiSimilarityMiner .*small"),
])  # fmt: skip
def test_options_that_cannot_be_used_are_named_before_a_training(wrong, offender):
    with pytest.raises(ValueError, match=offender):
        check_options(replace(Settings(), **wrong))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_FOR_PLACES])
def test_every_loss_that_can_be_trained_passes_the_check(name):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check_options(replace(Settings(), loss=name, loss_options=NEEDS_OPTIONS.get(name, {}), miner=None))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_miner_uses_all_pairs():
    assert make_miner(replace(Settings(), miner=None)) is None


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_the_optimizer_is_the_one_that_was_named(name):
    frozen, trained = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    settings = replace(Settings(), optimizer=name, lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer(settings, [frozen, trained])
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0]["params"] == [trained]
    assert optimizer.param_groups[0].get("momentum", 0.9) == 0.9
    trained.grad = torch.tensor([0.3, -0.2])
    optimizer.step()
    gradient = torch.tensor([0.3, -0.2])
    if name == "SGD":
        expected = 1 - 0.1 * (gradient + 0.5)
    elif name == "Adam":  # L2 joins the gradient, whose size the first step then forgets
        expected = 1 - 0.1 * (gradient + 0.5).sign()
    else:  # decoupled
        expected = (1 - 0.1 * 0.5) - 0.1 * gradient.sign()
    torch.testing.assert_close(trained.detach(), expected)


def rates(settings, epochs, steps, scores=None):
    """The learning rate of every step, as the loop makes them."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer(settings, [parameter])
    scheduler = make_scheduler(settings, optimizer)
    found = []
    for epoch in range(epochs):
        for batch in range(steps):
            parameter.grad = torch.ones(1)
            with warm_up(optimizer, epoch * steps + batch, settings.warmup_steps):
                found.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
        step_scheduler(scheduler, {"val": {5: 99.0, 1: scores[epoch]}} if scores else {})
    return found


def test_warm_up_multiplies_a_milestone_and_does_not_overwrite_it():
    settings = replace(Settings(), lr=0.1, milestones=(2, 4), gamma=0.3, warmup_steps=12)
    found = rates(settings, epochs=6, steps=5)
    slow = [0.1 * 0.3 ** ((step // 5 >= 2) + (step // 5 >= 4)) * min(1, (step + 1) / 12) for step in range(30)]
    assert found == pytest.approx(slow)
    assert found[10] == pytest.approx(0.03 * 11 / 12)  # still warming up when the first milestone comes


def test_a_step_that_fails_leaves_the_scheduled_rate():
    optimizer = make_optimizer(Settings(), [nn.Parameter(torch.zeros(1))])
    with pytest.raises(OSError), warm_up(optimizer, step=0, warmup_steps=10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)
        raise OSError
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_cosine_is_stepped_by_epoch_only():
    settings = replace(Settings(), lr=0.1, scheduler="CosineAnnealingLR", epochs=6, warmup_steps=0)
    slow = [0.05 * (1 + math.cos(math.pi * (step // 5) / 6)) for step in range(30)]
    assert rates(settings, 6, 5) == pytest.approx(slow)


def test_plateau_watches_the_validation_recall_at_1():
    settings = replace(Settings(), lr=0.1, scheduler="ReduceLROnPlateau", patience=1, warmup_steps=3)
    found = rates(settings, 6, 2, scores=[50, 60, 60, 59, 61, 61])
    # Better, better, waits, lowers, better, waits; rising recall must not lower the rate.
    assert found[::2] == pytest.approx([0.1 / 3, 0.1, 0.1, 0.1, 0.03, 0.03])


def test_no_scheduler_keeps_the_rate():
    assert set(rates(replace(Settings(), scheduler=None, warmup_steps=0), 3, 2)) == {1e-3}


def test_a_model_of_which_nothing_is_trained_is_named():
    with pytest.raises(ValueError, match=r"nothing is trained.*freeze_until"):
        make_optimizer(Settings(aggregator="AVG"), [nn.Parameter(torch.ones(1), requires_grad=False)])
