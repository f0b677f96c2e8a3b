"""Functions side by side, each in a process of its own; and Ctrl-C that ends work in good order."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

CAN_FORK = sys.platform == "linux"  # elsewhere, libraries that are in use do not survive a fork
_POLL_S = 0.2


def run_side_by_side(functions: Mapping[str, Callable[[], Any]], num_processes: int) -> Iterator[tuple[str, Any]]:
    """Call {name: function} in forked processes, `num_processes` at a time; yields (name, result) as each one ends.

    Lines that a function prints are printed here with its name in front; its warnings are given here. Ctrl-C starts no
    further function and sends SIGINT to the running ones until they return; a second Ctrl-C stops them at once.

    Raises:
        ChildProcessError: a process ended without a result, for example for lack of memory.
        Exception: what a function raised, when the others have returned after a SIGINT.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(functions)
    running: dict[Connection, tuple[str, Any]] = {}  # {what it sends on: (name, its process)}
    error: BaseException | None = None
    with catch_interrupt() as interrupted:
        try:
            while running or (waiting and not interrupted() and error is None):
                while waiting and len(running) < num_processes and not interrupted() and error is None:
                    name = waiting.pop(0)
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(functions[name], sender))
                    process.start()
                    sender.close()
                    running[receiver] = name, process
                for receiver in wait([*running], _POLL_S):
                    name, process = running[receiver]
                    kind, content = _receive(receiver, name, process)
                    if kind == "line":
                        print(f"{name} | {content}", flush=True)
                    elif kind == "warning":
                        warnings.warn(*content, stacklevel=2)
                    else:
                        del running[receiver]
                        process.join()
                        if kind == "error":
                            error = error or content
                        else:
                            yield name, content
                if interrupted() or error is not None:
                    for _, process in running.values():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(process.pid, signal.SIGINT)
        finally:
            for _, process in running.values():
                process.kill()
                process.join()
    if error is not None:
        raise error


def _receive(receiver: Connection, name: str, process: Any) -> tuple[str, Any]:
    """The next message of a process; an error in its place if it has ended."""
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        reason = f"{name}: its process ended with exit code {process.exitcode}"
        return "error", ChildProcessError(f"{reason}, -9 is mostly for lack of memory; the same call continues")


def _work(function: Callable[[], Any], sender: Connection) -> None:
    """Call a function and send what it prints, warns of and returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a training catches it, once
    end_with_parent()
    warnings.showwarning = lambda message, category, *place: sender.send(("warning", (str(message), category)))
    with contextlib.redirect_stdout(_Lines(sender)):
        try:
            message = ("result", function())
        except BaseException as error:
            message = ("error", error)
    sender.send(message)


class _Lines:
    """A text stream that sends whole lines."""

    def __init__(self, sender: Connection) -> None:
        self.sender, self.rest = sender, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.sender.send(("line", line))

    def flush(self) -> None:
        """Nothing: a line is sent when it ends."""


def end_with_parent() -> None:
    """Let this process end when its parent has ended, even if that was killed; also while it waits for work."""

    def wait_for_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


@contextlib.contextmanager
def catch_interrupt() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed; a second Ctrl-C interrupts as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals reach the main thread only
        return
    pressed = threading.Event()

    def note(signum: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
