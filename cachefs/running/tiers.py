"""The caches of one command: opened, read one after another, filled, and renewed when used."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import xxhash

from cachefs.building.opening import patient
from cachefs.cache import open as open_cache
from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import CacheError, StoreError
from cachefs.location.parsing import parse
from cachefs.transfer.renewing import DAY, renew
from cachefs.user_directory import is_own_cache, mark_now, marked_at
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachefs.building.states import Output
    from cachefs.cache import Cache
    from cachefs.location.options import Location
    from cachefs.running.policy import Policy

logger = logging.getLogger("cachefs")

KEPT: Final = 100
"""How many results a name that was given keeps: the newest, one for each state of the inputs."""

HELD: Final = 60.0
"""Seconds for which a result of the user's own cache is not renewed again."""


class Tiers:
    """The caches of a policy, opened, for one result.

    A cache that cannot be opened is left out, with a warning.

    Args:
        policy: which caches.
        own_name: the result's own name, for locations without a name.

    Attributes:
        readable: the caches that are read, in this order.
        writable: the caches that are written.
        own: the user's own cache, if it is written.
        keep: how many results a name keeps; 0 if a name is the result's own, which is replaced as a
            whole, so that concurrent runs lose nothing.
        gathers: whether a name that was given gathers results.
    """

    def __init__(self, policy: Policy, own_name: str) -> None:
        self._policy = policy
        self._own_name = own_name
        both = self._all_opened(policy.cache)
        self.readable = [*both, *self._all_opened(policy.cache_from)]
        self.writable = [*both, *self._all_opened(policy.cache_to)] if policy.write else []
        self.own = next((one for one in self.writable if is_own_cache(one.location)), None)
        self.gathers = policy.name is not None or any(
            _parsed(one).names for one in policy.locations
        )
        self.keep = KEPT if self.gathers else 0

    def to_fill(self, hit: Cache) -> list[Cache]:
        """The caches that are to have a result that was fetched from another one.

        These are the ones that lacked it, and those that are only written, unless they have it.
        """
        position = self.readable.index(hit)
        lacking = [cache for cache in self.readable[:position] if cache in self.writable]
        unknown = [cache for cache in self.writable if cache not in self.readable]
        return lacking + [cache for cache in unknown if not self._is_there(cache)]

    def hold(self, hit: Cache, output: Output) -> None:
        """Before a result of the user's own cache is used, renew it, so that none removes it.

        That costs no request, so the age of a name there says exactly when it was last used.
        """
        if hit is self.own and timestamps.age(output.created_at) >= HELD:
            self._renew(hit, output, HELD)

    def renew(self, hit: Cache, output: Output) -> None:
        """Renew the name that a hit was found by, at most once a day."""
        is_written = hit in self.writable and hit is not self.own
        if is_written and timestamps.age(output.created_at) >= DAY and not _is_marked(hit):
            self._renew(hit, output, DAY)
            _mark(hit)

    def _renew(self, hit: Cache, output: Output, after: float) -> None:
        layers = (*output.layers, *([output.description] if output.description else []))
        blobs = {Digest(layer.blob): layer.size for layer in layers}
        touch_refresh = hit.location.export.touch_refresh
        try:
            for name in hit.location.names:
                run(renew(hit.layout, name, blobs, touch_refresh=touch_refresh, after=after))
        except CacheError as error:
            logger.warning("the time of a result in %s is not renewed: %s", hit.location, error)

    def _is_there(self, cache: Cache) -> bool:
        """Whether a cache that is not read has the result, most likely."""
        if self.gathers:
            return False
        if not _is_marked(cache):
            with suppress(CacheError):
                if not any(name in cache for name in cache.location.names):
                    return False
                _mark(cache)
        return True

    def _all_opened(self, locations: Iterable[str | Location]) -> list[Cache]:
        opened = (self._opened(_parsed(location)) for location in locations)
        return [cache for cache in opened if cache is not None]

    def _opened(self, location: Location) -> Cache | None:
        location = patient(location)
        if self._policy.name is not None or not location.names:
            location = location.with_names(self._policy.name or self._own_name)
        if is_own_cache(location):
            location = replace(location, export=replace(location.export, touch_refresh=0.0))
        try:
            cache = open_cache(location)
        except StoreError as error:
            logger.warning("this cache is not used: %s", error)
            return None
        cache.layout.store.filesystem.patience.once = True
        return cache


def _parsed(location: str | Location) -> Location:
    return parse(location) if isinstance(location, str) else location


def _note(cache: Cache) -> str:
    """The name of the file whose time says when this machine last saw that a name is in use."""
    location = cache.location
    named = "\0".join(
        [location.protocol, cache.layout.store.root, cache.layout.prefix, *location.names]
    )
    return xxhash.xxh3_128_hexdigest(named.encode(errors="surrogateescape"))


def _is_marked(cache: Cache) -> bool:
    return time.time() - marked_at("used", _note(cache)) < DAY


def _mark(cache: Cache) -> None:
    mark_now("used", _note(cache))
