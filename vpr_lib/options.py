"""Names and values given by a user: checked against the valid ones, parsed from `--set key=value`."""

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints


def check_choice(what: str, name: str | None, valid: Iterable[str | None]) -> str | None:
    """Return `name`, or raise a ValueError that lists the `valid` ones if it isn't among them."""
    valid = list(valid)
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(map(str, valid))}")
    return name


def set_values(options: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a dataclass with some fields changed; lists become tuples; an unknown field is a ValueError."""
    for key in values:
        check_choice("setting", key, [field.name for field in fields(options)])
    return replace(options, **{k: tuple(value) if isinstance(value, list) else value for k, value in values.items()})


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
    return owner, key, _parse_value(owner, key, text)


def _parse_value(cls: type, key: str, text: str) -> Any:
    """The value as JSON if it parses, else the text itself; its type must be one that the field's hint allows."""
    hint = get_type_hints(cls)[key]
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [{tuple: list, Mapping: dict}.get(get_origin(kind), kind) for kind in kinds]
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None if text == "None" else text
    if list in kinds and isinstance(value, int | str):
        value = [value]
    if float in kinds and type(value) is int:
        value = float(value)
    if type(value) not in kinds:
        raise ValueError(f"--set {key}={text}: expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value
