"""Runs a function in several processes that work together, as torchrun would start them, but without its seconds."""

import multiprocessing
import os
import socket

import torch

CONTEXT = multiprocessing.get_context("forkserver")  # its server imports torch once; each process is forked from it
CONTEXT.set_forkserver_preload(["vpr_lib.runs", "pytorch_metric_learning.losses", "faiss"])


def run_together(number, function, *args, timeout_s=60):
    """What each process returned, or the exception it raised, in the order of their ranks; None of one that ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(number):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_start, args=(sender, rank, number, port, function, args), daemon=True)
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    try:
        results = []
        for pipe in pipes:
            assert pipe.poll(timeout_s), f"no answer of process {len(results)} after {timeout_s} s"
            try:
                results.append(pipe.recv())
            except EOFError:
                results.append(None)
        return results
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _start(sender, rank, number, port, function, args):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        result = function(*args)
    except Exception as error:
        result = error
    sender.send(result)
