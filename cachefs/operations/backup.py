"""Copying names to another cache before a prune removes them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from cachefs.amount import Amount, counted
from cachefs.digest import Digest
from cachefs.errors import CacheError, NotFoundError, UsageError
from cachefs.operations.publishing import Publishing
from cachefs.transfer.exporter import Transfer
from cachefs.transfer.manifests import read_manifests
from cachefs.transfer.sources import LayoutSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsspec.callbacks import Callback

    from cachefs.layout.base import Layout, Manifest, NamedManifest

logger = logging.getLogger("cachefs")


class Backup(Struct, frozen=True, kw_only=True):
    """What is copied to another cache before names are removed.

    Attributes:
        to: where it is copied.
        names: the names that are removed.
        blobs: with their blobs, those that no other name needs, each with its bytes.
        copies: the number of these blobs, and their bytes.
    """

    to: str
    names: list[str]
    blobs: dict[str, int]
    copies: Amount


class BackupTarget(NamedTuple):
    """Where names are copied, whether with their blobs, and after how many seconds to touch."""

    layout: Layout
    blobs: bool
    touch_refresh: float


async def require_apart(target: BackupTarget, layouts: Sequence[Layout]) -> None:
    """Raise UsageError if the backup is, or is inside, one of the caches that are pruned.

    Its copies would be deleted with what they are copies of, or be taken for names. Raises
    StoreError.
    """
    backup = target.layout
    account, prefixes = await backup.store.account(), await _prefixes(backup)
    for layout in layouts:
        other = await layout.store.account()
        if account is not None and other is not None and account != other:
            continue  # another server may have a bucket of the same name
        if _overlap(prefixes, await _prefixes(layout)):
            raise UsageError(
                "the backup would be part of the cache that is pruned: give another location",
                operation="prune",
                key=backup.store.root + backup.prefix,
            )


async def _prefixes(layout: Layout) -> list[str]:
    return [
        await layout.store.resolved(prefix)
        for prefix in (layout.blob_prefix, layout.manifest_prefix)
    ]


def _overlap(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a key can begin with a prefix of each."""
    return any(one.startswith(other) or other.startswith(one) for one in some for other in others)


async def back_up(
    source: Layout,
    backup: Backup,
    names: Sequence[NamedManifest],
    target: BackupTarget,
    callback: Callback,
) -> list[str]:
    """Copy the names and blobs; a name that the backup has already is replaced.

    Returns the names that were copied. One that is gone is left out. Raises CacheError if a name
    cannot be copied, before any is removed.
    """
    manifests: list[Manifest] = []
    for found in (await read_manifests(source, backup.names)).values():
        if isinstance(found, NotFoundError):
            continue
        if isinstance(found, CacheError):
            raise found
        manifests.append(found)
    blobs = LayoutSource(source.with_side("source"))
    transfer = Transfer(target.layout, blobs, callback, tolerant=True)
    wanted = {Digest(digest): size for digest, size in backup.blobs.items()}
    await transfer.bring(wanted, target.touch_refresh)
    if lost := sorted(transfer.failures):
        logger.warning(
            "the backup lacks %s that could not be read here: %s",
            counted(len(lost), "blob"),
            transfer.failures[lost[0]],
        )
    times = {name.name: name.modified for name in names if name.modified is not None}
    publishing = Publishing(target.layout, {one.name: [one.name] for one in manifests}, times)
    await publishing.publish(manifests)
    for error in publishing.clashes.values():
        raise error
    return publishing.done(manifests)
