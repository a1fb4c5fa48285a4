"""Manifests to structs and back, byte for byte."""

from __future__ import annotations

from typing import Final

import msgspec

from cachefs.collector import collection_paused
from cachefs.errors import ManifestError
from cachefs.wire.cacheconfig import CacheConfig
from cachefs.wire.go_json import go_json
from cachefs.wire.rules import check

MAX_BYTES: Final = 512 * 1024 * 1024
"""Larger manifests are refused unparsed. Ten times the largest that the format's authors saw."""

_decoder: Final = msgspec.json.Decoder(CacheConfig)


def decode(raw: bytes) -> CacheConfig:
    """Parse and check a manifest. Raises ManifestError if it is invalid."""
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
