"""The cache config: the JSON that a manifest holds (``application/vnd.buildkit.cacheconfig.v0``).

Field order and omission follow Go's encoder, so that what was decoded encodes to the same bytes.
Structs hold indexes and text just as the wire does; :mod:`cachefs.graph` gives them a meaning.
What a record holds are tuples: most are empty, and all empty ones are one, which a list never is.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, field

from cachefs.errors import ManifestError
from cachefs.wire.garbage import collection_paused
from cachefs.wire.rules import check

MEDIA_TYPE: Final = "application/vnd.buildkit.cacheconfig.v0"

MAX_BYTES: Final = 512 * 1024 * 1024
"""Larger manifests are refused unread: ten times the largest that the makers of this format saw."""

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


_decoder: Final = msgspec.json.Decoder(CacheConfig)
_encoder: Final = msgspec.json.Encoder()

# Go's encoder escapes these inside strings, and JSON has none of them outside of strings.
_GO_ESCAPES: Final = {
    b"&": rb"\u0026",
    b"<": rb"\u003c",
    b">": rb"\u003e",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


def decode(raw: bytes) -> CacheConfig:
    """Parse and check a manifest. Raises ManifestError for what the format calls invalid."""
    if len(raw) > MAX_BYTES:
        raise ManifestError(f"the manifest has {len(raw)} bytes; more than {MAX_BYTES} are refused")
    with collection_paused():
        try:
            config = _decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ManifestError(f"the manifest is not a cache config: {error}") from error
        check(config)
    return config


def encode(config: CacheConfig) -> bytes:
    """The bytes a builder would have written for this config."""
    return go_json(config)


def go_json(value: Struct) -> bytes:
    """JSON as Go's encoder writes it: no spaces, ``& < >`` and line separators escaped."""
    raw = _encoder.encode(value)
    for plain, escaped in _GO_ESCAPES.items():
        raw = raw.replace(plain, escaped)
    return raw
