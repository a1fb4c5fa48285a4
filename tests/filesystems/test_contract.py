"""The published contract on every store, and what it does not cover: errors, broken connections."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs
from obstore.fsspec import FsspecStore

from cachefs.concurrency import run
from cachefs.errors import AccessError, NotFoundError, StoreError, UnreachableError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.obstore.filesystem import ObstoreFilesystem
from cachefs.filesystems.s3.filesystem import S3Filesystem
from cachefs.filesystems.sftp import SFTPFilesystem
from cachefs.location.parsing import parse
from cachefs.store import Store
from cachefs.testing.checks import (
    MIB,
    SourceError,
    chunks_of,
    failing,
    keys,
    noise,
    stat_of,
)
from cachefs.testing.contract import FilesystemContract
from cachefs.testing.listing import by_pages
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.servers.sftp import PASSWORD, USER, sftp

# --- the backends --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Backend:
    """A store in an unused folder, and how to look into it past the store.

    Attributes:
        server: the S3 server behind the store, None if there is none.
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
S3_BACKENDS: dict[str, tuple[str, Connecting]] = {
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
    """One filesystem object for all tests of a backend: a process has one for each cache, too."""
    return {}


def on_s3(name: str, request: pytest.FixtureRequest) -> Backend:
    fixture, connecting = S3_BACKENDS[name]
    server: S3Server = request.getfixturevalue(fixture)
    bucket: str = request.getfixturevalue(fixture.replace("_s3", "_bucket"))
    known: dict[str, Filesystem] = request.getfixturevalue("filesystems")
    if name not in known:
        known[name] = connecting(server, bucket)
    prefix = f"{uuid.uuid4().hex}/"
    return Backend(Store(known[name], f"{bucket}/{prefix}", "source"), server, bucket, prefix)


@pytest.fixture(scope="session")
def over_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filesystem]:
    with sftp(tmp_path_factory.mktemp("sftp")) as port:
        filesystem, _ = connect(parse(f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/"))
        yield filesystem
        filesystem.fs.sync_fs.client.close()


@pytest.fixture(params=["local", "memory", "sftp", *S3_BACKENDS])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "local":
        local = adapt(fsspec.filesystem("file"))
        return Backend(Store(local, f"{tmp_path}/cache/", "source"))
    if request.param == "memory":
        memory = adapt(fsspec.filesystem("memory"))
        return Backend(Store(memory, f"/{uuid.uuid4().hex}/", "source"))
    if request.param == "sftp":
        there: Filesystem = request.getfixturevalue("over_sftp")
        return Backend(Store(there, f"/{uuid.uuid4().hex}/", "source"))
    return on_s3(request.param, request)


@pytest.fixture(params=list(S3_BACKENDS))
def s3_backend(request: pytest.FixtureRequest) -> Backend:
    return on_s3(request.param, request)


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


# --- the published contract ----------------------------------------------------------------------


class TestContract(FilesystemContract):
    @pytest.fixture
    def filesystem(self, backend: Backend) -> tuple[Any, str]:
        fs = backend.store.filesystem.fs
        return getattr(fs, "sync_fs", fs), backend.store.root

    @pytest.fixture
    def store(self, backend: Backend) -> Store:
        assert backend.store.filesystem.touches
        return backend.store

    @pytest.fixture
    def clock_step(self, backend: Backend) -> float:
        return 0.02 if backend.has_small_time_steps else 1.1

    @pytest.fixture(autouse=True)
    def _no_upload_is_left(self, backend: Backend) -> Iterator[None]:
        yield
        assert backend.unfinished_uploads() == []


def test_a_folder_is_listed_without_what_is_below(store: Store) -> None:
    async def work() -> None:
        for key in ("f/a", "f/in/side", "f/in/two", "f/x y/1", "fa/b", "top"):
            await store.put(key, b"12")
        found = await store.folder("f/")
        assert found.folders == ["f/in/", "f/x y/"]
        assert [(stat.path, stat.size) for stat in found.objects] == [("f/a", 2)]
        top = await store.folder("")
        assert {"f/", "fa/"} <= set(top.folders)
        assert "top" in [stat.path for stat in top.objects]
        assert await store.folder("f/nothing/") == ([], [])

    run(work())


# --- temporary files, large copies, many pages ---------------------------------------------------


@pytest.mark.parametrize("backend", ["local"], indirect=True)
def test_no_temporary_file_is_left(backend: Backend, tmp_path: Path) -> None:
    store = backend.store

    async def work() -> None:
        await store.put("blobs/one", b"1")
        await store.upload("blobs/two", chunks_of(noise(17 * MIB)), 17 * MIB)
        for size in (1, 17 * MIB):
            with pytest.raises(SourceError):
                await store.upload("blobs/three", failing(b"1", SourceError()), size)
        # A directory has the name of the file, so the rename fails.
        await store.put("blobs/four/in", b"1")
        for size in (1, 17 * MIB):
            with pytest.raises(StoreError):
                await store.upload("blobs/four", chunks_of(b"1"), size)

    run(work())
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["in", "one", "two"]


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
        before = await stat_of(store, "blobs/one")
        assert before.modified is not None
        await asyncio.sleep(1.1)
        assert await store.touch(before)
        after = await stat_of(store, "blobs/one")
        assert after.modified is not None
        assert after.modified > before.modified
        assert await store.read("blobs/one", len(data)) == data
        await store.delete("blobs/one")
        assert not await store.touch(before)
        assert await store.list("") == []

    run(work())
    assert "Uploads" not in server.client.list_multipart_uploads(Bucket=bucket)


COUNT = 1030


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
    "backend", ["s3fs-seaweed", "obstore-caller-seaweed", "obstore-engine-seaweed"], indirect=True
)
def test_more_objects_than_fit_a_page(backend: Backend, crowded: tuple[str, list[str]]) -> None:
    root, every = crowded
    store = Store(backend.store.filesystem, root)

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
        # As slices are listed: from a key that does not exist.
        page = await store.page("blobs/", "blobs/sha256:8", 10)
        assert keys(page.objects) == [key for key in every if key > "blobs/sha256:8"][:10]
        assert not page.complete

    run(work())


# --- errors --------------------------------------------------------------------------------------


def operations(store: Store) -> dict[str, Callable[[], object]]:
    """Each operation of a store, by the name that errors give it."""
    return {
        "look up": lambda: run(store.stat("blobs/one")),
        "look up a batch": lambda: run(store.stat_batch(["blobs/one"])),
        "list": lambda: run(store.list("blobs/one")),
        "read": lambda: run(store.read("blobs/one", 10)),
        "write": lambda: run(store.put("blobs/one", b"1")),
        "upload": lambda: run(store.upload("blobs/one", chunks_of(noise(17 * MIB)), 17 * MIB)),
        "upload a batch": lambda: run(store.put_batch([("blobs/one", b"1")])),
        "touch a batch": lambda: run(store.touch_batch([Stat("blobs/one", 1, 0.0)])),
        "touch": lambda: run(store.touch(Stat("blobs/one", 1, 0.0))),
        "delete": lambda: run(store.delete("blobs/one")),
    }


def check(error: StoreError, operation: str, root: str) -> None:
    operation = operation.removesuffix(" a batch")
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


@pytest.mark.parametrize("operation", ["list", "read", "write", "upload", "upload a batch"])
def test_a_missing_bucket_is_no_missing_object(s3_backend: Backend, operation: str) -> None:
    root = f"no-such-{s3_backend.prefix}"
    store = Store(s3_backend.store.filesystem, root, "source")
    with pytest.raises(StoreError) as raised:
        operations(store)[operation]()
    check(raised.value, operation, root)
    if operation == "read" and "obstore" in type(s3_backend.store.filesystem).__module__:
        return  # obstore does not distinguish a missing bucket from a missing object
    assert not isinstance(raised.value, NotFoundError)
    # obstore has one error for a listing that fails, and a caller's own has no second client.
    if not (operation == "list" and s3_backend.is_callers_obstore):
        assert "there is no such bucket" in str(raised.value)


ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])
OPERATIONS = pytest.mark.parametrize(
    "operation",
    [
        *("look up", "list", "read", "write", "upload", "touch", "delete"),
        *("look up a batch", "upload a batch", "touch a batch"),
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
    """A port that is taken and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@ENGINES
@OPERATIONS
def test_a_store_that_does_not_answer(closed_port: int, engine: str, operation: str) -> None:
    server = S3Server(f"http://127.0.0.1:{closed_port}", "hush-id", "hush-hush")
    store = opened(server.attributes("bucket", engine=engine))
    # obstore does not distinguish failed connections from other failures.
    with pytest.raises(UnreachableError if engine == "s3fs" else StoreError) as raised:
        operations(store)[operation]()
    check(raised.value, operation, store.root)


# --- connections that break ----------------------------------------------------------------------


# obstore continues a body once, but not one that breaks again and again.
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
