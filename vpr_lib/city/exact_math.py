"""Functions that return the same numbers on every processor, so that the photos have the same pixels everywhere.

Sums, products, quotients and square roots are exact by IEEE 754. Sines, exponentials and powers are not: the C library
and NumPy's vector code have several versions, chosen by the processor, that differ in the last bit. One bit decides a
pixel where a value lies on a boundary, such as a corner on a pixel's edge. Rounding removes it.

The city's modules take these functions from here or pass results through `round_off`, write matrix products out (BLAS
libraries add in different orders) and sort with `kind="stable"` (the fast sorts order equal values differently).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_DIGITS = 9  # after the point; results that differ by 1e-16 round differently once in ten million calls
Number = TypeVar("Number", float, np.ndarray)
Value = TypeVar("Value")


def round_off(values: Number) -> Number:
    """Round what an inexact function returned."""
    return round(values, _DIGITS) if isinstance(values, float) else np.round(values, _DIGITS)


def sine(degrees: float) -> float:
    """Sine of an angle."""
    return round(math.sin(math.radians(degrees)), _DIGITS)


def cosine(degrees: float) -> float:
    """Cosine of an angle."""
    return round(math.cos(math.radians(degrees)), _DIGITS)


def tangent(degrees: float) -> float:
    """Tangent of an angle."""
    return round(math.tan(math.radians(degrees)), _DIGITS)


def find_angle(opposite: float, adjacent: float) -> float:
    """Degrees, -180 to 180, whose tangent is opposite / adjacent; for east and north: clockwise from north."""
    return round(math.degrees(math.atan2(opposite, adjacent)), _DIGITS)


def measure_length(x: float, y: float) -> float:
    """Length of the vector (x, y)."""
    return math.sqrt(x * x + y * y)


class Generator(np.random.Generator):
    """A random generator whose normal numbers are rounded: their tails are computed with logarithms."""

    def pick(self, values: Sequence[Value]) -> Value:
        """One of the values, the same as from `choice`, which is slower: it makes an array of them."""
        return values[int(self.integers(len(values)))]

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: int | tuple[int, ...] | None = None) -> np.ndarray:
        """See `numpy.random.Generator.normal`."""
        return round_off(super().normal(loc, scale, size))
