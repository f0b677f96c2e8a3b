"""Files that notice each damage: a flipped bit, a cut, a kill between two steps of writing."""

import io
import os
import platform
import subprocess

import numpy as np
import pytest
import torch

from vpr_lib.atomic_files import open_atomically, write_atomically
from vpr_lib.checked_files import DamagedFile, is_sealed, read_json, read_zip, seal_zip, write_json, write_sealed
from vpr_lib.trunks import read_checkpoint


def flip(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_json_with_any_flipped_bit_is_refused_or_the_same(tmp_path):
    path, content = tmp_path / "x.json", {"lr": 0.1, "ks": [1, 5], "name": "Éze", "none": None}
    write_json(path, content)
    data = path.read_bytes()
    refused = 0
    for bit in range(8 * len(data)):
        path.write_bytes(flip(data, bit))
        try:
            assert read_json(path, "way out") == content
        except DamagedFile as error:
            assert "x.json" in str(error) and "way out" in str(error)
            refused += 1
    assert refused > 7 * len(data)  # all but white space
    for wrong in (b"", b"[1]", b"[" * 10_000, b'{"lr": 1}', data[:-20], b"\0" * len(data)):
        path.write_bytes(wrong)
        with pytest.raises(DamagedFile, match=r"x\.json"):
            read_json(path, "")


@pytest.mark.slow
def test_a_zip_with_any_flipped_bit_is_refused(tmp_path):
    """Also in fields that zipfile doesn't check and torch reads, such as the mark of a folder."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(500.0)}, buffer)
    data, path = seal_zip(buffer.getvalue()), tmp_path / "x.pt"
    for bit in {*range(0, 8 * len(data), 97), *range(8 * data.index(b"PK\1\2"), 8 * len(data))}:
        path.write_bytes(flip(data, bit))
        with pytest.raises(DamagedFile, match=r"x\.pt .*way out"):
            read_zip(path, "way out")
    for wrong in (b"", data[:-1], data[:40], data + b"x", buffer.getvalue()):
        path.write_bytes(wrong)
        with pytest.raises(DamagedFile, match=r"x\.pt"):
            read_zip(path, "")
    path.write_bytes(data)
    assert torch.equal(torch.load(read_zip(path, ""), weights_only=True)["weight"], torch.arange(500.0))
    np.savez(written := io.BytesIO(), a=np.arange(3))
    path.write_bytes(seal_zip(written.getvalue()))
    assert np.load(path)["a"].tolist() == np.load(read_zip(path, ""))["a"].tolist() == [0, 1, 2]


@pytest.mark.slow
def test_weights_of_others_with_a_flipped_bit_are_refused_or_the_same(tmp_path):
    """Every bit of the headers, every 97th of the data."""
    torch.save({"weight": torch.arange(500.0)}, buffer := io.BytesIO())
    data, path = buffer.getvalue(), tmp_path / "x.pt"
    for bit in {*range(0, 8 * len(data), 97), *range(8 * data.index(b"PK\1\2"), 8 * len(data))}:
        path.write_bytes(flip(data, bit))
        try:
            state = read_checkpoint(path)["state_dict"]
        except DamagedFile as error:
            assert "x.pt" in str(error)
        else:
            assert list(state) == ["weight"] and torch.equal(state["weight"], torch.arange(500.0))


def test_a_sealed_file_fits_its_seal_wherever_its_writing_was_killed(tmp_path, monkeypatch):
    path, replace = tmp_path / "x.csv", os.replace
    for steps in range(4):
        for file in tmp_path.iterdir():
            file.unlink()
        write_sealed(path, b"old")
        left = [steps]

        def stop_after(*args, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(*args)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", stop_after)
            if steps < 3:
                with pytest.raises(KeyboardInterrupt):
                    write_sealed(path, b"new")
            else:
                write_sealed(path, b"new")
        assert path.read_bytes() == (b"old" if steps < 2 else b"new") and is_sealed(path, path.read_bytes())
        assert not is_sealed(path, b"older")
    assert is_sealed(tmp_path / "own.csv", b"anything")  # no seal, no check


def test_two_processes_may_write_one_file(tmp_path):
    path = tmp_path / "x"
    with open_atomically(path) as parent:
        parent.write(b"parent")
        if os.fork() == 0:
            write_atomically(path, b"child")
            os._exit(0)
        os.wait()
        assert path.read_bytes() == b"child"
    assert path.read_bytes() == b"parent" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_is_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    here = f"x.{platform.node()[:12]}"
    files = {
        "x.far.1.tmp": 7200,
        "x.far.2.tmp": 10,
        "xy.far.3.tmp": 7200,
        f"{here}.{dead.pid}.tmp": 0,
        f"{here}.1.tmp": 0,
    }
    for name, age_s in files.items():
        (tmp_path / name).write_bytes(b"half")
        stamp = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (stamp, stamp))
    write_atomically(tmp_path / "x", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["x", "x.far.2.tmp", "xy.far.3.tmp", f"{here}.1.tmp"]
    )
