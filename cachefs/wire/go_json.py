"""JSON as Go's encoder writes it."""

from __future__ import annotations

from typing import Final

import msgspec

_encoder: Final = msgspec.json.Encoder()

# Go's encoder escapes these inside strings. Outside strings, JSON has none of them.
_GO_ESCAPES: Final = {b"&": rb"\u0026", b"<": rb"\u003c", b">": rb"\u003e"}
_BEYOND_ASCII: Final = {"\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029"}


def go_json(value: msgspec.Struct) -> bytes:
    """JSON as Go's encoder writes it: no spaces, ``& < >`` and line separators escaped."""
    raw = _encoder.encode(value)
    # To search for several bytes takes as long as to encode them all.
    escapes = _GO_ESCAPES if raw.isascii() else _GO_ESCAPES | _BEYOND_ASCII
    for plain, escaped in escapes.items():
        raw = raw.replace(plain, escaped)
    return raw
