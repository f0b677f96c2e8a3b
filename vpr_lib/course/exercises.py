"""Checks of the exercises of notebooks 02 to 05. Each prints one line: right, or what is wrong; none raises.

`check_<name>(answer)` compares the student's function with the library, or with a second, slower computation.
"""

from collections.abc import Callable

import numpy as np
import torch
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import nn

from vpr_lib.aggregators import AvgPool, GeM
from vpr_lib.course.checking import (
    exercise,
    require,
    require_array,
    require_close,
    require_keys,
    require_mask,
    require_number,
    require_pair,
    require_shape,
)
from vpr_lib.recall import recall_at_k

# Notebook 02: aggregators


@exercise
def check_gem(gem: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    """2.1: (B, C, H, W), p -> (B, C) of unit norm."""
    features = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    result = gem(features, 1.0)
    require(isinstance(result, torch.Tensor), f"it returns a {type(result).__name__}; expected a tensor")
    require_shape(result, (3, 5))
    require_close(result.norm(dim=1), np.ones(3), "the descriptors do not have norm 1")
    require_close(result, AvgPool()(features), "with p = 1 it differs from the mean")
    require_close(gem(features, 3.0), GeM(3.0)(features).detach(), "with p = 3 it differs from the library's GeM")
    finite = bool(gem(features - 0.5, 3.0).isfinite().all())
    require(finite, "a negative activation gives NaN: clamp to a small positive number")


@exercise
def check_convap_parameters(count: Callable[[int, int, int, int], int]) -> None:
    """2.2: in_channels, out_channels, s1, s2 -> number of trained parameters of ConvAP."""
    for in_channels, out_channels, s1, s2 in ((256, 256, 2, 2), (512, 64, 3, 1)):
        result = require_number(count(in_channels, out_channels, s1, s2))
        weights, expected = in_channels * out_channels, (in_channels + 1) * out_channels
        require(result != weights, "the convolution also has a bias, one number for each output channel")
        require(result != expected * s1 * s2, "the mean over regions has no trained parameters")
        inputs = f"{in_channels}, {out_channels}, {s1}, {s2}"
        require(result == expected, f"for {inputs} it returns {result:.0f}, not {expected}")


@exercise
def check_recall_at_1(recall_at_1: Callable[..., float]) -> None:
    """2.3: (Q, K) predictions, Q arrays of positives -> percent."""
    predictions = np.array([[3, 1], [0, 2], [-1, -1], [4, 2], [1, 0]])
    positives = [np.array(rows, dtype=np.int64) for rows in ([1, 3], [2], [4], [], [0, 1])]
    result = require_number(recall_at_1(predictions, positives), "one number, the percentage")
    require(result != 0.4, "it returns a share; recall is given in percent")
    require(result != 50.0, "a query without positives counts as missed; do not leave it out")
    require(result != 60.0, "the positive of the second query is its second photo; at k = 1 only the first one counts")
    require_close(result, recall_at_k(predictions, positives, (1,))[1], f"it returns {result} for 2 of 5 queries")


@exercise
def check_aggregator(make_aggregator: Callable[[int], nn.Module]) -> None:
    """2.4: number of channels -> an aggregator of one's own."""
    aggregator = make_aggregator(8)
    require(not isinstance(aggregator, type), "it returns a class; expected an aggregator made of it: add ()")
    require(isinstance(aggregator, nn.Module), f"it returns a {type(aggregator).__name__}; expected a torch.nn.Module")
    require(type(aggregator).forward is not nn.Module.forward, "its class has no method named forward")
    features = torch.rand(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = aggregator(features)
    require(isinstance(result, torch.Tensor), f"its forward returns a {type(result).__name__}; expected a tensor")
    require(result.ndim == 2 and len(result) == 4, f"4 photos give the shape {tuple(result.shape)}; expected (4, D)")
    require(torch.allclose(result.norm(dim=1), torch.ones(4), atol=1e-4), "the descriptors do not have norm 1")
    weighted = (result * torch.linspace(0, 1, result.shape[1])).sum()
    require(weighted.requires_grad, "the feature map gets no gradient: its forward leaves torch, or detaches")
    weighted.backward()
    require(features.grad is not None and bool(features.grad.abs().sum() > 0), "the feature map gets no gradient")
    alone, together = aggregator.eval()(features[:1]).detach(), aggregator(features)[:1].detach()
    require_close(alone, together, "the descriptor of a photo depends on the rest of its batch")


# Notebook 03: AdamW, schedules, losses


@exercise
def check_adamw_step(adamw_step: Callable[..., float]) -> None:
    """3.1: weight, gradient, lr, weight_decay -> the weight after AdamW's first step (m = v = 0 before it)."""
    for weight, gradient in ((2.0, 0.5), (-1.0, 3.0)):
        parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
        expected = {}
        for name in ("AdamW", "Adam"):
            parameter.data[:] = weight
            parameter.grad = torch.full_like(parameter, gradient)
            getattr(torch.optim, name)([parameter], lr=0.1, weight_decay=0.2).step()
            expected[name] = parameter.item()
        result = require_number(adamw_step(weight, gradient, 0.1, 0.2), "the weight, one number")
        is_adam = np.isclose(result, expected["Adam"], atol=1e-6)
        require(not is_adam, "the decay is added to the gradient: that is Adam with L2, not AdamW")
        message = f"from weight {weight} with gradient {gradient}: {result}, torch: {expected['AdamW']}"
        require_close(result, expected["AdamW"], message)


@exercise
def check_learning_rate(learning_rate: Callable[[int], float]) -> None:
    """3.2: optimizer step, from 0 -> rate; 10 steps an epoch, lr 0.1, warm-up 15, milestones 1, 3, gamma 0.5."""
    result = [require_number(learning_rate(step), "one learning rate") for step in range(40)]
    expected = [0.1 * 0.5 ** ((step >= 10) + (step >= 30)) * min(1, (step + 1) / 15) for step in range(40)]
    require(result[0] != 0, "the first step would change nothing: warm-up starts at 1/15, not at 0")
    require_close(result[12], expected[12], "step 12 is after a milestone and within the warm-up: both factors count")
    for step in range(40):
        require_close(result[step], expected[step], f"step {step}: {result[step]:.5f}, expected {expected[step]:.5f}")


@exercise
def check_count_pairs(count_pairs: Callable[[int, int], tuple[int, int]]) -> None:
    """3.3: P places, K photos -> pairs of photos of one place, and of two places, each pair once."""
    for num_places, images_per_place in ((8, 4), (3, 2)):
        labels = np.repeat(np.arange(num_places), images_per_place)
        same = [labels[i] == labels[k] for i in range(len(labels)) for k in range(i)]
        expected = (sum(same), len(same) - sum(same))
        result = require_pair(count_pairs(num_places, images_per_place), "(pairs of one place, of two places)")
        require(result != tuple(2 * count for count in expected), "each pair is counted twice")
        require(result != expected[::-1], "the two numbers are exchanged")
        require_close(result, expected, f"for {num_places}, {images_per_place} it returns {result}, not {expected}")


@exercise
def check_contrastive_loss(loss: Callable[..., float]) -> None:
    """3.4: distance of two descriptors, whether of one place, margin -> loss of the pair."""
    cases = (
        (0.3, True, 1.0, 0.3, "the loss of a pair of one place is its distance"),
        (0.3, False, 1.0, 0.7, "the loss of a pair of two places is the margin minus its distance"),
        (0.3, False, 0.5, 0.2, "the loss of a pair of two places is the margin minus its distance, for any margin"),
        (1.4, False, 1.0, 0.0, "the loss of a pair of two places beyond the margin is 0"),
    )
    for *inputs, expected, message in cases:
        require_close(require_number(loss(*inputs), "the loss, one number"), expected, message)


# Notebook 04: optimizers


@exercise
def check_sgd_step(sgd_step: Callable[..., tuple[float, float]]) -> None:
    """4.1: weight, velocity, gradient, lr, momentum, weight_decay -> weight and velocity after the step."""
    weight, velocity = 1.5, 0.0
    parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.01)
    for step, gradient in enumerate((0.4, -0.2, 0.7)):
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        weight, velocity = require_pair(sgd_step(weight, velocity, gradient, 0.1, 0.9, 0.01), "(weight, velocity)")
        which = "the first step" if step == 0 else "a step with velocity from the step before"
        require_close(weight, parameter.item(), f"{which} gives {weight:.5f}, torch's SGD {parameter.item():.5f}")
        buffer = optimizer.state[parameter]["momentum_buffer"].item()
        require_close(velocity, buffer, "the weight is right, but torch's velocity does not contain the learning rate")


@exercise
def check_has_hard_negative(has_hard_negative: Callable[..., np.ndarray]) -> None:
    """4.2: (B, B) similarities, (B,) labels, epsilon -> (B,) bool, whether the miner keeps a negative of the anchor."""
    generator = torch.Generator().manual_seed(1)
    for spread in (0.2, 0.6):
        labels = torch.arange(6).repeat_interleave(3)
        centers = torch.eye(6, 8).repeat_interleave(3, 0)
        descriptors = nn.functional.normalize(centers + spread * torch.randn(18, 8, generator=generator))
        anchors = MultiSimilarityMiner(epsilon=0.1)(descriptors, labels)[2].unique()
        expected = np.isin(np.arange(18), anchors)
        result = require_mask(has_hard_negative((descriptors @ descriptors.T).numpy(), labels.numpy(), 0.1), 18)
        rule = "a negative counts if it exceeds the least similar positive minus epsilon"
        require(result.sum() <= expected.sum(), f"it finds too many: {rule}")
        require_close(result, expected, f"it finds too few: {rule}")


@exercise
def check_epochs_to(epochs_to: Callable[..., int | None]) -> None:
    """4.3: recall after each epoch, target -> the first epoch (from 1) that reaches it, or None."""
    result = require_number(epochs_to([30.0, 42.0, 41.0, 50.0], 42.0), "an epoch")
    require(result != 1, "epochs are counted from 1")
    require(result == 2, f"of 30, 42, 41, 50 the second epoch reaches 42; it returns {result:g}")
    epochs_to = epochs_to.__wrapped__  # None is a valid result here
    require(epochs_to([30.0, 42.0], 60.0) is None, "if no epoch reaches the target, the result is None")


@exercise
def check_mean_and_deviation(mean_and_deviation: Callable[..., tuple[float, float]]) -> None:
    """4.4: recall of each seed -> mean and standard deviation of a sample."""
    seeds = [55.0, 58.0, 61.0]
    result = require_pair(mean_and_deviation(seeds), "(mean, deviation)")
    require(not np.isclose(result[1], np.std(seeds)), "a few seeds are a sample: divide by n - 1 (ddof=1)")
    require_close(result, (58.0, 3.0), f"for {seeds} it returns {result}")


# Notebook 05: scenarios


@exercise
def check_count_outcomes(count_outcomes: Callable[..., dict[str, int]]) -> None:
    """5.1: (Q,) bool of model A, of B -> {"both", "only A", "only B", "neither"}."""
    hits = np.array([[1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1]], dtype=bool)
    result = count_outcomes(*hits)
    expected = {"both": 2, "only A": 2, "only B": 1, "neither": 1}
    require_keys(result, expected)
    require(sum(result.values()) != 1, "it returns shares; expected numbers of queries")
    require(sum(result.values()) == 6, f"its counts add up to {sum(result.values())}; there are 6 queries")
    require(result["only A"] != 1 or result["only B"] != 2, "A and B are exchanged")
    require(result == expected, f"it returns {result}, not {expected}")


@exercise
def check_recall_of(recall_of: Callable[..., dict[str, float]]) -> None:
    """5.2: (Q,) bool, (Q,) labels -> {label: percent}."""
    hits = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    labels = np.array(["night", "night", "bus", "bus", "bus", ""])
    result = recall_of(hits, labels)
    require(not isinstance(result, dict) or "" not in result, 'a query with the label "" has no label: leave it out')
    require_keys(result, ("night", "bus"))
    require(not np.isclose(result["night"], 0.5), "it returns shares; recall is given in percent")
    require(not np.isclose(result["bus"], 200 / 6), "divide by the number of the label's own queries, not of all")
    require_close([result["night"], result["bus"]], [50.0, 200 / 3], f"it returns {result}")


@exercise
def check_estimate_position(estimate_position: Callable[[np.ndarray], np.ndarray]) -> None:
    """5.3: (k, 2) positions of the predictions -> (2,) position that one far wrong prediction doesn't move much."""
    near = np.array([[100.0, 200.0], [104, 198], [97, 203], [101, 201]])
    require_array(estimate_position(near), (2,))
    message = "four predictions within 7 m of each other: the estimate should lie among them"
    require(np.hypot(*(estimate_position(near) - near.mean(0))) < 10, message)
    for row, which in ((0, "first"), (4, "last")):
        result = estimate_position(np.insert(near, row, [9000.0, -4000.0], axis=0))
        moved_m = np.hypot(*(result - near.mean(0)))
        require(moved_m < 10, f"a wrong {which} prediction 10 km away moves it by {moved_m:.0f} m: that is not robust")
