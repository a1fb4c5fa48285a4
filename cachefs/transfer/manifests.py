"""Reading many manifests, and deciding whether a failure concerns the name or the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.errors import (
    ArchivedError,
    CacheError,
    DigestError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    UsageError,
)
from cachefs.filesystems.failures import is_silence
from cachefs.graph import RecordGraph

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest

T = TypeVar("T")

NAME_FAULTS: Final = (NotFoundError, ArchivedError, ManifestError, IntegrityError, DigestError)
"""Errors that concern one name: it does not exist, or its manifest is not valid or is damaged.

All others (no access, no response, a failing store) concern the store: any name would get them.
"""


async def read_names(
    layout: Layout,
    names: Iterable[str],
    read: Callable[[Layout, str], Awaitable[T]],
    *,
    store_errors: bool = False,
) -> dict[str, T | CacheError]:
    """Call ``read`` for every name, several at a time, and collect what it returns.

    Args:
        layout: where the names are.
        names: the names; each is read once, and the result is in their order.
        read: reads one name, such as :meth:`Layout.read`, of the layout that it is
            given. It may reduce a manifest to what is needed, so that not all manifests are in
            memory at once.
        store_errors: collect the store's errors too, instead of raising the first one. Once the
            store does not respond in time, the other names get the same error without a request.

    Returns, for each name, what ``read`` returned or the error that concerns the name. Raises
    UsageError for an invalid name, and StoreError.
    """
    caught = CacheError if store_errors else NAME_FAULTS
    wanted = list(dict.fromkeys(names))
    found: dict[str, T | CacheError] = {}
    held = layout.held()
    silent: CacheError | None = None

    async def one(name: str) -> None:
        nonlocal silent
        if silent is not None:
            found[name] = silent
            return
        try:
            found[name] = await read(held, name)
        except UsageError:
            raise
        except caught as error:
            found[name] = error
            silent = error if is_silence(error) else None

    await for_each(wanted, one, LOOKUP_PARALLELISM)
    return {name: found[name] for name in wanted}


async def read_manifests(
    layout: Layout, names: Iterable[str], *, store_errors: bool = False
) -> dict[str, Manifest | CacheError]:
    """Each name's manifest, or its error. Raises the same errors as :func:`read_names`."""
    return await read_names(layout, names, _manifest, store_errors=store_errors)


async def readable_manifest(layout: Layout, name: str) -> Manifest | None:
    """The name's manifest, or None if it does not exist or cannot be read. Raises StoreError."""
    found = (await read_manifests(layout, [name]))[name]
    return None if isinstance(found, CacheError) else found


async def _manifest(layout: Layout, name: str) -> Manifest:
    return await layout.read(name)


def blobs_of(manifests: Iterable[Manifest]) -> dict[Digest, int]:
    """Each blob that the manifests need, with its size in bytes (0 if no layer states it)."""
    blobs: dict[Digest, int] = {}
    for manifest in manifests:
        blobs |= RecordGraph(manifest.config).blobs()
    return blobs
