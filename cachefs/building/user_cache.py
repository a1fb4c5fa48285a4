"""Where this machine keeps what belongs to it alone: the user's cache directory."""

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
    """What :func:`write_checked` wrote; None where it is not there, or not whole."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    check, data = raw[:8], raw[8:]
    return data if xxhash.xxh3_64_digest(data) == check else None


def write_checked(path: Path, data: bytes) -> None:
    """Write bytes that are good to have and no loss without: a full disk is no error here."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            aside.write_bytes(xxhash.xxh3_64_digest(data) + data)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
