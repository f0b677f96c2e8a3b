"""Device, precision and number of loader processes, chosen by what the machine is fast with."""

import contextlib
import ctypes
import sys

import torch

from vpr_lib.machine import Machine, count_cores
from vpr_lib.options import check_choice
from vpr_lib.processes import count_processes


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one. A device this machine lacks is a ValueError.

    Of several processes on a machine, each takes the GPU of its number.
    """
    is_available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind in is_available if is_available[kind]]  # the fastest first
    check_choice("device", name.partition(":")[0], ["auto", *kinds])
    device = torch.device(kinds[0] if name == "auto" else name)
    is_shared = device.type == "cuda" and count_processes() > 1
    return torch.device("cuda", torch.cuda.current_device()) if is_shared else device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype to autocast to: for "auto", half precision only where the device is faster with it."""
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        # Turing cards (Colab's T4) emulate bfloat16 slowly, but have fast float16.
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16 or AMX); emulated, it is slower than float32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False  # not Linux
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `dtype`; nothing for float32."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def choose_num_workers(machine: Machine) -> int:
    """Loader processes: one a core, at most 16, unless the machine's settings say otherwise."""
    return machine.num_workers if machine.num_workers >= 0 else min(count_cores(), 16)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors: a training step on a CPU at 128 px is then a fifth faster."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
