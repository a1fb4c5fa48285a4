"""The body of a request to S3, handed on in the chunks that it came in."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class Body:
    """Chunks that aiohttp sends one by one, and that botocore takes for a file.

    A file would be sent in 16 times as many chunks, each one copied. Who reads it as a file all the
    same (a client of the caller's that signs bodies or sums them) gets one.
    """

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """From the beginning each time, as a request that is repeated needs it."""
        for chunk in self._chunks:
            yield chunk

    @cached_property
    def _file(self) -> BytesIO:
        return BytesIO(b"".join(self._chunks))

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()
