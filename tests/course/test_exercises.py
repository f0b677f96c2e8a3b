"""The checks of the exercises accept the printed solutions and say what is wrong with other answers."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vpr_lib.course import exercises, reranking_exercises
from vpr_lib.course.checking import WrongAnswer
from vpr_lib.recall import find_positives

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.ipynb"))
CHECKS = {
    name: check
    for module in (exercises, reranking_exercises)
    for name, check in vars(module).items()
    if name.startswith("check_")
}


def read_exercises():
    """{name of the check: (name of the answer, code of the unfinished cell, code of the solution)}."""
    exercises_by_check = {}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        for number, cell in enumerate(cells):
            if "check" in cell.metadata.get("tags", []):
                check, answer = re.search(r"^(check_\w+)\((\w+)\)", cell.source, re.M).groups()
                stub, solution = cells[number - 1], cells[number + 1]
                assert stub.metadata["tags"] == ["exercise"]
                assert "<details><summary>Solution" in solution.source
                (code,) = re.findall(r"```python\n(.*?)```", solution.source, re.S)
                exercises_by_check[check] = (answer, stub.source, code)
    return exercises_by_check


EXERCISES = read_exercises()


@pytest.mark.parametrize("name", CHECKS)
def test_an_unfinished_answer_stops_nothing_and_the_solution_is_accepted(name, capsys):
    answer, *codes = EXERCISES[name]
    for code, verdict in zip(codes, ("… to do", "✓ right\n"), strict=True):
        names = {"np": np, "torch": torch, "F": F, "find_positives": find_positives}
        exec(code, names)
        CHECKS[name](names[answer])
        assert capsys.readouterr().out.startswith(verdict)


def test_a_strict_check_raises_what_is_printed_otherwise(capsys):
    for answer in (lambda name: None, lambda name: 1 / 0, lambda name: ("1", 2)):
        exercises.check_read_utm(answer)
        with pytest.raises(WrongAnswer) as raised:
            exercises.check_read_utm(answer, strict=True)
        assert str(raised.value) == capsys.readouterr().out.strip()


class DependsOnItsBatch(torch.nn.Module):
    def forward(self, x):
        return F.normalize((x - x.mean(0)).flatten(1), dim=1)


class NoGradient(torch.nn.Module):
    def forward(self, x):
        return F.normalize(x.detach().flatten(1) * torch.ones(1, requires_grad=True), dim=1)


def draw(places, num_places, images_per_place, rng, smallest, replace):
    names, counts = np.unique(places, return_counts=True)
    chosen = rng.choice(names[counts >= smallest], num_places, replace=False)
    return np.concatenate([rng.choice(np.flatnonzero(places == n), images_per_place, replace) for n in chosen])


def keep_the_rate_in_the_velocity(weight, velocity, gradient, lr, momentum, weight_decay):
    velocity = momentum * velocity + lr * (gradient + weight_decay * weight)
    return weight - velocity, velocity


def warm_up_overwrites_the_milestone(step):
    return 0.1 * (step + 1) / 15 if step < 15 else 0.1 * 0.5 ** ((step >= 10) + (step >= 30))


def nearest_positive(similarity, places, epsilon):
    same = places[:, None] == places
    positive = np.where(same & ~np.eye(len(places), dtype=bool), similarity, -np.inf).max(1)
    return np.where(same, -np.inf, similarity).max(1) > positive - epsilon


def wrong_outcomes(a, b):
    return {"both": int((a & b).sum()), "only A": int((~a & b).sum()), "only B": int((a & ~b).sum()), "neither": 1}


def measure_straight_up(points, first, second, tolerance):
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return int((np.abs(points[:, 1] - first[1] - slope * (points[:, 0] - first[0])) <= tolerance).sum())


# Wrong answers of students, and a part of the message.
WRONG = [
    ("check_read_utm", lambda n: tuple(n.split("@")[1:3]), "text"),
    ("check_read_utm", lambda n: tuple(float(v) for v in n.split("@")[1:3]), "folder"),
    ("check_is_positive", lambda q, d: np.abs(d - q).max(1) <= 25, "squares"),
    ("check_is_positive", lambda q, d: np.hypot(*(d - q).T) < 25, "exactly 25 m"),
    ("check_is_positive", lambda q, d: np.hypot(*(d - q).astype(np.float16).T) <= 25, "25.01"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=3, replace=True), "twice"),
    ("check_draw_batch", lambda p, n, k, rng: np.arange(n * k), "places"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=4, replace=False), "exactly K"),
    ("check_find_leaks", lambda a, b, r: np.flatnonzero(np.hypot(*(b - a[: len(b)]).T) <= r), "within 25 m"),
    ("check_find_leaks", lambda a, b, r: np.nonzero(np.hypot(*(a[:, None] - b).T) <= r)[0], "once"),
    ("check_gem", lambda x, p: x.pow(p).mean((2, 3)).pow(1 / p), "norm 1"),
    ("check_gem", lambda x, p: F.normalize(x.pow(p).mean((2, 3)).pow(1 / p), dim=1), "clamp"),
    ("check_gem", lambda x, p: F.normalize(x.mean((2, 3)), dim=1), "p = 3"),
    ("check_convap_parameters", lambda i, o, s1, s2: i * o, "bias"),
    ("check_convap_parameters", lambda i, o, s1, s2: (i * o + o) * s1 * s2, "no trained parameters"),
    ("check_recall_at_1", lambda p, r: float(np.mean([*map(np.isin, p[:, 0], r)])), "share"),
    ("check_recall_at_1", lambda p, r: 100 * np.mean([p[i, 0] in r[i] for i in range(5) if len(r[i])]), "leave it out"),
    ("check_recall_at_1", lambda p, r: 100 * np.mean([np.isin(p[i], r[i]).any() for i in range(5)]), "first one"),
    ("check_aggregator", lambda c: torch.nn.Flatten(), "norm 1"),
    ("check_aggregator", lambda c: torch.nn.Identity(), "shape"),
    ("check_aggregator", lambda c: NoGradient(), "gradient"),
    ("check_aggregator", lambda c: DependsOnItsBatch(), "batch"),
    ("check_adamw_step", lambda w, g, lr, wd: w - lr * np.sign(g + wd * w), "L2"),
    ("check_adamw_step", lambda w, g, lr, wd: w - lr * g, "torch: "),
    ("check_learning_rate", lambda s: 0.1 * 0.5 ** ((s >= 10) + (s >= 30)) * min(1, s / 15), "first step"),
    ("check_learning_rate", warm_up_overwrites_the_milestone, "both factors count"),
    ("check_count_pairs", lambda p, k: (p * k * (k - 1), p * k * (p - 1) * k), "twice"),
    ("check_contrastive_loss", lambda d, same, m: d if same else m - d, "beyond the margin"),
    ("check_sgd_step", lambda w, v, g, lr, mu, wd: (w - lr * (mu * v + g), mu * v + g), "first step"),
    ("check_sgd_step", keep_the_rate_in_the_velocity, "learning rate"),
    ("check_sgd_step", lambda w, v, g, lr, mu, wd: (w - lr * (g + wd * w), 0.0), "velocity"),
    ("check_has_hard_negative", nearest_positive, "too few"),
    ("check_has_hard_negative", lambda s, p, e: np.ones(len(p), dtype=bool), "too many"),
    ("check_epochs_to", lambda r, t: int(np.argmax(np.array(r) >= t)), "from 1"),
    ("check_epochs_to", lambda r, t: int(np.argmax(np.array(r) >= t)) + 1, "None"),
    ("check_mean_and_deviation", lambda r: (np.mean(r), np.std(r)), "ddof"),
    ("check_count_outcomes", wrong_outcomes, "exchanged"),
    ("check_recall_of", lambda h, k: {n: 100 * h[k == n].mean() for n in np.unique(k)}, "no label"),
    ("check_recall_of", lambda h, k: {n: 100 * (h & (k == n)).mean() for n in ("bus", "night")}, "own queries"),
    ("check_estimate_position", lambda utm: utm.mean(0), "robust"),
    ("check_estimate_position", lambda utm: utm[0], "first"),
    ("check_estimate_position", lambda utm: 3.0, "shape ()"),
    ("check_ratio_test", lambda d, r: d.min(1) < r, "second smallest"),
    ("check_ratio_test", lambda d, r: d.min(1) < r * d.max(1), "it returns"),
    ("check_count_line_inliers", measure_straight_up, "right angle"),
    ("check_count_line_inliers", lambda p, a, b, t: 2, "included"),
    ("check_rerank_rows", lambda p, i: np.take_along_axis(p, np.argsort(i, axis=1), 1), "not last"),
    ("check_rerank_rows", lambda p, i: np.take_along_axis(p, np.argsort(i, axis=1)[:, ::-1], 1), "stable"),
    ("check_precision_and_recall", lambda h, c, t: (h[c >= t].mean(), (h & (c >= t)).mean()), "four right"),
    ("check_precision_and_recall", lambda h, c, t: (h[c > t].mean(), h[c > t].sum() / h.sum()), "reached"),
]


def test_every_check_is_some_notebooks_and_rejects_something():
    assert sorted(EXERCISES) == sorted({name for name, _, _ in WRONG}) == sorted(CHECKS)


@pytest.mark.parametrize(("name", "answer", "message"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
def test_a_wrong_answer_gets_a_message(name, answer, message, capsys):
    CHECKS[name](answer)
    out = capsys.readouterr().out
    assert out.startswith("✗ not yet") and message in out


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "check_epochs_to"])
def test_a_missing_return_gets_a_message(name, capsys):
    CHECKS[name](lambda *arguments: None)
    assert "does it end with a return?" in capsys.readouterr().out


def test_an_error_in_the_answer_is_shown_with_its_line(capsys):
    exercises.check_gem(lambda x, p: x.no_such_method())
    line = test_an_error_in_the_answer_is_shown_with_its_line.__code__.co_firstlineno + 1
    out = capsys.readouterr().out
    assert "AttributeError" in out and f"in line {line}: exercises.check_gem(lambda x, p: x.no_such_method" in out
