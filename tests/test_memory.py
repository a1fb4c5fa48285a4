"""Large blobs stream: what they add to the memory of a process."""

from __future__ import annotations

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
    assert cache.fetch(digest, folder / "fetched", size)

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
