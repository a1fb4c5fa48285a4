"""JSON as Go's encoder writes it."""

from __future__ import annotations

from typing import Final

import msgspec

_encoder: Final = msgspec.json.Encoder()

# Go's encoder escapes these inside strings. Outside strings, JSON has none of them.
_GO_ESCAPES: Final = {
    b"&": rb"\u0026",
    b"<": rb"\u003c",
    b">": rb"\u003e",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


def go_json(value: msgspec.Struct) -> bytes:
    """JSON as Go's encoder writes it: no spaces, ``& < >`` and line separators escaped."""
    raw = _encoder.encode(value)
    for plain, escaped in _GO_ESCAPES.items():
        raw = raw.replace(plain, escaped)
    return raw
