"""Examples of queries: chosen by rule, with the first photo of each model."""

import numpy as np
import pytest

from vpr_lib.analysis.examples import choose_examples, name_outcomes, read_example
from vpr_lib.data_roots import read_split
from vpr_lib.evaluation import Evaluation
from vpr_lib.photos import read_thumbnail
from vpr_lib.recall import find_positives


def test_examples_are_chosen_by_rule():
    names = [f"q{i}" for i in range(40)]
    labels = ["a" if i % 2 else "b" for i in range(40)]
    rights = np.random.default_rng(1).random((40, 2)) < 0.6
    chosen = choose_examples(names, labels, rights)
    assert chosen == choose_examples(names, labels, rights[:, ::-1])  # which model is right plays no part
    assert list(chosen) == ["b", "a", "Fail cases"]
    for label in "ab":
        first, second = chosen[label]
        assert labels[first] == labels[second] == label and rights[first, 0] != rights[first, 1]
    assert not rights[chosen["Fail cases"]].any()
    assert len({i for indices in chosen.values() for i in indices}) == 6
    agree = choose_examples(names, labels, np.ones((40, 2), bool))
    assert "Fail cases" not in agree and all(len(indices) == 2 for indices in agree.values())
    again = choose_examples(names[::-1], labels[::-1], rights[::-1])  # the order of the rows plays no part
    assert {label: [39 - i for i in indices] for label, indices in again.items()} == chosen


def test_outcomes_in_words():
    outcomes = name_outcomes(("A", "B"), np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool))
    assert outcomes.tolist() == ["Both right", "Only A right", "Only B right", "Fail cases"]


def test_an_example_shows_the_first_photo_and_its_distance(data_root):
    database, queries = read_split(data_root, "val")
    positives = find_positives(database.utm, queries.utm)
    indices = np.array([[rows[0], 0] for rows in positives])
    indices[3] = indices[3, ::-1]  # a wrong photo first
    distances = np.zeros(indices.shape, dtype=np.float32)
    evaluation = Evaluation("val", indices, distances, positives, queries.utm, {1: 0.0})
    for query in (2, 3):
        example = read_example(query, database, queries, {"GeM": evaluation}, max_pixels=36)
        match = example.matches["GeM"]
        row = indices[query, 0]
        assert match.distance_m == pytest.approx(np.hypot(*(queries.utm[query] - database.utm[row])))
        assert match.right == (match.distance_m <= 25) == (query == 2)
        assert example.name == queries.names[query]
        np.testing.assert_array_equal(match.photo, read_thumbnail(database, row, 36))
