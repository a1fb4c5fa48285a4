"""The user's cache directory, for files that are kept on this machine only."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import xxhash


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/cachefs``, by default ``~/.cache/cachefs``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "cachefs"


def read_checked(path: Path) -> bytes | None:
    """Read what :func:`write_checked` wrote; None if it is missing or damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    check, data = raw[:8], raw[8:]
    return data if xxhash.xxh3_64_digest(data) == check else None


def write_checked(path: Path, data: bytes) -> None:
    """Write bytes that are not essential: errors, such as a full disk, are ignored."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            temporary.write_bytes(xxhash.xxh3_64_digest(data) + data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
