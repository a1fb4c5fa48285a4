"""What caches saved on this machine: totals of ``cachefs run`` for each cache and command.

They are kept in the user's cache directory, one line of JSON for each run, and are not essential:
errors are ignored when they are written.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cachefs.errors import UsageError
from cachefs.filesystems.regular import read_regular
from cachefs.user_directory import user_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST: Final = 200
"""Characters of a command that are kept."""

_NAME: Final = "stats"
_LARGEST: Final = 1 << 20
"""Bytes from which the lines of one cache and command are added up."""


class Saving(Struct, frozen=True, kw_only=True):
    """What runs of a command did.

    Attributes:
        cache: where the results came from; empty for misses.
        command: the command line, in which what looks like a secret is masked.
        hits: how many were hits.
        misses: how many were not.
        saved: seconds that the results took to make.
        spent: seconds that commands ran.
        fetched: bytes of results that were fetched.
        since: when this began to be counted, in seconds since 1970.
    """

    cache: str = ""
    command: str = ""
    hits: int = 0
    misses: int = 0
    saved: float = 0.0
    spent: float = 0.0
    fetched: int = 0
    since: float = 0.0

    def __add__(self, other: Saving) -> Saving:
        """Both together; cache and command are those of this one."""
        return replace(
            self,
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            saved=self.saved + other.saved,
            spent=self.spent + other.spent,
            fetched=self.fetched + other.fetched,
            since=min(self.since or other.since, other.since or self.since),
        )


_decoder: Final = msgspec.json.Decoder(Saving)


def count(saving: Saving) -> None:
    """Add what a run did."""
    shortened = replace(saving, command=saving.command[:LONGEST], since=time.time())
    with suppress(OSError, UsageError), _locked() as descriptor:
        os.lseek(descriptor, 0, os.SEEK_END)
        _write(descriptor, [shortened])
        if os.fstat(descriptor).st_size > _LARGEST:
            added = totals()
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            _write(descriptor, added)


def totals() -> list[Saving]:
    """The total for each cache and command, the one that saved most first. Raises UsageError."""
    found: dict[tuple[str, str], Saving] = {}
    with suppress(OSError):
        for line in read_regular(user_cache() / _NAME, 2 * _LARGEST).splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                one = _decoder.decode(line)
                identity = (one.cache, one.command)
                found[identity] = found[identity] + one if identity in found else one
    return sorted(found.values(), key=lambda one: (-one.saved, one.command, one.cache))


def reset() -> None:
    """Begin to count anew. Raises UsageError and OSError."""
    with _locked() as descriptor:
        os.ftruncate(descriptor, 0)


@contextmanager
def _locked() -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(user_cache() / _NAME, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, savings: Iterable[Saving]) -> None:
    data = b"".join(msgspec.json.encode(one) + b"\n" for one in savings)
    os.write(descriptor, data)
