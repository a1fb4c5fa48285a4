"""One contract, met by every store, with its errors and broken connections."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
import re
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import s3fs
from obstore.fsspec import FsspecStore

from cachefs.concurrency import run
from cachefs.errors import AccessError, NotFoundError, StoreError, UnreachableError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.base import CHUNK_SIZE, Filesystem, Stat
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.obstore import ObstoreFilesystem
from cachefs.filesystems.s3 import S3Filesystem
from cachefs.filesystems.sftp import SFTPFilesystem
from cachefs.location.parsing import parse
from cachefs.store import Store
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.servers.sftp import PASSWORD, USER, sftp

MIB = 1024 * 1024
SIZES = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE + 1, 17 * MIB, 40 * MIB]


@functools.cache
def _noise() -> bytes:
    return random.Random(1).randbytes(40 * MIB)  # noqa: S311


def noise(size: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return _noise()[:size]


async def chunks_of(data: bytes, size: int = 3 * MIB) -> AsyncIterator[bytes]:
    """The bytes in chunks that are no multiple of a part."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def stat(store: Store, key: str) -> Stat:
    found = await store.stat(key)
    assert found is not None
    return found


def keys(stats: list[Stat]) -> list[str]:
    return [each.path for each in stats]


# --- the places ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Place:
    """A store in a folder that nobody else uses, and how to look at it past the store.

    Attributes:
        server: the S3 server behind the store, None where there is none.
        bucket: the server's bucket; ``prefix`` is the rest of the store's root.
    """

    store: Store
    server: S3Server | None = None
    bucket: str = ""
    prefix: str = ""

    @property
    def has_small_time_steps(self) -> bool:
        return self.server is None and not isinstance(self.store.filesystem, SFTPFilesystem)

    @property
    def is_callers_obstore(self) -> bool:
        return type(self.store.filesystem) is ObstoreFilesystem

    def unfinished_uploads(self) -> list[str]:
        """Keys of multipart uploads that were begun below the root and not ended."""
        if self.server is None:
            return []
        answer = self.server.client.list_multipart_uploads(Bucket=self.bucket)
        found = [upload["Key"] for upload in answer.get("Uploads", ())]
        return [key for key in found if key.startswith(self.prefix)]


def by_s3fs(server: S3Server, bucket: str) -> Filesystem:
    return adapt(s3fs.S3FileSystem(**server.storage_options, skip_instance_cache=True))


def by_a_callers_obstore(server: S3Server, bucket: str) -> Filesystem:
    fs = FsspecStore(
        "s3",
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        endpoint=server.endpoint_url,
        region=server.region,
        client_options={"allow_http": True},
    )
    return adapt(fs)


def by_the_obstore_engine(server: S3Server, bucket: str) -> Filesystem:
    filesystem, _ = connect(parse(server.attributes(bucket, engine="obstore")))
    return filesystem


Connecting = Callable[[S3Server, str], Filesystem]

# On S3: the fixture that is the server, and what connects to it.
S3_PLACES: dict[str, tuple[str, Connecting]] = {
    "s3fs-moto": ("moto_s3", by_s3fs),
    "s3fs-seaweed": ("seaweed_s3", by_s3fs),
    "obstore-caller-seaweed": ("seaweed_s3", by_a_callers_obstore),
    "obstore-engine-seaweed": ("seaweed_s3", by_the_obstore_engine),
}


@pytest.fixture(scope="session")
def moto_bucket(moto_s3: S3Server) -> str:
    return moto_s3.bucket()


@pytest.fixture(scope="session")
def seaweed_bucket(seaweed_s3: S3Server) -> str:
    return seaweed_s3.bucket()


@pytest.fixture(scope="session")
def filesystems() -> dict[str, Filesystem]:
    """One filesystem object for all tests of a place: a process has one for each cache, too."""
    return {}


def on_s3(name: str, request: pytest.FixtureRequest) -> Place:
    fixture, connecting = S3_PLACES[name]
    server: S3Server = request.getfixturevalue(fixture)
    bucket: str = request.getfixturevalue(fixture.replace("_s3", "_bucket"))
    known: dict[str, Filesystem] = request.getfixturevalue("filesystems")
    if name not in known:
        known[name] = connecting(server, bucket)
    prefix = f"{uuid.uuid4().hex}/"
    return Place(Store(known[name], f"{bucket}/{prefix}", "source"), server, bucket, prefix)


@pytest.fixture(scope="session")
def over_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filesystem]:
    with sftp(tmp_path_factory.mktemp("sftp")) as port:
        filesystem, _ = connect(parse(f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/"))
        yield filesystem
        filesystem.fs.sync_fs.client.close()


@pytest.fixture(params=["local", "memory", "sftp", *S3_PLACES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        local = adapt(fsspec.filesystem("file"))
        return Place(Store(local, f"{tmp_path}/cache/", "source"))
    if request.param == "memory":
        memory = adapt(fsspec.filesystem("memory"))
        return Place(Store(memory, f"/{uuid.uuid4().hex}/", "source"))
    if request.param == "sftp":
        there: Filesystem = request.getfixturevalue("over_sftp")
        return Place(Store(there, f"/{uuid.uuid4().hex}/", "source"))
    return on_s3(request.param, request)


@pytest.fixture(params=list(S3_PLACES))
def s3_place(request: pytest.FixtureRequest) -> Place:
    return on_s3(request.param, request)


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


# --- what is there -------------------------------------------------------------------------------


def test_nothing_is_there_before_the_first_write(store: Store) -> None:
    async def work() -> None:
        assert await store.stat("blobs/one") is None
        assert await store.list("") == []
        assert await store.list("blobs/") == []
        page = await store.page("blobs/", "", 10)
        assert (page.objects, page.complete) == ([], True)

    run(work())


def test_a_folder_is_no_object(store: Store) -> None:
    async def work() -> None:
        await store.put("blobs/one", b"1")
        assert await store.stat("blobs") is None
        assert keys(await store.list("")) == ["blobs/one"]

    run(work())


def test_a_listing_says_what_stat_says(store: Store) -> None:
    async def work() -> None:
        for size in (0, 1, 1000):
            await store.put(f"blobs/{size}", noise(size))
        listed = await store.list("blobs/")
        assert [(each.path, each.size) for each in listed] == [
            ("blobs/0", 0),
            ("blobs/1", 1),
            ("blobs/1000", 1000),
        ]
        for each in listed:
            alone = await stat(store, each.path)
            assert (alone.path, alone.size) == (each.path, each.size)
            # Some servers give fractions of the second in one of the two answers.
            assert each.modified is not None
            assert alone.modified is not None
            assert int(alone.modified) == int(each.modified)

    run(work())


# --- writing and reading -------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read(store: Store, size: int) -> None:
    data = noise(size)

    async def work() -> None:
        await store.put("put", data)
        assert await store.upload("uploaded", chunks_of(data), size) == size
        assert [each.size for each in await store.list("")] == [size, size]
        for key in ("put", "uploaded"):
            assert await store.read(key, size) == data

    run(work())


def test_many_things_are_done_at_a_time(store: Store) -> None:
    async def there_and_back(number: int) -> None:
        key, data = f"blobs/{number}", noise(number * 1000)
        assert await store.stat(key) is None
        await store.put(key, data)
        assert (await stat(store, key)).size == len(data)
        assert await store.read(key, len(data)) == data
        assert f"blobs/{number}" in keys(await store.list("blobs/"))

    async def work() -> None:
        await asyncio.wait_for(asyncio.gather(*map(there_and_back, range(12))), 60)

    run(work())


def test_a_group_is_as_its_objects_are(place: Place) -> None:
    """Looked up, written, read and renewed in one go, with what is not there among the others."""
    store = place.store
    objects = [(f"blobs/{number:02}", noise(number * 1000)) for number in range(40)]
    wanted = [key for key, _ in objects]
    absent = 17

    async def work() -> None:
        assert await store.stat_batch(wanted) == [None] * 40
        await store.put_batch(objects)
        await store.settle()
        await store.delete(wanted[absent])
        there = await store.stat_batch(wanted)
        sizes = [each and each.size for each in there]
        assert sizes == [None if n == absent else n * 1000 for n in range(40)]
        assert [each for each in there if each] == await store.list("blobs/")

        found = await store.read_batch([(key, len(data)) for key, data in objects])
        error = found[absent]
        assert isinstance(error, NotFoundError)
        assert error.key == store.root + wanted[absent]
        others = [data for n, data in enumerate(found) if n != absent]
        assert others == [data for n, (_, data) in enumerate(objects) if n != absent]
        (longer,) = await store.read_batch([("blobs/09", 100)])
        assert isinstance(longer, bytes)
        assert len(longer) > 100

        stats = [each or Stat(wanted[absent], 1, 0.0) for each in there]
        await asyncio.sleep(0.02 if place.has_small_time_steps else 1.1)
        assert await store.touch_batch(stats) == [n != absent for n in range(40)]
        for before, after in zip(there, await store.stat_batch(wanted), strict=True):
            assert (before is None) == (after is None)
            if before and after:
                assert (after.modified or 0) > (before.modified or 0)
        assert await store.read(wanted[-1], 40_000) == objects[-1][1]

    run(work())


@pytest.mark.parametrize("size", [1, CHUNK_SIZE])
def test_the_size_need_not_be_known(store: Store, size: int) -> None:
    async def work() -> None:
        assert await store.upload("blob", chunks_of(noise(size)), None) == size
        assert await store.read("blob", size) == noise(size)

    run(work())


def test_a_write_replaces(store: Store) -> None:
    async def work() -> None:
        await store.put("key", b"a long first content")
        first = await stat(store, "key")
        await store.put("key", b"second")
        assert await store.read("key", 100) == b"second"
        if first.version:
            assert (await stat(store, "key")).version != first.version
        await store.upload("key", chunks_of(b"third"), 5)
        assert await store.read("key", 100) == b"third"

    run(work())


def test_a_read_takes_no_more_than_its_limit(store: Store) -> None:
    async def work() -> None:
        await store.put("key", b"12345")
        assert await store.read("key", 5) == b"12345"
        with pytest.raises(StoreError, match="more than the 4 bytes"):
            await store.read("key", 4)

    run(work())


@pytest.mark.parametrize("expected", [None, 1, 17 * MIB, 18 * MIB])
def test_chunks_show_a_size_that_is_wrong(store: Store, expected: int | None) -> None:
    """A longer object gives more bytes than expected, so that whoever counts them notices."""
    data = noise(17 * MIB)

    async def work() -> None:
        await store.put("key", data)
        got = b"".join([chunk async for chunk in store.chunks("key", expected)])
        assert data.startswith(got)
        assert len(got) == len(data) or len(got) > (expected or 0)

    run(work())


class SourceError(Exception):
    """What a source raises that knows nothing of stores."""


async def failing(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    async for chunk in chunks_of(data):
        yield chunk
    raise error


BEFORE_THE_ERROR = pytest.mark.parametrize(
    ("sent", "size"), [(MIB, 2 * MIB), (26 * MIB, 40 * MIB)], ids=["whole", "in-parts"]
)


@BEFORE_THE_ERROR
@pytest.mark.parametrize(
    "error", [SourceError("lost"), FileNotFoundError("gone"), NotFoundError("no blob")]
)
def test_a_source_that_fails_leaves_nothing(
    place: Place, sent: int, size: int, error: Exception
) -> None:
    store = place.store

    async def work() -> None:
        with pytest.raises(type(error)) as raised:
            await store.upload("blobs/one", failing(noise(sent), error), size)
        assert raised.value is error
        assert await store.stat("blobs/one") is None
        assert await store.list("") == []

    run(work())
    assert place.unfinished_uploads() == []


@BEFORE_THE_ERROR
def test_a_source_that_fails_leaves_what_was_there(place: Place, sent: int, size: int) -> None:
    store = place.store

    async def work() -> None:
        await store.put("blobs/one", b"good")
        with pytest.raises(SourceError):
            await store.upload("blobs/one", failing(noise(sent), SourceError()), size)
        assert await store.read("blobs/one", 100) == b"good"

    run(work())
    assert place.unfinished_uploads() == []


@BEFORE_THE_ERROR
@pytest.mark.parametrize("place", ["local", "memory", "s3fs-moto", "s3fs-seaweed"], indirect=True)
def test_a_cancelled_upload_leaves_nothing(place: Place, sent: int, size: int) -> None:
    store = place.store

    async def work() -> None:
        waiting = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            async for chunk in chunks_of(noise(sent)):
                yield chunk
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.upload("blobs/one", stuck(), size))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.list("") == []

    run(work())
    assert place.unfinished_uploads() == []


def test_nothing_is_seen_before_the_end(place: Place) -> None:
    store = place.store

    async def work() -> None:
        async def looking() -> AsyncIterator[bytes]:
            async for chunk in chunks_of(noise(26 * MIB)):
                yield chunk
                assert await store.stat("blobs/one") is None
                assert await store.list("") == []

        await store.upload("blobs/one", looking(), 26 * MIB)
        assert keys(await store.list("")) == ["blobs/one"]

    run(work())


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_no_temporary_file_is_left(place: Place, tmp_path: Path) -> None:
    store = place.store

    async def work() -> None:
        await store.put("blobs/one", b"1")
        await store.upload("blobs/two", chunks_of(noise(17 * MIB)), 17 * MIB)
        for size in (1, 17 * MIB):
            with pytest.raises(SourceError):
                await store.upload("blobs/three", failing(b"1", SourceError()), size)
        # A folder is where the file should go: the last step is what fails.
        await store.put("blobs/four/in", b"1")
        for size in (1, 17 * MIB):
            with pytest.raises(StoreError):
                await store.upload("blobs/four", chunks_of(b"1"), size)

    run(work())
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["in", "one", "two"]


# --- touching and deleting -----------------------------------------------------------------------


def test_touching_renews_the_time_and_keeps_the_bytes(place: Place) -> None:
    store = place.store

    async def work() -> None:
        await store.put("blobs/one", b"bytes")
        await store.put("blobs/other", b"others")
        before = await stat(store, "blobs/one")
        assert before.modified is not None
        await asyncio.sleep(0.02 if place.has_small_time_steps else 1.1)
        assert await store.touch(before)
        after = await stat(store, "blobs/one")
        assert after.modified is not None
        assert after.modified > before.modified
        assert await store.read("blobs/one", 100) == b"bytes"
        (listed, _) = await store.list("")
        assert listed.modified is not None
        assert int(listed.modified) == int(after.modified)
        assert keys(await store.list("")) == ["blobs/one", "blobs/other"]

    run(work())


def test_touching_what_is_gone_is_false(store: Store) -> None:
    async def work() -> None:
        assert not await store.touch(Stat("blobs/never", 5, 0.0))
        await store.put("blobs/one", b"bytes")
        there = await stat(store, "blobs/one")
        await store.delete("blobs/one")
        assert not await store.touch(there)
        assert await store.list("") == []

    run(work())


@pytest.mark.parametrize("server_name", ["moto_s3", "seaweed_s3"])
def test_touching_in_parts(server_name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(server_name)
    bucket = server.bucket()
    filesystem = by_s3fs(server, bucket)
    assert isinstance(filesystem, S3Filesystem)
    filesystem.copy_limit = 6 * MIB
    filesystem.copy_part = 5 * MIB
    store = Store(filesystem, f"{bucket}/")
    data = noise(11 * MIB + 1)

    async def work() -> None:
        await store.put("blobs/one", data)
        before = await stat(store, "blobs/one")
        assert before.modified is not None
        await asyncio.sleep(1.1)
        assert await store.touch(before)
        after = await stat(store, "blobs/one")
        assert after.modified is not None
        assert after.modified > before.modified
        assert await store.read("blobs/one", len(data)) == data
        await store.delete("blobs/one")
        assert not await store.touch(before)
        assert await store.list("") == []

    run(work())
    assert "Uploads" not in server.client.list_multipart_uploads(Bucket=bucket)


def test_deleting(store: Store) -> None:
    async def work() -> None:
        await store.put("blobs/one", b"1")
        await store.put("blobs/two", b"2")
        await store.delete("blobs/one")
        assert await store.stat("blobs/one") is None
        assert keys(await store.list("")) == ["blobs/two"]
        await store.delete("blobs/one")
        await store.delete("never/written")

    run(work())


# --- names ---------------------------------------------------------------------------------------

NAMES = [
    "a b",
    "größe-✓-\U0001f600",
    "100%",
    "%41",
    "%2F",
    "a+b",
    "~user",
    "[x]",
    "a*b",
    "a?b",
    "#1",
    "a#1",
    "in/side",
    "a=b",
    "user@host",
    "sha256:ab",
    "a&b",
    "a'b",
    'a"b',
    "(1)",
    "a,b;c!d$e",
    "{x}",
    "^a|b`c",
    "<tag>",
    "-dash",
    "trailing ",
    " leading",
    ".hidden",
    "a..b",
    "0zero",
    "\ue000private",
]


def test_names_with_odd_characters(store: Store) -> None:
    async def work() -> None:
        for number, name in enumerate(NAMES):
            await store.put(f"manifests/{name}", b"%d" % number)
        listed = await store.list("manifests/")
        assert sorted(keys(listed)) == sorted(f"manifests/{name}" for name in NAMES)
        for number, name in enumerate(NAMES):
            key = f"manifests/{name}"
            found = await stat(store, key)
            assert found.path == key
            assert await store.read(key, 10) == b"%d" % number
            for length in range(len("manifests/") + 1, len(key) + 1):
                assert key in keys(await store.list(key[:length]))
            assert await store.touch(found)
            assert await store.read(key, 10) == b"%d" % number
        for name in NAMES:
            await store.delete(f"manifests/{name}")
        assert await store.list("") == []

    run(work())


def test_a_prefix_is_text_not_a_folder(store: Store) -> None:
    async def work() -> None:
        for key in ("blobs/ab", "blobs/abc", "blobs/abd/e", "blobs/b", "blobsab", "other"):
            await store.put(key, b"1")
        assert sorted(keys(await store.list("blobs/ab"))) == [
            "blobs/ab",
            "blobs/abc",
            "blobs/abd/e",
        ]
        assert keys(await store.list("blobs/abc")) == ["blobs/abc"]
        assert keys(await store.list("blobs/abd/")) == ["blobs/abd/e"]
        assert sorted(keys(await store.list("blobs"))) == [
            "blobs/ab",
            "blobs/abc",
            "blobs/abd/e",
            "blobs/b",
            "blobsab",
        ]
        assert await store.list("blobs/x") == []
        assert await store.list("blobs/ab/") == []
        assert len(await store.list("")) == 6

    run(work())


# --- pages ---------------------------------------------------------------------------------------

COUNT = 1030


async def by_pages(store: Store, prefix: str, limit: int) -> tuple[list[str], int]:
    """All keys, page by page, and how many pages they took."""
    found: list[str] = []
    for number in range(1, 10_000):
        page = await store.page(prefix, found[-1] if found else "", limit)
        assert len(page.objects) <= limit
        found += keys(page.objects)
        if page.complete:
            return found, number
        assert page.objects
    raise AssertionError("the pages have no end")


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_are_the_listing(store: Store, limit: int) -> None:
    async def work() -> None:
        every = [f"blobs/{a}{b}" for a in "abc" for b in "xy"]
        for key in ["apart", *every, "further"]:
            await store.put(key, b"1")
        assert (await by_pages(store, "blobs/", limit))[0] == every
        assert (await by_pages(store, "blobs/b", limit))[0] == ["blobs/bx", "blobs/by"]
        assert keys((await store.page("blobs/", "blobs/b", 10)).objects) == every[2:]
        assert keys((await store.page("blobs/", "blobs/bx", 10)).objects) == every[3:]
        assert (await store.page("blobs/", "blobs/z", 10)).objects == []

    run(work())


@pytest.fixture(scope="module")
def crowded(seaweed_s3: S3Server, seaweed_bucket: str) -> tuple[str, list[str]]:
    """A folder in the bucket with more objects than S3 lists at a time, and their keys in order."""
    names = random.Random(2).sample(range(16**8), COUNT)  # noqa: S311
    every = sorted(f"blobs/sha256:{name:08x}" for name in names)

    def put(key: str) -> None:
        seaweed_s3.client.put_object(Bucket=seaweed_bucket, Key=f"crowded/{key}", Body=b"1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, every))
    return f"{seaweed_bucket}/crowded/", every


@pytest.mark.parametrize(
    "place", ["s3fs-seaweed", "obstore-caller-seaweed", "obstore-engine-seaweed"], indirect=True
)
def test_more_objects_than_fit_a_page(place: Place, crowded: tuple[str, list[str]]) -> None:
    root, every = crowded
    store = Store(place.store.filesystem, root)

    async def work() -> None:
        assert keys(await store.list("")) == every
        assert keys(await store.list("blobs/sha256:7")) == [
            key for key in every if key.startswith("blobs/sha256:7")
        ]
        assert await by_pages(store, "blobs/", 1000) == (every, 2)
        found, _ = await by_pages(store, "blobs/", 100)
        assert found == every
        middle = every[COUNT // 2]
        page = await store.page("blobs/", middle, 1000)
        assert (keys(page.objects), page.complete) == (every[COUNT // 2 + 1 :], True)
        # As slices ask: from a key that nothing has, on.
        page = await store.page("blobs/", "blobs/sha256:8", 10)
        assert keys(page.objects) == [key for key in every if key > "blobs/sha256:8"][:10]
        assert not page.complete

    run(work())


# --- errors --------------------------------------------------------------------------------------


def operations(store: Store) -> dict[str, Callable[[], object]]:
    """Each way to ask the store something, by the operation that errors name."""
    return {
        "look up": lambda: run(store.stat("blobs/one")),
        "look up a group": lambda: run(store.stat_batch(["blobs/one"])),
        "list": lambda: run(store.list("blobs/one")),
        "read": lambda: run(store.read("blobs/one", 10)),
        "write": lambda: run(store.put("blobs/one", b"1")),
        "upload": lambda: run(store.upload("blobs/one", chunks_of(noise(17 * MIB)), 17 * MIB)),
        "upload a group": lambda: run(store.put_batch([("blobs/one", b"1")])),
        "touch a group": lambda: run(store.touch_batch([Stat("blobs/one", 1, 0.0)])),
        "touch": lambda: run(store.touch(Stat("blobs/one", 1, 0.0))),
        "delete": lambda: run(store.delete("blobs/one")),
    }


def check(error: StoreError, operation: str, root: str) -> None:
    operation = operation.removesuffix(" a group")
    assert (error.operation, error.side, error.key) == (operation, "source", f"{root}blobs/one")
    assert str(error).startswith(f"{operation} source {root}blobs/one: ")
    assert "\n" not in str(error)
    assert "hush" not in str(error)


def test_a_missing_object_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError) as raised:
        run(store.read("blobs/one", 10))
    check(raised.value, "read", store.root)

    async def chunks(size: int | None) -> None:
        async for _ in store.chunks("blobs/one", size):
            raise AssertionError("bytes of nothing")

    for size in (None, 0, 5):
        with pytest.raises(NotFoundError) as raised:
            run(chunks(size))
        check(raised.value, "read", store.root)


@pytest.mark.parametrize("operation", ["list", "read", "write", "upload", "upload a group"])
def test_a_missing_bucket_is_no_missing_object(s3_place: Place, operation: str) -> None:
    root = f"no-such-{s3_place.prefix}"
    store = Store(s3_place.store.filesystem, root, "source")
    with pytest.raises(StoreError) as raised:
        operations(store)[operation]()
    check(raised.value, operation, root)
    if operation == "read" and "obstore" in type(s3_place.store.filesystem).__module__:
        return  # to obstore it is an object that is not there, whatever else is not
    assert not isinstance(raised.value, NotFoundError)
    # obstore has one error for a listing that fails; a caller's own has no second client to ask.
    if not (operation == "list" and s3_place.is_callers_obstore):
        assert "there is no such bucket" in str(raised.value)


ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])
OPERATIONS = pytest.mark.parametrize(
    "operation",
    [
        *("look up", "list", "read", "write", "upload", "touch", "delete"),
        *("look up a group", "upload a group", "touch a group"),
    ],
)


def opened(text: str) -> Store:
    filesystem, root = connect(parse(f"{text},retry_max_attempts=1"))
    return Store(filesystem, root, "source")


@ENGINES
@OPERATIONS
def test_a_wrong_secret_is_denied(
    seaweed_s3: S3Server, seaweed_bucket: str, engine: str, operation: str
) -> None:
    text = seaweed_s3.attributes(seaweed_bucket, engine=engine, secret_access_key="hush-hush")
    store = opened(text)
    with pytest.raises(AccessError) as raised:
        operations(store)[operation]()
    check(raised.value, operation, store.root)


@ENGINES
@OPERATIONS
def test_no_credentials_are_denied(
    seaweed_s3: S3Server, seaweed_bucket: str, engine: str, operation: str
) -> None:
    text = seaweed_s3.attributes(seaweed_bucket, engine=engine)
    store = opened(re.sub(r",(access_key_id|secret_access_key)=[^,]*", "", text))
    with pytest.raises(AccessError, match="no credentials were found") as raised:
        operations(store)[operation]()
    check(raised.value, operation, store.root)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else listens there, and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@ENGINES
@OPERATIONS
def test_a_store_that_does_not_answer(closed_port: int, engine: str, operation: str) -> None:
    server = S3Server(f"http://127.0.0.1:{closed_port}", "hush-id", "hush-hush")
    store = opened(server.attributes("bucket", engine=engine))
    # obstore tells no failed connection from other failures.
    with pytest.raises(UnreachableError if engine == "s3fs" else StoreError) as raised:
        operations(store)[operation]()
    check(raised.value, operation, store.root)


# --- connections that break ----------------------------------------------------------------------


# obstore takes up a body once, but not one that breaks again and again.
@pytest.mark.parametrize(("engine", "times"), [("s3fs", 1), ("s3fs", 3), ("obstore", 1)])
def test_a_read_goes_on_where_it_was_cut(
    seaweed_s3: S3Server,
    seaweed_bucket: str,
    recording: Callable[[S3Server], RecordingProxy],
    engine: str,
    times: int,
) -> None:
    proxy = recording(seaweed_s3)
    filesystem, root = connect(parse(proxy.server.attributes(seaweed_bucket, engine=engine)))
    store = Store(filesystem, f"{root}cut-{engine}-{times}/")
    data = noise(17 * MIB)
    run(store.put("blob", data))
    proxy.clear()
    proxy.inject(times=times, when=lambda r: r.method == "GET", cut_after=5 * MIB)
    assert run(store.read("blob", len(data))) == data
    gets = [request for request in proxy.requests if request.method == "GET"]
    assert len(gets) == times + 1
    assert all("range" in request.headers for request in gets[1:])
