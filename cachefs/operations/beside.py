"""Manifests beside those of a cache that need the same blobs, under a prefix that was not given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.digest import Digest
from cachefs.errors import (
    AccessError,
    DigestError,
    IntegrityError,
    ManifestError,
    NotFoundError,
)
from cachefs.filesystems.base import TEMPORARY, Folder, Stat
from cachefs.wire import codec
from cachefs.wire.bounds import MAX_RECORDS, max_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cachefs.layout.base import Layout
    from cachefs.store import Store

MANY: Final = 100
"""Maximum number of folders and objects beside the manifests that are looked at."""

SAMPLE: Final = 3
"""Number of objects of a folder that are read to find out whether it holds manifests."""

DEPTH: Final = 3
"""Levels of folders below such a folder in which its first objects are searched."""

SURELY: Final = 1024 * 1024
"""Bytes up to which an object is read without a look at its beginning."""

_MAX_BYTES: Final = max_bytes(MAX_RECORDS)


async def manifests_beside(layouts: Sequence[Layout], stored: Collection[Digest]) -> list[str]:
    """Prefixes of keys beside the given manifests that hold manifests over the same blobs.

    Looked at are the folders from the manifests and the blobs up to the folder that both are in,
    with one listing for each, and one or a few for each folder that is found there. A folder with
    blobs of its own is another cache.

    Args:
        layouts: caches over the same blobs; the first one is the one that is looked around.
        stored: the blobs that the store has.

    Raises StoreError, but not for a folder that may not be listed.
    """
    layout = layouts[0]
    known = [each.manifest_prefix for each in layouts]
    if not all(known):
        return []  # every object is a name, or one object has all names
    found: set[str] = set()
    for level in _levels(layout.manifest_prefix, layout.blob_prefix):
        folder = await listed(layout.store, level)
        candidates = [*_unknown(folder.folders, layout, known), *_unknown_objects(folder, known)]

        async def look(candidate: str, folder: Folder = folder) -> None:
            objects = await _objects(layout.store, candidate, folder)
            if await _any_needs(layout.store, objects, stored):
                found.add(candidate)

        candidates.sort(key=lambda key: ("manifest" not in key, key))
        await for_each(candidates[:MANY], look, LOOKUP_PARALLELISM)
    return sorted(found)


async def listed(store: Store, key: str) -> Folder:
    """What is directly in a folder; nothing if it may not be listed."""
    try:
        return await store.folder(key)
    except AccessError:
        return Folder([], [])


def folder_of(key: str) -> str:
    """The folder that a key or a folder is in, with its last slash; empty for the root."""
    above, slash, _ = key.rstrip("/").rpartition("/")
    return above + slash


def _levels(manifests: str, blobs: str) -> list[str]:
    """The folders that the two prefixes are in, up to the one that both are in."""
    ups = [_up(manifests), _up(blobs.rpartition("/")[0] + "/" if "/" in blobs else blobs)]
    common = next(level for level in ups[0] if level in ups[1])
    return list(dict.fromkeys(one for up in ups for one in up if len(one) >= len(common)))


def _up(key: str) -> list[str]:
    levels = [folder_of(key)]
    while levels[-1]:
        levels.append(folder_of(levels[-1]))
    return levels


def _unknown(folders: Sequence[str], layout: Layout, known: Sequence[str]) -> list[str]:
    """The folders that hold neither the blobs nor manifests that are known."""
    return [
        folder
        for folder in folders
        if not layout.blob_prefix.startswith(folder)
        and folder != layout.signature_prefix
        and not any(folder.startswith(prefix) or prefix.startswith(folder) for prefix in known)
        and not _has_blobs_beside(folder, folders, layout)
    ]


def _has_blobs_beside(folder: str, folders: Sequence[str], layout: Layout) -> bool:
    """Whether these are the manifests of another cache, whose prefix ends without a slash."""
    blobs = folder.removesuffix("manifests/") + "blobs/"
    return blobs != folder and blobs in folders and not layout.blob_prefix.startswith(blobs)


def _unknown_objects(folder: Folder, known: Sequence[str]) -> list[str]:
    return [
        stat.path
        for stat in folder.objects
        if _may_be_manifest(stat) and not any(stat.path.startswith(prefix) for prefix in known)
    ]


def _may_be_manifest(stat: Stat) -> bool:
    name = stat.path.rpartition("/")[2]
    return 0 < stat.size <= _MAX_BYTES and not name.startswith((TEMPORARY, "sha256:"))


async def _objects(store: Store, candidate: str, folder: Folder) -> list[Stat]:
    """The object, or the first ones of the folder; none if the folder is a cache itself."""
    if not candidate.endswith("/"):
        return [stat for stat in folder.objects if stat.path == candidate]
    inside = candidate
    for _ in range(DEPTH):
        below = await listed(store, inside)
        if f"{inside}blobs/" in below.folders:
            return []
        objects = [stat for stat in below.objects if _may_be_manifest(stat)]
        if objects or not below.folders:
            return objects[:SAMPLE]
        inside = below.folders[0]
    return []


async def _any_needs(store: Store, objects: Iterable[Stat], stored: Collection[Digest]) -> bool:
    """Whether one of the objects is a manifest that needs one of the blobs."""
    for stat in objects:
        try:
            if stat.size > SURELY:
                (beginning,) = await store.read_batch([(stat.path, 1)])
                if not (isinstance(beginning, bytes) and beginning.startswith(b"{")):
                    continue
            config = codec.decode_written(await store.read(stat.path, limit=_MAX_BYTES)).config
            if any(Digest(layer.blob) in stored for layer in config.layers):
                return True
        except (AccessError, NotFoundError, ManifestError, IntegrityError, DigestError):
            continue
    return False
