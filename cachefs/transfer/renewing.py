"""Renewing a name that is in use, and its blobs: their ages say when they were last used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.base import Stat
from cachefs.transfer.exporter import plan_export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout

DAY: Final = 86_400.0
"""Seconds for which a name is not renewed again, unless it costs nothing."""


async def renew(
    layout: Layout,
    name: str,
    blobs: Mapping[Digest, int],
    *,
    touch_refresh: float,
    after: float = DAY,
    clock: Callable[[], float] = time.time,
) -> bool:
    """Renew the time of a name that is old, and those of blobs as an export does.

    Returns False if the name does not exist, and otherwise True. Nothing that the name holds is
    changed, so whoever writes it at the same time loses nothing. On a filesystem that cannot renew
    times, the name and old blobs stay as they are. Raises StoreError.

    Args:
        layout: the cache.
        name: the name.
        blobs: blobs that it needs, each with its size in bytes, 0 if unknown.
        touch_refresh: seconds after which a blob's time is renewed.
        after: seconds after which the name's time is renewed, and those of blobs looked at.
        clock: this machine's time, in seconds since 1970.
    """
    found = await layout.find(name)
    if found is None:
        return False
    modified = found.modified
    if layout.digest_of(found.key) is not None:  # tags share one index and its time
        described = await layout.store.stat(found.key)
        modified = described and described.modified
    if (
        modified is None
        or -1.0 <= clock() - modified < after
        or not layout.store.filesystem.touches
    ):
        return True
    plan = await plan_export(layout, blobs, touch_refresh, clock)
    stats = [stat for _, stat in plan.touch]
    stats.append(Stat(found.key, found.size, modified, found.version))
    await layout.store.touch_batch(stats)
    await layout.store.settle()
    return True
