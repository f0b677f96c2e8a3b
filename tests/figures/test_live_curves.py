"""Curves while a training runs: in a notebook only, at most once a second, and right."""

import time
from types import SimpleNamespace
from xml.etree import ElementTree

import IPython
import IPython.display
import pytest

from vpr_lib.figures.live_curves import LiveCurves, draw_curves
from vpr_lib.progress import Progress
from vpr_lib.runs import get_run
from vpr_lib.settings import replace


@pytest.fixture
def notebook(monkeypatch):
    """As in a notebook; a list of what is displayed."""
    displayed = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", displayed.append)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    return displayed


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `now` sets it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


def advance(progress, loss):
    progress.add_batch(loss, 0.0, 8, 1.0)
    return progress


def read(picture):
    """The points of the curves, and the texts."""
    root = ElementTree.fromstring(picture)
    lines = [node.attrib["points"].split() for node in root.iter() if node.tag.endswith("polyline")]
    return (
        lines,
        ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")],
        root.attrib["aria-label"],
    )


def test_curves_show_each_batch_and_each_epoch():
    progress = Progress()
    losses = [4.0, 2.0, 3.0, 1.0, 2.0]
    for loss in losses[:4]:
        advance(progress, loss)
        if progress.batch == 2:
            progress.finish_epoch(0.1, {"val": {1: 10.0 * progress.step, 5: 90.0}})
    advance(progress, losses[4])
    (batches, means, recalls), texts, label = read(draw_curves(losses, 1, progress))
    points = [[tuple(map(float, point.split(","))) for point in curve] for curve in (batches, means, recalls)]
    assert [len(curve) for curve in points] == [5, 2, 2]
    heights = [points[0][0][1] - y for _, y in points[0]]  # above the first, in pixels downwards
    slope = heights[1] / (losses[1] - losses[0])
    assert heights == pytest.approx([slope * (loss - losses[0]) for loss in losses], abs=0.2)
    assert [x for x, _ in points[1]] == [points[0][1][0], points[0][3][0]]  # an epoch ends with its last batch
    assert [points[0][0][1] - y for _, y in points[1]] == pytest.approx([-slope * 1, -slope * 2], abs=0.2)
    assert points[2][0][1] > points[2][1][1]  # 20 is drawn below 40
    assert "4" in texts and "\u25cf val R@1 40" in texts
    assert label == "step 5: loss 2.000, val R@1 40.0"


def test_many_batches_are_averaged():
    progress = Progress()
    losses = [float(number % 7) for number in range(10_000)]
    for loss in losses:
        advance(progress, loss)
    (batches, *_), _, _ = read(draw_curves(losses, 1, progress))
    assert len(batches) == 150 and len(draw_curves(losses, 1, progress)) < 10_000


def test_curves_are_drawn_once_a_second_and_removed(notebook, clock):
    progress = Progress()
    with LiveCurves() as curves:
        seen = []
        for number in range(40):
            clock.now = 100 + number / 10
            curves(advance(progress, 1.0 + number))
            seen.append(curves.widget.value)
        assert len({*seen}) == 4 and len(notebook) == 1 and notebook[0] is curves.widget
        assert curves.losses == [1.0 + number for number in range(40)]
        clock.now += 1
        curves(advance(Progress(), 5.0))  # another run
        assert curves.losses == [5.0] and "step 1: loss 5.000" in curves.widget.value
        widget = curves.widget
    assert curves.widget is None and widget.comm is None  # closed


def test_a_resumed_run_begins_where_it_was(notebook, clock):
    progress = Progress(epoch=2, batch=3, step=23, loss_sum=3.0, history=[])
    curves = LiveCurves()
    curves(advance(progress, 2.0))
    curves(advance(progress, 4.0))
    assert curves.losses == [1.25, 4.0] and curves.first_step == 24


@pytest.mark.parametrize("where", ["terminal", "without bars", "TQDM_DISABLE"])
def test_nothing_is_shown_elsewhere(notebook, monkeypatch, where):
    if where == "terminal":
        monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    if where == "TQDM_DISABLE":
        monkeypatch.setenv("TQDM_DISABLE", "1")
    curves = LiveCurves(enabled=where != "without bars")
    curves(advance(Progress(), 1.0))
    curves.close()
    assert notebook == []


@pytest.mark.slow
def test_a_training_calls_them(notebook, small, data_root, tmp_path, machine):
    curves = LiveCurves(interval_s=0.0)
    run = get_run(replace(small, epochs=2), data_root, tmp_path, machine=machine, on_batch=curves)
    (batches, means, recalls), _, label = read(curves.widget.value)
    assert len(batches) == len(curves.losses) and len(means) == len(recalls) == 1  # the last epoch ends after it
    assert f"val R@1 {run.history[0]['val R@1']:.1f}" in label
    half = len(curves.losses) // 2
    assert sum(curves.losses[:half]) / half == pytest.approx(run.history[0]["loss"])
    assert label.startswith(f"step {len(curves.losses)}: loss {curves.losses[-1]:.3f}")
