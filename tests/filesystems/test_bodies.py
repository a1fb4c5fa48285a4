"""The bodies of uploads: cut and passed on in chunks, complete whatever a disk or client does."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.concurrency import run
from cachefs.errors import IntegrityError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.base import CHUNK_SIZE
from cachefs.filesystems.files import WRITTEN, write_all
from cachefs.filesystems.local import SHOWN, file_chunks
from cachefs.filesystems.parts import in_parts
from cachefs.filesystems.s3.body import Body
from cachefs.store import Store
from cachefs.transfer.sources import MappingSource, VerifyingSource
from tests.servers.s3 import S3Server


async def chunks_of(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@given(chunks=st.lists(st.binary(max_size=20), max_size=12), size=st.integers(1, 9))
def test_parts_are_full_but_for_the_last(chunks: list[bytes], size: int) -> None:
    async def cut() -> list[bytes]:
        return [b"".join(part) async for part in in_parts(chunks_of(chunks), size)]

    parts = asyncio.run(cut())
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)


@given(chunks=st.lists(st.binary(max_size=20), max_size=6), asked=st.lists(st.integers(0, 30)))
def test_a_body_is_read_as_a_file_and_sent_from_its_beginning(
    chunks: list[bytes], asked: list[int]
) -> None:
    body, file = Body(chunks), io.BytesIO(b"".join(chunks))

    async def sent() -> list[bytes]:
        return [chunk async for chunk in body]

    assert len(body) == len(file.getvalue())
    for size in asked:
        assert body.read(size) == file.read(size)
        assert body.tell() == file.tell()
        assert asyncio.run(sent()) == chunks
    assert body.seek(0) == 0
    assert body.read() == file.getvalue()


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 1])
def test_a_callers_own_s3fs_signs_and_sums_bodies_itself(seaweed_s3: S3Server, size: int) -> None:
    """Its client reads each body as a file before it is sent."""
    signing = {
        "s3": {"payload_signing_enabled": True},
        "request_checksum_calculation": "when_supported",
    }
    options = seaweed_s3.storage_options
    options["config_kwargs"] = dict(options.get("config_kwargs") or {}) | signing
    fs = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    store = Store(adapt(fs), f"{seaweed_s3.bucket()}/")
    data = bytes(range(256)) * (size // 256 + 1)
    chunks = [data[:size][start : start + 3_000_000] for start in range(0, size, 3_000_000)]
    assert run(store.upload("known", chunks_of(chunks), size)) == size
    assert run(store.upload("unknown", chunks_of(chunks), None)) == size
    for key in ("known", "unknown"):
        assert run(store.read(key, size)) == data[:size]


@pytest.mark.parametrize(
    "size", [0, 1, SHOWN, SHOWN + 1, CHUNK_SIZE, 2 * CHUNK_SIZE, 2 * CHUNK_SIZE + 5]
)
def test_what_is_read_is_shown_in_order(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    data = hashlib.shake_128(b"any").digest(size)
    file.write_bytes(data)
    shown: list[bytes] = []

    async def read() -> list[bytes]:
        return [chunk async for chunk in file_chunks(file, shown.append)]

    assert asyncio.run(read()) == shown
    assert b"".join(shown) == data
    assert all(0 < len(chunk) <= SHOWN for chunk in shown)


@pytest.mark.parametrize("wrong", ["bytes", "size"])
def test_a_file_is_verified_while_it_is_read(tmp_path: Path, wrong: str) -> None:
    data = bytes(CHUNK_SIZE + 10)
    (tmp_path / "file").write_bytes(data)
    digest = cachefs.Digest.of(b"other" if wrong == "bytes" else data)
    source = MappingSource({digest: tmp_path / "file"})
    assert isinstance(source, VerifyingSource)
    cache = cachefs.open(tmp_path / "cache")
    graph = cachefs.RecordGraph()
    size = len(data) - (wrong == "size")
    graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
    with pytest.raises(IntegrityError) as caught:
        cache.export(graph, source)
    assert caught.value.digest == digest
    assert not list((tmp_path / "cache").rglob("*sha256*"))
    assert not list((tmp_path / "cache").rglob(".cachefs-*"))


class Grudging(io.BytesIO):
    """A file that takes at most so many bytes at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.asked: list[int] = []

    def write(self, data: Any) -> int:
        self.asked.append(len(data))
        return super().write(data[: self.most])


@given(
    sizes=st.lists(
        st.sampled_from([0, 1, WRITTEN - 1, WRITTEN, WRITTEN + 1, CHUNK_SIZE]), max_size=4
    ),
    most=st.integers(WRITTEN // 3, 2 * WRITTEN),
)
def test_all_is_written_in_short_writes(sizes: list[int], most: int) -> None:
    chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
    file = Grudging(most)
    write_all(file, chunks)
    assert file.getvalue() == b"".join(chunks)
    assert all(0 < asked <= WRITTEN for asked in file.asked)


_WITH_LITTLE_ROOM = """
import resource, signal, sys
import cachefs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, size, room = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = bytes(size)
digest = cachefs.Digest.of(data)
graph = cachefs.RecordGraph()
graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
full = cachefs.open(folder + "/full")
full.export(graph, {digest: data})
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    cachefs.open(folder + "/cache").export(graph, {digest: data})
except cachefs.StoreError as error:
    print(error.operation)
print(type(full.fetch_blob(digest, folder + "/fetched", size)).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("size", [50_000, 3_000_000])
def test_a_disk_that_takes_only_a_part_is_an_error(tmp_path: Path, size: int) -> None:
    """It says so by a count, and raises an error only when it is asked to take more."""
    done = subprocess.run(
        [sys.executable, "-c", _WITH_LITTLE_ROOM, str(tmp_path), str(size), "40000"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["upload", "Miss"]
    assert not list((tmp_path / "cache").rglob("sha256:*"))
    assert not (tmp_path / "fetched").exists()
    assert not list(tmp_path.rglob(".cachefs-*"))
