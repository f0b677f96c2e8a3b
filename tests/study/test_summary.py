"""The sentences that state the result."""

import math

import numpy as np
import pytest

from vpr_lib.evaluation import Evaluation
from vpr_lib.recall import recall_at_k
from vpr_lib.study import published
from vpr_lib.study.summary import format_order, list_results


def evaluate(split, hits):
    """An evaluation of queries that are far from each other, whose first photo is right or not."""
    indices = np.where(np.asarray(hits, dtype=bool), 0, 1)[:, None]
    positives = [np.array([0])] * len(indices)
    utm = np.stack([1000.0 * np.arange(len(indices)), np.zeros(len(indices))], axis=1)
    distances = np.ones(indices.shape, np.float32)
    return Evaluation(split, indices, distances, positives, utm, recall_at_k(indices, positives, (1,)))


def first(number, of=40):
    return [True] * number + [False] * (of - number)


def test_three_sentences_state_the_result():
    hits = {"AVG": first(10), "GeM": first(20), "ConvAP": first(30), "MixVPR": first(28)}
    test = {name: evaluate("sf_test", values) for name, values in hits.items()}
    val = {name: evaluate("sf_val", first(10 + 5 * i)) for i, name in enumerate(hits)}
    one, two, three = list_results({"sf_val": val, "sf_test": test}, "sf_test")
    shares = "MixVPR 70.0%, GeM 50.0%, AVG 25.0%"
    assert one == f"On sf_test, ConvAP finds 75.0% of the 40 queries with its first photo (R@1), {shares}."
    # ConvAP alone finds 2 queries that MixVPR misses, and 20 that AVG misses; the opposite never happens.
    p_values = [2 * math.comb(n, 0) / 2**n for n in (2, 20)]
    assert two == (
        f"ConvAP is 5.0 points above MixVPR (not significant, p = {p_values[0]:.2g}), "
        f"and 50.0 points above AVG (significant, p = {p_values[1]:.2g})."
    )
    assert "AVG < GeM < ConvAP < MixVPR; here: that order on sf_val, and AVG < GeM < MixVPR < ConvAP on" in three


def test_equal_models_are_not_ranked():
    runs = {"AVG": evaluate("home", first(5)), "GeM": evaluate("home", first(5))}
    one, two, three = list_results({"home": runs}, "home")
    assert "AVG finds 12.5%" in one and two == "AVG is 0.0 points above GeM (not significant, p = 1)."
    assert three == "Published by M. Bracco et al., on real photos: AVG < GeM; here: AVG = GeM on home."


def test_the_published_order_is_the_same_on_all_splits():
    for split in published.PUBLISHED_SPLITS:
        recalls = {name: by_split[split][1] for name, by_split in published.RECALLS.items()}
        assert format_order(recalls) == "AVG < GeM < ConvAP < MixVPR"


@pytest.mark.parametrize(("recalls", "order"), [({"A": 2, "B": 1}, "B < A"), ({"A": 1, "C": 3, "B": 1}, "A = B < C")])
def test_equal_recalls_are_equal(recalls, order):
    assert format_order(recalls) == order
