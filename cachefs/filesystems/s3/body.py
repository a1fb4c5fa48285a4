"""The body of a request to S3, sent in the chunks that it is made of."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


class Body:
    """Chunks that aiohttp sends one by one, and that botocore accepts as a file.

    A real file would be sent in 16 times as many chunks, each of them copied. A client that still
    reads it as a file, because it signs bodies or computes checksums, gets the bytes.

    Args:
        chunks: what to send.
        progressed: called when a chunk was handed to the kernel.
        sha256: the SHA-256 of the bytes in hexadecimal digits, if it is known.
    """

    def __init__(
        self,
        chunks: Sequence[bytes],
        progressed: Callable[[], None] = lambda: None,
        sha256: str | None = None,
    ) -> None:
        self._chunks = chunks
        self._progressed = progressed
        self.sha256 = sha256

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate from the beginning each time, as retries require."""
        for chunk in self._chunks:
            yield chunk
            self._progressed()

    @cached_property
    def _file(self) -> BytesIO:
        return BytesIO(b"".join(self._chunks))

    def read(self, size: int = -1) -> bytes:
        """Read as a file."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as in a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position as in a file."""
        return self._file.tell()
