"""Many tags of one OCI directory: written by many processes at once, read and written together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import cachefs
from cachefs.filesystems.local import LocalFilesystem
from cachefs.filesystems.memory import MemoryFilesystem

CREATED = "2026-01-01T00:00:00Z"


def built(number: int) -> tuple[cachefs.RecordGraph, dict[str, bytes]]:
    content = b"layer %d" % number
    digest = cachefs.Digest.of(content)
    graph = cachefs.RecordGraph()
    layer = graph.add_layer(digest, size=len(content), created_at=CREATED)
    graph.add_result(graph.add(digest), layer, CREATED)
    return graph, {digest: content}


def test_every_tag_of_32_exporters_is_kept(tmp_path: Path) -> None:
    """More than there are threads in the IO loop: those that wait must not keep them all busy."""

    def export(number: int) -> None:
        graph, blobs = built(number)
        cachefs.open(f"type=local,dest={tmp_path},tag=t{number:02}").export(graph, blobs)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(export, range(32)))
    cache = cachefs.open(f"type=local,src={tmp_path}")
    assert [name.name for name in cache.names()] == [f"t{number:02}" for number in range(32)]
    for number in range(32):
        graph, blobs = built(number)
        read = cache.load(f"t{number:02}")
        assert {record.digest for record in read.records} == {r.digest for r in graph.records}
        assert {digest: cache.read_blob(digest) for digest in read.blobs()} == blobs


TAGS = 40


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagged")
    for number in range(TAGS):
        graph, blobs = built(number % 3)
        cachefs.open(f"type=local,dest={folder},tag=t{number:02}").export(graph, blobs)
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the index was read and written."""
    counted: Counter[str] = Counter()
    read, put = LocalFilesystem.read_checked, LocalFilesystem.put_checked

    async def counted_read(self: LocalFilesystem, path: str, limit: int) -> bytes:
        counted["read"] += path.endswith("/index.json")
        return await read(self, path, limit)

    async def counted_put(self: LocalFilesystem, path: str, data: bytes) -> None:
        counted["write"] += path.endswith("/index.json")
        await put(self, path, data)

    monkeypatch.setattr(LocalFilesystem, "read_checked", counted_read)
    monkeypatch.setattr(LocalFilesystem, "put_checked", counted_put)
    return counted


OPERATIONS: dict[str, Callable[[cachefs.Cache], Any]] = {
    "ls": lambda cache: cache.summaries(),
    "verify": lambda cache: cache.verify(),
    "du": lambda cache: cache.usage(),
    "prune": lambda cache: cache.plan_prune(cachefs.PrunePolicy(keep_last={"*": 1})),
    "diff": lambda cache: cache.diff(cache),
    "repair": lambda cache: cache.plan_repair(),
    "load": lambda cache: cache.load(list(cache)),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_index_is_not_read_for_each_tag(
    tagged: Path, calls: Counter[str], operation: str
) -> None:
    OPERATIONS[operation](cachefs.open(f"type=local,src={tagged}"))
    assert 0 < calls["read"] < TAGS / 3
    assert calls["write"] == 0


def test_many_tags_are_set_and_removed_with_one_write_of_the_index(
    tagged: Path, tmp_path: Path, calls: Counter[str]
) -> None:
    cachefs.copy(f"type=local,src={tagged}", f"type=local,dest={tmp_path}")
    assert calls["write"] == 1
    copied = cachefs.open(f"type=local,src={tmp_path}")
    assert len(copied.names()) == TAGS
    assert copied.verify().faults == []
    plan = copied.plan_prune(cachefs.PrunePolicy(keep_last={"*": 3}))
    report = plan.execute()
    assert calls["write"] == 2
    assert len(report.removed) == TAGS - 3
    assert len(copied.names()) == 3
    assert calls["read"] < TAGS


def test_tags_that_are_set_and_removed_together_keep_one_of_another_writer(
    tagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no lock, the index is written only if it has not changed."""
    fs = MemoryFileSystem()
    location = f"type=local,dest={tmp_path}"
    target = cachefs.open(location, fs=fs)
    others = ["first"]
    attempts = 0
    put_if = MemoryFilesystem.put_if

    async def late(self: MemoryFilesystem, path: str, data: bytes, version: str) -> bool:
        nonlocal attempts
        if path.endswith("/index.json"):
            attempts += 1
            if others:
                other = cachefs.open(f"{location},tag={others.pop()}", fs=fs)
                await asyncio.to_thread(other.export, *built(5))
        return await put_if(self, path, data, version)

    monkeypatch.setattr(MemoryFilesystem, "put_if", late)
    cachefs.copy(f"type=local,src={tagged}", target)
    tags = {f"t{number:02}" for number in range(TAGS)}
    assert {name.name for name in target.names()} == tags | {"first"}
    assert attempts == 3  # in vain, the other writer's, and again
    others.append("second")
    policy = cachefs.PrunePolicy(wanted=frozenset({"first"}))
    assert set(target.plan_prune(policy).execute().removed) == tags
    assert {name.name for name in target.names()} == {"first", "second"}
    assert attempts == 6
