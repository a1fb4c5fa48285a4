"""Where signatures are: beside the cache, by the manifest's digest, the key and the name.

A key is ``{prefix}signatures/sha256:{manifest}/{key id}/{subject}``, where the subject stands for
the cache and the name. So a reader knows which objects it wants and need not list, several people
can sign a name, and a signature is there before the name that it is for.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cachefs.digest import Digest
from cachefs.errors import IntegrityError, NotFoundError, UsageError
from cachefs.trust.statement import LARGEST, decode

if TYPE_CHECKING:
    from cachefs.store import Store
    from cachefs.trust.statement import Signed


def subject(identity: str, name: str) -> str:
    """The last part of a signature's key: stands for a name of a cache."""
    return hashlib.sha256(f"{identity}\n{name}".encode()).hexdigest()


def parts_of(prefix: str, key: str) -> tuple[Digest, str] | None:
    """The manifest and the subject of a signature's key; None for any other key."""
    parts = key.removeprefix(prefix).split("/")
    if not key.startswith(prefix) or len(parts) != 3 or not all(map(_is_hash, parts[1:])):
        return None
    manifest = parts[0].removeprefix("sha256:")
    return (Digest.from_hex(manifest), parts[2]) if _is_hash(manifest) else None


def _is_hash(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


async def read_signed(store: Store, key: str) -> Signed | None:
    """The signed statement with this key, not checked; None if it cannot be read as one."""
    try:
        return decode(await store.read(key, LARGEST))
    except (NotFoundError, IntegrityError, ValueError):
        return None


def no_key() -> UsageError:
    """The error for signing without a key."""
    return UsageError(
        "there is no key to sign with: give signing_key=... (--key), or set $CACHEFS_SIGNING_KEY",
        operation="sign",
    )
