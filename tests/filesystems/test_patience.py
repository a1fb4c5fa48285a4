"""Stores that do not answer, or answer slowly: real sockets, and every library."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.errors import LocationError, UnreachableError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.patience import NoProgressError, Patience
from cachefs.location.parsing import parse
from cachefs.store import Store
from tests.servers.plain import PlainFileSystem
from tests.servers.s3 import S3Server
from tests.servers.silent import behaving, says_nothing, stalls, trickles
from tests.servers.slow import slow_proxy

# Many checks fit into it also on a machine that is busy.
SHORT = 2.0


def location(kind: str, port: int, **more: str) -> str:
    here = f"http://127.0.0.1:{port}"
    if kind in ("s3fs", "obstore"):
        server = S3Server(here, "a-key-id", "a-secret")
        return server.attributes("b", engine=kind, **more)
    attributes = {
        "http": {"type": "fsspec", "url": f"{here}/cache"},
        "sftp": {"type": "fsspec", "url": f"sftp://user:word@127.0.0.1:{port}/cache"},
        "azure": {
            "type": "azblob",
            "account_url": f"{here}/account",
            "account_name": "account",
            "container": "c",
            "secret_access_key": "c2VjcmV0",
        },
    }[kind]
    return ",".join(f"{name}={value}" for name, value in {**attributes, **more}.items())


@pytest.mark.parametrize("kind", ["s3fs", "obstore", "azure", "http", "sftp"])
def test_a_server_that_never_responds_is_given_up(kind: str) -> None:
    with behaving(says_nothing) as port, pytest.raises(UnreachableError, match="no response"):
        cachefs.open(location(kind, port), patience=SHORT).names()


@pytest.mark.parametrize("kind", ["s3fs", "obstore", "http"])
def test_a_response_that_stalls_is_given_up(kind: str) -> None:
    with behaving(stalls) as port, pytest.raises(UnreachableError, match="no response"):
        cachefs.open(location(kind, port), patience=SHORT).manifest("app")


@pytest.mark.parametrize("kind", ["s3fs", "obstore", "http"])
def test_a_response_that_trickles_has_all_the_time_it_needs(kind: str) -> None:
    body = b'{"layers":[],"records":[]}'
    with behaving(trickles(body, 2.5 * SHORT)) as port:
        cache = cachefs.open(location(kind, port), patience=SHORT)
        assert cache.manifest("app").config.layers == []


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_writing_to_a_server_that_does_not_read(engine: str, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(40 * 1024 * 1024))
    with behaving(says_nothing) as port:
        cache = cachefs.open(location(engine, port), patience=SHORT)
        with pytest.raises(UnreachableError, match="no response"):
            run(cache.layout.store.upload("blobs/x", _chunks(), 40 * 1024 * 1024))


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(5):
        yield bytes(8 * 1024 * 1024)


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_source_that_takes_its_time_is_no_silence(engine: str, moto_s3: S3Server) -> None:
    bucket = moto_s3.bucket()
    store = cachefs.open(moto_s3.attributes(bucket, engine=engine), patience=SHORT).layout.store

    async def slow() -> AsyncIterator[bytes]:
        for part in (b"a", b"b"):
            await asyncio.sleep(1.5 * SHORT)
            yield part

    assert run(store.upload("blobs/x", slow(), None)) == 2
    assert run(store.read("blobs/x", 2)) == b"ab"


def test_the_silence_is_that_of_all_calls_together() -> None:
    patience = Patience(0.4)

    async def one(number: int) -> int:
        await asyncio.sleep(0.1 * number)
        patience.progressed()
        return number

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(patience.bound(one(number)) for number in range(12)))

    assert run(all_of_them()) == list(range(12))


def test_a_library_that_ignores_that_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachefs.filesystems.patience.CLEANUP", 0.2)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def bounded() -> None:
        try:
            await Patience(0.1).bound(stubborn())
        finally:
            release.set()

    with pytest.raises(NoProgressError):
        run(bounded())


def test_after_it_was_given_up_once_nothing_is_requested() -> None:
    patience = Patience(0.05)
    patience.once = True
    begun = []

    async def silent() -> None:
        begun.append(1)
        await asyncio.sleep(60)

    for again in (False, True, True):
        with pytest.raises(NoProgressError) as caught:
            run(patience.bound(silent()))
        assert caught.value.again is again
    assert begun == [1]


class HangingFileSystem(PlainFileSystem):
    """A caller's own filesystem whose calls never return."""

    def ls(self, *_: Any, **__: Any) -> list[Any]:
        threading.Event().wait()
        return []


def test_a_caller_s_own_filesystem_that_hangs() -> None:
    with pytest.raises(UnreachableError, match=r"list root/: no response .* 0\.2 seconds"):
        run(Store(adapt(HangingFileSystem(), patience=0.2), "root/").list(""))


_HANGING = """
import cachefs
from tests.filesystems.test_patience import HangingFileSystem
try:
    cachefs.open("plain://x", fs=HangingFileSystem(), patience=0.2).names()
except cachefs.UnreachableError:
    print("given up")
"""


def test_the_program_ends_although_a_call_hangs() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HANGING], stdout=subprocess.PIPE, timeout=100, check=True
    )
    assert ended.stdout == b"given up\n"


@pytest.mark.parametrize("kind", ["s3fs", "obstore", "azure", "http", "sftp"])
def test_run_does_without_a_silent_store_and_says_so_once(kind: str, tmp_path: Path) -> None:
    with behaving(says_nothing) as port:
        ended = subprocess.run(
            [
                sys.executable, "-m", "cachefs", "run", "--cache",
                location(kind, port, patience="1s"), "--output", "o", "--",
                "sh", "-c", "echo made > o",
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "")
    assert (tmp_path / "o").read_text() == "made\n"
    assert ended.stderr.count("cachefs: warning:") == 1
    assert "no response from the store" in ended.stderr


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_slow_upload_has_all_the_time_it_needs(engine: str, seaweed_s3: S3Server) -> None:
    data = os.urandom(5 * 1024 * 1024)
    with slow_proxy(seaweed_s3, bytes_per_second=1024 * 1024) as server:
        bucket = seaweed_s3.bucket()
        store = cachefs.open(server.attributes(bucket, engine=engine), patience=1.5).layout.store
        run(store.put("blobs/x", data))
        body = seaweed_s3.client.get_object(Bucket=bucket, Key="blobs/x")["Body"].read()
        assert body == data


@pytest.mark.parametrize("given", ["0s", "-1s", "soon"])
def test_a_patience_is_a_time(given: str) -> None:
    with pytest.raises(LocationError, match="patience="):
        cachefs.open("s3://bucket/x", patience=given)


def test_the_environment_sets_it() -> None:
    assert parse("s3://bucket/x", environ={"CACHEFS_PATIENCE": "90s"}).patience == 90.0
    assert parse("s3://bucket/x", environ={}).patience is None
