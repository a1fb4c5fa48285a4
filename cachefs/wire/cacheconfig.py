"""The cache config: the JSON that a manifest holds (``application/vnd.buildkit.cacheconfig.v0``).

Field order and omission follow Go's encoder, so that what was decoded encodes to the same bytes.
Structs hold indexes and text just as the wire does; :mod:`cachefs.graph` gives them a meaning.
What a record holds are tuples: most are empty, and all empty ones are one, which a list never is.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct, field

MEDIA_TYPE: Final = "application/vnd.buildkit.cacheconfig.v0"

NO_PARENT: Final = -1
"""The parent of a root layer. A missing parent means layer 0."""


class Annotations(Struct, kw_only=True, omit_defaults=True, gc=False):
    """Facts about a layer's blob. ``size`` is in bytes, ``created_at`` RFC 3339 text."""

    media_type: str = field(default="", name="mediaType")
    diff_id: str = field(default="", name="diffID")
    size: int = 0
    created_at: str = field(name="createdAt")


class Layer(Struct, omit_defaults=True, gc=False):
    """A blob on top of the layer with index ``parent`` (-1: on nothing)."""

    blob: str = ""
    parent: int = 0
    annotations: Annotations | None = None


class Result(Struct, gc=False):
    """A record's result: the layer with this index and all below it."""

    layer: int
    created_at: str = field(name="createdAt")


class Chain(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A record's result as layers named one by one, from the bottom up, without their parents."""

    layers: tuple[int, ...] = ()
    created_at: str = field(name="createdAt")


class Link(Struct, kw_only=True, omit_defaults=True, gc=False):
    """One alternative for an input: the record with index ``link``, or a part of its content."""

    selector: str = ""
    link: int


class Record(Struct, omit_defaults=True, gc=False):
    """A cache key: a digest, the alternatives for each input, and the results known for it."""

    layers: tuple[Result, ...] = ()
    chains: tuple[Chain, ...] = ()
    digest: str = ""
    inputs: tuple[tuple[Link, ...], ...] = ()


class CacheConfig(Struct, omit_defaults=True, gc=False):
    """A whole manifest."""

    layers: list[Layer] = []
    records: list[Record] = []
