"""The user's own cache stays below a size: results that were not used for longest are removed."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cachefs.cache import open as open_cache
from cachefs.errors import CacheError, LocationError, reason
from cachefs.layers.leftovers import SCRATCH, sweep
from cachefs.location.kinds import parse_size
from cachefs.operations.retention import PrunePolicy
from cachefs.user_directory import (
    DAY,
    marked_at,
    own_cache,
    read_checked,
    user_cache,
    write_checked,
)

logger = logging.getLogger("cachefs")

VARIABLE: Final = "CACHEFS_CACHE_SIZE"
"""The environment variable that says how large the user's cache directory may become."""

LIMIT: Final = 10 << 30
"""The default in bytes."""

UNLIMITED: Final = "unlimited"

GRACE: Final = 3600.0
"""The grace period in seconds. It may be short, because runs renew the time of every blob of this
cache that they use, before they use it."""

_ROOM: Final = 0.9
"""The share of the limit that is used after results were removed, so that this is not done soon
again."""

_TOTAL: Final = "size"
_MEASURED: Final = "measured"
_PAUSE: Final = 600.0
"""Seconds between two measurements: what was written just now cannot be deleted anyway."""


def limit() -> int | None:
    """How many bytes the user's cache directory may have; None for any number.

    Raises LocationError if the variable is not a size.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text == UNLIMITED:
        return None
    try:
        return parse_size(text) if text else LIMIT
    except LocationError as error:
        raise LocationError(f"${VARIABLE}: {error.reason}, or {UNLIMITED}") from None


def keep_bound(added: int) -> None:
    """Make the user's cache directory smaller if it may have become too large.

    It is measured once a day, and when what was added since then may exceed the limit. Leftovers
    of killed runs and orphaned blobs are deleted then too. Errors are warnings.

    Args:
        added: bytes that were written to the user's own cache just now.
    """
    try:
        most = limit()
        known = read_checked(_TOTAL)
        total = added + (int.from_bytes(known, "big") if known else 0)
        age = time.time() - marked_at("", _MEASURED)
        if age >= DAY or (most is not None and total > most and age >= _PAUSE):
            total = _made_smaller(most, total)
        write_checked(total.to_bytes(16, "big"), _TOTAL)
    except (CacheError, OSError) as error:
        logger.warning("your cache directory is not kept below its size: %s", reason(error))


def _made_smaller(most: int | None, total: int) -> int:
    """Prune, unless another process does, and return how many bytes are left."""
    place = user_cache()
    with (place / _MEASURED).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return total
        os.utime(file.fileno())
        sweep(Path(tempfile.gettempdir()), SCRATCH)
        cache = open_cache(own_cache())
        if cache.names():
            total = _size(place)
            policy = PrunePolicy()
            if most is not None and total > most:
                others = total - _size(own_cache() / "blobs")
                policy = PrunePolicy(max_size=max(0, int(most * _ROOM) - others))
            cache.prune(policy, grace=GRACE)
        return _size(place)


def _size(directory: Path) -> int:
    """The bytes of all files below a directory."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(folder, name).lstat().st_size
    return total
