"""Several processes train, describe and search what one does, and stop together."""

import contextlib
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_root
from several_processes import run_together
from torch import nn

from vpr_lib import processes, runs, search
from vpr_lib.checkpoints import load_checkpoint
from vpr_lib.data_roots import DataRoot
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.evaluation import evaluate_run
from vpr_lib.loading import PhotoDataset
from vpr_lib.models import build_model, synchronize_batchnorm
from vpr_lib.predictions import find_descriptors
from vpr_lib.processes import get_rank, is_any, iterate_together, join_processes, run_on_main, share_rows, work_together
from vpr_lib.runs import train_run
from vpr_lib.search import search_database, search_together
from vpr_lib.settings import get_preset

pytestmark = pytest.mark.slow
FROZEN = replace(
    get_preset("smoke"), aggregator="MixVPR", aggregator_options={"MixVPR": {"out_channels": 16, "out_rows": 2}},
    image_size=32, crop_after="layer1", freeze_until="layer1", num_places=6, images_per_place=2, epochs=2,
    randaugment_ops=0, precision="float32", keep="last", ks=(1, 5),
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """11 places: with 6 a batch, the last batch has 5, which neither 2 nor 3 processes share equally."""
    return make_root(tmp_path_factory.mktemp("processes") / "root", num_places=11)


def read_weights(folder):
    """{name: array} of the model in a run folder."""
    state = torch.load(folder / "model.pt", weights_only=True)["state_dict"]
    return {name: value.numpy() for name, value in state.items()}


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name].astype(float) - second[name]).max()) for name in first)


def train(settings, root, folder, machine, **parts):
    """Weights, history without times, and what was printed, on both streams."""
    printed, bars = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(bars):
        run = train_run(settings, root, folder, machine=machine, **parts)
    history = [{name: value for name, value in row.items() if name != "photos_per_s"} for row in run.history]
    return read_weights(folder), history, printed.getvalue(), bars.getvalue()


@pytest.mark.parametrize("number, changes", [
    (3, {}), (2, {"randaugment_ops": 1, "crop_min": 0.5}),
    (3, {"num_places": 9, "optimizer": "SGD", "loss": "ArcFaceLoss", "miner": None}),  # the last batch has 2 places
], ids=["features", "augmented", "an empty part, a loss with weights"])  # fmt: skip
def test_processes_train_what_one_does(root, tmp_path, machine, number, changes, summary):
    settings = replace(FROZEN, **changes)
    alone, history, printed, _ = train(settings, root, tmp_path / "one" / "run", machine)
    with_bars = replace(machine, progress=True)
    results = run_together(number, train, settings, root, tmp_path / "many" / "run", with_bars)
    far = largest_difference(alone, results[0][0])
    summary(f"{number} processes, {changes}: largest difference of a weight {far:.1e}")
    start = {name: value.numpy() for name, value in build_model(settings).state_dict().items()}
    assert far < 1e-5 and largest_difference(alone, start) > 1e-4
    for rank, (weights, other, text, bars) in enumerate(results):
        assert largest_difference(weights, results[0][0]) == 0
        assert [row.keys() for row in other] == [row.keys() for row in history]
        for row, expected in zip(other, history, strict=True):
            assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
        if rank:  # only the main process prints
            assert text == bars == ""
        else:
            lines = [[line.split()[0] for line in each.splitlines()] for each in (text, printed)]
            assert lines[0] == lines[1] and "epoch 1/2" in bars
    names = [{path.name for path in (tmp_path / which / "run").iterdir()} for which in ("one", "many")]
    assert names[0] == names[1]


class OwnBackbone(nn.Module):
    """One frozen layer, one trained one, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.out_channels = 8
        self.first = nn.Conv2d(3, 8, 5, stride=4).requires_grad_(False)
        self.last = nn.Conv2d(8, 8, 3)
        self.unused = nn.Conv2d(8, 8, 3)

    def forward(self, images):
        return self.last(self.first(images).relu())


class OwnLoss(nn.Module):
    """A proxy for each place."""

    def __init__(self):
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(11, 32))

    def forward(self, embeddings, labels, indices_tuple):
        return nn.functional.cross_entropy(10 * embeddings @ self.proxies.T, labels)


@pytest.mark.parametrize("chunk_size", [0, 2])
def test_processes_train_own_parts_as_one_does(root, tmp_path, machine, chunk_size):
    settings = replace(FROZEN, num_places=8, optimizer="SGD", miner=None)  # the last batch has 3 places
    parts = {"backbone": OwnBackbone, "loss": OwnLoss}
    alone, history, *_ = train(settings, root, tmp_path / "one" / "run", machine, **parts)
    together = functools.partial(train, **parts)
    machine = replace(machine, train_chunk_size=chunk_size)
    results = run_together(2, together, settings, root, tmp_path / "many" / "run", machine)
    assert largest_difference(alone, results[0][0]) < 1e-5
    proxies = [load_checkpoint(tmp_path / name / "run")["loss"]["proxies"] for name in ("one", "many")]
    torch.testing.assert_close(*proxies, rtol=0, atol=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        assert not torch.allclose(proxies[0], OwnLoss().proxies, rtol=0, atol=1e-4)
    for weights, other, *_ in results:
        assert largest_difference(weights, results[0][0]) == 0
        assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-4)


def train_until(step, settings, root, folder, machine):
    """Train with a checkpoint after each batch until a step, at which each process ends as in a crash."""

    def end(progress):
        if progress.step == step:
            os._exit(1)

    train(settings, root, folder, replace(machine, save_every_s=0.0), on_batch=end)


def test_a_stopped_training_is_resumed_by_any_number_of_processes(root, tmp_path, machine):
    settings = replace(FROZEN, epochs=3)
    expected, expected_history, *_ = run_together(2, train, settings, root, tmp_path / "whole" / "run", machine)[0]
    assert run_together(2, train_until, 4, settings, root, tmp_path / "stopped" / "run", machine) == [None, None]
    assert load_checkpoint(tmp_path / "stopped" / "run")["progress"]["step"] == 3  # within the second epoch
    for number in (1, 2, 3):
        shutil.copytree(tmp_path / "stopped", tmp_path / str(number))
        result = run_together(number, train, settings, root, tmp_path / str(number) / "run", machine)
        weights, history, *_ = result[0]
        far = largest_difference(weights, expected)
        assert far == 0 if number == 2 else far < 1e-5, number
        assert history[0] == expected_history[0] and len(history) == 3
        assert history[1]["loss"] == pytest.approx(expected_history[1]["loss"], rel=1e-4)


def train_with_unreadable_photo(settings, root, folder, machine):
    """Process 1 can't read one of the photos that it gets."""
    join_processes()
    read = PhotoDataset.read

    def read_or_fail(dataset, row):
        if get_rank() == 1 and row == 30:
            raise ValueError("photo 30 is not readable")
        return read(dataset, row)

    PhotoDataset.read = read_or_fail
    train(settings, root, folder, machine)


@pytest.mark.parametrize("changes", [{}, {"randaugment_ops": 1}], ids=["computing features", "training"])
def test_a_photo_that_one_process_can_not_read_stops_all(root, tmp_path, machine, changes):
    settings, machine = replace(FROZEN, epochs=9, **changes), replace(machine, eval_batch_size=4)
    results = run_together(2, train_with_unreadable_photo, settings, root, tmp_path / "run", machine)
    assert [(type(error), str(error)) for error in results] == [(ValueError, "photo 30 is not readable")] * 2
    assert not (tmp_path / "run" / "model.pt").exists()


def train_differently(what, settings, root, other_root, folder, machine):
    join_processes()
    rank = get_rank()
    if what == "kit" and rank == 1:
        runs.hash_library = lambda: "another version"
    settings = replace(settings, seed=rank) if what == "seed" else settings
    train(settings, other_root if what == "photos" and rank == 1 else root, folder, machine)


@pytest.mark.parametrize("what", ["seed", "photos", "kit"])
def test_processes_with_different_arguments_train_nothing(root, data_root, tmp_path, machine, what):
    arguments = (what, FROZEN, root, data_root, tmp_path / "run", machine)
    for error in run_together(2, train_differently, *arguments):
        assert isinstance(error, ValueError) and f"processes 0 and 1 differ in {what}: " in str(error)
    assert not (tmp_path / "run").exists()


def test_places_that_processes_can_not_share_are_an_error_before_anything_is_written(root, tmp_path, machine):
    settings = replace(FROZEN, num_places=5)
    for error in run_together(2, train, settings, root, tmp_path / "run", machine):
        assert isinstance(error, ValueError) and "num_places = 5 must be a multiple of the 2" in str(error)
    assert not (tmp_path / "run").exists()


def test_a_batch_in_chunks_on_two_processes(root, tmp_path, machine):
    settings = replace(FROZEN, num_places=10)
    alone, *_ = train(settings, root, tmp_path / "one" / "run", machine)
    chunked = replace(machine, train_chunk_size=3)
    weights, *_ = run_together(2, train, settings, root, tmp_path / "two" / "run", chunked)[0]
    assert largest_difference(weights, alone) < 1e-5


class HalfUsed(nn.Module):
    """An aggregator with weights that its descriptor doesn't depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(64, 8), nn.Linear(64, 8)

    def forward(self, maps):
        return nn.functional.normalize(self.used(maps.mean((2, 3))), dim=1)


def train_half_used(root, folder, machine):
    return read_weights(train_run(FROZEN, root, folder, HalfUsed, machine).folder)


def test_weights_that_are_not_used_do_not_stop_processes(root, tmp_path, machine):
    alone = train_half_used(root, tmp_path / "one" / "run", machine)
    assert (
        largest_difference(run_together(2, train_half_used, root, tmp_path / "two" / "run", machine)[0], alone) < 1e-5
    )


def test_trained_batchnorm_sees_all_processes_on_gpus():
    model = build_model(replace(FROZEN, crop_after="layer2"))
    synchronize_batchnorm(model, torch.device("cuda"))  # the conversion needs no GPU
    layers = {name: type(part) for name, part in model.named_modules() if "bn" in name or "downsample.1" in name}
    is_synchronized = {name: kind is nn.SyncBatchNorm for name, kind in layers.items()}
    assert is_synchronized == {name: "layer2" in name for name in layers} and any(is_synchronized.values())
    with pytest.warns(UserWarning, match="BatchNorm is trained"):
        synchronize_batchnorm(build_model(replace(FROZEN, crop_after="layer2")), torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_what_one_does(root, tmp_path, machine):
    """With BatchNorm that is trained: SyncBatchNorm sees all photos of a batch."""
    settings = replace(FROZEN, num_places=10, crop_after="layer2", optimizer="SGD", lr=1e-3)
    one, two = (
        run_together(number, train, settings, root, tmp_path / str(number) / "run", replace(machine, device="cuda"))[0]
        for number in (1, 2)
    )
    assert largest_difference(one[0], two[0]) < 1e-4


# Describing and searching


def evaluate(folder, root, machine, index):
    """Predictions, recall, what the index missed, and the kept descriptors."""
    search.IVF_MIN_ROWS = 5
    run = train_run(FROZEN, root, folder)
    result = evaluate_run(run, root, "val", machine, index, nprobe=1)
    path = find_descriptors(run, DataRoot(root), "val")
    kept = np.load(path) if path.exists() else None
    return result.indices, result.distances, result.recall, result.search_loss, kept


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_processes_evaluate_what_one_does_to_the_last_bit(root, tmp_path, machine, monkeypatch, index):
    monkeypatch.setattr(search, "IVF_MIN_ROWS", 5)
    train(FROZEN, root, tmp_path / "one", machine)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    machine = replace(machine, eval_batch_size=4)
    indices, distances, recall, loss, _ = evaluate(tmp_path / "one", root, machine, index)
    assert (loss is None) == (index == "exact")
    for result in run_together(2, evaluate, tmp_path / "two", root, machine, index):
        np.testing.assert_array_equal(result[0], indices)
        np.testing.assert_array_equal(result[1], distances)
        assert result[2:4] == (recall, loss)
        assert len(result[4]) == len(DataRoot(root).read_split("val").database)
    names = {path.suffix for path in (tmp_path / "two" / "descriptors").iterdir()}  # one file, no parts
    assert names == ({".npy"} if index == "exact" else {".npy", ".ivf"})


def extract(root, folder, cache, machine):
    """Descriptors, and the rows that this process has read."""
    rows, read = [], PhotoDataset.read
    PhotoDataset.read = lambda dataset, row: rows.append(row) or read(dataset, row)
    try:
        descriptors = extract_descriptors(build_model(FROZEN), root / "train", 32, cache, "float32", machine)
    finally:
        PhotoDataset.read = read
    return descriptors, rows


@pytest.mark.parametrize("number, is_kept", [(2, False), (3, True)])
def test_processes_describe_each_photo_once(root, tmp_path, machine, number, is_kept):
    machine = replace(machine, eval_batch_size=5)
    expected, all_rows = extract(root, None, None, machine)
    cache = tmp_path / "cache" if is_kept else None
    results = run_together(number, extract, root, None, cache, machine)
    for descriptors, _ in results:
        np.testing.assert_array_equal(descriptors, expected)
    shares = [sorted(rows) for _, rows in results]
    assert [row for share in shares for row in share] == sorted(all_rows) == list(range(44)) and all(shares)
    if is_kept:
        (path,) = cache.iterdir()
        np.testing.assert_array_equal(np.load(path), expected)
        again = run_together(2, extract, root, None, cache, machine)
        assert [rows for _, rows in again] == [[], []]
        np.testing.assert_array_equal(again[1][0], expected)


def test_parts_of_a_killed_extraction_do_not_count(root, tmp_path, machine):
    machine = replace(machine, eval_batch_size=5)
    descriptors, _ = run_together(2, extract, root, None, tmp_path, machine)[0]
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.with_name(f"{path.name}.part00007").write_bytes(b"half a file of eight processes")
    again = run_together(2, extract, root, None, tmp_path, machine)
    np.testing.assert_array_equal(again[0][0], descriptors)
    assert [*tmp_path.iterdir()] == [path]


def search_file(path, queries, k):
    join_processes()
    return search_together(np.load(path, mmap_mode="r"), queries, k, "cpu")


@pytest.mark.parametrize("num_rows, k", [(70_000, 25), (2500, 2100), (3, 3)])
def test_processes_find_what_one_does_to_the_last_bit(tmp_path, num_rows, k):
    rng = np.random.default_rng(0)
    database = rng.normal(size=(num_rows, 16)).astype(np.float32).round(1)  # coarse: many distances are equal
    database[num_rows // 2] = np.nan
    np.save(tmp_path / "d.npy", database)
    queries = rng.normal(size=(40, 16)).astype(np.float32).round(1)
    expected = search_database(database, queries, k, "cpu")
    for result in run_together(3, search_file, tmp_path / "d.npy", queries, k):
        np.testing.assert_array_equal(result[1], expected[1])
        np.testing.assert_array_equal(result[0], expected[0])


@pytest.mark.parametrize("number", [0, 1, 7, 64, 1000])
@pytest.mark.parametrize("multiple", [1, 16, 1024])
def test_shares_of_rows_have_no_gaps(monkeypatch, number, multiple):
    for count in (1, 2, 3, 8):
        monkeypatch.setattr(processes, "count_processes", lambda count=count: count)
        parts = []
        for rank in range(count):
            monkeypatch.setattr(processes, "get_rank", lambda rank=rank: rank)
            part = share_rows(number, multiple)
            assert part.start % multiple == 0 or part.start == part.stop == number
            parts += range(number)[part]
        assert parts == list(range(number))


def talk():
    join_processes()
    rank = get_rank()
    flags = [is_any(rank == 1), is_any(False), run_on_main(lambda: f"from {rank}")]
    errors = []
    for action in (lambda: run_on_main(lambda: 1 / 0), lambda: list(iterate_together(map(fail_at_2, [0, 1 + rank])))):
        try:
            action()
        except Exception as error:
            errors.append((type(error).__name__, str(error), getattr(error, "is_copy", False)))
    return flags, errors


def fail_at_2(number):
    if number == 2:
        raise FileNotFoundError("no photo 2")
    return number


def test_what_processes_tell_each_other():
    for rank, (flags, errors) in enumerate(run_together(2, talk)):
        assert flags == [True, False, "from 0"]
        assert errors[0] == (("ZeroDivisionError", "division by zero", False) if rank == 0 else
                             ("RuntimeError", "division by zero", True))  # fmt: skip
        assert errors[1] == ("FileNotFoundError", "no photo 2", rank == 0)


def receive_sigterm():
    try:
        with work_together():
            signal.raise_signal(signal.SIGTERM)
            return "went on"
    except SystemExit as error:
        return str(error), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_process_says_why_it_was_ended_by_sigterm():
    for rank, (message, is_default_again) in enumerate(run_together(2, receive_sigterm)):
        assert f"process {rank} of 2 " in message and "SIGTERM" in message and is_default_again


# torchrun

COMMAND = [
    *("train", "--preset", "smoke", "--aggregator", "ConvAP", "--image-size", "32", "--epochs", "12"),
    *("--set", "crop_after=layer1", "--set", "freeze_until=layer1", "--set", "num_places=4", "--set", "ks=[1,5]"),
    *("--set", "randaugment_ops=1", "--set", "save_every_s=0", "--set", "progress=false", "--set", "num_workers=0"),
    *("--set", "device=cpu", "--set", "keep=last", "--set", "val_splits=[]"),
]


def start_torchrun(root, folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vpr_lib"]
    return subprocess.Popen(
        [*command, *COMMAND, "--data", str(root), "--out", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def find_rank(launcher, rank):
    """Process id of a rank, from Linux's /proc."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(launcher.pid) and f"\0RANK={rank}\0" in "\0" + (path / "environ").read_text():
                return int(path.name)
    raise LookupError(f"no process of rank {rank}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_ends_all_and_the_same_command_continues(root, tmp_path):
    launcher = start_torchrun(root, tmp_path / "run")
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "checkpoint.previous.pt").exists():
            assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()[0]
            time.sleep(0.02)
        os.kill(find_rank(launcher, 1), signal.SIGKILL)
        printed = launcher.communicate(timeout=60)[0]
    finally:
        launcher.kill()
    assert launcher.returncode != 0
    # process 0 finds that the other one is gone, or torchrun ends it first
    assert re.search(
        r"process 0 of 2 (has lost another one|was ended by SIGTERM).* The same command continues", printed
    )
    step = load_checkpoint(tmp_path / "run")["progress"]["step"]
    assert 0 < step < 36 and not (tmp_path / "run" / "model.pt").exists()
    launcher = start_torchrun(root, tmp_path / "run")
    printed = launcher.communicate(timeout=120)[0]
    assert launcher.returncode == 0 and printed.count("epoch 12:") == 1, printed
    assert "BatchNorm" not in printed
