"""Short campaigns with another seed each time; docs/reliability.md has the tables of long ones."""

import random
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("campaign, some", [("damage", 6), ("kills", 3)])
def test_nothing_goes_wrong_in_silence(campaign, some):
    """Some kinds of files, some commands, drawn by the seed."""
    seed = random.randrange(10**6)
    script = Path(__file__).with_name(f"{campaign}.py")
    command = [sys.executable, str(script), "--seconds", "1", "--seed", str(seed), "--some", str(some)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr  # begins with the seed
