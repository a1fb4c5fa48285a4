"""The tree of errors.

::

    CacheError
    ├── DigestError (ValueError)      text that is no digest
    ├── IntegrityError                bytes that are not what their digest or size says
    ├── ManifestError (ValueError)    a manifest that the format calls invalid
    ├── LayerError (ValueError)       a layer archive that is unsafe, too large or not an archive
    ├── UsageError (ValueError)       a call that makes no sense, whatever the store says
    │   ├── LocationError             a location or attribute that was typed wrong
    │   └── CacheNameError            a name that would leave the cache, or that no store keeps
    └── StoreError (OSError)          the store refused, failed or could not be reached
        ├── NotFoundError (FileNotFoundError)
        ├── AccessError (PermissionError)
        └── UnreachableError (ConnectionError)

Nothing above :mod:`cachefs.store` sees an error of a filesystem library: they are mapped once, in
:mod:`cachefs.filesystems.failures`, by type and ``errno``, never by their text.
"""

from __future__ import annotations


class CacheError(Exception):
    """The root of every error that cachefs raises on purpose.

    Attributes:
        operation: what was being done (``"read"``, ``"upload"``, ...), where that is known.
        side: ``"source"`` or ``"target"`` where two caches take part, else None.
        key: the full path in the store, where one is concerned.
        digest: the blob, where one is concerned.
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
        """One line: what was done, where, and what happened."""
        where = " ".join(
            part for part in (self.operation, self.side, self.key or self.digest) if part
        )
        return f"{where}: {self.reason}" if where else self.reason

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes with their attributes."""
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(kind: type[CacheError], attributes: dict[str, str | None]) -> CacheError:
    error = kind(str(attributes["reason"]))
    error.__dict__.update(attributes)
    return error


class DigestError(CacheError, ValueError):
    """The text is not a digest that the format allows."""


class IntegrityError(CacheError):
    """The bytes are not those that the digest or the size names."""


class ManifestError(CacheError, ValueError):
    """The manifest is one that the format calls invalid; the reason names the record or layer."""


class LayerError(CacheError, ValueError):
    """A layer archive that would write outside, breaks a limit, or is not a valid archive."""


class UsageError(CacheError, ValueError):
    """The caller's own mistake."""


class LocationError(UsageError):
    """A location, attribute or attribute value that was typed wrong."""


class CacheNameError(UsageError):
    """A manifest name that would leave the cache's own prefix or that some stores do not keep."""


class StoreError(CacheError, OSError):
    """The store refused, failed or could not be reached, or there is no such bucket or folder."""


class NotFoundError(StoreError, FileNotFoundError):
    """No object has this key, in a store that is there."""


class AccessError(StoreError, PermissionError):
    """Credentials are missing, wrong, expired or not enough. Never treated as "absent"."""


class UnreachableError(StoreError, ConnectionError):
    """No answer from the store: a wrong endpoint, a name that does not resolve, a time-out."""
