"""Large blobs stream: what they add to the memory of a process."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.s3 import S3Server

_UP_AND_DOWN = """
import resource, sys
from pathlib import Path
import cachefs

location, folder = sys.argv[1], Path(sys.argv[2])
small = b"warm up"
cache = cachefs.open(location)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def up(digest, size, blob):
    graph = cachefs.RecordGraph()
    graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
    cache.export(graph, {digest: blob})
    assert cache.fetch_blob(digest, folder / "fetched", size)

up(cachefs.Digest.of(small), len(small), small)
before = peak()
large = folder / "large"
with large.open("wb") as file:
    for number in range(256):
        file.write(bytes([number]) * 1024 * 1024)
digest = cachefs.Digest.of_file(large)
up(digest, large.stat().st_size, large)
assert cachefs.Digest.of_file(folder / "fetched") == digest
print(peak() - before)
"""


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_256_mib_add_much_less_to_memory(engine: str, seaweed_s3: S3Server, tmp_path: Path) -> None:
    location = seaweed_s3.attributes(seaweed_s3.bucket(), engine=engine)
    output = subprocess.run(
        [sys.executable, "-c", _UP_AND_DOWN, location, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(output.stdout) < 150


_AGAIN_AND_AGAIN = """
import os, resource, sys
from pathlib import Path
import cachefs

folder = Path(sys.argv[1])
blob = folder / "blob"
blob.write_bytes(os.urandom(32 * 1024 * 1024))
digest = cachefs.Digest.of_file(blob)
graph = cachefs.RecordGraph()
graph.add_result(graph.add(digest), graph.add_layer(digest, size=blob.stat().st_size))

def up(number):
    cachefs.open(folder / str(number)).export(graph, {digest: blob}, mode="max")

for number in range(8):
    up(number)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(8, 16):
    up(number)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_the_memory_of_a_chunk_serves_for_the_next(tmp_path: Path) -> None:
    # Dask, in other tests of this worker, makes all later processes return memory immediately.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.run(
        [sys.executable, "-c", _AGAIN_AND_AGAIN, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=own,
    )
    pages = 8 * 32 * 1024 * 1024 // mmap.PAGESIZE
    assert int(output.stdout) < pages / 4
