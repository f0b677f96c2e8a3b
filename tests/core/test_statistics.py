"""Recall of groups of queries."""

from itertools import pairwise

import numpy as np
import pytest

from vpr_lib.statistics import bootstrap_interval, choose_evenly, group_cells, recall_by_label


def test_recall_by_label_is_a_loop_over_queries():
    draw = np.random.default_rng(0)
    hits, labels = draw.random(60) < 0.4, draw.choice(["", "a", "b"], 60)
    cells = group_cells(draw.uniform(0, 200, (60, 2)) + [500_000, 4_000_000])
    recalls = recall_by_label(hits, labels, cells)
    assert set(recalls) == {"a", "b"}
    for label, recall in recalls.items():
        right = total = 0
        for hit, other in zip(hits, labels, strict=True):
            right, total = right + (other == label and hit), total + (other == label)
        assert (recall.num_queries, recall.recall) == (total, pytest.approx(100 * right / total))
        assert recall.interval == bootstrap_interval(hits[labels == label], cells[labels == label])
    with pytest.raises(ValueError, match="expected one a query"):
        recall_by_label(hits, labels[1:])


def test_rows_are_chosen_evenly():
    assert choose_evenly(5, 5).tolist() == choose_evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    for total, limit in ((200, 7), (1000, 200), (9, 2)):
        rows = choose_evenly(total, limit).tolist()
        steps = [after - before for before, after in pairwise(rows)]
        assert len(rows) == limit and (rows[0], rows[-1]) == (0, total - 1) and max(steps) - min(steps) <= 1


def test_cells_are_25_m_squares():
    utm = np.array([[100.0, 0.0], [124.9, 24.9], [125.0, 0.0], [-0.1, 0.0], [110.0, 3.0]])
    cells = group_cells(utm)
    for i in range(5):
        for j in range(5):
            assert (cells[i] == cells[j]) == ((utm[i] // 25).tolist() == (utm[j] // 25).tolist())
