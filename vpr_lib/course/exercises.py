"""The notebooks' exercises: what each answer must do, checked against a second way, and told in a sentence.

A check never raises: an unfinished or wrong answer is no reason to stop the rest of a notebook.
"""

from collections.abc import Callable

import numpy as np
import torch
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import nn

from vpr_lib.aggregators import AvgPool, GeM
from vpr_lib.course.checking import Wrong, exercise, want, want_close
from vpr_lib.file_names import format_name
from vpr_lib.recall import recall_at_k

# 01: data


@exercise
def check_read_utm(read_utm: Callable[[str], tuple[float, float]]) -> None:
    """1.1: name of a photo, maybe with folders before it -> east, north."""
    name = format_name(east="544050.17", north="4174706.96", zone="10", letter="S", heading="398")
    found = read_utm(name)
    want(isinstance(found, tuple) and len(found) == 2, f"it returns {found!r}; expected (east, north)")
    want(not isinstance(found[0], str), "it returns texts; positions are numbers, float64")
    want_close(found, (544050.17, 4174706.96), f"of {name} it reads {found}")
    message = "an @ in a folder's name shifts the fields; look at the file's own name only"
    try:
        found = read_utm(f"photos@home/{name}")
    except ValueError:
        raise Wrong(message) from None
    want_close(found, (544050.17, 4174706.96), message)


@exercise
def check_is_positive(is_positive: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """1.2: (2,) query position, (N, 2) database positions -> (N,) bool, within 25 m."""
    query = np.array([544050.0, 4174706.0])
    offsets = np.array([[0, 0], [15, 20], [15.01, 20], [-24, 0], [20, 20], [0, 4000.0]])
    found = np.asarray(is_positive(query, query + offsets))
    want(found.shape == (6,), f"it returns the shape {found.shape} for 6 photos; expected (6,)")
    want(not found[4], "a photo 20 m east and 20 m north is 28 m away: squares are added before the root is taken")
    want(bool(found[1]), "a photo at exactly 25 m counts as right")
    want(not found[2], "a photo at 25.01 m isn't within 25 m")
    want_close(found, [True, True, False, True, False, False], f"for photos at {offsets.tolist()} it says {found}")


@exercise
def check_draw_batch(draw_batch: Callable[..., np.ndarray]) -> None:
    """1.3: (N,) places, P, K, a generator -> rows of P places x K distinct photos."""
    places = np.array([f"place {i // 5}" for i in range(40)] + ["few", "few"] + ["just enough"] * 3)
    drawn = [np.asarray(draw_batch(places, 4, 3, np.random.default_rng(seed))) for seed in range(50)]
    for rows in drawn:
        want(rows.size == 12, f"it returns {rows.size} rows; expected 4 places x 3 photos = 12")
        want(len(set(rows.ravel().tolist())) == 12, "a photo is drawn twice: draw without replacement")
        names, counts = np.unique(places[rows.ravel()], return_counts=True)
        want("few" not in names, "a place with 2 photos can't give 3; leave it out")
        want(len(names) == 4 and set(counts.tolist()) == {3}, f"of the places {names} it draws {counts} photos")
    want(len({tuple(rows.ravel().tolist()) for rows in drawn}) > 40, "another generator should give another batch")
    seen = {str(places[row]) for rows in drawn for row in rows.ravel().tolist()}
    want("just enough" in seen, "a place with exactly K photos is never drawn")
    want(len({row for rows in drawn for row in rows.ravel().tolist()}) == 43, "some photos are never drawn")


@exercise
def check_find_leaks(find_leaks: Callable[..., np.ndarray]) -> None:
    """1.4: (N, 2) training positions, (M, 2) test positions, radius -> test rows near any training photo."""
    draw = np.random.default_rng(0)
    train, test = draw.uniform(0, 400, (60, 2)), draw.uniform(0, 400, (40, 2))
    expected = [i for i in range(40) if min(np.hypot(*(test[i] - t)) for t in train) <= 25]
    found = np.sort(np.asarray(find_leaks(train, test, 25.0), dtype=int)).tolist()
    want(len(set(found)) == len(found), "a test photo is named more than once")
    want(found == expected, f"it names {len(found)} of 40 made-up test photos; {len(expected)} are within 25 m")
    found = np.asarray(find_leaks(train + 1e6, test, 25.0))
    want(found.size == 0, "cities 1,000 km apart share no place, yet it names some")


# 02: aggregators


@exercise
def check_gem(gem: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    """2.1: (B, C, H, W), p -> (B, C) of unit norm."""
    features = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    found = gem(features, 1.0)
    want(tuple(found.shape) == (3, 5), f"it returns the shape {tuple(found.shape)}; expected (3, 5)")
    want(bool(torch.allclose(found.norm(dim=1), torch.ones(3))), "the descriptors don't have norm 1")
    want_close(found, AvgPool()(features), "with p = 1 it isn't the mean")
    want_close(gem(features, 3.0), GeM(3.0)(features).detach(), "with p = 3 it differs from the library's GeM")
    found = gem(features - 0.5, 3.0)
    want(bool(torch.isfinite(found).all()), "a negative activation has no cube root: clamp to a tiny positive number")


@exercise
def check_convap_parameters(count: Callable[[int, int, int, int], int]) -> None:
    """2.2: in_channels, out_channels, s1, s2 -> trained numbers of a ConvAP."""
    for sizes in ((256, 256, 2, 2), (512, 64, 3, 1)):
        found, expected = count(*sizes), sizes[0] * sizes[1] + sizes[1]
        want(found != sizes[0] * sizes[1], "the convolution has a bias, one number for each output channel")
        want(found != expected * sizes[2] * sizes[3], "the mean over regions has nothing to train")
        want(found == expected, f"for in_channels, out_channels, s1, s2 = {sizes} it says {found}, not {expected}")


@exercise
def check_recall_at_1(recall_at_1: Callable[..., float]) -> None:
    """2.3: (Q, K) predictions, Q arrays of positives -> percent."""
    predictions = np.array([[3, 1], [0, 2], [-1, -1], [4, 2], [1, 0]])
    positives = [np.array(rows, dtype=np.int64) for rows in ([1, 3], [2], [4], [], [0, 1])]
    found = recall_at_1(predictions, positives)
    want(found != 0.4, "it returns a share; recall is given in percent")
    want(found != 50.0, "a query without positives counts as missed, it isn't left out")
    want(found != 60.0, "the second query's positive is its second photo: at k = 1 only the first one counts")
    want_close(found, recall_at_k(predictions, positives, (1,))[1], f"it says {found} for 2 right ones of 5")


@exercise
def check_aggregator(make: Callable[[int], nn.Module]) -> None:
    """2.4: number of channels -> an aggregator of one's own."""
    aggregator = make(8)
    want(isinstance(aggregator, nn.Module), f"it makes a {type(aggregator).__name__}; expected a torch.nn.Module")
    features = torch.rand(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = aggregator(features)
    want(found.ndim == 2 and len(found) == 4, f"4 maps become the shape {tuple(found.shape)}; expected (4, D)")
    want(bool(torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-4)), "the descriptors don't have norm 1")
    (found * torch.linspace(0, 1, found.shape[1])).sum().backward()
    want(features.grad is not None and bool(features.grad.abs().sum() > 0), "no gradient reaches the feature map")
    alone = aggregator.eval()(features[:1])
    want_close(alone.detach(), aggregator(features)[:1].detach(), "a photo's descriptor depends on its batch")


# 03: AdamW, schedules, losses


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
        found = adamw_step(weight, gradient, 0.1, 0.2)
        coupled = np.isclose(float(found), expected["Adam"], atol=1e-6) and not np.isclose(*expected.values())
        want(not coupled, "the decay is in the gradient: that is Adam with L2, where Adam's division undoes it")
        want_close(
            found,
            expected["AdamW"],
            f"from {weight} with gradient {gradient} it goes to {found}, torch to {expected['AdamW']}",
        )


@exercise
def check_learning_rate(learning_rate: Callable[[int], float]) -> None:
    """3.2: optimizer step, from 0 -> rate; 10 steps an epoch, lr 0.1, warm-up 15, milestones 1, 3, gamma 0.5."""
    found = [learning_rate(step) for step in range(40)]
    expected = [0.1 * 0.5 ** ((step >= 10) + (step >= 30)) * min(1, (step + 1) / 15) for step in range(40)]
    want(found[0] != 0, "the first step would change nothing: warm-up goes from 1/15, not from 0")
    want_close(found[12], expected[12], "in step 12 the first milestone is passed and the warm-up still on: both count")
    for step in range(40):
        want_close(found[step], expected[step], f"in step {step} it says {found[step]:.5f}, not {expected[step]:.5f}")


@exercise
def check_count_pairs(count_pairs: Callable[[int, int], tuple[int, int]]) -> None:
    """3.3: P places, K photos -> pairs of photos of one place, and of two places, each pair once."""
    for places, photos in ((8, 4), (3, 2)):
        labels = np.repeat(np.arange(places), photos)
        same = [labels[i] == labels[j] for i in range(len(labels)) for j in range(i)]
        expected = (sum(same), len(same) - sum(same))
        found = tuple(count_pairs(places, photos))
        want(found != tuple(2 * n for n in expected), "each pair is counted twice")
        want_close(found, expected, f"for P = {places}, K = {photos} it says {found}, not {expected}")


@exercise
def check_contrastive_loss(loss: Callable[..., float]) -> None:
    """3.4: distance of two descriptors, whether of one place, margin -> loss of the pair."""
    want_close(loss(0.3, True, 1.0), 0.3, "a pair of one place should cost its distance")
    want_close(loss(0.3, False, 1.0), 0.7, "a pair of two places should cost what it lacks of the margin")
    want_close(loss(1.4, False, 1.0), 0.0, "a pair of two places beyond the margin should cost nothing")


# 04: optimizers


@exercise
def check_sgd_step(sgd_step: Callable[..., tuple[float, float]]) -> None:
    """4.1: weight, velocity, gradient, lr, momentum, weight_decay -> weight and velocity after the step."""
    parameter = nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.01)
    weight, velocity = 1.5, 0.0
    for number, gradient in enumerate((0.4, -0.2, 0.7)):
        parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        expected = parameter.item()
        weight, velocity = sgd_step(weight, velocity, gradient, 0.1, 0.9, 0.01)
        where = "the first step" if number == 0 else "a step with velocity from before"
        want_close(weight, expected, f"{where} ends at {weight:.5f}, torch's SGD at {expected:.5f}")
        buffer = optimizer.state[parameter]["momentum_buffer"].item()
        want_close(velocity, buffer, "the weight is right; torch's velocity does not hold the learning rate")


@exercise
def check_has_hard_negative(has_hard_negative: Callable[..., np.ndarray]) -> None:
    """4.2: (B, B) similarities, (B,) labels, epsilon -> (B,) bool, whether the miner keeps a negative of the anchor."""
    draw = torch.Generator().manual_seed(1)
    for spread in (0.2, 0.6):
        labels = torch.arange(6).repeat_interleave(3)
        centres = torch.eye(6, 8).repeat_interleave(3, 0)
        descriptors = nn.functional.normalize(centres + spread * torch.randn(18, 8, generator=draw))
        anchors = MultiSimilarityMiner(epsilon=0.1)(descriptors, labels)[2].unique()
        expected = np.isin(np.arange(18), anchors)
        found = np.asarray(has_hard_negative((descriptors @ descriptors.T).numpy(), labels.numpy(), 0.1))
        want(found.shape == (18,), f"it returns the shape {found.shape}; expected (18,)")
        more = "it finds too many: a negative must come within epsilon of the least similar positive, or above it"
        less = "it finds too few: the least similar positive counts, and not the most similar one"
        want(found.sum() <= expected.sum(), more)
        want_close(found, expected, less)


@exercise
def check_epochs_to(epochs_to: Callable[..., int | None]) -> None:
    """4.3: recall after each epoch, target -> the first epoch (from 1) that reaches it, or None."""
    epochs_to = epochs_to.__wrapped__  # here, None is an answer
    want(epochs_to([30.0, 42.0, 41.0, 50.0], 42.0) != 1, "epochs are counted from 1")
    want(epochs_to([30.0, 42.0, 41.0, 50.0], 42.0) == 2, "42 is reached in the second epoch of 30, 42, 41, 50")
    want(epochs_to([30.0, 42.0], 60.0) is None, "where the target is never reached the answer is None")


@exercise
def check_mean_and_deviation(mean_and_deviation: Callable[..., tuple[float, float]]) -> None:
    """4.4: recall of each seed -> mean and standard deviation of a sample."""
    seeds = [55.0, 58.0, 61.0]
    found = mean_and_deviation(seeds)
    want(not np.isclose(found[1], np.std(seeds)), "few seeds are a sample: divide by n - 1 (ddof=1)")
    want_close(found, (58.0, 3.0), f"for {seeds} it says {found}")


# 05: scenarios


@exercise
def check_count_outcomes(count_outcomes: Callable[..., dict[str, int]]) -> None:
    """5.1: (Q,) bool of model A, of B -> {"both", "only A", "only B", "neither"}."""
    first, second = np.array([1, 1, 1, 0, 0, 1], dtype=bool), np.array([1, 0, 0, 1, 0, 1], dtype=bool)
    found = count_outcomes(first, second)
    expected = {"both": 2, "only A": 2, "only B": 1, "neither": 1}
    want(set(found) == set(expected), f"its keys are {sorted(found)}; expected {sorted(expected)}")
    want(sum(found.values()) == 6, f"its counts add up to {sum(found.values())}; there are 6 queries")
    want(found["only A"] != 1 or found["only B"] != 2, "A and B are exchanged")
    want(found == expected, f"it says {found}")


@exercise
def check_recall_of(recall_of: Callable[..., dict[str, float]]) -> None:
    """5.2: (Q,) bool, (Q,) labels -> {label: percent}."""
    hits = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    labels = np.array(["night", "night", "bus", "bus", "bus", ""])
    found = recall_of(hits, labels)
    want("" not in found, 'a query with the label "" is of no kind: leave it out')
    want(set(found) == {"night", "bus"}, f"its keys are {sorted(found)}; expected bus and night")
    want(not np.isclose(found["bus"], 200 / 6), "the share is of the label's own queries, not of all")
    want_close([found["night"], found["bus"]], [50.0, 200 / 3], f"it says {found}")


@exercise
def check_estimate_position(estimate_position: Callable[[np.ndarray], np.ndarray]) -> None:
    """5.3: (k, 2) positions of the predictions -> (2,) position that one far wrong prediction doesn't move much."""
    near = np.array([[100.0, 200.0], [104, 198], [97, 203], [101, 201]])
    shape = np.shape(estimate_position(near))
    want(shape == (2,), f"it returns the shape {shape}; expected (2,), east and north")
    for place, which in ((0, "first"), (4, "last")):
        found = np.asarray(estimate_position(np.insert(near, place, [9000.0, -4000.0], axis=0)))
        off = np.hypot(*(found - near.mean(0)))
        want(off < 10, f"a {which} prediction 10 km off moves the estimate by {off:.0f} m: that isn't robust")
