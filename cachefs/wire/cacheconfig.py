"""The cache config: the JSON that a manifest holds (``application/vnd.buildkit.cacheconfig.v0``).

Field order and omission follow Go's encoder, so that what was decoded encodes to the same bytes.
Structs hold indexes and text as on the wire; :mod:`cachefs.graph` gives them a meaning.
Records hold tuples, not lists: most are empty, and all empty tuples are one object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NewType, cast

from msgspec import Meta, Struct, field

from cachefs.digest import is_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

MEDIA_TYPE: Final = "application/vnd.buildkit.cacheconfig.v0"

RecordIndex = NewType("RecordIndex", int)
"""The position of a record in a config or graph."""

LayerIndex = NewType("LayerIndex", int)
"""The position of a layer in a config or graph."""

NO_PARENT: Final = LayerIndex(-1)
"""The parent of a root layer. A missing parent means layer 0."""

RANDOM: Final = "random:"
"""Records whose digest begins with this are good for one build only and never stored."""

Size = Annotated[int, Meta(le=2**63 - 1)]
"""A number of bytes. Builders keep it in 64 bits, so they refuse a manifest with a larger one."""


class Annotations(Struct, kw_only=True, omit_defaults=True, gc=False):
    """Facts about a layer's blob. ``size`` is in bytes, ``created_at`` RFC 3339 text."""

    media_type: str = field(default="", name="mediaType")
    diff_id: str = field(default="", name="diffID")
    size: Size = 0
    created_at: str = field(name="createdAt")


class Layer(Struct, omit_defaults=True, gc=False):
    """A blob on top of the layer with index ``parent`` (-1: on none)."""

    blob: str = ""
    parent: LayerIndex = LayerIndex(0)
    annotations: Annotations | None = None

    @property
    def size(self) -> int:
        """The blob's size in bytes, 0 if unknown."""
        return self.annotations.size if self.annotations else 0

    @property
    def media_type(self) -> str:
        """The blob's media type, empty if unknown."""
        return self.annotations.media_type if self.annotations else ""

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed archive, empty if unknown.

        Text that is no digest is as good as none: builders read the manifest and then fail.
        """
        text = self.annotations.diff_id if self.annotations else ""
        return text if is_digest(text) else ""


class Result(Struct, gc=False):
    """A record's result: the layer with this index and all layers below it."""

    layer: LayerIndex
    created_at: str = field(name="createdAt")


class Chain(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A record's result as layers listed one by one, from the bottom up, without their parents."""

    layers: tuple[LayerIndex, ...] = ()
    created_at: str = field(name="createdAt")


class Link(Struct, kw_only=True, omit_defaults=True, gc=False):
    """One alternative for an input: the record with index ``link``, or a part of its content."""

    selector: str = ""
    link: RecordIndex


class Record(Struct, omit_defaults=True, gc=False):
    """A cache key: a digest, the alternatives for each input, and the results known for it."""

    layers: tuple[Result, ...] = ()
    chains: tuple[Chain, ...] = ()
    digest: str = ""
    inputs: tuple[tuple[Link, ...], ...] = ()

    @property
    def has_result(self) -> bool:
        """Whether any result is known."""
        return bool(self.layers or self.chains)


class CacheConfig(Struct, omit_defaults=True, gc=False):
    """A whole manifest."""

    layers: list[Layer] = []
    records: list[Record] = []


def record_indexes(records: Sequence[Record]) -> Sequence[RecordIndex]:
    """The indexes of records, in order."""
    return cast("Sequence[RecordIndex]", range(len(records)))


def layer_indexes(layers: Sequence[Layer]) -> Sequence[LayerIndex]:
    """The indexes of layers, in order."""
    return cast("Sequence[LayerIndex]", range(len(layers)))
