"""Listings of object stores, of which a subclass knows how to turn the pages."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from cachefs.concurrency import closing
from cachefs.filesystems.base import Filesystem, Page, Stat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


class PagedListing(Filesystem):
    """All listings of a filesystem, made of its pages."""

    async def list(self, prefix: str) -> list[Stat]:
        """Every object whose path starts with the prefix."""
        async with closing(self.list_pages(prefix, "")) as pages:
            return sorted([stat async for page in pages for stat in page])

    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """Send one LIST, or several if the server takes no notice of where to start."""
        async with closing(self._pages(prefix, after, limit)) as pages:
            async for page in pages:
                if page.objects or page.complete:
                    return page
        return Page([], complete=True)

    async def list_pages(self, prefix: str, after: str) -> AsyncIterator[Sequence[Stat]]:
        """List the objects page by page."""
        async with closing(self._pages(prefix, after, 1000)) as pages:
            async for page in pages:
                yield page.objects

    @abstractmethod
    def _pages(self, prefix: str, after: str, limit: int) -> AsyncIterator[Page]:
        """The pages of objects whose paths start with the prefix and come after ``after``."""
