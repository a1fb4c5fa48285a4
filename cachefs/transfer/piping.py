"""Working on a blob's chunks in a thread, while they pass through the event loop."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cachefs.concurrency import closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cachefs.layers.compression import Readable

T = TypeVar("T")


class Pipe(Generic[T]):
    """Chunks that a thread of its own works on, one while the next is awaited.

    The threads of the event loop do not do: each would wait for the end of its blob, and reading
    the blobs needs threads of the loop, of which there are few.

    Args:
        work: reads the stream, and returns what is found; it need not read to the end.
        name: of the thread.
    """

    def __init__(self, work: Callable[[Readable], T], name: str) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._chunks: SimpleQueue[tuple[bytes, asyncio.Future[None]]] = SimpleQueue()
        self._rest = memoryview(b"")
        self._ended = False
        self._at_end = False  # for the thread
        self._found: asyncio.Future[T | Exception] = self._loop.create_future()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def passing(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass the chunks on while the thread works on them.

        Raises what the work raised: as soon as it is known, and at the latest at the end.
        """
        try:
            async with closing(chunks):
                async for chunk in chunks:
                    await self._feed(chunk)
                    yield chunk
            await self.found()
        finally:
            await self._close()

    async def found(self) -> T:
        """End the stream, and return what the work found, or raise what it raised."""
        found = await self._close()
        if isinstance(found, Exception):
            raise found
        return found

    async def _feed(self, chunk: bytes) -> None:
        """Hand a chunk over, as soon as the thread is done with the one before it."""
        if chunk:
            taken: asyncio.Future[None] = self._loop.create_future()
            self._chunks.put((chunk, taken))
            await taken
        if self._found.done() and isinstance(found := self._found.result(), Exception):
            raise found

    async def _close(self) -> T | Exception:
        """End the stream, wherever it is, and wait for the thread."""
        if not self._ended:
            self._ended = True
            self._chunks.put((b"", self._loop.create_future()))
        return await self._found

    def read(self, size: int, /) -> bytes:
        """The next bytes, for the thread; none at the end."""
        if not self._rest and not self._at_end:
            self._rest = memoryview(self._take())
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data

    def _take(self) -> bytes:
        chunk, taken = self._chunks.get()
        self._at_end = not chunk
        self._loop.call_soon_threadsafe(_resolve, taken, None)
        return chunk

    def _run(self) -> None:
        found: T | Exception
        try:
            found = self._work(self)
        except Exception as error:  # noqa: BLE001 - it is raised in the event loop
            found = error
            self._loop.call_soon_threadsafe(_resolve, self._found, found)
        while not self._at_end:
            self._take()
        self._loop.call_soon_threadsafe(_resolve, self._found, found)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    """Set the result of a future, unless whoever waited for it was cancelled."""
    if not future.done():
        future.set_result(value)
