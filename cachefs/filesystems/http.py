"""Web servers through fsspec and aiohttp: a cache is read, and never written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.filesystems.base import Filesystem
from cachefs.filesystems.findings import Finding, transport

if TYPE_CHECKING:
    from collections.abc import Sequence


class HTTPFilesystem(Filesystem):
    """An ``fsspec.implementations.http.HTTPFileSystem``. Its paths are URLs."""

    writes = False

    async def examine(self, blobs: str, manifests: str) -> Sequence[Finding]:
        """Whether others can change what is read."""
        del manifests
        return [transport(blobs)]
