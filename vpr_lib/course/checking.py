"""Turn the check of an exercise into a one-line verdict for the student."""

import functools
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


class WrongAnswer(Exception):
    """An answer is wrong; the message says in which way."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in place of a traceback."""
        return [str(self)]


def exercise(check: Callable[[Any], None]) -> Callable[..., None]:
    """Make a check, which takes the student's function and raises `WrongAnswer`, print its verdict instead.

    It never raises, so the rest of the notebook still runs; with `strict=True` it raises a `WrongAnswer` that holds
    the verdict, for grading.
    """

    @functools.wraps(check)
    def print_verdict(answer: Any, strict: bool = False) -> None:
        try:
            check(_require_return(answer))
            verdict = "✓ right"
        except WrongAnswer as wrong:
            verdict = f"✗ not yet: {wrong}"
        except NotImplementedError:
            verdict = "… to do: complete the cell above and run both again"
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
            where = f", in line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
            verdict = f"✗ it stops with {type(error).__name__}: {error}{where}"
        if strict and verdict != "✓ right":
            raise WrongAnswer(verdict)
        print(verdict)

    return print_verdict


def require(condition: bool, message: str) -> None:
    """Raise `WrongAnswer` with the message unless the condition holds."""
    if not condition:
        raise WrongAnswer(message)


def require_shape(result: Any, shape: tuple[int, ...]) -> None:
    """Raise `WrongAnswer` unless the result of an answer has this shape."""
    require(np.shape(result) == shape, f"it returns the shape {tuple(np.shape(result))}; expected {shape}")


def require_close(result: Any, expected: Any, message: str) -> None:
    """Raise `WrongAnswer` unless two arrays have one shape and agree to five digits."""
    require_shape(result, np.shape(expected))
    require(np.allclose(np.asarray(result, dtype=np.float64), expected, rtol=1e-5, atol=1e-6), message)


def _require_return(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The answer, with a message for a missing return; `__wrapped__` is the answer itself."""

    @functools.wraps(answer)
    def call(*arguments: Any) -> Any:
        result = answer(*arguments)
        require(result is not None, "it returns nothing; does it end with a return?")
        return result

    return call
