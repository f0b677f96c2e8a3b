"""The checks of the exercises accept the printed solutions and say what is wrong with other answers."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vpr_lib.course import data_exercises, exercises, reranking_exercises
from vpr_lib.course.checking import WrongAnswer
from vpr_lib.recall import find_positives, recall_at_k

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.ipynb"))
CHECKS = {
    name: check
    for module in (data_exercises, exercises, reranking_exercises)
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
        data_exercises.check_read_utm(answer)
        with pytest.raises(WrongAnswer) as raised:
            data_exercises.check_read_utm(answer, strict=True)
        assert str(raised.value) == capsys.readouterr().out.strip()


class DependsOnItsBatch(torch.nn.Module):
    def forward(self, x):
        return F.normalize((x - x.mean(0)).flatten(1), dim=1)


class Misspelled(torch.nn.Module):  # torch raises NotImplementedError
    def froward(self, x):
        return x


class LeavesTorch(torch.nn.Module):
    def forward(self, x):
        return F.normalize(torch.tensor(x.detach().numpy().max((2, 3))), dim=1)


class NoGradient(torch.nn.Module):
    def forward(self, x):
        return F.normalize(x.detach().flatten(1) * torch.ones(1, requires_grad=True), dim=1)


def draw(places, num_places, images_per_place, rng, smallest, replace):
    names, counts = np.unique(places, return_counts=True)
    chosen = rng.choice(names[counts >= smallest], num_places, replace=False)
    return np.concatenate([rng.choice(np.flatnonzero(places == n), images_per_place, replace) for n in chosen])


GLOBAL = np.random.default_rng(0)


def near(train, test, radius_m):
    """(N, M) bool."""
    return np.hypot(*(train[:, None] - test).transpose(2, 0, 1)) <= radius_m


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
    ("check_read_utm", lambda n: [float(v) for v in n.split("@")[2:0:-1]], "exchanged"),
    ("check_read_utm", lambda n: float(n.split("@")[1]), "two numbers, (east, north)"),
    ("check_is_positive", lambda q, d: np.hypot(*(d - q).T), "float64 of shape (6,); expected an array of 6 bool"),
    ("check_is_positive", lambda q, d: np.flatnonzero(np.hypot(*(d - q).T) <= 25), "int64"),
    ("check_is_positive", lambda q, d: [bool(m <= 25) for m in np.hypot(*(d - q).T)], "a list of 6 bool"),
    ("check_is_positive", lambda q, d: np.abs(d - q).max(1) <= 25, "squares"),
    ("check_is_positive", lambda q, d: np.hypot(*(d - q).T) < 25, "exactly 25 m"),
    ("check_is_positive", lambda q, d: np.hypot(*(d - q).astype(np.float16).T) <= 25, "25.01"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=3, replace=True), "twice"),
    ("check_draw_batch", lambda p, n, k, rng: np.arange(n * k), "places"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=4, replace=False), "exactly K"),
    ("check_draw_batch", lambda *inputs: np.isin(np.arange(45), draw(*inputs, smallest=3, replace=False)), "mask"),
    ("check_draw_batch", lambda *inputs: [*draw(*inputs, smallest=3, replace=False).reshape(4, 3)], "4 arrays"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=3, replace=False).reshape(4, 3), "shape (4, 3)"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=3, replace=False) * 1.0, "float64"),
    ("check_draw_batch", lambda *inputs: draw(*inputs, smallest=3, replace=False) + 1, "row 45; expected"),
    ("check_draw_batch", lambda *inputs: draw(*inputs[:3], GLOBAL, smallest=3, replace=False), "equal generator"),
    ("check_find_leaks", lambda a, b, r: near(a, b, r).any(0), "mask"),
    ("check_find_leaks", lambda a, b, r: np.nonzero(near(a, b, r).any(0)), "a tuple of 1 arrays"),
    ("check_find_leaks", lambda a, b, r: [i for i in range(len(b)) if near(a, b[[i]], r).any()], "a list of"),
    ("check_find_leaks", lambda a, b, r: [np.flatnonzero(row) for row in near(a, b, r)], "60 arrays"),
    ("check_find_leaks", lambda a, b, r: np.flatnonzero(near(a, b, r).any(1)), "0 to 39"),
    ("check_find_leaks", lambda a, b, r: np.flatnonzero(near(a, b, 25).any(0)), "within 10 m"),
    ("check_find_leaks", lambda a, b, r: np.flatnonzero(np.hypot(*(b - a[: len(b)]).T) <= r), "within 25 m"),
    ("check_find_leaks", lambda a, b, r: np.nonzero(near(a, b, r))[1], "once"),
    ("check_gem", lambda x, p: x.pow(p).mean((2, 3)).pow(1 / p), "norm 1"),
    ("check_gem", lambda x, p: F.normalize(x.pow(p).mean((2, 3)).pow(1 / p), dim=1), "clamp"),
    ("check_gem", lambda x, p: F.normalize(x.mean((2, 3)), dim=1), "p = 3"),
    ("check_gem", lambda x, p: F.normalize(x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p), dim=1).numpy(), "tensor"),
    ("check_convap_parameters", lambda i, o, s1, s2: i * o, "bias"),
    ("check_convap_parameters", lambda i, o, s1, s2: (i * o, o), "a tuple of 2 int; expected a number"),
    ("check_convap_parameters", lambda i, o, s1, s2: (i * o + o) * s1 * s2, "no trained parameters"),
    ("check_recall_at_1", lambda p, r: float(np.mean([*map(np.isin, p[:, 0], r)])), "share"),
    ("check_recall_at_1", lambda p, r: 100 * np.mean([p[i, 0] in r[i] for i in range(5) if len(r[i])]), "leave it out"),
    ("check_recall_at_1", lambda p, r: 100 * np.mean([np.isin(p[i], r[i]).any() for i in range(5)]), "first one"),
    ("check_recall_at_1", lambda p, r: recall_at_k(p, r, (1,)), "{1: 40.0}; expected one number"),
    ("check_aggregator", lambda c: torch.nn.Flatten(), "norm 1"),
    ("check_aggregator", lambda c: DependsOnItsBatch, "add ()"),
    ("check_aggregator", lambda c: Misspelled(), "forward"),
    ("check_aggregator", lambda c: LeavesTorch(), "gradient"),
    ("check_aggregator", lambda c: torch.nn.Identity(), "shape"),
    ("check_aggregator", lambda c: NoGradient(), "gradient"),
    ("check_aggregator", lambda c: DependsOnItsBatch(), "batch"),
    ("check_adamw_step", lambda w, g, lr, wd: w - lr * np.sign(g + wd * w), "L2"),
    ("check_adamw_step", lambda w, g, lr, wd: w - lr * g, "torch: "),
    ("check_adamw_step", lambda w, g, lr, wd: (w, g), "one number"),
    ("check_learning_rate", lambda s: [0.1] * 40, "one learning rate"),
    ("check_learning_rate", lambda s: 0.1 * 0.5 ** ((s >= 10) + (s >= 30)) * min(1, s / 15), "first step"),
    ("check_learning_rate", warm_up_overwrites_the_milestone, "both factors count"),
    ("check_count_pairs", lambda p, k: (p * k * (k - 1), p * k * (p - 1) * k), "twice"),
    ("check_count_pairs", lambda p, k: (p * k * (p - 1) * k // 2, p * k * (k - 1) // 2), "exchanged"),
    ("check_count_pairs", lambda p, k: p * k * (k - 1) // 2, "two numbers"),
    ("check_contrastive_loss", lambda d, same, m: d if same else max(0, 1 - d), "any margin"),
    ("check_contrastive_loss", lambda d, same, m: d if same else m - d, "beyond the margin"),
    ("check_sgd_step", lambda w, v, g, lr, mu, wd: (w - lr * (mu * v + g), mu * v + g), "first step"),
    ("check_sgd_step", keep_the_rate_in_the_velocity, "learning rate"),
    ("check_sgd_step", lambda w, v, g, lr, mu, wd: (w - lr * (g + wd * w), 0.0), "velocity"),
    ("check_sgd_step", lambda w, v, g, lr, mu, wd: w - lr * (mu * v + g + wd * w), "(weight, velocity)"),
    ("check_has_hard_negative", lambda s, p, e: np.flatnonzero(nearest_positive(s, p, e)), "18 bool"),
    ("check_has_hard_negative", nearest_positive, "too few"),
    ("check_has_hard_negative", lambda s, p, e: np.ones(len(p), dtype=bool), "too many"),
    ("check_epochs_to", lambda r, t: int(np.argmax(np.array(r) >= t)), "from 1"),
    ("check_epochs_to", lambda r, t: int(np.argmax(np.array(r) >= t)) + 1, "None"),
    ("check_mean_and_deviation", lambda r: (np.mean(r), np.std(r)), "ddof"),
    ("check_epochs_to", lambda r, t: [v >= t for v in r], "a list of 4 bool; expected an epoch"),
    ("check_mean_and_deviation", lambda r: np.mean(r), "(mean, deviation)"),
    ("check_count_outcomes", lambda a, b: [2, 2, 1, 1], "a list of 4 int; expected a dictionary"),
    ("check_count_outcomes", lambda a, b: dict.fromkeys(("both", "only A", "only B", "neither"), a & b), "each key"),
    ("check_count_outcomes", wrong_outcomes, "exchanged"),
    ("check_recall_of", lambda h, k: {n: 100 * h[k == n].mean() for n in np.unique(k)}, "no label"),
    ("check_recall_of", lambda h, k: {n: 100 * (h & (k == n)).mean() for n in ("bus", "night")}, "own queries"),
    ("check_recall_of", lambda h, k: {n: h[k == n].mean() for n in ("bus", "night")}, "percent"),
    ("check_recall_of", lambda h, k: {"night": 50.0}, "its keys are ['night']"),
    ("check_estimate_position", lambda utm: utm.mean(0), "robust"),
    ("check_estimate_position", lambda utm: np.zeros(2), "among them"),
    ("check_estimate_position", lambda utm: (101.0, 201.0), "a tuple of 2 float"),
    ("check_estimate_position", lambda utm: utm[0], "first"),
    ("check_estimate_position", lambda utm: 3.0, "3.0; expected an array of shape (2,)"),
    ("check_ratio_test", lambda d, r: d.min(1) < r, "second smallest"),
    ("check_ratio_test", lambda d, r: d.min(1) < r * d.max(1), "it returns"),
    ("check_ratio_test", lambda d, r: d.argmin(1)[d.min(1) < r], "4 bool"),
    ("check_count_line_inliers", lambda p, a, b, t: np.ones(6, dtype=bool), "the number of inliers"),
    ("check_count_line_inliers", measure_straight_up, "right angle"),
    ("check_count_line_inliers", lambda p, a, b, t: 2, "included"),
    ("check_rerank_rows", lambda p, i: np.take_along_axis(p, np.argsort(i, axis=1), 1), "not last"),
    ("check_rerank_rows", lambda p, i: np.argsort(-i, axis=1, kind="stable"), "returns the order"),
    ("check_rerank_rows", lambda p, i: [row[np.argsort(-n)] for row, n in zip(p, i, strict=True)], "2 arrays"),
    ("check_precision_and_recall", lambda h, c, t: (100 * h[c >= t].mean(), 75.0), "from 0 to 1"),
    ("check_precision_and_recall", lambda h, c, t: h[c >= t].mean(), "(precision, recall)"),
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


@pytest.mark.parametrize("name", CHECKS)
def test_a_missing_return_gets_a_message(name, capsys):
    CHECKS[name](lambda *arguments: None)
    assert "does it end with a return?" in capsys.readouterr().out


def reshape_wrongly(features):
    return features.reshape(7, -1)


def gem_along_no_axis(features, p):
    return F.normalize(features.pow(p), dim=9)


class LinearOfAMap(torch.nn.Module):
    def forward(self, features):
        return F.linear(features, torch.ones(3, 5))


@pytest.mark.parametrize(
    ("check", "answer", "line"),
    [
        (exercises.check_gem, gem_along_no_axis, "return F.normalize(features.pow(p), dim=9)"),
        (exercises.check_gem, lambda x, p: reshape_wrongly(x), "return features.reshape(7, -1)"),
        (exercises.check_aggregator, lambda c: LinearOfAMap(), "return F.linear(features, torch.ones(3, 5))"),
    ],
    ids=["in the answer", "in a function that it calls", "in a method"],
)
def test_an_error_inside_a_library_is_shown_with_the_students_own_line(check, answer, line, capsys):
    check(answer)
    out = capsys.readouterr().out
    lines = [text.strip() for text in Path(__file__).read_text(encoding="utf-8").splitlines()]
    assert out.startswith("✗ it stops with ") and out.endswith(f", in line {lines.index(line) + 1}: {line}\n")


def test_an_error_of_a_call_names_no_line_of_the_check(capsys):
    exercises.check_gem(lambda features: features)
    out = capsys.readouterr().out
    assert out.startswith("✗ it stops with TypeError") and "in line" not in out


def test_an_answer_that_changes_its_arguments_is_judged_by_what_it_returns(capsys):
    exercises.check_gem(lambda x, p: F.normalize(x.clamp_(min=1e-6).pow_(p).mean((2, 3)).pow_(1 / p), dim=1))
    assert capsys.readouterr().out == "✓ right\n"
