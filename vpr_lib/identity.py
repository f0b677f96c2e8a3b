"""TODO-DOC identity."""

import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """Hex digits that change with the model's classes, arguments, code or any weight."""
    return hashlib.sha256("\n".join([*describe_module(model), hash_weights(model)]).encode()).hexdigest()


def describe_module(module: nn.Module) -> list[str]:
    """A line for each submodule: name, class, attributes, shapes and code, but not its weights.

    A class of one's own is known by the code of all its methods, as a notebook cell may have been edited.
    """
    lines = []
    for name, part in module.named_modules():
        attributes = {k: _describe(v) for k, v in sorted(vars(part).items()) if k[0] != "_" and k != "training"}
        shapes = {k: tuple(p.shape) for k, p in part.named_parameters(recurse=False)}
        own = [c for c in type(part).__mro__ if not c.__module__.startswith(("torch", "builtins"))]
        methods = [_describe(f) for c in own for _, f in sorted(vars(c).items()) if inspect.isfunction(f)]
        code = hashlib.sha256(repr(methods).encode()).hexdigest()[:8]
        lines.append(f"{name}: {type(part).__name__} {attributes} {shapes} {code}")
    return lines


def _describe(value: Any) -> Any:
    """A value in words that are the same in the next session: no addresses, no line numbers."""
    if inspect.isfunction(value):
        function = inspect.unwrap(value)
        cells = [_describe(cell.cell_contents) for cell in function.__closure__ or () if cell != types.CellType()]
        return [_describe(function.__code__), _describe(function.__defaults__), cells]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, [_describe(c) for c in value.co_consts]]
    if isinstance(value, Mapping):
        return {str(k): _describe(v) for k, v in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_describe(v) for v in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return repr(value) if isinstance(value, bool | int | float | str | bytes | None) else type(value).__name__


def hash_weights(module: nn.Module) -> str:
    """Hex digits that change with any parameter or buffer of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
