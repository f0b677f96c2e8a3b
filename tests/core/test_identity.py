"""What is another run and what isn't: hashes of code and weights."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vpr_lib
from vpr_lib.aggregators import AGGREGATORS, AvgPool, GeM, MixVPR
from vpr_lib.identity import hash_code, hash_module, hash_weights
from vpr_lib.run_folders import hash_model_code
from vpr_lib.settings import Settings

AGGREGATOR = """
import torch.nn.functional as F
from torch import nn

POWER = 2.0

def pool(x):
    return x.mean((2, 3)) ** POWER

def double(x):
    return 2 * x

OFFSETS = (1.0, 2.0)

class Mean(nn.Module):
    scale = 1.0

    def __init__(self, size: int = 3):
        super().__init__()
        self.size = size

    @staticmethod
    def shift(x):
        return x + 1

    def forward(self, x):
        def weigh(value, weight=0.5):
            return weight * value

        pooled = pool(x) * self.scale
        parts = [double(weigh(pooled + offset)) for offset in OFFSETS]
        return F.normalize(self.shift(sum(parts)))
"""
REWORDED = '''
"""A module docstring."""
import torch.nn.functional as functional
from torch import nn as layers

POWER = 2.0

def average(maps):
    """Averages."""
    return maps.mean((2, 3)) ** POWER  # a comment

def twice(number):
    return 2 * number

OFFSETS = (1.0, 2.0)

class Average(layers.Module):
    """Another name."""

    scale = 1.0

    def __init__(self, size=3) -> None:
        super().__init__()
        self.size = size

    @staticmethod
    def shift(x):
        return x + 1

    def forward(self, features):
        """(B, C, H, W) -> (B, C)"""
        def halve(part, share=0.5):
            """Scales a part."""
            return share * part

        means = (
            average(features) * self.scale
        )
        terms = [twice(halve(means + step)) for step in OFFSETS]
        return functional.normalize(self.shift(sum(terms)))
'''


def load(text, tmp_path, name):
    """The aggregator class in a file of this text."""
    number = len(list(tmp_path.iterdir()))
    path = tmp_path / f"own{number}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def test_words_do_not_count(tmp_path):
    assert hash_code(load(AGGREGATOR, tmp_path, "Mean")) == hash_code(load(REWORDED, tmp_path, "Average"))


@pytest.mark.parametrize("old, new", [
    ("self.shift(sum(parts))", "self.shift(sum(parts) * 2)"),
    ("return 2 * x", "return 3 * x"),
    ("OFFSETS = (1.0, 2.0)", "OFFSETS = (1.0, 3.0)"),
    ("weight=0.5", "weight=0.6"),
    ("scale = 1.0", "scale = 1.5"),
    ("return x + 1", "return x + 2"),
    ("size: int = 3", "size: int = 4"),
    ("x.mean((2, 3))", "x.amax((2, 3))"),
    ("POWER = 2.0", "POWER = 3.0"),
    ("F.normalize", "F.relu"),
])  # fmt: skip
def test_what_is_computed_counts(tmp_path, old, new):
    """Also in a helper or constant that only a comprehension uses, a static method, a default of a nested function."""
    assert old in AGGREGATOR
    first = load(AGGREGATOR, tmp_path, "Mean")
    assert hash_code(first) != hash_code(load(AGGREGATOR.replace(old, new), tmp_path, "Mean"))


def test_error_messages_do_not_count(tmp_path):
    def with_message(text):
        code = f"def check(x):\n    if x < 0:\n        raise ValueError('{text}')\n    return x\n"
        return load(code, tmp_path, "check")

    assert hash_code(with_message("too small")) == hash_code(with_message("negative"))


def test_code_without_a_source_counts():
    functions = {}
    for name, body in (("a", "x + 1"), ("b", "x + 2"), ("same", "x + 1")):
        exec(f"def f(x):\n    return {body}", scope := {})
        functions[name] = hash_code(scope["f"])
    assert functions["a"] == functions["same"] != functions["b"]


@pytest.mark.slow
def test_hashes_are_the_same_in_another_process():
    script = "from vpr_lib.aggregators import *; from vpr_lib.identity import *; import torch; torch.manual_seed(0); "
    script += "m = MixVPR(8, 4, 4, 16); print(hash_code(GeM), hash_module(m), hash_weights(m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    here = MixVPR(8, 4, 4, 16)
    assert done.stdout == f"{hash_code(GeM)} {hash_module(here)} {hash_weights(here)}\n"


class Configured(nn.Module):
    def __init__(self, option):
        super().__init__()
        self.option = option

    def forward(self, x):
        return F.normalize(x.mean((2, 3)))


@pytest.mark.parametrize("one, other", [
    ([1.0, 2.0], [1.0, 3.0]),
    ({"a": 1}, {"a": 2}),
    (torch.ones(3), torch.zeros(3)),
    (np.arange(3), np.arange(3) * 2),
    (functools.partial(round, ndigits=1), functools.partial(round, ndigits=2)),
    (F.relu, F.gelu),
    (torch.relu, torch.tanh),
])  # fmt: skip
def test_arguments_of_an_instance_count(one, other):
    assert hash_module(Configured(one)) == hash_module(Configured(one)) != hash_module(Configured(other))


def test_weights_and_buffers_count():
    modules = [nn.BatchNorm1d(3) for _ in range(3)]
    modules[1].running_mean[0] = 1
    modules[2].register_buffer("extra", torch.ones(1), persistent=False)
    assert len({hash_weights(module) for module in modules}) == 3
    assert hash_module(AvgPool(normalize=True)) != hash_module(AvgPool(normalize=False))
    assert len({hash_code(cls) for cls in AGGREGATORS.values()}) == len(AGGREGATORS)


HEAD = "import collections, functools, math, types\nimport numpy as np\nimport torch\nfrom torch import nn\n"
CLASS = "class A(nn.Module):\n    "


@pytest.mark.parametrize("old, new", [  # of what the class refers to
    ("T = nn.Sequential(nn.ReLU())", "T = nn.Sequential(nn.Sigmoid())"),
    ("torch.manual_seed(0); T = nn.Linear(2, 2)", "torch.manual_seed(1); T = nn.Linear(2, 2)"),
    ("T = functools.lru_cache(lambda: 1)", "T = functools.lru_cache(lambda: 2)"),
    ("T = np.float32(1)", "T = np.float32(2)"),
    ("T = torch.float16", "T = torch.float32"),
    ("T = range(3)", "T = range(4)"),
    ("T = collections.deque([1])", "T = collections.deque([2])"),
    ("T = types.SimpleNamespace(k=1)", "T = types.SimpleNamespace(k=2)"),
    ("T = {1: 1}", "T = {'1': 1}"),
    ("T = {'a': 1, 'b': 2}", "T = {'b': 2, 'a': 1}"),
])  # fmt: skip
def test_values_of_installed_classes_count(tmp_path, old, new):
    used = CLASS + "def forward(self, x): return T, x"
    one, same, other = (load(f"{HEAD}{each}\n{used}", tmp_path, "A") for each in (old, old, new))
    assert hash_code(one) == hash_code(same) != hash_code(other)


@pytest.mark.parametrize("old, new", [
    ("def forward(self, x): return [K for K in range(2)], x * K", "K = 1 -> K = 2"),
    ("def forward(self, x): return (lambda K: K)(x) * K", "K = 1 -> K = 2"),
    ("def forward(self, x): return subtract(a=x, b=1)", "def subtract(a, b) -> def subtract(b, a)"),
    ("forward = functools.partialmethod(nn.Module.forward, k=1)", "k=1 -> k=2"),
    ("size = functools.cached_property(lambda self: 1)", "self: 1 -> self: 2"),
    ("def forward(self, x):\n        try: raise KeyError\n        except KeyError: return", "raise KeyError -> raise"),
])  # fmt: skip
def test_hidden_differences_count(tmp_path, old, new):
    text = f"{HEAD}K = 1\ndef subtract(a, b):\n    return a - b\n{CLASS}{old}\n"
    assert text.replace(*new.split(" -> ")) != text
    one, other = (load(each, tmp_path, "A") for each in (text, text.replace(*new.split(" -> "))))
    assert hash_code(one) != hash_code(other)


@pytest.mark.parametrize("use", [
    "return helpers.pool(x)", "return x * helpers.K", "from helpers import pool\n        return pool(x)",
    "import helpers as h\n        return h.pool(x)",
])  # fmt: skip
def test_own_modules_count(tmp_path, monkeypatch, use):
    hashes = []
    for number in (1, 2):
        (tmp_path / "helpers.py").write_text(f"K = {number}\n\ndef pool(x):\n    return K * x\n")
        importlib.invalidate_caches()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "helpers", raising=False)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        text = f"import helpers\n{HEAD}{CLASS}def forward(self, x):\n        {use}\n"
        hashes.append(hash_code(load(text, tmp_path, "A")))
    assert hashes[0] != hashes[1]


def test_hooks_private_attributes_and_frozen_weights_of_an_instance_count():
    modules = [Configured(1) for _ in range(4)]
    modules[1]._scale = 2
    modules[2].register_forward_hook(lambda module, args, output: 2 * output)
    modules[3].weight = nn.Parameter(torch.ones(1), requires_grad=False)
    assert len({hash_module(module) for module in modules}) == 4


def test_a_module_may_refer_to_itself():
    module = Configured(1)
    module.option = [nn.ReLU(), module]
    assert hash_module(module) != hash_module(Configured(1))


def test_a_value_that_cannot_be_compared_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="lock"):
        hash_code(
            load(f"{HEAD}import threading\nT = threading.Lock()\n{CLASS}def forward(self, x): return T", tmp_path, "A")
        )


def make_lambdas(source, tmp_path):
    return load("SCALE = 2\n" + source, tmp_path, "functions")


def test_a_lambda_counts_by_its_source(tmp_path):
    one, other = make_lambdas("functions = [lambda x: x * SCALE, lambda x: x + SCALE]", tmp_path)
    (same,) = make_lambdas(
        "functions = [\n    # moved and renamed\n    lambda value:\n        value * SCALE]", tmp_path
    )
    (edited,) = make_lambdas("functions = [lambda x: x * 2]", tmp_path)
    (default,) = make_lambdas("functions = [lambda x, y=1: x * SCALE]", tmp_path)
    assert hash_code(one) == hash_code(same)
    assert len({hash_code(each) for each in (one, other, edited, default)}) == 4


PORTABLE = '''
SCALE = 2.0

def helper(x, *, eps=1e-6):
    if not x:
        raise ValueError(f"bad {x!r}")
    return (yield x) if x > eps else None

class Thing:
    rate = 0.5

    @staticmethod
    def make(x):
        return {**x, "a": -1 ** 2}

    def forward(self, x: int, /, y=None, *args, z: float = 1.0, **options):
        """A docstring."""
        width: int = 3
        with open(x) as one, open(y) as other:
            text = f"{x:>{width}} {y!s:.{width}f} 'q' {SCALE}"
        match x:
            case {"a": 1, **rest}:
                return rest
            case [1, *others] if others:
                return others
        return [helper(i) for i in text if (n := len(i)) > 2], lambda k: k ** 2 if k else -k
'''


def test_hashes_of_code_are_the_same_in_every_version_of_python(tmp_path):
    """Recorded with Python 3.11.7; 3.12.1 and 3.13.2 gave the same."""
    assert hash_code(load(PORTABLE, tmp_path, "Thing")) == "2fc1dbff1acf6234"


@pytest.mark.slow
def test_code_is_the_same_wherever_the_kit_lies(tmp_path):
    """Also where it refers to files of the kit."""
    shutil.copytree(Path(vpr_lib.__file__).parent, tmp_path / "vpr_lib", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import vpr_lib.run_folders as r; print(r.__file__, r.hash_model_code(r.Settings(), None))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    path, digest = output.split()
    assert Path(path).is_relative_to(tmp_path) and digest == hash_model_code(Settings(), None)
