"""Processes that write one name at once, on every store that compares: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cachefs
from tests.filesystems.test_azure import location
from tests.graphs import digest_of
from tests.servers.azurite import azurite, azurite_program
from tests.servers.proxy import RecordingProxy, Request
from tests.servers.s3 import S3Server

WRITERS = 8
RESULTS = 20

PROGRAM = """
import sys
import cachefs
from tests.graphs import digest_of

location, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = cachefs.open(location)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
for number in range(first, first + count):
    data = f"blob {number}".encode()
    blob = str(cachefs.Digest.of(data))
    graph = cachefs.RecordGraph()
    layer = graph.add_layer(blob, diff_id=digest_of(number), size=len(data))
    graph.add_result(graph.add(digest_of(number)), layer, "2026-01-01T00:00:00Z")
    cache.export(graph, {blob: data}, "main", on_conflict="merge")
"""


def write_at_once(at: str, writers: int, results: int) -> None:
    """Start the processes, let all of them begin at one moment, and wait for their ends."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, at, str(number * results), str(results)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")


def lost(cache: cachefs.Cache, count: int) -> set[int]:
    digests = {record.digest for record in cache.load("main").records if record.has_result}
    return {number for number in range(count) if digest_of(number) not in digests}


@pytest.fixture
def azure_account(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("adlfs", reason="pip install 'buildcachefs[azure]'")
    program = azurite_program()
    if program is None:
        pytest.skip("npm install azurite")
    with azurite(program, tmp_path / "azurite") as url:
        yield url


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A location of this kind."""
    kind: str = request.param
    if kind == "keyed":
        return str(tmp_path / "cache")
    if kind == "oci":
        return f"type=local,dest={tmp_path / 'cache'}"
    if kind == "azure":
        url: str = request.getfixturevalue("azure_account")
        return location(url, f"writers-{uuid.uuid4().hex}")
    fixture, _, engine = kind.partition("-")
    server: S3Server = request.getfixturevalue(f"{fixture}_s3")
    return server.attributes(server.bucket(), engine=engine)


KINDS = ["keyed", "oci", "moto-s3fs", "seaweed-s3fs", "seaweed-obstore", "azure"]


@pytest.mark.slow
@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_eight_processes_lose_nothing(place: str) -> None:
    write_at_once(place, WRITERS, RESULTS)
    cache = cachefs.open(place)
    assert lost(cache, WRITERS * RESULTS) == set()
    assert cache.verify(read_data=1.0).faults == []


@pytest.mark.parametrize("place", ["keyed", "oci"], indirect=True)
def test_two_processes_lose_nothing(place: str) -> None:
    write_at_once(place, 2, 8)
    assert lost(cachefs.open(place), 16) == set()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_nothing_is_lost_among_errors_and_lost_responses(
    recording: Callable[[S3Server], RecordingProxy], seaweed_s3: S3Server, engine: str
) -> None:
    """Three of ten requests are refused, and one write of a name in ten has no response."""
    proxy = recording(seaweed_s3)
    counter, lock = iter(range(10**9)), threading.Lock()

    def one_in_ten(*remainders: int) -> Callable[[Request], bool]:
        def chosen(_: Request) -> bool:
            with lock:
                return next(counter) % 10 in remainders

        return chosen

    def is_name(request: Request) -> bool:
        return request.method == "PUT" and request.path.endswith("manifests/main")

    refused, unanswered = one_in_ten(0, 3, 6), one_in_ten(1)
    proxy.inject(when=refused, status=503, code="SlowDown", times=10**9)
    proxy.inject(when=lambda r: is_name(r) and unanswered(r), lose=True, times=10**9)
    bucket = seaweed_s3.bucket()
    write_at_once(
        proxy.server.attributes(bucket, engine=engine, retry_max_attempts="10"), WRITERS, RESULTS
    )
    cache = cachefs.open(seaweed_s3.attributes(bucket))
    assert lost(cache, WRITERS * RESULTS) == set()
    assert cache.verify(read_data=1.0).faults == []
