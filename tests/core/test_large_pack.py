import subprocess
import sys
import zipfile

import pytest


def make_large_pack(path, num_photos):
    """Members of a few bytes: what is measured is the index."""
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(num_photos):
            fields = f"10@S@037.71856@-122.50018@Dn{i:07}UxyzAbCdEfG@@{i % 398}@@@@2011{1 + i % 12:02}"
            name = f"sanfrancisco/@{200000 + i:010.2f}@{1e6 + i:.2f}@{fields}@{i // 8:07}_SanFrancisco@.jpg"
            archive.writestr(zipfile.ZipInfo(name), b"x" * 20)
    return path


@pytest.mark.slow
def test_a_large_pack_opens_soon_and_its_index_is_shared_by_workers(tmp_path):
    """100,000 entries in 150 MB, and in five times the time that zipfile takes to list them."""
    pack = make_large_pack(tmp_path / "large.zip", 100_000)
    script = """
import os, resource, sys, time, gc, zipfile
import numpy as np
from vpr_lib.images import read_images
start = time.process_time()
zipfile.ZipFile(sys.argv[1]).infolist()
listing = time.process_time() - start
start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = read_images(sys.argv[1])
seconds = time.process_time() - start
rows = np.random.default_rng(0).permutation(len(table))[:20_000]
megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
def private():  # each page counted by the share of those that use it
    return next(int(line.split()[1]) / 1e3 for line in open('/proc/self/smaps_rollup') if line.startswith('Pss_Anon'))
reader, writer = os.pipe()
if os.fork() == 0:
    gc.disable()
    before = private()
    for row in rows:
        assert len(table.read_bytes(row)) == 20
    os.write(writer, str(private() - before).encode())
    os._exit(0)
os.wait()
print(len(table), seconds, listing, megabytes, float(os.read(reader, 100)))
"""
    done = subprocess.run([sys.executable, "-c", script, str(pack)], check=True, capture_output=True, text=True)
    entries, seconds, listing, megabytes, grown = map(float, done.stdout.split())
    assert entries == 100_000
    assert seconds < 5 * listing and megabytes < 150, (seconds, listing, megabytes)
    assert grown < 3, grown  # megabytes a worker added by reading 20,000 photos; a copy of the index has some 40
