"""The tags of an OCI image layout: ``index.json``, decoded once for many look-ups."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cachefs.wire import oci

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cachefs.wire.oci import Descriptor, Index


class Tags:
    """An index, and its manifests by tag and by digest.

    Attributes:
        index: as it was read.
    """

    def __init__(self, index: Index) -> None:
        self.index: Final = index
        self._by_tag: dict[str, Descriptor] = {}
        self._by_digest: dict[str, Descriptor] = {}
        for item in index.manifests:
            self._by_tag.setdefault(_tag(item), item)
            self._by_digest.setdefault(item.digest, item)

    def tag(self, tag: str) -> Descriptor | None:
        """The manifest with this tag, the first if there are several."""
        return self._by_tag.get(tag)

    def digest(self, digest: str) -> Descriptor | None:
        """The manifest with this digest, with a tag or without."""
        return self._by_digest.get(digest)

    def tagged(self) -> Iterator[tuple[str, Descriptor]]:
        """Every tag with its manifest, in the order of the index."""
        return ((tag, item) for item in self.index.manifests if (tag := _tag(item)))

    def untagged(self) -> list[Descriptor]:
        """The manifests without a tag."""
        return [item for item in self.index.manifests if not _tag(item)]


def _tag(item: Descriptor) -> str:
    return item.annotations.get(oci.REF_NAME, "")


class Held:
    """Tags that are read once, by the first of many that look something up at the same time."""

    def __init__(self, read: Callable[[], Awaitable[Tags]]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._tags: Tags | None = None

    async def tags(self) -> Tags:
        """The tags. Raises what reading them raises; the next call then tries again."""
        async with self._turn:
            if self._tags is None:
                self._tags = await self._read()
            return self._tags
