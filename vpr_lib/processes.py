"""Several processes, started by torchrun, that work as one: who they are and what they tell each other.

All processes call these functions, in the same order. With a single process they tell nobody anything: a value that is
gathered is its own, an error is raised as it is.
"""

import atexit
import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(hours=12)  # of waiting for another process: the first one may build an index for hours
_KINDS = (FileNotFoundError, BlockingIOError, OSError, FloatingPointError, ValueError, RuntimeError)


def join_processes() -> None:
    """Meet the other processes, if torchrun started this one; a GPU is chosen for each by its number on its machine.

    Raises:
        ValueError: a machine has more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        local, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= num_gpus:
            raise ValueError(f"more processes than the {num_gpus} GPUs here; run torchrun --nproc-per-node {num_gpus}")
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"  # what is said about tensors on the CPU needs no GPU
    dist.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(_leave)


def _leave() -> None:
    with contextlib.suppress(RuntimeError, ValueError):  # the others may have ended
        dist.destroy_process_group()


def get_rank() -> int:
    """Number of this process, from 0; that of the main process, which prints and writes, is 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count_processes() -> int:
    """Processes that work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process prints and writes."""
    return get_rank() == 0


@contextmanager
def work_together() -> Iterator[None]:
    """Join the others; within, only the main process prints and warns, and a lost process is a ConnectionError.

    torchrun ends the others by SIGTERM when it finds that one has ended, which may be before they find it: they end
    with the same message, as a SystemExit.
    """
    join_processes()
    with contextlib.ExitStack() as stack:
        is_main_thread = threading.current_thread() is threading.main_thread()  # only this one has signal handlers
        if count_processes() > 1 and is_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _end)
            stack.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
        if not is_main():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        try:
            yield
        except RuntimeError as error:
            if count_processes() > 1 and _is_lost(error):
                raise ConnectionError(_explain("has lost another one, which was killed or failed")) from error
            raise


def _end(signum: int, frame: Any) -> None:
    raise SystemExit(_explain("was ended by SIGTERM, because another one was killed or failed or torchrun was stopped"))


def _explain(what: str) -> str:
    advice = "any error of its own is printed above. The same command continues from the last checkpoint"
    return f"process {get_rank()} of {count_processes()} {what}; {advice}"


def _is_lost(error: RuntimeError) -> bool:
    """Whether a collective operation failed because another process has ended."""
    texts = ("connection closed", "connection reset", "broken pipe", "read error", "write error", "remote process")
    return isinstance(error, dist.DistError) or any(text in str(error).lower() for text in texts)


def gather_objects(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks; anything that can be pickled."""
    if count_processes() == 1:
        return [value]
    values: list[Any] = [None] * count_processes()
    dist.all_gather_object(values, value)
    return values


def is_any(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if count_processes() == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows (B, ...) of all processes as (R * B, ...), in the order of ranks; gradients reach this process's own."""
    if count_processes() == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(count_processes())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[get_rank()] = rows
    return torch.cat(parts)


def raise_together(error: Exception | None) -> None:
    """Raise the error of any process in all of them; None: this one has none."""
    if not is_any(error is not None):
        return
    found = gather_objects(None if error is None else ([cls.__name__ for cls in type(error).__mro__], str(error)))
    if error is not None:
        raise error
    names, text = next(each for each in found if each is not None)
    copy = next((kind for kind in _KINDS if kind.__name__ in names), RuntimeError)(text)
    copy.is_copy = True  # it is printed by the process that had it, or by the main one
    raise copy


@contextmanager
def share_errors() -> Iterator[None]:
    """An error within this block, in any process, is raised in all of them at its end."""
    caught = None
    try:
        yield
    except Exception as error:
        if count_processes() > 1 and isinstance(error, RuntimeError) and _is_lost(error):
            raise  # nobody would answer
        caught = error
    raise_together(caught)


def iterate_together(items: Iterable[T]) -> Iterator[T]:
    """The items, as many in all processes; an error in making one is raised in all of them."""
    iterator = iter(items)
    while True:
        with share_errors():
            item = next(iterator, None)
        if item is None:
            return
        yield item


def run_on_main(action: Callable[[], T]) -> T:
    """What the main process's call returns, in all processes; its error is raised in all of them."""
    if count_processes() == 1:
        return action()
    result: list[Any] = [None]
    with share_errors():
        if is_main():
            result = [action()]
    dist.broadcast_object_list(result)
    return result[0]


def check_same(facts: Mapping[str, Any]) -> None:
    """Raise a ValueError in all processes if facts, {name: value}, differ between them."""
    first, *others = gather_objects(dict(facts))
    for rank, other in enumerate(others, 1):
        if names := [name for name in first if first[name] != other.get(name)]:
            details = "; ".join(f"{name}: {first[name]} and {other.get(name)}" for name in names)
            raise ValueError(f"processes 0 and {rank} differ in {details}. Start all with the same code and photos")


def share_rows(number: int, multiple: int = 1) -> slice:
    """This process's part of `number` rows, which begins at a multiple of `multiple`; the parts have no gaps."""
    units = -(-number // multiple)
    first, last = (units * rank // count_processes() * multiple for rank in (get_rank(), get_rank() + 1))
    return slice(min(first, number), min(last, number))
