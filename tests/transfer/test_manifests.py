"""Reading many names: bounded, in order, and whether a failure is the name's or the store's."""

from __future__ import annotations

import asyncio

import pytest

import cachefs
from cachefs.concurrency import LOOKUP_PARALLELISM, run
from cachefs.errors import (
    AccessError,
    CacheError,
    CacheNameError,
    DigestError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    StoreError,
    UnreachableError,
)
from cachefs.layout.base import Layout
from cachefs.transfer.manifests import read_names

LAYOUT = cachefs.open("memory://names").layout
OF_A_NAME = [NotFoundError, ManifestError, IntegrityError, DigestError]
OF_THE_STORE = [StoreError, AccessError, UnreachableError]


def read_with(error: CacheError | None, *, store_errors: bool = False) -> dict[str, object]:
    async def read(_layout: Layout, name: str) -> str:
        if error is not None and name == "b":
            raise error
        return name.upper()

    return dict(run(read_names(LAYOUT, ["c", "b", "a", "b"], read, store_errors=store_errors)))


def test_each_name_is_read_once_and_in_order() -> None:
    assert list(read_with(None).items()) == [("c", "C"), ("b", "B"), ("a", "A")]


@pytest.mark.parametrize("kind", OF_A_NAME)
def test_what_is_the_names_fault_is_its_result(kind: type[CacheError]) -> None:
    error = kind("reason")
    assert read_with(error) == {"c": "C", "b": error, "a": "A"}


@pytest.mark.parametrize("kind", OF_THE_STORE)
def test_what_is_the_stores_fault_is_raised(kind: type[CacheError]) -> None:
    error = kind("reason")
    with pytest.raises(kind):
        read_with(error)
    assert read_with(error, store_errors=True)["b"] is error


@pytest.mark.parametrize("store_errors", [False, True])
def test_an_invalid_name_is_the_callers_mistake(store_errors: bool) -> None:
    with pytest.raises(CacheNameError):
        read_with(CacheNameError("reason"), store_errors=store_errors)


def test_reading_is_bounded() -> None:
    under_way = 0
    most = 0

    async def read(_layout: Layout, _name: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    run(read_names(LAYOUT, map(str, range(5 * LOOKUP_PARALLELISM)), read))
    assert most == LOOKUP_PARALLELISM
