"""Names and values given by a user: checked against the valid ones, parsed from `--set key=value`."""

import contextlib
import difflib
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Self, get_args, get_origin, get_type_hints

_MISFITS = (TypeError, ValueError, OverflowError)  # errors of `_convert`


def check_choice(what: str, name: str | None, valid: Iterable[str | None]) -> str | None:
    """Return `name`, or raise a ValueError that lists the `valid` ones if it isn't among them."""
    valid = list(valid)
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(map(str, valid))}")
    return name


class CheckedNames:
    """Base of a dataclass: an unknown field is a ValueError that lists the valid ones, in `dataclasses.replace` too."""

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Called by the class before the dataclass's `__init__`, with the same arguments."""
        valid = [field.name for field in fields(cls)]
        for name in values:
            if name not in valid:
                initials = "".join(word[:1] for word in name.split("_"))  # "lr" of "learning_rate"
                nearest = initials if initials in valid else "".join(difflib.get_close_matches(name, valid, n=1))
                advice = f"did you mean {nearest}? " if nearest else ""
                raise ValueError(f"unknown setting {name!r}; {advice}valid: {', '.join(valid)}")
        return super().__new__(cls)


def check_fields(options: Any, intervals: Mapping[str, str]) -> None:
    """Check every field of a frozen dataclass, in its `__post_init__`.

    A whole number becomes a float and a list a tuple where the field's hint says so.

    Args:
        options: the instance.
        intervals: {field: what a number, or each of several, must lie in, as in mathematics: "(0, 1]"}.

    Raises:
        ValueError: a value is not of the field's type, not finite, or outside its interval.
    """
    for name, hint in get_type_hints(type(options)).items():
        given, interval = getattr(options, name), intervals.get(name, "")
        expected = _describe(hint) + (f" in {interval}" if interval else "")
        try:
            value = _convert(given, hint)
            numbers = value if isinstance(value, tuple) else (value,)
            is_valid = not interval or all(_lies_in(number, interval) for number in numbers)
        except _MISFITS:
            is_valid = False
        if not is_valid:
            raise ValueError(f"{name} is {given!r}; expected {expected}")
        object.__setattr__(options, name, value)


def _lies_in(number: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    return low < number < high or (number == low and interval[0] == "[") or (number == high and interval[-1] == "]")


def _convert(value: Any, hint: Any) -> Any:
    """The value as the hint's type, or an error. Numbers must be finite, and what a mapping holds must be JSON."""
    kind, items = get_origin(hint) or hint, get_args(hint)
    if kind is types.UnionType:
        for item in items:
            with contextlib.suppress(*_MISFITS):
                return _convert(value, item)
    elif kind is Any:
        return json.loads(json.dumps(value, allow_nan=False))
    elif kind is tuple and isinstance(value, tuple | list):
        return tuple(_convert(item, items[0]) for item in value)
    elif kind is Mapping and isinstance(value, Mapping):
        return {_convert(key, items[0]): _convert(item, items[1]) for key, item in value.items()}
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    elif kind is not float and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise TypeError


def _describe(hint: Any) -> str:
    kind, items = get_origin(hint) or hint, get_args(hint)
    if kind is types.UnionType:
        return " or ".join(map(_describe, items))
    if kind is tuple:
        return f"list of {_describe(items[0])}"
    return {Mapping: "{name: value}", type(None): "None", float: "finite float"}.get(kind) or kind.__name__


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A text like `lr is 0.1 there, 0.2 asked for` for each key whose values differ."""
    return [f"{k} is {old.get(k)} there, {new.get(k)} asked for" for k in old | new if old.get(k) != new.get(k)]


def parse_change(change: str, classes: Iterable[type]) -> tuple[type, str, Any]:
    """Read `key=value` -> the dataclass that has this field, key, value; a wrong key or type is a ValueError."""
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: expected KEY=VALUE")
    owners = {field.name: cls for cls in classes for field in fields(cls)}
    owner = owners[check_choice("--set key", key, owners)]
    hint = get_type_hints(owner)[key]
    try:  # JSON if it parses, else the text itself
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None if text == "None" else text
    for candidate in (value, [value]):  # one item is a list of one
        with contextlib.suppress(*_MISFITS):
            return owner, key, _convert(candidate, hint)
    raise ValueError(f"--set {key}={text}: expected {_describe(hint)}")
