"""Exit statuses, which mean the same in every command."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from cachefs.errors import (
    CacheError,
    ConflictError,
    DigestError,
    IntegrityError,
    ManifestError,
    NoCacheError,
    NotFoundError,
    StoreError,
    UsageError,
)

if TYPE_CHECKING:
    from cachefs.building.steps import StepError


class Exit(IntEnum):
    """The exit status of a command."""

    DONE = 0
    FAULTS = 1
    USAGE = 2
    STORE = 3
    DAMAGED = 4
    NO_CACHE = 5
    CONFLICT = 6
    INTERRUPTED = 130


MEANINGS = {
    Exit.DONE: "done",
    Exit.FAULTS: (
        "done in part: the cache has faults (damage, or what builders refuse to import), its store "
        "is bad for a cache ('cachefs doctor'), or some names are missing or failed"
    ),
    Exit.USAGE: "usage error",
    Exit.STORE: "the store, or this machine, refused, failed or could not be reached",
    Exit.DAMAGED: "a manifest or blob is damaged, or no trusted key signed the name",
    Exit.NO_CACHE: "there is no cache at the location",
    Exit.CONFLICT: "other writers of a name were faster each time; it holds what they wrote",
    Exit.INTERRUPTED: "interrupted",
}


_CANNOT_EXECUTE = 126
_NOT_FOUND = 127


def status_of_step(error: StepError) -> int:
    """The exit status for a command that failed, as a shell has it."""
    if error.exit_code is None:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return _NOT_FOUND if missing else _CANNOT_EXECUTE
    return error.exit_code if error.exit_code > 0 else 128 - error.exit_code


def status_of(error: CacheError) -> Exit:
    """The exit status for an error."""
    if isinstance(error, NoCacheError):
        return Exit.NO_CACHE
    if isinstance(error, ConflictError):
        return Exit.CONFLICT
    if isinstance(error, UsageError | DigestError):
        return Exit.USAGE
    if isinstance(error, NotFoundError):
        return Exit.FAULTS
    if isinstance(error, StoreError):
        return Exit.STORE
    if isinstance(error, ManifestError | IntegrityError):
        return Exit.DAMAGED
    return Exit.FAULTS
