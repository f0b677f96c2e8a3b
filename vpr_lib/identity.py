"""Hashes of code and weights: they name runs and predictions.

Code is hashed as what it computes. Docstrings, comments, annotations, error messages, and the names of local variables,
functions and classes don't count, so rewording them keeps saved runs. Own code that a function refers to counts with
it; code of installed packages counts by its name.
"""

import ast
import builtins
import functools
import hashlib
import importlib
import inspect
import itertools
import json
import sys
import textwrap
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vpr_lib.checked_files import hash_text


def hash_code(subject: type | types.FunctionType) -> str:
    """16 hex digits that change with what a class or function computes."""
    return _digest(_describe(subject, ()))


def hash_module(module: nn.Module) -> str:
    """16 hex digits that change with code, attributes and shapes of a module and its submodules, not with weights."""
    return _digest(_describe_module(module, (module,)))


def hash_weights(module: nn.Module) -> str:
    """16 hex digits that change with any parameter or buffer."""
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_tensor_bytes(tensor))
    return digest.hexdigest()[:16]


def hash_library() -> str:
    """16 hex digits that change with any source file of the core, and with torch's version."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hash_text(" ".join([torch.__version__, *sources]))


def _digest(description: Any) -> str:
    return hash_text(json.dumps(description, sort_keys=True))


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _describe(value: Any, seen: tuple[Any, ...]) -> Any:
    """JSON of any value, the same in every session; `seen` ends what refers to itself."""
    if type(value) in (type(None), bool, int, float, complex, str, bytes, types.UnionType, types.GenericAlias):
        return repr(value)
    if isinstance(value, Mapping):
        return ["mapping", *([_describe(k, seen), _describe(item, seen)] for k, item in value.items())]
    if isinstance(value, tuple | list):
        return [_describe(item, seen) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_describe(item, seen), sort_keys=True) for item in value)
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), hashlib.sha256(_tensor_bytes(value)).hexdigest()]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, functools.partial | functools.partialmethod):
        return _describe([value.func, value.args, value.keywords], seen)
    if isinstance(value, property):
        return _describe([value.fget, value.fset], seen)
    if isinstance(value, functools.cached_property):
        return _describe(value.func, seen)
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return _describe(value.__func__, seen)
    if isinstance(value, functools._lru_cache_wrapper):
        return _describe(value.__wrapped__, seen)
    if isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        return getattr(value, "__qualname__", value.__name__)
    if isinstance(value, type | types.FunctionType) and _is_installed(value):
        return f"{value.__module__}.{value.__qualname__}"
    if any(value is other for other in seen):
        return "recursion"
    seen = (*seen, value)
    if isinstance(value, type):
        return _describe_class(value, seen)
    if isinstance(value, types.FunctionType):
        return _describe_function(value, seen)
    if isinstance(value, nn.Module):
        return [_describe_module(value, seen), hash_weights(value)]
    return [_describe(type(value), seen), _describe_state(value, seen)]


def _describe_module(module: nn.Module, seen: tuple[Any, ...]) -> Any:
    parts = []
    for name, part in module.named_modules():
        attributes = {k: value for k, value in vars(part).items() if k not in vars(nn.Module())}
        hooks = [list(vars(part)[name].values()) for name in ("_forward_pre_hooks", "_forward_hooks")]
        weights = {k: (tuple(w.shape), w.requires_grad) for k, w in part.named_parameters(recurse=False)}
        parts.append([name, *(_describe(each, seen) for each in (type(part), attributes, hooks, weights))])
    return parts


def _describe_state(value: Any, seen: tuple[Any, ...]) -> Any:
    """What distinguishes an object from others of its class: what pickle would keep of it, else its attributes."""
    try:
        state = value.__reduce_ex__(4)
    except Exception:  # objects that can't be pickled raise anything
        if not getattr(value, "__dict__", {}):
            warnings.warn(f"{value!r} is used by code that names a run; a change of it is not noticed", stacklevel=2)
        return _describe(getattr(value, "__dict__", {}), seen)
    if isinstance(state, str):
        return state
    return [_describe(list(part) if isinstance(part, Iterator) else part, seen) for part in state]


def _is_installed_module(module: types.ModuleType) -> bool:
    return _is_installed(types.SimpleNamespace(__module__=module.__name__))


def _is_installed(subject: Any) -> bool:
    """Whether a class or function comes from Python or an installed package other than this one."""
    package = (getattr(subject, "__module__", None) or "").partition(".")[0]
    if package in ("vpr_lib", "__main__"):
        return False
    path = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in (*sys.stdlib_module_names, "builtins") or "-packages" in path


def _describe_class(cls: type, seen: tuple[Any, ...]) -> Any:
    """Its members and those of its base classes, up to those of installed packages."""
    own = [base for base in cls.__mro__ if not _is_installed(base)]
    names = {"__module__", "__qualname__", "__doc__", "__annotations__", "__dict__", "__weakref__", "__firstlineno__"}
    names |= {"__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
    members = [{k: _describe(member, seen) for k, member in vars(base).items() if k not in names} for base in own]
    return [members, [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__ if _is_installed(base)]]


def _describe_function(function: types.FunctionType, seen: tuple[Any, ...]) -> Any:
    """Its normalized source, or its bytecode where there is no source, with all that its names refer to."""
    function = inspect.unwrap(function)
    scope = {**vars(builtins), **function.__globals__, **inspect.getclosurevars(function).nonlocals}
    try:
        tree = _parse_function(function)
        local = _list_local_names(tree)
        # A name may be local in a comprehension and global beside it; the bytecode knows.
        looked_up = _list_global_names(function.__code__) | {*function.__code__.co_freevars}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & ({*scope} - ({*local} - looked_up))
        values = {name: json.dumps(_describe(scope[name], seen), sort_keys=True) for name in used}
        names = {name: f"_{number}" for number, name in enumerate(local)} | {k: f"<{v}>" for k, v in values.items()}
        referred = [_describe(value, seen) for value in _list_module_members(tree, scope)]
        _number_keywords(tree, scope)
        tree.args.defaults, tree.args.kw_defaults = [], [None] * len(tree.args.kwonlyargs)  # their values are below
        code = [_list_nodes(_Normalize(names).visit(tree)), referred]
    except (OSError, TypeError, SyntaxError):
        used = _list_global_names(function.__code__) & {*scope}
        referred = {name: _describe(scope[name], seen) for name in used}
        code = [_describe_bytecode(function.__code__, function.__doc__), referred]
    return [code, _describe(function.__defaults__, seen), _describe(function.__kwdefaults__, seen)]


def _parse_function(function: types.FunctionType) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The tree of a function, also of a lambda; raises OSError, TypeError or SyntaxError where there is no source."""
    code = function.__code__
    if code.co_name != "<lambda>":
        return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    nodes = ast.walk(ast.parse("".join(inspect.findsource(function)[0])))
    lambdas = [node for node in nodes if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if len(lambdas) > 1:  # on one line
        spans = {*code.co_positions()}
        bodies = {node: node.body for node in lambdas}
        lambdas = [n for n, b in bodies.items() if (b.lineno, b.end_lineno, b.col_offset, b.end_col_offset) in spans]
    if len(lambdas) != 1:
        raise TypeError
    return ast.FunctionDef("_", lambdas[0].args, [ast.Return(lambdas[0].body)], [])


def _number_keywords(tree: ast.AST, scope: Mapping[str, Any]) -> None:
    """Replace the keywords in calls of own functions by the parameters' positions, as their names don't count."""
    for node in ast.walk(tree):
        function = scope.get(node.func.id) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        if isinstance(function, type | types.FunctionType) and not _is_installed(function):
            parameters = [*inspect.signature(function).parameters]
            for keyword in node.keywords:
                if keyword.arg in parameters:
                    keyword.arg = f"_{parameters.index(keyword.arg)}"


def _list_module_members(tree: ast.AST, scope: Mapping[str, Any]) -> Iterator[Any]:
    """What a function takes from modules that are not installed: `helpers.pool`, or by an import within it."""
    modules = {name: value for name, value in scope.items() if isinstance(value, types.ModuleType)}
    package = scope.get("__package__") or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                modules[alias.asname or name] = importlib.import_module(name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module("." * node.level + (node.module or ""), package)
            if not _is_installed_module(module):
                yield from (getattr(module, alias.name, None) for alias in node.names)
    for node in ast.walk(tree):
        path = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        value = modules.get(node.id) if isinstance(node, ast.Name) else None
        while path and isinstance(value, types.ModuleType) and not _is_installed_module(value):
            value = getattr(value, path.pop(0), None)
            if not isinstance(value, types.ModuleType):
                yield value


def _list_nodes(node: Any) -> Any:
    """JSON of a tree; unlike `ast.dump` and `ast.unparse`, the same in all versions of Python."""
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
        return [type(node).__name__, {name: _list_nodes(value) for name, value in fields.items()}]
    return [_list_nodes(each) for each in node] if isinstance(node, list) else repr(node)


def _describe_bytecode(code: types.CodeType, docstring: str | None = None) -> Any:
    constants = [value for value in code.co_consts if docstring is None or value != docstring]
    nested = [_describe_bytecode(value) if isinstance(value, types.CodeType) else repr(value) for value in constants]
    return [code.co_code.hex(), code.co_names, nested]


def _list_global_names(code: types.CodeType) -> set[str]:
    """Names that bytecode may look up outside of itself; those of nested code included."""
    nested = (_list_global_names(value) for value in code.co_consts if isinstance(value, types.CodeType))
    return {*code.co_names, *code.co_freevars}.union(*nested)


def _list_local_names(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Arguments, variables and functions that a function's tree defines, in order and once."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names.append(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        elif isinstance(node, ast.FunctionDef) and node is not tree:
            names.append(node.name)
    return list(dict.fromkeys(names))


class _Normalize(ast.NodeTransformer):
    """Removes from a function's tree what computes nothing, and replaces names as a mapping says."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Without docstring, name and return annotation."""
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        self.generic_visit(node)
        node.name = self.names.get(node.name, "_")
        node.returns = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        exception = node.exc.func if isinstance(node.exc, ast.Call) else node.exc  # messages don't change results
        return ast.Raise(self.visit(exception)) if exception else ast.Raise()

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self.names[node.arg])

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Without the empty texts that Python 3.12 adds."""
        self.generic_visit(node)
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else None

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)
