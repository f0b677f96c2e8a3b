"""TODO-DOC options."""

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints


def check_choice(what: str, name: str, valid: Iterable[str]) -> str:
    """`name`, if it is valid.

    Raises:
        ValueError: it isn't; the message lists the valid ones.
    """
    valid = list(valid)
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(map(str, valid))}")
    return name


def set_values(settings: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a settings dataclass with some fields changed; JSON lists become tuples.

    Raises:
        ValueError: a key is no field; the message lists the fields.
    """
    for key in values:
        check_choice("setting", key, [f.name for f in fields(settings)])
    return replace(settings, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def parse_value(cls: type, key: str, text: str) -> Any:
    """The value in `--set key=value`: JSON where it parses, else the text itself.

    Args:
        cls: `Settings` or `Machine`, whose type hints say what the key takes.
        key: name of a field.
        text: what stands behind the equals sign.

    Raises:
        ValueError: the key takes another type.
    """
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
