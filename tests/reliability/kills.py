"""Kills every command at random moments (SIGKILL), and sees whether the same call then ends as if nothing had been.

    python tests/reliability/kills.py --seconds 300 --seed 1 [--only train]

Prints a row for each command: how often it was killed, how often before it had ended, and how often the same call
afterwards failed or wrote something else than a call that was never killed. Exit status 1 if that ever happens.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for its conftest

import numpy as np
import torch
from conftest import make_root
from damage import CITY, QUIET, zip_folder
from PIL import Image

from vpr_lib.checkpoints import read_checked
from vpr_lib.command_line.parser import main
from vpr_lib.identity import hash_text

TRAINING = [
    *("--preset", "smoke", "--aggregator", "GeM", "--image-size", "32", "--epochs", "3"),
    *(f"--set={key}={value}" for key, value in (("num_places", 3), ("crop_after", "layer1"), ("ks", "[1, 5]"))),
    *("--set", "save_every_s=0", *QUIET),
]


class Command(NamedTuple):
    """A command, what it needs and what it must leave."""

    name: str
    needs: tuple[str, ...]  # files and folders of the pristine workspace
    arguments: Callable[[Path], list]  # workspace -> command line
    result: str  # glob pattern of the files to compare
    processes: int = 1  # that work together, as torchrun would start them; one of them is killed


COMMANDS = (
    Command("city", (), lambda folder: [
        "city", "--out", folder / "city", "--workers", "2",
        *(f"--set={name}={value}" for name, value in vars(CITY).items() if name != "seed"),
    ], "city/**/*"),
    Command("train", ("root",), lambda folder: [
        "train", "--data", folder / "root", "--out", folder / "run", *TRAINING,
    ], "run/model.pt"),
    Command("train, 2 processes", ("root",), lambda folder: [
        "train", "--data", folder / "root", "--out", folder / "run", *TRAINING, "--set", "num_places=4",
    ], "run/model.pt", 2),
    Command("evaluate, 2 processes", ("root", "run"), lambda folder: [
        "evaluate", "--run", folder / "run", "--data", folder / "root", "--split", "val",
        "--json", folder / "recall.json", *QUIET, "--set", "eval_batch_size=4",
    ], "recall.json", 2),
    Command("evaluate", ("root", "run"), lambda folder: [
        "evaluate", "--run", folder / "run", "--data", folder / "root", "--split", "val",
        "--json", folder / "recall.json", *QUIET,
    ], "recall.json"),
    Command("compare", ("root",), lambda folder: [
        "compare", "--data", folder / "root", "--out", folder / "runs", "--aggregators", "AVG,GeM",
        *TRAINING[:2], *TRAINING[4:],
    ], "runs/comparison*"),
    Command("pack", ("root",), lambda folder: [
        "pack", folder / "root" / "train", "--size", "32", "--out", folder / "train.zip",
    ], "train.zip"),
    Command("pack, several files", ("root",), lambda folder: [
        "pack", folder / "root" / "train", "--size", "32", "--max-gb", "0.00001",
    ], "root/train-*.zip"),
    Command("unpack", ("gsv_xs.zip",), lambda folder: [
        "unpack", folder / "gsv_xs.zip", "--to", folder / "xs", "--as", "gsv_xs", "--any-size",
    ], "xs/train/**/*"),
    Command("check", ("root",), lambda folder: ["check", folder / "root", "--any-size"], "root/**/*.jpg"),
    Command("report", ("root",), lambda folder: [
        "report", "--data", folder / "root", "--out", folder / "report", "--runs", folder / "runs",
        *TRAINING[:2], *TRAINING[4:6], "--epochs", "1", *TRAINING[8:],
    ], "report/*"),
    Command("import-photos", ("phone",), lambda folder: [
        "import-photos", folder / "phone", "--to", folder / "own" / "walk" / "queries",
    ], "own/**/*"),
)  # fmt: skip


def make_workspace(folder: Path) -> None:
    root = make_root(folder / "root")
    zip_folder(root / "train", folder / "gsv_xs.zip", "gsv_xs/train/")
    start(["train", "--data", root, "--out", folder / "run", *TRAINING])
    (folder / "phone").mkdir()
    for i in range(40):
        exif = Image.Exif()
        exif.get_ifd(0x8825).update({1: "N", 2: (45.0, float(i), 0.0), 3: "E", 4: (4.0, float(i), 0.0)})
        noise = np.random.default_rng(i).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "phone" / f"{i}.jpg", exif=exif)


def start(arguments: list, kill_after_s: float | None = None, processes: int = 1) -> tuple[int, float]:
    """Run a command in forked processes, which have all modules already.

    Args:
        kill_after_s: seconds after which one of them is killed.

    Returns:
        Exit status (-9: of a killed process; else the first one that isn't 0) and seconds.
    """
    began = time.monotonic()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [_fork(arguments, rank, processes, port) for rank in range(processes)]
    victim = random.choice(pids)
    while kill_after_s is not None and time.monotonic() < began + kill_after_s:
        time.sleep(0.001)
        if os.waitid(os.P_PID, victim, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    else:
        if kill_after_s is not None:
            os.kill(victim, signal.SIGKILL)
    statuses = _wait_for_all(pids)
    return -signal.SIGKILL if -signal.SIGKILL in statuses else max(statuses), time.monotonic() - began


def _wait_for_all(pids: list[int]) -> list[int]:
    """Exit statuses. As torchrun would, kill those that have not ended some time after another one failed."""
    statuses: dict[int, int] = {}
    deadline = time.monotonic() + 300
    while len(statuses) < len(pids):
        for pid in set(pids) - set(statuses):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses[pid] = os.waitstatus_to_exitcode(status)
                deadline = min(deadline, time.monotonic() + 10) if status else deadline
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return list(statuses.values())


def _fork(arguments: list, rank: int, processes: int, port: int) -> int:
    """The id of a new process that runs a command; the processes meet at a port."""
    pid = os.fork()
    if pid == 0:
        status, printed = 1, io.StringIO()
        try:
            os.setpgid(0, 0)
            if processes > 1:
                names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
                os.environ |= dict(zip(names, map(str, (rank, rank, processes, processes, port)), strict=True))
                os.environ["MASTER_ADDR"] = "127.0.0.1"
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                status = main([str(argument) for argument in arguments])
            if status and processes == 1:
                print(printed.getvalue()[-500:], file=sys.__stdout__, flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def read_result(folder: Path, pattern: str) -> dict[str, object]:
    """{path: content} of the files to compare; weights as tensors, pages and pictures (with times in them) by name."""
    result: dict[str, object] = {}
    for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.suffix == ".pt":
            state = read_checked(path, "")["state_dict"]
            data = b"".join(key.encode() + value.numpy().tobytes() for key, value in sorted(state.items()))
        if path.suffix in (".html", ".png"):
            data = b""
        if path.name != ".city.lock":
            result[name] = hash_text(data.hex())
    return result


def run_campaign(seconds: float, seed: int, only: str = "", some: int = 0) -> list[tuple[str, int, int, int]]:
    """Command, kills, those before its end, failures; each command gets an equal share of the time.

    The report and commands of several processes, whose trials take long, are left out of campaigns of a minute or less.
    """
    commands = [command for command in COMMANDS if only in command.name]
    if seconds <= 60:
        commands = [command for command in commands if command.name != "report" and command.processes == 1]
    if some:
        commands = random.Random(seed).sample(commands, some)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        pristine, folder = Path(temporary) / "pristine", Path(temporary) / "work"
        pristine.mkdir()
        make_workspace(pristine)
        for command in commands:
            dice = random.Random(f"{seed} {command.name}")
            restore(command, pristine, folder)
            _, whole_s = start(command.arguments(folder), processes=command.processes)
            expected = read_result(folder, command.result)
            assert expected, f"{command.name} wrote nothing"
            end, tried, in_time, failures = time.monotonic() + seconds / len(commands), 0, 0, 0
            while time.monotonic() < end or not tried:
                restore(command, pristine, folder)
                tried += 1
                for _ in range(dice.choice((1, 1, 2, 4))):  # sometimes killed again while it resumes
                    kill_after_s = dice.uniform(0, whole_s)
                    status, _ = start(command.arguments(folder), kill_after_s, command.processes)
                    in_time += status == -signal.SIGKILL
                status, _ = start(command.arguments(folder), processes=command.processes)
                result = read_result(folder, command.result)
                if status or result != expected:
                    failures += 1
                    changed = {name for name in result | expected if result.get(name) != expected.get(name)}
                    print(f"{command.name}: exit status {status}, other files: {sorted(changed)[:5]}", flush=True)
            rows.append((command.name, tried, in_time, failures))
    return rows


def restore(command: Command, pristine: Path, folder: Path) -> None:
    """A fresh workspace that has what the command needs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in command.needs:
        source = pristine / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default="", help="commands whose name contains this")
    parser.add_argument("--some", type=int, default=0, help="number of commands to draw by the seed (0: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"seed {options.seed}", flush=True)
    rows = run_campaign(options.seconds, options.seed, options.only, options.some)
    print("| command | trials | kills before its end | failures |\n|---|---|---|---|")
    print("\n".join(f"| {' | '.join(map(str, row))} |" for row in rows))
    sys.exit(any(row[-1] for row in rows))
