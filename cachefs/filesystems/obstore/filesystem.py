"""obstore behind fsspec (``obstore.fsspec.FsspecStore``), used through its native calls.

Its fsspec methods are not used: they list without times, read whole files into memory and ignore
modes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cachefs.concurrency import closing
from cachefs.errors import StoreError, UsageError
from cachefs.filesystems.base import CHUNK_SIZE, TEMPORARY, Folder, Page, Stat
from cachefs.filesystems.blocking import BlockingFilesystem
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.level import pause_after
from cachefs.filesystems.listing import Advance
from cachefs.filesystems.paging import PagedListing
from cachefs.filesystems.parts import part_size
from cachefs.filesystems.patience import CLEANUP, PATIENCE
from cachefs.filesystems.s3.answers import BEYOND
from cachefs.filesystems.s3_failures import is_refused, status_in_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fsspec import AbstractFileSystem

T = TypeVar("T")

SENDING = 16
"""The maximum number of parts in flight, for all uploads together."""

_BUCKETLESS: Final = {"file", "memory"}

_users: Final[list[int]] = []
"""The processes, this one and those it was forked from, that have used obstore."""


def used_before_fork() -> bool:
    """Whether obstore was used before this process was forked.

    Then it cannot be used here: its calls wait for threads that only the parent has.
    """
    return bool(_users) and _users[0] != os.getpid()


def _use_here() -> None:
    if not _users:
        _users.append(os.getpid())
    if used_before_fork():
        raise UsageError(
            "obstore was used before this process was forked, and does not work here: use "
            "engine=s3fs, or start processes with multiprocessing's method spawn or forkserver"
        )


class ObstoreFilesystem(PagedListing, BlockingFilesystem):
    """An ``obstore.fsspec.FsspecStore`` of any protocol."""

    pages = True
    touches = True
    compares = True
    _prefetches = True
    _finds_levels = True

    def __init__(
        self, fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, bound, patience)
        self._reading = fs

    def _open(self, path: str, *, to_write: bool = False) -> tuple[Any, str, str]:
        """The native store, its part of the path, and the key inside."""
        _use_here()
        fs = self.fs if to_write else self._reading
        if fs.protocol in _BUCKETLESS:
            return fs._construct_store(""), "", path
        bucket, _, key = path.partition("/")
        store = fs._construct_store(bucket)
        if bucket not in self._checked:
            self._check(store, bucket)
            self._checked.add(bucket)
        return store, f"{bucket}/", key

    @cached_property
    def _checked(self) -> set[str]:
        """The buckets whose stores were checked."""
        return set()

    def _check(self, store: Any, bucket: str) -> None:
        """Raise LocationError if the store would use another bucket."""
        from cachefs.filesystems.obstore.bucket import require_bucket  # noqa: PLC0415 - an extra

        require_bucket(store, bucket)

    async def _asked(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call, and again after a while if the server says that it has too much to do."""
        refusals = 0
        while True:
            try:
                return await call()
            except Exception as error:
                if not is_refused(error) or refusals == self.refusals:
                    raise
            refusals += 1
            self.patience.progressed()
            await asyncio.sleep(pause_after(refusals))

    def _may_succeed(self, error: Exception) -> bool:
        """Whether obstore itself would have tried again."""
        return type(error).__name__ == "GenericError" and not _is_beyond(error)

    def _stat_sync(self, path: str) -> Stat | None:
        """One HEAD."""
        store, root, key = self._open(path)
        try:
            return _stat(root, store.head(key))
        except FileNotFoundError:
            return None

    async def _pages(self, prefix: str, after: str, limit: int) -> AsyncIterator[Page]:
        """Page by obstore's stream, which gives a key to start after only for the first page.

        The native prefix consists of whole path components. So the folder is listed, beginning at
        the prefix, and objects outside the prefix are skipped.
        """
        store, root, key_prefix = self._open(prefix)
        folder, _, rest = key_prefix.rpartition("/")
        offset = after[len(root) :] or (_just_before(key_prefix) if rest else None)
        stream = store.list(folder or None, offset=offset, chunk_size=limit)
        advance = Advance()

        async def turn() -> Any:
            nonlocal stream
            try:
                return await anext(stream, None)
            except Exception:
                # A stream that has failed is at its end.
                stream = store.list(folder or None, offset=offset, chunk_size=limit)
                raise

        while (chunk := await self._asked(turn)) is not None:
            offset = chunk[-1]["path"] if chunk else offset
            self.patience.progressed()
            listed = [_stat(root, meta) for meta in chunk]
            for stat in listed:
                advance.see(stat.path)
            objects = [s for s in listed if s.path.startswith(prefix) and s.path > after]
            beyond = any(s.path > prefix and not s.path.startswith(prefix) for s in listed)
            complete = beyond or len(chunk) < limit
            yield Page(objects, complete)
            if complete:
                return

    async def folder(self, path: str) -> Folder:
        """List with a delimiter."""
        store, root, key = self._open(path)
        folder = key.rstrip("/") or None
        found = await self._asked(lambda: store.list_with_delimiter_async(folder))
        return Folder(
            sorted(f"{root}{folder.rstrip('/')}/" for folder in found["common_prefixes"]),
            [_stat(root, meta) for meta in found["objects"]],
        )

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:
        """Send one GET, or request ranges of a large object.

        obstore itself continues after a broken connection.
        """
        if size:
            async with closing(super().read(path, size)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        store, _, key = self._open(path)
        async for chunk in self._chunks(await self._asked(lambda: store.get_async(key))):
            yield chunk

    async def read_checked(self, path: str, limit: int) -> bytes:
        """One GET."""
        return (await self.read_versioned(path, limit))[0]

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:
        """One GET; the version is the ETag of its response."""
        store, _, key = self._open(path)
        answer = await self._asked(lambda: store.get_async(key))
        data = await joined(self._chunks(answer), limit)
        return data, answer.meta["e_tag"] or ""

    @staticmethod
    async def _chunks(answer: Any) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in answer.stream(min_chunk_size=CHUNK_SIZE // 8):
            received += len(chunk)
            yield bytes(chunk)
        expected = answer.meta["size"]
        if received < expected:
            raise StoreError(
                f"the response ended after {received:,} of {expected:,} bytes: try again"
            )

    async def _range(self, path: str, start: int, end: int) -> bytes:
        """Request a range: this takes one iteration of the event loop, a stream takes three."""
        store, _, key = self._open(path)
        try:
            data = await self._asked(lambda: store.get_range_async(key, start=start, end=end))
        except Exception as error:
            if _is_beyond(error):
                return b""
            raise
        found: bytes = data.to_bytes()
        return found

    def _read_sync(self, item: tuple[str, int]) -> bytes:
        """One GET."""
        path, size = item
        store, _, key = self._open(path)
        try:
            found: bytes = store.get_range(key, start=0, length=size + 1).to_bytes()
        except Exception as error:
            if _is_beyond(error):
                return b""
            raise
        return found

    def _put_sync(self, item: tuple[str, bytes]) -> None:
        """One PUT."""
        path, data = item
        store, _, key = self._open(path, to_write=True)
        store.put(key, data, use_multipart=False)

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        """One PUT."""
        store, _, key = self._open(path, to_write=True)
        await self._asked(lambda: store.put_async(key, chunks, use_multipart=False))

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        """One PUT, however large."""
        return await self._put_if(path, data, version) is not None

    async def _put_if(self, path: str, data: bytes, version: str) -> str | None:
        """Write, and return the new ETag; None if the condition does not hold."""
        store, _, key = self._open(path, to_write=True)
        mode = {"e_tag": version} if version else "create"
        try:
            answer = await self._asked(
                lambda: store.put_async(key, data, mode=mode, use_multipart=False)
            )
        except Exception as error:
            # A missing bucket is one more FileNotFoundError; the next read tells.
            gone = bool(version) and isinstance(error, FileNotFoundError)
            if gone or type(error).__name__ in _CHANGED:
                return None
            raise
        return answer["e_tag"] or ""

    async def _put_parts(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Send a multipart upload. obstore aborts it only if ``chunks`` raises.

        So a cancelled upload makes its chunks raise, and waits until obstore has aborted it.
        """
        store, _, key = self._open(path, to_write=True)
        stoppable = _Stoppable(chunks)
        sending = asyncio.ensure_future(
            store.put_async(
                key,
                stoppable,
                use_multipart=True,
                chunk_size=part_size(size),
                max_concurrency=max(1, min(4, SENDING // self.parallelism)),
            )
        )
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            stoppable.stop()
            sending.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({sending}, timeout=CLEANUP)
            raise

    def _touch_sync(self, stat: Stat) -> None:
        """Copy the object to a temporary key and back: clients refuse a copy onto itself."""
        store, _, key = self._open(stat.path)
        temporary = f"{key.rpartition('/')[0]}/{TEMPORARY}{secrets.token_hex(8)}"
        store.copy(key, temporary)
        try:
            store.copy(temporary, key)
        finally:
            store.delete(temporary)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:  # noqa: ARG002 - it cannot compare
        """One DELETE."""
        store, _, key = self._open(path)
        with suppress(FileNotFoundError):
            await self._asked(lambda: store.delete_async(key))
        return True


def _stat(root: str, meta: Any) -> Stat:
    return Stat(
        f"{root}{meta['path']}",
        meta["size"],
        meta["last_modified"].timestamp(),
        meta.get("e_tag") or "",
        generation="" if meta.get("version") == "null" else meta.get("version") or "",
    )


_CHANGED: Final = {"AlreadyExistsError", "PreconditionError"}
"""Names of obstore's errors for a condition that does not hold; obstore is an extra."""


def _is_beyond(error: Exception) -> bool:
    """Whether a range is beyond the end of the object, for which obstore has no error class."""
    return status_in_text(error) == BEYOND


def _just_before(key: str) -> str | None:
    """An offset for a listing that begins with this key; None to list from the start.

    Offsets are exclusive, so it comes before the key. Keys between the two are skipped.
    """
    last = ord(key[-1]) - 1
    if last < ord(" "):
        return None
    return key[:-1] + _INSTEAD.get(last, chr(last)) + "\U0010ffff"


# obstore accepts no control characters and no empty components, and UTF-8 has no surrogates.
_INSTEAD: Final = {ord("/"): ".", 0x7F: "~", 0xDFFF: "\ud7ff"}


class _Stoppable:
    """Chunks that can be stopped at any moment; then they raise InterruptedError."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._waiting: asyncio.Task[Any] | None = None
        self._stopped = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._waiting = asyncio.current_task()
        try:
            while not self._stopped:
                if chunk := await anext(self._chunks):
                    return chunk
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        finally:
            self._waiting = None
        raise InterruptedError

    def stop(self) -> None:
        """Stop, also while a chunk is awaited."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
