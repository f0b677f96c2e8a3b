"""Curves of a training that is under way, in a notebook: the loss of each batch, recall after each epoch."""

import html
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vpr_lib.figures.plots import COLORS, GRAY
from vpr_lib.progress import Progress

_WIDTH, _HEIGHT = 310, 160  # pixels of a panel
_LEFT, _TOP, _BOTTOM = 46, 20, 22  # pixels of its margins
_MAX_POINTS = 150  # of a curve; more batches are averaged


class LiveCurves:
    """For `on_batch` of `get_run` and `train_all`: curves in the output of the present cell, drawn once a second.

    In a terminal, and where the environment variable TQDM_DISABLE turns progress bars off, nothing is shown. As a
    context manager it removes the curves at its end.

    Args:
        enabled: False shows nothing.
        interval_s: seconds between two drawings, at least.
    """

    def __init__(self, enabled: bool = True, interval_s: float = 1.0) -> None:
        self.enabled = enabled and "TQDM_DISABLE" not in os.environ and _is_in_notebook()
        self.interval_s = interval_s
        self.progress: Progress | None = None  # of the present run
        self.widget: Any = None
        self.drawn = -float("inf")

    def __call__(self, progress: Progress) -> None:
        """Note the loss of the batch that has just ended, and draw if the last drawing is old enough."""
        if not self.enabled:
            return
        if progress is not self.progress:  # another run
            self.progress, self.losses, self.sum = progress, [], 0.0
            self.first_step = progress.step  # 1, or more of a run that is resumed
        if not self.losses or progress.batch == 1:  # of a resumed epoch, the mean so far
            self.losses.append(progress.loss_sum / progress.batch)
        else:
            self.losses.append(progress.loss_sum - self.sum)
        self.sum = progress.loss_sum
        if time.monotonic() - self.drawn >= self.interval_s:
            self._show(draw_curves(self.losses, self.first_step, progress))
            self.drawn = time.monotonic()

    def _show(self, picture: str) -> None:
        if self.widget is None:
            from IPython.display import display
            from ipywidgets import HTML

            self.widget = HTML()  # empty, so that a saved notebook holds no picture as text
            display(self.widget)
        self.widget.value = picture

    def close(self) -> None:
        """Remove the curves from the cell's output."""
        if self.widget is not None:
            self.widget.close()
            self.widget = None

    def __enter__(self) -> "LiveCurves":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def draw_curves(losses: Sequence[float], first_step: int, progress: Progress) -> str:
    """An SVG picture, written as text: matplotlib would take time from the training.

    Args:
        losses: of the batches since this session began or resumed the run, (N,).
        first_step: the optimizer step of the first of them, from 1.
        progress: of the run; its history has the mean loss and the recalls of each finished epoch.
    """
    edges = np.linspace(0, len(losses), min(len(losses), _MAX_POINTS) + 1).astype(int)
    means = np.add.reduceat(losses, edges[:-1]) / np.diff(edges)
    batches = [*zip((edges[1:] + first_step - 1).tolist(), means.tolist(), strict=True)]
    history = progress.history
    epoch_size = (progress.step - progress.batch) / max(1, progress.epoch)  # steps
    curves = {
        name: [(row["epoch"] * epoch_size, row[name]) for row in history]
        for name in (history[0] if history else ())
        if name == "loss" or name.endswith("R@1")
    }
    mean_losses = {"mean of an epoch": curves.pop("loss", [])}
    steps = max(2, progress.step)
    highest = max(loss for _, loss in [*batches, *mean_losses["mean of an epoch"]])
    panels = [
        _draw_panel("loss", mean_losses, batches, (0.0, highest or 1.0), steps),
        _draw_panel("R@1, percent", curves, [], _choose_bounds(curves), steps),
    ]
    values = [
        f"step {progress.step}: loss {losses[-1]:.3f}",
        *(f"{k} {curve[-1][1]:.1f}" for k, curve in curves.items()),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(", ".join(values))}" '
        f'width="{2 * _WIDTH}" height="{_HEIGHT}" font-size="11" fill="currentColor" '
        f'style="color: var(--jp-content-font-color1, #222)">'
        f'{panels[0]}<g transform="translate({_WIDTH})">{panels[1]}</g></svg>'
    )


def _choose_bounds(curves: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """The tens around all recalls."""
    values = [value for curve in curves.values() for _, value in curve] or [0.0, 100.0]
    low = 10.0 * min(9, int(min(values) // 10))
    return low, max(low + 10.0, 10.0 * -int(-max(values) // 10))


def _draw_panel(
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    thin: Sequence[tuple[float, float]],
    bounds: tuple[float, float],
    steps: int,
) -> str:
    """Curves with markers and a legend, and one thin curve without, over optimizer steps."""
    low, high = bounds
    right, bottom = _WIDTH - 12, _HEIGHT - _BOTTOM

    def place(points: Sequence[tuple[float, float]]) -> list[str]:
        xs = [_LEFT + (right - _LEFT) * step / steps for step, _ in points]
        ys = [bottom - (bottom - _TOP) * (value - low) / (high - low) for _, value in points]
        return [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]

    parts = [
        f'<path d="M{_LEFT},{_TOP}V{bottom}H{right}" fill="none" stroke="{GRAY}"/>',
        f'<text x="{_LEFT}" y="12">{title}</text>',
        f'<text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{high:.4g}</text>',
        f'<text x="{_LEFT - 5}" y="{bottom}" text-anchor="end">{low:.4g}</text>',
        f'<text x="{right}" y="{bottom + 15}" text-anchor="end">step {steps}</text>',
    ]
    if thin:
        parts.append(f'<polyline points="{" ".join(place(thin))}" fill="none" stroke="{GRAY}"/>')
    for number, (name, points) in enumerate(curves.items()):
        color, marker = COLORS[number % len(COLORS)], "●■▲◆"[number % 4]
        parts.append(f'<polyline points="{" ".join(place(points))}" fill="none" stroke="{color}" stroke-width="2"/>')
        places = [point.split(",") for point in place(points)]
        parts += [
            f'<text x="{x}" y="{y}" dy="4" text-anchor="middle" fill="{color}">{marker}</text>' for x, y in places
        ]
        if points:
            legend = f'<tspan fill="{color}">{marker}</tspan> {html.escape(name)} {points[-1][1]:.4g}'
            y = 12 + 14 * number
            parts.append(f'<text x="{right}" y="{y}" text-anchor="end">{legend}</text>')
    return "".join(parts)


def _is_in_notebook() -> bool:
    """Whether a notebook shows what this process displays."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
