"""Small blobs are sent in batches: whole, verified, bounded, synced before a name needs them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import cachefs
from cachefs.concurrency import BatchError, run
from cachefs.filesystems.base import SMALL, Filesystem
from cachefs.filesystems.blocking import BlockingFilesystem
from cachefs.filesystems.local import LocalFilesystem
from cachefs.filesystems.memory import MemoryFilesystem
from cachefs.store import Store
from cachefs.transfer.exporter import BATCH, BATCH_BYTES, Blob, _batched

SIZES = [0, 1, 100, SMALL, SMALL + 1, 3 * SMALL]
"""On both sides of what travels in batches."""


def graph_of(blobs: dict[str, bytes]) -> cachefs.RecordGraph:
    graph = cachefs.RecordGraph()
    for digest, data in blobs.items():
        graph.add_result(graph.add(digest), graph.add_layer(digest, size=len(data)))
    return graph


def blobs_of(sizes: Sequence[int]) -> dict[str, bytes]:
    datas = [
        number.to_bytes(4, "big") + bytes(max(0, size - 4)) for number, size in enumerate(sizes)
    ]
    return {cachefs.Digest.of(data): data for data in datas}


def files_of(blobs: dict[str, bytes], folder: Path) -> dict[str, Path]:
    folder.mkdir()
    for digest, data in blobs.items():
        (folder / digest).write_bytes(data)
    return {digest: folder / digest for digest in blobs}


def assert_holds(cache: cachefs.Cache, blobs: dict[str, bytes]) -> None:
    for digest, data in blobs.items():
        assert cache.read_blob(digest) == data


def exported(cache: cachefs.Cache, blobs: dict[str, bytes], source: object) -> int:
    report = cache.export(graph_of(blobs), source, mode="max")  # type: ignore[arg-type]
    return report.uploaded.blobs


@pytest.mark.parametrize("target", ["local", "memory"])
def test_files_and_bytes_of_all_sizes_arrive(target: str, tmp_path: Path) -> None:
    blobs = blobs_of([*SIZES, *([50] * (2 * BATCH + 3))])
    source: dict[str, object] = dict(files_of(blobs, tmp_path / "files"))
    for digest in list(blobs)[::3]:
        source[digest] = blobs[digest]
    where = tmp_path / "cache" if target == "local" else f"memory://{tmp_path}/"
    cache = cachefs.open(where)
    assert exported(cache, blobs, source) == len(blobs)
    assert_holds(cache, blobs)
    mirror = cachefs.open(tmp_path / "mirror")
    assert cachefs.copy(cache, mirror).uploaded.blobs == len(blobs)
    assert_holds(mirror, blobs)


def test_groups_are_bounded_and_nothing_is_left_out() -> None:
    blobs = [Blob(d, len(b)) for d, b in blobs_of([10] * 200 + [SMALL] * 20).items()]
    unknown = Blob(cachefs.Digest.of(b"unknown"), None)
    large, batches = _batched([unknown, *blobs])
    assert large == [unknown]
    assert [blob for group in batches for blob in group] == blobs
    assert all(len(group) <= BATCH for group in batches)
    assert all(sum(blob.size or 0 for blob in group) <= BATCH_BYTES for group in batches)
    assert len(batches) < 10


@pytest.mark.parametrize("content", [b"", b"damaged!", b"x" * 5000, None])
def test_one_bad_file_in_a_group_ends_the_export_before_any_name(
    content: bytes | None, tmp_path: Path
) -> None:
    blobs = blobs_of([8] * 30)
    files = files_of(blobs, tmp_path / "files")
    bad = files[list(blobs)[17]]
    if content is None:
        bad.unlink()
    else:
        bad.write_bytes(content)
    cache = cachefs.open(tmp_path / "cache")
    expected = cachefs.NotFoundError if content is None else cachefs.IntegrityError
    with pytest.raises(expected) as caught:
        exported(cache, blobs, files)
    assert bad.name in str(caught.value)
    assert cache.names() == []


@pytest.mark.parametrize("target", ["local", "memory"])
def test_a_copy_refuses_the_name_that_lacks_a_small_blob_and_brings_the_others(
    target: str, tmp_path: Path
) -> None:
    first, second = blobs_of([8] * 30), blobs_of([9] * 30)
    cache = cachefs.open(tmp_path / "cache")
    exported(cachefs.open(tmp_path / "cache", name="first"), first, first)
    exported(cachefs.open(tmp_path / "cache", name="second"), second, second)
    lost = cachefs.Digest(list(second)[3])
    (tmp_path / "cache" / "blobs" / lost).write_bytes(b"rot")
    where = tmp_path / "mirror" if target == "local" else f"memory://{tmp_path}/"
    with pytest.raises(cachefs.CopyError, match="second lacks 1 of its blobs"):
        cachefs.copy(cache, where)
    mirror = cachefs.open(where)
    assert [name.name for name in mirror.names()] == ["first"]
    assert_holds(mirror, first)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    blobs = blobs_of([8] * 3)
    digest = list(blobs)[1]
    # A folder that is not empty cannot be replaced by a file, not even by root.
    (tmp_path / "cache" / "blobs" / digest).mkdir(parents=True)
    (tmp_path / "cache" / "blobs" / digest / "in the way").touch()
    with pytest.raises(cachefs.StoreError) as caught:
        exported(cachefs.open(tmp_path / "cache"), blobs, blobs)
    assert caught.value.operation == "upload"
    assert str(caught.value.key).endswith(f"blobs/{digest}")
    assert not list((tmp_path / "cache").rglob(".cachefs-*"))


def test_groups_keep_to_the_parallelism(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now: set[str] = set()
    most = 0
    put = MemoryFilesystem._put_whole

    async def watched(self: Filesystem, path: str, chunks: Sequence[bytes]) -> None:
        nonlocal most
        now.add(path)
        most = max(most, len(now))
        await asyncio.sleep(0.001)
        await put(self, path, chunks)  # type: ignore[arg-type]
        now.discard(path)

    monkeypatch.setattr(MemoryFilesystem, "_put_whole", watched)
    blobs = blobs_of([*([50] * 150), *([SMALL + 1] * 9)])
    cache = cachefs.open(f"memory://{tmp_path}/", upload_parallelism="3")
    assert exported(cache, blobs, blobs) == 159
    assert most == 3


class SlowFilesystem(BlockingFilesystem):
    """Answers once it is let, and knows how many threads have waited at a time."""

    def __init__(self, parallelism: int) -> None:
        super().__init__(MemoryFileSystem(), parallelism)
        self.free = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.begun: list[str] = []

    def _put_sync(self, item: tuple[str, bytes]) -> None:
        with self.lock:
            self.begun.append(item[0])
            self.now += 1
            self.most = max(self.most, self.now)
        self.free.wait(10)
        with self.lock:
            self.now -= 1
        if item[1] == b"bad":
            raise PermissionError(item[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - threads have no event of asyncio to set
            await asyncio.sleep(0.001)


def test_threads_share_groups_and_keep_to_the_parallelism() -> None:
    filesystem = SlowFilesystem(3)
    paths = [str(number) for number in range(40)]

    async def work() -> None:
        batches = [[(path, b"") for path in part] for part in (paths[:20], paths[20:])]
        async with asyncio.TaskGroup() as tasks:
            for group in batches:
                tasks.create_task(filesystem.put_batch(group))
            await until(lambda: filesystem.now == 3)
            filesystem.free.set()

    run(work())
    assert sorted(filesystem.begun) == sorted(paths)
    assert filesystem.most == 3


def test_a_group_that_is_cancelled_begins_nothing_more_and_waits_for_what_it_has_begun() -> None:
    filesystem = SlowFilesystem(2)

    async def work() -> int:
        putting = asyncio.ensure_future(
            filesystem.put_batch([(str(number), b"") for number in range(20)])
        )
        await until(lambda: filesystem.now == 2)
        putting.cancel()
        await asyncio.sleep(0.01)
        assert not putting.done()
        filesystem.free.set()
        with pytest.raises(asyncio.CancelledError):
            await putting
        return filesystem.now

    assert run(work()) == 0
    assert sorted(filesystem.begun) == ["0", "1"]


def test_one_that_fails_ends_its_group_and_is_named() -> None:
    filesystem = SlowFilesystem(2)
    filesystem.free.set()
    objects = [(f"key{number}", b"bad" if number == 5 else b"") for number in range(2000)]
    with pytest.raises(cachefs.StoreError) as caught:
        run(Store(filesystem, "root/").put_batch(objects))
    assert (caught.value.operation, caught.value.key) == ("upload", "root/key5")
    assert len(filesystem.begun) < 2000


def test_errors_of_several_threads_are_one_error_and_no_noise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    filesystem = SlowFilesystem(3)

    async def work() -> None:
        putting = asyncio.ensure_future(
            filesystem.put_batch([(str(number), b"bad") for number in range(9)])
        )
        await until(lambda: filesystem.now == 3)
        filesystem.free.set()
        with pytest.raises(BatchError) as caught:
            await putting
        assert isinstance(caught.value.error, PermissionError)

    run(work())
    gc.collect()
    assert not caplog.records


def test_an_empty_group_is_nothing(tmp_path: Path) -> None:
    store = cachefs.open(tmp_path).layout.store
    assert run(store.stat_batch([])) == []
    assert run(store.read_batch([])) == []
    assert run(store.touch_batch([])) == []
    run(store.put_batch([]))


def test_all_is_synced_before_a_manifest_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []

    def noted(name: str) -> None:
        method = getattr(LocalFilesystem, name)

        async def call(self: Filesystem, *arguments: object) -> object:
            result: object = await method(self, *arguments)
            calls.append(name)
            return result

        monkeypatch.setattr(LocalFilesystem, name, call)

    for name in ("put_batch", "put", "settle"):
        noted(name)
    blobs = blobs_of([50, 60])
    cache = cachefs.open(tmp_path / "cache")
    exported(cache, blobs, blobs)
    assert calls == ["put_batch", "settle", "put"]
    calls.clear()
    # What is kept may have been written by another process that has not synced it yet.
    exported(cache, blobs, blobs)
    assert calls == ["settle", "put"]


def test_settling_is_the_filesystems_own_answer(tmp_path: Path) -> None:
    filesystem = cachefs.open(tmp_path).layout.store.filesystem
    run(filesystem.settle(f"{tmp_path}/"))
    run(filesystem.settle(f"{tmp_path}/nothing/here/"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        run(filesystem.settle(f"{tmp_path}/file"))
