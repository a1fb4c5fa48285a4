"""``type=azblob`` on Azurite."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.testing.contract import FilesystemContract
from tests.servers.azurite import ACCOUNT, KEY, azurite, azurite_program


@pytest.fixture(scope="module")
def account_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("adlfs", reason="pip install 'buildcachefs[azure]'")
    program = azurite_program()
    if program is None:
        pytest.skip("npm install azurite")
    with azurite(program, tmp_path_factory.mktemp("azurite")) as url:
        yield url


def location(account_url: str, container: str, **more: str) -> str:
    pairs = {
        "type": "azblob",
        "account_url": account_url,
        "account_name": ACCOUNT,
        "secret_access_key": KEY,
        "container": container,
        **more,
    }
    return ",".join(f"{name}={value}" for name, value in pairs.items())


# aiohttp warns about each body of more than 1 MiB that azure-core passes to it as bytes.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
class TestContract(FilesystemContract):
    @pytest.fixture
    def filesystem(self, account_url: str) -> tuple[Any, str]:
        store = cachefs.open(location(account_url, f"contract-{uuid.uuid4().hex}")).layout.store
        return store.filesystem.fs, store.root


def test_a_cache_goes_to_azure_and_back(account_url: str, recorded: Path, tmp_path: Path) -> None:
    there = location(account_url, "round-trip", prefix="ci")
    report = cachefs.copy(recorded / "s3" / "max", there)
    assert report.uploaded.blobs == 11
    again = cachefs.copy(recorded / "s3" / "max", there)
    assert (again.uploaded.blobs, again.kept.blobs) == (0, 11)
    cachefs.copy(there, tmp_path / "back")
    for name in ("app", "app-v2"):
        expected = (recorded / "s3" / "max" / "manifests" / name).read_bytes()
        assert (tmp_path / "back" / "manifests" / name).read_bytes() == expected


def test_blobs_are_touched_and_deleted(account_url: str) -> None:
    store = cachefs.open(location(account_url, "touching")).layout.store

    async def work() -> None:
        await store.put("blobs/one", b"bytes")
        before = await store.stat("blobs/one")
        assert before is not None
        assert before.modified is not None
        await asyncio.sleep(1.1)
        assert await store.touch(before)
        after = await store.stat("blobs/one")
        assert after is not None
        assert after.modified is not None
        assert after.modified > before.modified
        assert await store.read("blobs/one", 100) == b"bytes"
        await store.delete("blobs/one")
        await store.delete("blobs/one")
        assert await store.stat("blobs/one") is None
        assert not await store.touch(before)

    run(work())


def test_a_touch_in_the_moment_of_a_delete_is_noticed(account_url: str) -> None:
    """It changes the ETag, which the delete has as a condition."""
    store = cachefs.open(location(account_url, "deleting")).layout.store

    async def work() -> None:
        await store.put("blobs/one", b"bytes")
        seen = await store.stat("blobs/one")
        assert seen is not None
        [listed] = await store.list("blobs/")
        assert listed == seen
        await store.touch(seen)
        assert not await store.delete_unchanged(seen)
        now = await store.stat("blobs/one")
        assert now is not None
        assert await store.delete_unchanged(now)
        assert await store.delete_unchanged(now)
        assert await store.list("") == []

    run(work())


# Azure's own client hands 4 MiB blocks of a file to aiohttp, which would like a file.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_large_blob_streams(account_url: str) -> None:
    cache = cachefs.open(location(account_url, "large"))
    blob = bytes(range(256)) * (20 * 4096)
    digest = cachefs.Digest.of(blob)
    graph = cachefs.RecordGraph()
    layer = graph.add_layer(digest, size=len(blob))
    graph.add_result(graph.add(digest), layer)
    cache.export(graph, {digest: blob})
    assert cache.read_blob(digest, len(blob)) == blob


def test_a_wrong_key_is_an_access_error(account_url: str) -> None:
    wrong = location(account_url, "round-trip").replace(KEY, "d3Jvbmc=")
    with pytest.raises(cachefs.AccessError) as raised:
        cachefs.open(wrong).names()
    assert "d3Jvbmc=" not in str(raised.value)


def test_a_prefix_that_begins_with_a_slash(account_url: str, recorded: Path) -> None:
    there = location(account_url, "slash", prefix="/ci/")
    cachefs.copy(recorded / "s3" / "max", there)
    cache = cachefs.open(there)
    assert [name.name for name in cache.names()] == ["app", "app-v2"]
    assert cache.verify(read_data=1).faults == []
    assert cache.prune(grace=0).deleted.blobs == 0
    fs = cache.layout.store.filesystem.fs

    async def keys() -> list[str]:
        client = fs.service_client.get_container_client("slash")
        return [blob.name async for blob in client.list_blobs()]

    written = run(keys())
    assert len(written) == 13
    assert all(key.startswith(("/ci/blobs/sha256:", "/ci/manifests/app")) for key in written)
