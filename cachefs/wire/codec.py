"""Manifests to structs and back, byte for byte."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from cachefs.amount import counted
from cachefs.collector import collection_paused
from cachefs.errors import ManifestError
from cachefs.wire.bounds import MAX_RECORDS, check_bounds, too_large
from cachefs.wire.cacheconfig import (
    RANDOM,
    CacheConfig,
    Chain,
    Layer,
    Link,
    Record,
    RecordIndex,
    Result,
    record_indexes,
)
from cachefs.wire.go_json import go_json
from cachefs.wire.rules import check
from cachefs.wire.subset import without_records
from cachefs.wire.walks import link_targets

_decoder: Final = msgspec.json.Decoder(CacheConfig)


class Written(NamedTuple):
    """A manifest as a builder may have written it.

    Attributes:
        config: the part that is valid.
        left_out: why records are not in that part; empty if nothing was left out.
    """

    config: CacheConfig
    left_out: str = ""


class _Record(Struct):
    """A record whose inputs a builder may have left without alternatives, as ``null``."""

    layers: tuple[Result, ...] = ()
    chains: tuple[Chain, ...] = ()
    digest: str = ""
    inputs: tuple[tuple[Link, ...] | None, ...] = ()


class _Config(Struct):
    layers: list[Layer] = []
    records: list[_Record] = []


_lenient_decoder: Final = msgspec.json.Decoder(_Config)


def decode(raw: bytes, max_records: int = MAX_RECORDS) -> CacheConfig:
    """Parse and check a manifest. Raises ManifestError if it is invalid.

    ``max_records`` is how many records and layers it may have; it bounds the memory that this
    takes, whatever the bytes are.
    """
    check_bounds(raw, max_records)
    with collection_paused():
        try:
            config = _decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ManifestError(f"the manifest is not a cache config: {error}") from error
        _check_count(config, max_records)
        check(config)
    return config


def _check_count(config: CacheConfig | _Config, max_records: int) -> None:
    count = len(config.records) + len(config.layers)
    if count > max_records:
        raise too_large(f"{count} records and layers", max_records)


def decode_written(raw: bytes, max_records: int = MAX_RECORDS) -> Written:
    """Parse and check a manifest that a builder wrote, even if builders refuse to read it.

    They refuse two kinds of records, which are left out with all that has no alternative without
    them; all layers stay. BuildKit's exporter leaves out links that would close a loop. If these
    are all alternatives of an input, it writes ``null`` for them. And its importer ignores records
    that are good for one build only (:data:`RANDOM`), but not links to them. Raises ManifestError
    if the manifest is invalid in any other way.
    """
    check_bounds(raw, max_records)
    try:
        return _without_random(decode(raw, max_records))
    except ManifestError as refused:
        with collection_paused():
            try:
                found = _lenient_decoder.decode(raw)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                raise refused from None
            _check_count(found, max_records)
            unsatisfied = [i for i, record in enumerate(found.records) if None in record.inputs]
            if not unsatisfied:
                raise
            config = CacheConfig(found.layers, [_with_links(record) for record in found.records])
            check(config)
            gone = {RecordIndex(index) for index in unsatisfied} | _random(config)
            reason = f"record {unsatisfied[0]} has an input without alternatives"
            return _without(config, gone, reason)


def _without_random(config: CacheConfig) -> Written:
    """The config without records that are good for one build only, if others link to them."""
    random = _random(config)
    if random:
        for index, targets in enumerate(link_targets(config.records)):
            if not random.isdisjoint(targets):
                reason = f"record {index} links a record that is good for one build only"
                return _without(config, random, reason)
    return Written(config)


def _random(config: CacheConfig) -> set[RecordIndex]:
    indexes = record_indexes(config.records)
    return {index for index in indexes if config.records[index].digest.startswith(RANDOM)}


def _without(config: CacheConfig, gone: set[RecordIndex], reason: str) -> Written:
    part = without_records(config, gone)
    count = len(config.records) - len(part.records)
    return Written(part, f"{reason}; left out: {count} of {counted(len(config.records), 'record')}")


def _with_links(record: _Record) -> Record:
    inputs = tuple(alternatives for alternatives in record.inputs if alternatives is not None)
    return Record(record.layers, record.chains, record.digest, inputs)


def encode(config: CacheConfig) -> bytes:
    """The bytes a builder would have written for this config."""
    return go_json(config)
