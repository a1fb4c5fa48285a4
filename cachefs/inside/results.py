"""Which result of a name is meant: all that can be looked into, and how one is chosen."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from cachefs.cache import Cache
from cachefs.cache import open as open_cache
from cachefs.concurrency import run
from cachefs.errors import UsageError
from cachefs.graph import MOST_LAYERS, RecordGraph
from cachefs.inside.contents import Contents
from cachefs.operations.describe import read_descriptions
from cachefs.wire import description, timestamps
from cachefs.wire.cacheconfig import layer_indexes, record_indexes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefs.cache import CacheLike
    from cachefs.graph import Found
    from cachefs.wire.cacheconfig import Layer, RecordIndex

NEWEST: Final = "newest"
"""The result that was made last, of those that no other result was built on."""

_SHORTEST: Final = 6
"""Digits of a digest that are enough to name it, if only one begins with them."""

_MANY: Final = 5
"""Results that an error lists."""

_DESCRIBED: Final = 100
"""Results whose descriptions are read."""


class ResultDetails(Struct, frozen=True, kw_only=True):
    """A result that can be looked into.

    Attributes:
        record: the digest of the record that has it.
        layer: the digest of its uppermost blob; with ``record``, it names the result.
        layers: how many layers it has, without its description.
        bytes: bytes of their blobs.
        created_at: when it was made, as RFC 3339 text.
        final: whether no other record was built on it.
        command: the words of the command that made it, if that was stored.
    """

    record: str
    layer: str
    layers: int
    bytes: int
    created_at: str
    final: bool
    command: list[str] = []


class Selected(Struct, frozen=True, kw_only=True):
    """What is looked into.

    Attributes:
        name: the name.
        result: the digest of the uppermost blob.
        layers: from the bottom up.
        alone: whether it is one layer without those below it.
    """

    name: str
    result: str
    layers: tuple[Layer, ...]
    alone: bool


def look_inside(cache: CacheLike, name: str = "", *, result: str = "", layer: str = "") -> Contents:
    """The files of a result, or of one layer, without extracting them.

    Args:
        cache: a location or a cache.
        name: by default the one that the location gives, or the only one that the cache has.
        result: which result of the name: ``newest``, or the digest of a record, of a layer's blob
            or of its diffID, or the first six or more digits of one. By default the only result
            that no other was built on; if there are several, one has to be named.
        layer: one layer alone, by digests as for ``result``.

    Raises UsageError, which says what there is, if it is not clear what is meant; NoCacheError,
    NotFoundError, ManifestError, IntegrityError and StoreError.
    """
    opened = cache if isinstance(cache, Cache) else open_cache(cache)
    chosen = select(opened, name, result=result, layer=layer)
    return Contents(opened.layout, chosen.layers)


def select(cache: Cache, name: str = "", *, result: str = "", layer: str = "") -> Selected:
    """What :func:`look_inside` looks into."""
    if result and layer:
        raise UsageError("give either a result or a layer: a layer is one alone")
    name = meant_name(cache, name)
    graph = RecordGraph(cache.manifest(name).config)
    if layer:
        one = _one_layer(graph, name, layer)
        return Selected(name=name, result=one.blob, layers=(one,), alone=True)
    layers = _one_result(cache, graph, name, result)
    return Selected(name=name, result=layers[-1].blob, layers=layers, alone=False)


def results(cache: Cache, name: str = "") -> list[ResultDetails]:
    """All results of a name, the final ones first, and of these the newest first."""
    name = meant_name(cache, name)
    graph = RecordGraph(cache.manifest(name).config)
    return _described(cache, _results(graph))


def meant_name(cache: Cache, name: str = "") -> str:
    """The name that is given, or else the location's, or else the only one there is."""
    given = (name,) if name else cache.location.names
    if cache.location.digest and not given:
        return cache.default_names[0]
    if len(given) == 1:
        return given[0]
    there = list(given) or list(cache)
    if len(there) == 1:
        return there[0]
    if not there:
        cache.require_exists()
        raise UsageError(f"the cache at {cache.location} has no names")
    more = ", ..." if len(there) > _MANY else ""
    raise UsageError(f"say which name is meant (--name): {', '.join(there[:_MANY])}{more}")


class _Known(NamedTuple):
    details: ResultDetails
    layers: tuple[Layer, ...]
    description: Layer | None


def _results(graph: RecordGraph) -> list[_Known]:
    """The results of a name: the final ones first, then the newest first, each once."""
    finals = set(graph.finals())
    found: dict[tuple[str, ...], _Known] = {}
    named = 0
    for index in sorted(record_indexes(graph.records), key=lambda index: index not in finals):
        for one in graph.results([index]):
            known = _known(graph, index, one, final=index in finals)
            named += len(known.layers)
            if known.layers and named <= MOST_LAYERS:
                found.setdefault(tuple(layer.blob for layer in known.layers), known)
    newest = sorted(found.values(), key=lambda one: _time(one.details), reverse=True)
    return sorted(newest, key=lambda one: not one.details.final)


def _time(details: ResultDetails) -> tuple[int, str]:
    return timestamps.nanoseconds(details.created_at), details.layer


def _known(graph: RecordGraph, index: RecordIndex, found: Found, *, final: bool) -> _Known:
    chain = [graph.layers[each] for each in found.layers]
    layers = tuple(layer for layer in chain if layer.media_type != description.MEDIA_TYPE)
    details = ResultDetails(
        record=graph.records[index].digest,
        layer=layers[-1].blob if layers else "",
        layers=len(layers),
        bytes=sum({layer.blob: layer.size for layer in layers}.values()),
        created_at=found.created_at,
        final=final,
    )
    return _Known(details, layers, chain[-1] if len(chain) > len(layers) else None)


def _described(cache: Cache, found: Sequence[_Known]) -> list[ResultDetails]:
    """The details of results, with the commands that made the first of them."""
    layers = [
        (str(i), one.description) for i, one in enumerate(found[:_DESCRIBED]) if one.description
    ]
    read = run(read_descriptions(cache.layout, layers))
    commands = {int(one.created_at): one.description.command for one in read}
    return [
        replace(one.details, command=commands.get(number, [])) for number, one in enumerate(found)
    ]


def _one_result(cache: Cache, graph: RecordGraph, name: str, wanted: str) -> tuple[Layer, ...]:
    known = _results(graph)
    finals = [one for one in known if one.details.final]
    if not known:
        raise UsageError(f"{name} has no result whose files could be read")
    if wanted == NEWEST:
        return max(finals or known, key=lambda one: _time(one.details)).layers
    if not wanted:
        return _only(cache, name, finals or known)
    by_record = [one for one in known if _named(wanted, one.details.record)]
    by_layer = _chains(graph, wanted)
    if by_record and not by_layer:
        return _only(cache, name, by_record)
    if len(by_layer) == 1:
        return by_layer[0]
    if by_layer:
        raise UsageError(
            f"{wanted} is part of {len(by_layer)} chains of layers in {name}: name the result by "
            "its record; 'cachefs files --results' lists all"
        )
    raise _unknown(name, wanted, "result")


def _only(cache: Cache, name: str, known: Sequence[_Known]) -> tuple[Layer, ...]:
    """The only one of these results. Raises UsageError, which lists several."""
    if len(known) == 1:
        return known[0].layers
    listed = "; ".join(map(_line, _described(cache, known[:_MANY])))
    more = f"; and {len(known) - _MANY} more" if len(known) > _MANY else ""
    raise UsageError(
        f"{name} has {len(known)} results, so say which one is meant (--result): '{NEWEST}', or "
        f"the digest of its layer: {listed}{more}; 'cachefs files --results' lists all"
    )


def _line(one: ResultDetails) -> str:
    made = f", by {shlex.join(one.command)}" if one.command else ""
    return f"{one.layer} (made {one.created_at}{made})"


def _one_layer(graph: RecordGraph, name: str, wanted: str) -> Layer:
    found = {
        layer.blob: layer
        for layer in graph.layers
        if _named(wanted, layer.blob) or _named(wanted, layer.diff_id)
    }
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise UsageError(f"{wanted} may be any of {', '.join(found)}: give more of its digits")
    raise _unknown(name, wanted, "layer")


def _chains(graph: RecordGraph, wanted: str) -> list[tuple[Layer, ...]]:
    """The different chains whose uppermost layer has this digest."""
    found: dict[tuple[str, ...], tuple[Layer, ...]] = {}
    named = 0
    for index in layer_indexes(graph.layers):
        top = graph.layers[index]
        if _named(wanted, top.blob) or _named(wanted, top.diff_id):
            chain = tuple(graph.layers[each] for each in graph.chain(index))
            named += len(chain)
            if named > MOST_LAYERS:
                break
            found[tuple(layer.blob for layer in chain)] = chain
    return list(found.values())


def _named(wanted: str, digest: str) -> bool:
    """Whether the text is this digest, or the first digits of it."""
    digits = wanted.removeprefix("sha256:")
    return len(digits) >= _SHORTEST and digest.removeprefix("sha256:").startswith(digits)


def _unknown(name: str, wanted: str, what: str) -> UsageError:
    listing = (
        "'cachefs files --results' lists them" if what == "result" else "'cachefs show' lists them"
    )
    return UsageError(f"{name} has no {what} {wanted}; {listing}")
