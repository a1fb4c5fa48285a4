"""A filesystem that cachefs does not know: no times, no touch, no pages, files seen in part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fsspec.implementations.dirfs import DirFileSystem

import cachefs
from cachefs.concurrency import run
from cachefs.errors import IntegrityError, NotFoundError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.base import CHUNK_SIZE
from cachefs.store import Store
from cachefs.testing.contract import FilesystemContract
from tests.servers.plain import PlainFileSystem

KEYS = ["b/sha256:0", "b/sha256:00", "b/sha2570", "b/[x] *?#1%é", "team/app", "bb/sha256:0"]


class TestContract(FilesystemContract):
    has_times = False

    @pytest.fixture
    def filesystem(self) -> tuple[PlainFileSystem, str]:
        return PlainFileSystem(), "root"


class TestContractInAFolder(TestContract):
    @pytest.fixture
    def filesystem(self) -> tuple[DirFileSystem, str]:
        return DirFileSystem("folder", PlainFileSystem()), "root"


@pytest.fixture
def fs() -> PlainFileSystem:
    return PlainFileSystem()


async def in_chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1_000_003):
        yield data[start : start + 1_000_003]


def test_it_is_listed_by_the_beginning_of_keys(fs: PlainFileSystem) -> None:
    store = Store(adapt(fs), "root/")
    assert run(store.list("b/sha256:")) == []
    for key in KEYS:
        run(store.put(key, key.encode()))
    assert sorted(fs.objects) == sorted(f"root/{key}" for key in KEYS)
    assert [stat.path for stat in run(store.list(""))] == sorted(KEYS)
    assert [stat.path for stat in run(store.list("b/sha256:0"))] == KEYS[:2]
    page = run(store.page("b/", "b/sha256:0", 1))
    assert ([stat.path for stat in page.objects], page.complete) == (["b/sha256:00"], False)
    for key in KEYS:
        assert run(store.read(key, 100)) == key.encode()
        run(store.delete(key))
        run(store.delete(key))
        assert run(store.stat(key)) is None
    with pytest.raises(NotFoundError):
        run(store.read(KEYS[0], 100))


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE + 1])
def test_it_is_written_whole(fs: PlainFileSystem, size: int) -> None:
    store = Store(adapt(fs), "root/")
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]

    async def looking() -> AsyncIterator[bytes]:
        async for chunk in in_chunks(data):
            yield chunk
            assert await store.stat("b/one") is None
            assert await store.list("") == []

    assert run(store.upload("b/one", looking(), None)) == size
    run(store.put("b/two", data))
    for key in ("b/one", "b/two"):
        assert run(store.read(key, size)) == data
    assert len(fs.objects) == 2


def test_a_source_that_fails_leaves_what_was_there(fs: PlainFileSystem) -> None:
    store = Store(adapt(fs), "root/")
    run(store.put("b/one", b"old"))

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * CHUNK_SIZE
        raise IntegrityError("damaged")

    with pytest.raises(IntegrityError, match="damaged"):
        run(store.upload("b/one", failing(), None))
    assert fs.objects == {"root/b/one": b"old"}


@pytest.mark.parametrize("location", ["plain://cache", "type=local,dest=/cache"])
def test_a_cache_goes_there_twice_and_back(
    fs: PlainFileSystem, location: str, recorded: Path, tmp_path: Path
) -> None:
    there = cachefs.open(location, fs=fs)
    source = recorded / "s3" / "max"
    assert cachefs.copy(source, there).uploaded.blobs == 11
    again = cachefs.copy(source, there)
    assert (again.uploaded.blobs, again.kept.blobs) == (0, 11)
    cachefs.copy(there, tmp_path)
    for name in ("app", "app-v2"):
        copied = (tmp_path / "manifests" / name).read_bytes()
        assert copied == (source / "manifests" / name).read_bytes()


def test_a_folder_is_listed(fs: PlainFileSystem) -> None:
    store = Store(adapt(fs), "root/")
    for key in KEYS:
        run(store.put(key, b"1"))
    found = run(store.folder(""))
    assert (found.folders, found.objects) == (["b/", "bb/", "team/"], [])
    assert [stat.path for stat in run(store.folder("team/")).objects] == ["team/app"]
    assert run(store.folder("none/")) == ([], [])


class _Replaced(PlainFileSystem):
    """An object that is replaced by a longer one right after it was looked up."""

    replaced = False

    def info(self, path: str, **options: object) -> dict[str, object]:
        found: dict[str, object] = super().info(path, **options)
        if not self.replaced:
            self.replaced = True
            self.objects[path] = b"a longer one"
        return found


def test_an_object_that_is_replaced_meanwhile_is_read_whole() -> None:
    fs = _Replaced()
    fs.objects["root/manifests/main"] = b"short"
    store = Store(adapt(fs), "root/")
    assert run(store.read("manifests/main", 100)) == b"a longer one"
    assert not run(store.keeps_conditions("manifests/"))
