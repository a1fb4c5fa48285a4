"""The sides of an operation between caches: what a user gives for one becomes a layout."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from cachefs.errors import UsageError
from cachefs.layout.opening import open_layout
from cachefs.location.options import Location
from cachefs.location.parsing import parse
from cachefs.transfer.workers import CacheSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachefs.layout.base import Layout
    from cachefs.location.attributes import Role

    Side: TypeAlias = "str | os.PathLike[str] | Location | Opened"


@runtime_checkable
class Opened(Protocol):
    """A cache that was opened."""

    location: Location

    @property
    def layout(self) -> Layout:
        """Where its names, manifests and blobs are."""

    @property
    def spec(self) -> CacheSpec:
        """What another process needs to open it."""


class Resolved(NamedTuple):
    """One side of an operation: its location, its layout, and what a worker needs to open it."""

    location: Location
    layout: Layout
    spec: CacheSpec


def as_caches(caches: Side | Sequence[Side]) -> Sequence[Side]:
    """One cache or several as a sequence: text is one location, and a cache is not its names."""
    return [caches] if isinstance(caches, str | os.PathLike | Location | Opened) else caches


def resolved(cache: Side, role: Role | None, side: str | None) -> Resolved:
    """Resolve a cache or a location's text to a side, which errors name. Raises LocationError."""
    location = cache.location if isinstance(cache, Opened) else located(cache, role, None, {})
    if role == "export":
        location.require_no_recompression()
    if isinstance(cache, Opened):
        return Resolved(location, cache.layout.with_side(side), cache.spec._replace(side=side))
    return Resolved(location, open_layout(location, side=side), CacheSpec(location, side=side))


def located(
    location: str | os.PathLike[str] | Location,
    role: Role | None,
    storage_options: Mapping[str, Any] | None,
    attributes: Mapping[str, Any],
) -> Location:
    """The location, parsed if it is text or a path. Raises LocationError and UsageError."""
    if isinstance(location, Location):
        if storage_options or attributes:
            raise UsageError(
                "attributes and storage_options go with the text of a location, not with a Location"
            )
        return location
    return parse(location, role=role, storage_options=storage_options, **attributes)
