"""TODO-DOC course.checking."""

import functools
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


class Wrong(Exception):
    """What is wrong with an answer, in a sentence."""


def exercise(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Print the verdict of a check that raises `Wrong`; an answer that does nothing yet is told so."""

    @functools.wraps(check)
    def tell(answer: Any) -> None:
        try:
            check(insist_on_value(answer))
        except Wrong as wrong:
            print(f"✗ not yet: {wrong}")
        except NotImplementedError:
            print("… to do: complete the cell above and run both again")
        except Exception as error:
            print(f"✗ {describe_error(error)}")
        else:
            print("✓ right")

    return tell


def insist_on_value(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The answer, but that a forgotten return is told; `__wrapped__` is the answer itself."""

    @functools.wraps(answer)
    def call(*arguments: Any) -> Any:
        found = answer(*arguments)
        want(found is not None, "it returns nothing; does it end with a return?")
        return found

    return call


def describe_error(error: Exception) -> str:
    """What went wrong, and where in the answer."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f", in its line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    return f"it stops with {type(error).__name__}: {error}{where}"


def want(right: bool, message: str) -> None:
    """Raise `Wrong` unless right."""
    if not right:
        raise Wrong(message)


def want_close(found: Any, expected: Any, message: str) -> None:
    """Raise `Wrong` unless the numbers agree to five digits."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    want(found.shape == expected.shape, f"it returns the shape {found.shape}; expected {expected.shape}")
    want(np.allclose(found, expected, rtol=1e-5, atol=1e-6), message)
