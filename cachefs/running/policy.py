"""Which caches are used for a command, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachefs.location.options import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which caches are used for a command, and how.

    Caches are read in their order, ``cache`` before ``cache_from``, until one has the result. The
    result of a command that ran is written to every cache of ``cache`` and ``cache_to``. A result
    that was fetched is written to those of them that are before the one that had it, and to those
    that are only written.

    Attributes:
        cache: locations that are read and written.
        cache_from: locations that are only read.
        cache_to: locations that are only written.
        name: the name in the caches; None for the location's, or one of the result's own.
        force: run the command although a cache may have its result, and store the new one.
        write: whether anything is written to a cache, even the time of a name.
        ttl: seconds after which a result counts no more; None for no limit.
        dry_run: run nothing, restore nothing and write nothing: only say what would be done.
        explain: on a miss, find out from the results in the caches why it is one.
        describe: whether what is stored says what it is (see :mod:`cachefs.building.describing`).
    """

    cache: tuple[str | Location, ...] = ()
    cache_from: tuple[str | Location, ...] = ()
    cache_to: tuple[str | Location, ...] = ()
    name: str | None = None
    force: bool = False
    write: bool = True
    ttl: float | None = None
    dry_run: bool = False
    explain: bool = False
    describe: bool = True

    @property
    def locations(self) -> tuple[str | Location, ...]:
        """All locations."""
        return (*self.cache, *self.cache_from, *self.cache_to)
