"""The tree of errors.

::

    CacheError
    ├── DigestError (ValueError)      text that is not a digest
    ├── IntegrityError                bytes that do not match their digest or size
    │   └── UntrustedError            a name that no trusted key has signed
    ├── ManifestError (ValueError)    a manifest that is not valid
    ├── LayerError (ValueError)       a layer archive that is unsafe, too large or not valid
    ├── NoCacheError (LookupError)    there is no cache at the location
    ├── ConflictError                 another writer wrote the same name
    ├── UsageError (ValueError)       a call that is wrong whatever the store contains
    │   ├── LocationError             a location or attribute that is not valid
    │   └── CacheNameError            a name that would leave the cache or that some stores change
    └── StoreError (OSError)          the store refused, failed or could not be reached
        ├── NotFoundError (FileNotFoundError)
        ├── AccessError (PermissionError)
        ├── ArchivedError             the object is in an archive, and has to be restored first
        └── UnreachableError (ConnectionError)

Errors of filesystem libraries are mapped to these in one place,
:mod:`cachefs.filesystems.failures`, by type and ``errno``, never by their text. Nothing above
:mod:`cachefs.store` sees them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator


class CacheError(Exception):
    """The base of every error that cachefs raises on purpose.

    Attributes:
        operation: what was being done (``"read"``, ``"upload"``, ...), if known.
        side: ``"source"`` or ``"target"`` if two caches are involved, else None.
        key: the full path in the store, if one is concerned.
        digest: the blob, if one is concerned.
    """

    def __init__(
        self,
        reason: str,
        *,
        operation: str | None = None,
        side: str | None = None,
        key: str | None = None,
        digest: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.operation = operation
        self.side = side
        self.key = key
        self.digest = digest

    def __str__(self) -> str:
        """One line: what was being done, where, and what happened. Secrets in it are masked."""
        where = " ".join(
            part for part in (self.operation, self.side, self.key or self.digest) if part
        )
        return mask_text(f"{where}: {self.reason}" if where else self.reason)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes with their attributes."""
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[CacheError], attributes: dict[str, str | None]) -> CacheError:
    error = kind(str(attributes["reason"]))
    error.__dict__.update(attributes)
    return error


class DigestError(CacheError, ValueError):
    """The text is not a digest in the form that the format allows."""


class IntegrityError(CacheError):
    """The bytes do not match the digest or the size."""


class UntrustedError(IntegrityError):
    """No trusted key has signed this manifest under this name; the reason says what is wrong."""


class ManifestError(CacheError, ValueError):
    """The manifest is not valid; the reason names the record or layer."""


class LayerError(CacheError, ValueError):
    """The layer archive would write outside, exceeds a limit, or is not a valid archive."""


class NoCacheError(CacheError, LookupError):
    """There is no cache at the location; the reason says what is near, such as a mistyped prefix.

    A cache whose names have all been removed is still a cache. A bucket or host that does not exist
    is a StoreError.
    """


class ConflictError(CacheError):
    """The name holds what another writer wrote, and nothing was to be lost; it is unchanged."""


class UsageError(CacheError, ValueError):
    """A mistake of the caller."""


class LocationError(UsageError):
    """A location, attribute or attribute value that is not valid."""


class CacheNameError(UsageError):
    """A manifest name that would leave the cache's prefix or that some stores would change."""


class StoreError(CacheError, OSError):
    """The store refused, failed or could not be reached, or the bucket does not exist."""


class NotFoundError(StoreError, FileNotFoundError):
    """No object has this key; the store itself exists."""


class AccessError(StoreError, PermissionError):
    """Credentials are missing, wrong, expired or insufficient. Never treated as "not there"."""


class ArchivedError(StoreError):
    """The object was moved to an archive, such as Glacier, and cannot be read until restored."""


class UnreachableError(StoreError, ConnectionError):
    """The store did not respond: a wrong endpoint, an unresolvable host, a timeout."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, each once, because an error may be the context of its own cause."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def reason(error: Exception) -> str:
    """What went wrong as part of a sentence: without the number that OSError begins with."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    name = error.filename
    return error.strerror if name is None else f"{os.fsdecode(name)}: {error.strerror}"
