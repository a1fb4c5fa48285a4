"""Changing ``index.json`` of an OCI layout, which all tags share, while others change it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from cachefs.errors import ConflictError, NotFoundError
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.local import LocalFilesystem
from cachefs.filesystems.locking import locked
from cachefs.layout.contention import ATTEMPTS, pause
from cachefs.wire import oci
from cachefs.wire.oci import Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachefs.digest import Digest
    from cachefs.store import Store

    Edit = Callable[[Index], Index | None]

INDEX: Final = "index.json"

LIMIT: Final = 64 * 1024 * 1024
"""Maximum bytes of an index."""


def retagged(
    index: Index,
    tags: Mapping[str, Descriptor | None],
    only: Mapping[str, Digest | None] | None = None,
) -> Index:
    """The index with other tags, and without those with None.

    With ``only``, just those tags that refer to these manifests.
    """
    waiting = dict(tags)
    kept: list[Descriptor] = []
    for item in index.manifests:
        tag = item.annotations.get(oci.REF_NAME, "")
        meant = tag in tags and (only is None or only[tag] == item.digest)
        new = waiting.pop(tag, None) if meant else item
        if new is not None:
            kept.append(new)
    kept += [new for new in waiting.values() if new is not None]
    return replace(index, manifests=kept)


def tagged(index: Index, tag: str) -> str:
    """The digest of the manifest with this tag; empty if there is none."""
    found = (item.digest for item in index.manifests if item.annotations.get(oci.REF_NAME) == tag)
    return next(found, "")


async def change_index(store: Store, max_records: int, edit: Edit) -> bool:
    """Write what ``edit`` makes of the index. Returns False, without a write, if that is None.

    On a disk, a lock that builders know keeps others from changing it meanwhile. Elsewhere it is
    written on the condition that it has not changed, if the store compares, and else as it is.
    ``edit`` is called again if it has. Raises ConflictError and StoreError.
    """
    if isinstance(store.filesystem, LocalFilesystem):
        path = Path(store.root, f"{INDEX}.lock")
        async with AsyncExitStack() as stack:
            with mapped("lock", str(path), store.side):
                await stack.enter_async_context(locked(path))
            return await _change(store, max_records, edit)
    if not await store.keeps_conditions(INDEX):
        return await _change(store, max_records, edit)
    for attempt in range(ATTEMPTS):
        index, version = await _read(store, max_records)
        changed = edit(index)
        if changed is None:
            return False
        if await store.put_if(INDEX, oci.encode(changed), version):
            return True
        await asyncio.sleep(pause(attempt))
    raise ConflictError(
        f"other writers were faster {ATTEMPTS} times: try again, or use a keyed cache, in which "
        "names do not wait for each other",
        operation="write",
        side=store.side,
        key=store.root + INDEX,
    )


async def _change(store: Store, max_records: int, edit: Edit) -> bool:
    index, _ = await _read(store, max_records)
    changed = edit(index)
    if changed is not None:
        await store.put(INDEX, oci.encode(changed))
    return changed is not None


async def _read(store: Store, max_records: int) -> tuple[Index, str]:
    try:
        raw, version = await store.read_versioned(INDEX, LIMIT)
    except NotFoundError:
        return Index(schema_version=2, media_type=oci.INDEX, manifests=[]), ""
    return oci.decode_index(raw, max_records), version
