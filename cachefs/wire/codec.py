"""Manifests to structs and back, byte for byte."""

from __future__ import annotations

from typing import Final

import msgspec

from cachefs.collector import collection_paused
from cachefs.errors import ManifestError
from cachefs.wire.bounds import MAX_RECORDS, check_bounds, too_large
from cachefs.wire.cacheconfig import CacheConfig
from cachefs.wire.go_json import go_json
from cachefs.wire.rules import check

_decoder: Final = msgspec.json.Decoder(CacheConfig)


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
        count = len(config.records) + len(config.layers)
        if count > max_records:
            raise too_large(f"{count} records and layers", max_records)
        check(config)
    return config


def encode(config: CacheConfig) -> bytes:
    """The bytes a builder would have written for this config."""
    return go_json(config)
