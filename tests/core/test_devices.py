import builtins
import io

import pytest
import torch

from vpr_lib import devices
from vpr_lib.devices import autocast, choose_device, choose_dtype, choose_num_workers, cpu_has_bfloat16
from vpr_lib.machine import Machine

CPU = torch.device("cpu")


@pytest.mark.parametrize("flags, expected", [
    ("fpu sse avx512f avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx2 avx512f", False), ("", False),
])  # fmt: skip
def test_bfloat16_only_where_the_processor_multiplies_it(monkeypatch, flags, expected):
    text = f"processor : 0\nflags\t\t: {flags}\n"
    monkeypatch.setattr(builtins, "open", lambda *args, **kwargs: io.StringIO(text))
    assert cpu_has_bfloat16() is expected
    assert choose_dtype("auto", CPU) is (torch.bfloat16 if expected else torch.float32)


def test_no_proc_is_no_linux(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", missing)
    assert not cpu_has_bfloat16()


@pytest.mark.parametrize("capability, expected", [((7, 5), torch.float16), ((9, 0), torch.bfloat16)])
def test_gpus_get_the_half_precision_they_are_fast_with(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) is expected
    assert choose_dtype("float32", torch.device("cuda")) is torch.float32


def test_autocast_of_float32_is_nothing():
    x = torch.rand(2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with autocast(CPU, dtype):
            assert (x @ x).dtype is dtype


def test_what_is_named_is_taken():
    assert choose_device("cpu") == CPU
    assert choose_num_workers(Machine(num_workers=0)) == 0
    assert 1 <= choose_num_workers(Machine()) <= 16


def test_freed_memory_is_kept_without_harm():
    devices.keep_freed_memory()
    assert torch.ones(4_000_000).sum() == 4_000_000
