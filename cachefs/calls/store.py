"""The results of calls in a cache: each is one layer, under a name of its own.

A call is a step without inputs: its arguments are part of its definition. So a hit is read like any
other result, and concurrent writers lose nothing, because none changes what another wrote.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeVar

from cachefs.building.build import Build
from cachefs.building.opening import patient
from cachefs.building.states import without_description
from cachefs.cache import Cache
from cachefs.cache import open as open_cache
from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import (
    CacheError,
    IntegrityError,
    LayerError,
    LocationError,
    NotFoundError,
    StoreError,
    UsageError,
    reason,
)
from cachefs.graph import RecordGraph, output_key
from cachefs.keying.keys import Definition
from cachefs.location.options import Location
from cachefs.location.parsing import parse
from cachefs.transfer.importer import open_blob
from cachefs.transfer.renewing import DAY, renew
from cachefs.user_cache.bounding import keep_bound
from cachefs.user_directory import CACHE_VARIABLE, is_own_cache, own_cache
from cachefs.wire import timestamps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cachefs.building.actions import Sink
    from cachefs.wire.cacheconfig import Layer

    CacheLike = str | os.PathLike[str] | Location | Cache

T = TypeVar("T")

logger = logging.getLogger("cachefs")

PAUSE: Final = 60.0
"""Seconds for which a store that failed is left alone: calls run then as without a cache."""

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.]+")
_LABEL: Final = 80


class Call(NamedTuple):
    """What a call is in a cache.

    Attributes:
        label: the function's name.
        function: what identifies the function.
        arguments: the arguments, and whatever else is part of the key.
        outputs: the files that a result consists of.
        vertex: the digest of its definition.
    """

    label: str
    function: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    outputs: tuple[str, ...]
    vertex: Digest

    @classmethod
    def of(
        cls,
        label: str,
        function: tuple[bytes, ...],
        arguments: tuple[bytes, ...],
        outputs: tuple[str, ...],
    ) -> Call:
        """The call with its digest."""
        call = cls(label, function, arguments, outputs, Digest.of(b""))
        definition = Definition(action=call.action, inputs=(), outputs=outputs, environment={})
        return call._replace(vertex=definition.digest())

    @property
    def action(self) -> tuple[bytes, ...]:
        """Everything that identifies the call."""
        return (b"call", *self.function, b"arguments", *self.arguments)

    @property
    def name(self) -> str:
        """The name of its result in the cache."""
        label = _NOT_IN_NAMES.sub("_", self.label)[-_LABEL:]
        return f"call-{label}-{self.vertex.hex[:24]}"


class CallStore:
    """Reads and writes results of calls.

    Whatever goes wrong with a cache is a warning and a miss. After a failure of the store, it is
    left alone for :data:`PAUSE` seconds.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._is_own = is_own_cache(cache.location)
        self._failed_at = -PAUSE
        self._damaged: set[str] = set()
        self._renewed: set[str] = set()

    def read(self, call: Call, use: Callable[[BinaryIO, str, Digest], T]) -> T | None:
        """Find the result of a call; None if there is none, or none that can be used.

        Args:
            call: the call.
            use: gets the result's blob, its media type and its diffID, and returns what it makes of
                them. It may raise CacheError and OSError.
        """
        if self._is_left_alone():
            return None
        try:
            graph = RecordGraph(self._cache.manifest(call.name).config)
            for found in graph.results(graph.find(output_key(call.vertex, 0))):
                chain = tuple(graph.layers[index] for index in found.layers)
                layers, _ = without_description(chain)
                if len(layers) == 1 and layers[0].diff_id:
                    value = self._used(layers[0], use)
                    self._renew(call, found.created_at, graph.blobs())
                    return value
        except NotFoundError:
            return None
        except (CacheError, OSError) as error:
            self._note(call, "cannot be read", error)
        return None

    def _used(self, layer: Layer, use: Callable[[BinaryIO, str, Digest], T]) -> T:
        facts = layer.annotations
        blob, layout = Digest(layer.blob), self._cache.layout
        try:
            with run(open_blob(layout, blob, layer.size or None)) as file:
                return use(file, facts.media_type if facts else "", Digest(layer.diff_id))
        except (IntegrityError, LayerError):
            self._damaged.add(blob)
            raise

    def _renew(self, call: Call, created_at: str, blobs: Mapping[Digest, int]) -> None:
        """Renew the name of a result that is used, so that its age says when it was last used."""
        if timestamps.age(created_at) >= DAY and call.name not in self._renewed:
            self._renewed.add(call.name)
            touch_refresh = self._cache.location.export.touch_refresh
            run(renew(self._cache.layout, call.name, blobs, touch_refresh=touch_refresh))

    def write(self, call: Call, save: Callable[[Path], None]) -> bool:
        """Store the result of a call, whose files ``save`` writes; False if it is not kept."""
        if self._is_left_alone():
            return False
        target = self._cache.with_names(call.name)
        build = Build([], target, jobs=1, mode="max")
        try:
            with build:
                build.distrust(self._damaged)
                build.add(_Save(call, save), {}, call.outputs, name=call.label)
        except (CacheError, OSError, RuntimeError) as error:  # RuntimeError: no thread can start
            self._note(call, "is not kept", error)
            return False
        if self._is_own:
            keep_bound(sum(step.packed for step in build.report.steps))
        return True

    def _is_left_alone(self) -> bool:
        return time.monotonic() - self._failed_at < PAUSE

    def _note(self, call: Call, what: str, error: Exception) -> None:
        if isinstance(error, StoreError):
            self._failed_at = time.monotonic()
            what += f", and the cache is left alone for {PAUSE:g} seconds"
        logger.warning("the result of %s %s: %s", call.label, what, reason(error))


@dataclass(frozen=True)
class _Save:
    """The action that writes a result: the function has been called before, by its caller."""

    call: Call
    save: Callable[[Path], None]
    argv: tuple[str, ...] = ()
    working_directory: Path | None = None
    logs: bool = False

    @property
    def key(self) -> tuple[bytes, ...]:
        """The call's."""
        return self.call.action

    @property
    def label(self) -> str:
        """The function's name."""
        return self.call.label

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],  # noqa: ARG002 - nothing runs
        output: Sink,  # noqa: ARG002
    ) -> _Saving:
        """Ready to write."""
        return _Saving(self.save, directory)


class _Saving(NamedTuple):
    save: Callable[[Path], None]
    directory: Path

    def run(self) -> int:
        """Write the files."""
        self.save(self.directory)
        return 0

    def stop(self) -> None:
        """Do nothing: it is soon done."""

    def objection(self) -> str:
        """None."""
        return ""


def opened(cache: Location | Cache | None) -> Cache | None:
    """The cache that results of calls are kept in, by default ``$CACHEFS_CACHE`` or the user's own.

    None, with a warning, if there is no directory for the user's own, or if a filesystem connects
    immediately and fails. Raises LocationError for what the variable says.
    """
    if isinstance(cache, Cache):
        return cache
    try:
        location = _default_location() if cache is None else cache
    except LocationError:
        raise
    except UsageError as error:
        logger.warning("no results of functions are kept: %s", error)
        return None
    location = patient(location)
    for known, one in _opened:
        if known == location:
            return one
    try:
        one = open_cache(location)
    except StoreError as error:
        logger.warning("no results of functions are kept: %s", error)
        return None
    _opened.append((location, one))
    return one


_opened: Final[list[tuple[Location, Cache]]] = []
"""Each cache is opened once, however many functions use it: a new S3 client takes half a second."""


def located(cache: CacheLike) -> Location | Cache:
    """Where a cache is that a caller gave. Raises LocationError."""
    if isinstance(cache, Cache):
        return cache
    location = cache if isinstance(cache, Location) else parse(cache)
    if location.names:
        raise LocationError(
            f"each result of a function has a name of its own: leave out name={location.names[0]}"
        )
    return location


def _default_location() -> Location:
    typed = os.environ.get(CACHE_VARIABLE)
    if not typed:
        return parse(own_cache()).unsigned()
    try:
        return replace(parse(typed), names=())  # the name is for other commands
    except LocationError as error:
        error.reason = f"${CACHE_VARIABLE}: {error.reason}"
        raise
