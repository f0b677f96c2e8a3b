"""Turn the check of an exercise into a one-line verdict for the student."""

import copy
import functools
import numbers
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch


class WrongAnswer(Exception):
    """An answer is wrong; the message says in which way."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in place of a traceback."""
        return [str(self)]


def exercise(check: Callable[[Any], None]) -> Callable[..., None]:
    """Make a check, which takes the student's function and raises `WrongAnswer`, print its verdict instead.

    It never raises, so the rest of the notebook still runs; with `strict=True` it raises a `WrongAnswer` that holds
    the verdict, for grading. Of an error, the verdict names the line in the student's cells, however deep in a library
    it was raised.
    """

    @functools.wraps(check)
    def print_verdict(answer: Any, strict: bool = False) -> None:
        try:
            check(_wrap(answer))
            verdict = "✓ right"
        except WrongAnswer as wrong:
            verdict = f"✗ not yet: {wrong}"
        except Exception as error:
            if isinstance(error, NotImplementedError) and not error.args:  # torch raises it with a message
                verdict = "… to do: complete the cell above and run both again"
            else:
                where = _find_line(error.__traceback__, answer)
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
    """Raise `WrongAnswer` unless the result of an answer, an array or a tensor, has this shape."""
    require(tuple(result.shape) == shape, f"it returns the shape {tuple(result.shape)}; expected {shape}")


def require_array(result: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The result of an answer; `WrongAnswer` unless it is an array of numbers, or of bool, of this shape."""
    require(isinstance(result, np.ndarray), f"it returns {_describe(result)}; expected an array of shape {shape}")
    require_shape(result, shape)
    require(result.dtype.kind in "biuf", f"it returns {_describe(result)}; expected numbers")
    return result


def require_mask(result: Any, num_rows: int) -> np.ndarray:
    """The result of an answer; `WrongAnswer` unless it is a (num_rows,) array of bool."""
    is_bool = isinstance(result, np.ndarray) and result.dtype == bool
    expected = f"expected an array of {num_rows} bool, True or False for each row"
    require(is_bool, f"it returns {_describe(result)}; {expected}")
    require_shape(result, (num_rows,))
    return result


def require_indices(result: Any, num_rows: int) -> np.ndarray:
    """The result of an answer; `WrongAnswer` unless it is a one-dimensional array of row numbers below `num_rows`."""
    expected = f"expected one array of row numbers, from 0 to {num_rows - 1}"
    require(isinstance(result, np.ndarray), f"it returns {_describe(result)}; {expected}")
    is_mask = result.dtype == bool
    require(not is_mask, f"it returns a boolean mask; {expected} (np.flatnonzero makes them of a mask)")
    require(result.ndim == 1, f"it returns the shape {result.shape}; {expected}")
    require(not result.size or result.dtype.kind in "iu", f"it returns {_describe(result)}; {expected}")
    outside = result[(result < 0) | (result >= num_rows)]
    require(not outside.size, f"it returns row {outside[:1].sum()}; {expected}")
    return result.astype(np.int64)


def require_number(result: Any, what: str = "a number") -> float:
    """The result of an answer as a float; `WrongAnswer` unless it is a number, such as a tensor of shape ()."""
    if isinstance(result, np.ndarray | torch.Tensor) and result.ndim == 0:
        result = result.item()
    require(isinstance(result, numbers.Real | np.bool_), f"it returns {_describe(result)}; expected {what}")
    return float(result)


def require_pair(result: Any, what: str) -> tuple[float, float]:
    """The result of an answer; `WrongAnswer` unless it is two numbers, which `what` names: "(east, north)"."""
    is_pair = isinstance(result, tuple | list) and len(result) == 2
    require(is_pair, f"it returns {_describe(result)}; expected two numbers, {what}")
    texts = [part for part in result if isinstance(part, str)]
    require(not texts, f"it returns text, {result}; expected two numbers, {what}")
    first, second = (require_number(part, f"two numbers, {what}") for part in result)
    return first, second


def require_keys(result: Any, keys: Collection[str]) -> None:
    """Raise `WrongAnswer` unless the result of an answer is a dictionary of numbers with these keys."""
    expected = f"expected a dictionary with the keys {', '.join(sorted(keys))}"
    require(isinstance(result, dict), f"it returns {_describe(result)}; {expected}")
    require(set(result) == set(keys), f"its keys are {sorted(map(str, result))}; {expected}")
    for key, value in result.items():
        require_number(value, f"a number for each key, but for {key!r}")


def require_close(result: Any, expected: Any, message: str) -> None:
    """Raise `WrongAnswer` unless two numbers or arrays have one shape and agree to five digits."""
    result, expected = (torch.as_tensor(values).detach().to(torch.float64) for values in (result, expected))
    require_shape(result, tuple(expected.shape))
    require(torch.allclose(result, expected, rtol=1e-5, atol=1e-6), message)


def _wrap(answer: Callable[..., Any]) -> Callable[..., Any]:
    """The answer, with a message for a missing return; `__wrapped__` is the answer itself.

    It gets copies of its arguments, so that one which changes them can't spoil what the check compares.
    """

    @functools.wraps(answer)
    def call(*arguments: Any) -> Any:
        result = answer(*copy.deepcopy(arguments))
        require(result is not None, "it returns nothing; does it end with a return?")
        return result

    return call


def _find_line(trace: TracebackType | None, answer: Any) -> str:
    """The last line of the student's own that a traceback passes: ", in line 3: ..."; "" if there is none.

    A notebook's cells are files of one folder, so helpers from other cells are found as well.
    """
    code = getattr(answer, "__code__", None)
    folder = Path(code.co_filename).parent if code else None
    own = [frame for frame in traceback.extract_tb(trace) if Path(frame.filename).parent == folder]
    return f", in line {own[-1].lineno}: {own[-1].line}" if own else ""


def _describe(result: Any) -> str:
    """What an answer returned, in a few words."""
    if isinstance(result, np.ndarray | torch.Tensor):
        kind = "an array" if isinstance(result, np.ndarray) else "a tensor"
        return f"{kind} of {result.dtype} of shape {tuple(result.shape)}"
    if isinstance(result, list | tuple) and result:
        kind = "arrays" if isinstance(result[0], np.ndarray | torch.Tensor) else type(result[0]).__name__
        return f"a {type(result).__name__} of {len(result)} {kind}"
    text = repr(result)
    return text if len(text) <= 60 else f"a {type(result).__name__}"
