"""Deletes on the condition that an object is unchanged: what a server compares is tried first.

There are servers that answer such a delete with success and take no notice of the condition.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from cachefs.errors import StoreError
from cachefs.filesystems.base import Filesystem, Stat
from cachefs.filesystems.conditions import UNLIKE
from cachefs.filesystems.failures import failed
from cachefs.filesystems.patience import PATIENCE, attempted

if TYPE_CHECKING:
    from collections.abc import Collection

    from fsspec import AbstractFileSystem

_LONG_BEFORE: Final = 365 * 86400.0
"""Seconds by which the wrong time that a delete is tried with differs from the right one."""


class ComparingDeletes(Filesystem):
    """A filesystem whose server may compare an object before it deletes it.

    Attributes:
        comparable: the fields of a Stat that a delete can have as conditions, tried in this order.
            Each is only tried together with those before it.
    """

    comparable: ClassVar[tuple[str, ...]] = ("version",)

    def __init__(
        self, fs: AbstractFileSystem, bound: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(fs, bound, patience)
        self._compared: dict[str, frozenset[str]] = {}
        self._trying = asyncio.Lock()

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        """Send one DELETE, with the conditions that were found to be kept in this bucket.

        A conditional delete is never repeated: if its response were lost, a second one could delete
        an object that was written again since.
        """
        if unless_changed is None:
            await self._delete(path)
            return True
        if await self._delete_unchanged(unless_changed, await self.compared(path)):
            return True
        # Servers refuse the condition as well if there is no object any more.
        return await self.stat_batch([path]) == [None]

    async def compared(self, path: str) -> frozenset[str]:
        """The fields of a Stat that deletes in the path's bucket compare.

        They are tried with an object next to the path, once for each bucket. It is deleted again.
        """
        bucket = path.partition("/")[0]
        async with self._trying:
            if bucket not in self._compared:
                self._compared[bucket] = await self._tried(self._temporary(path))
        return self._compared[bucket]

    async def _tried(self, path: str) -> frozenset[str]:
        kept: frozenset[str] = frozenset()
        await self.put_checked(path, b"")
        try:
            (stat,) = await self.stat_batch([path])
            if stat is None:
                return kept
            for field in self.comparable:
                if await self._delete_if(_unlike(stat, field), kept | {field}):
                    return kept  # it took no notice of this one, and the object is gone
                kept |= {field}
            # A server that refuses what is right as well is of no use.
            return kept if await self._delete_if(stat, kept) else frozenset()
        except Exception as error:
            if type(failed(error, "delete", path)) is not StoreError:
                raise  # no access, or no response
            return frozenset()
        finally:
            await attempted(self._delete(path))

    async def _delete_unchanged(self, stat: Stat, by: Collection[str]) -> bool:
        """Delete the object that was looked up; with conditions, only if it is unchanged."""
        return await self._delete_if(stat, by)

    @abstractmethod
    async def _delete(self, path: str) -> None:
        """Delete the object. One that does not exist is not an error."""

    @abstractmethod
    async def _delete_if(self, stat: Stat, by: Collection[str]) -> bool:
        """Send one DELETE on the condition that these fields are the object's.

        Returns False if the server says that they are not.
        """


def _unlike(stat: Stat, field: str) -> Stat:
    """The Stat with a value in this field that the object does not have."""
    if field == "modified":
        return stat._replace(modified=(stat.modified or 0.0) - _LONG_BEFORE)
    return stat._replace(version=UNLIKE)
