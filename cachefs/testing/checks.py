"""Shared by the tests of the filesystem contract: data, and failures that name a promise."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cachefs.filesystems.base import Stat
    from cachefs.store import Store

MIB: Final = 1024 * 1024


class SourceError(Exception):
    """An error of a stream of bytes, unrelated to stores."""


@functools.cache
def _noise() -> bytes:
    return random.Random(1).randbytes(40 * MIB)  # noqa: S311 - tests need the same bytes every time


def noise(size: int) -> bytes:
    """Bytes in which no two parts are equal; at most 40 MiB."""
    return _noise()[:size]


async def chunks_of(data: bytes, size: int = 3 * MIB) -> AsyncIterator[bytes]:
    """Cut bytes into chunks so that no part of an upload consists of whole chunks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def failing(data: bytes, error: BaseException) -> AsyncIterator[bytes]:
    """Yield the bytes in chunks, then raise the error."""
    async for chunk in chunks_of(data):
        yield chunk
    raise error


def check(condition: object, promise: str) -> None:
    """Fail the test, with the promise that is broken, unless the condition is true."""
    __tracebackhide__ = True
    if not condition:
        pytest.fail(f"the filesystem breaks a promise: {promise}")


def expect(found: object, expected: object, promise: str) -> None:
    """Fail the test, with the promise that is broken, unless both are equal."""
    __tracebackhide__ = True
    if found != expected:
        shown = f"expected {_shown(expected)}, found {_shown(found)}"
        pytest.fail(f"the filesystem breaks a promise: {promise}; {shown}")


def _shown(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 80:
        return f"{len(value)} bytes that begin with {value[:20]!r}"
    text = repr(value)
    return text if len(text) < 500 else f"{text[:500]}..."


def keys(stats: Iterable[Stat]) -> list[str]:
    """The keys of objects, in their order."""
    return [stat.path for stat in stats]


async def stat_of(store: Store, key: str) -> Stat:
    """Look up an object that was written. Fails the test if there is none."""
    found = await store.stat(key)
    if found is None:
        pytest.fail(f"the filesystem breaks a promise: {key!r} was written, and info finds it")
    return found


def renewed(before: Any, after: Any) -> bool:
    """Whether the time of an object is later than before."""
    return before is not None and after is not None and after > before
