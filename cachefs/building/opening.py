"""The caches of a build, as callers give them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cachefs.building.exporting import MALFORMED
from cachefs.cache import Cache
from cachefs.cache import open as open_cache
from cachefs.graph import RecordGraph

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from cachefs.layers.compression import Compression
    from cachefs.location.options import Location

    CacheLike = str | os.PathLike[str] | Location | Cache

logger = logging.getLogger("cachefs")

PATIENCE: Final = 10.0
"""Seconds that a cache may go without progress, unless its location says otherwise: what is to
become faster by a cache must not wait for long if there is none."""


def patient(location: Location) -> Location:
    """The location with :data:`PATIENCE`, if it says nothing else, and is not on a disk."""
    if location.protocol == "file":
        return location
    return replace(location, patience=location.patience or PATIENCE)


def joinable(loaded: list[tuple[Cache, RecordGraph]]) -> list[tuple[Cache, RecordGraph]]:
    """The caches whose graphs can be joined: only that shows whether all of a layer is valid."""
    joinable = []
    for cache, graph in loaded:
        try:
            RecordGraph.union([graph])
        except MALFORMED as error:
            logger.warning("what %s holds is not used: %s", cache.location, error)
        else:
            joinable.append((cache, graph))
    return joinable


def compression_of(targets: Sequence[Cache]) -> tuple[Compression, int | None]:
    """How new layers are compressed: as ``type=local`` says, else with zstd at its default level.

    Raises LocationError.
    """
    for target in targets:
        target.location.require_no_recompression()
    options = targets[0].location.oci if targets else None
    if options is None:
        return "zstd", None
    return options.compression, options.compression_level


def all_opened(given: CacheLike | Sequence[CacheLike] | None) -> list[Cache]:
    """The caches that a caller gave, opened. Raises LocationError and StoreError."""
    if given is None:
        return []
    several: Sequence[CacheLike] = given if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
    return [cache if isinstance(cache, Cache) else open_cache(cache) for cache in several]
