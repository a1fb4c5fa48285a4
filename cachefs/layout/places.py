"""Where signatures are: objects beside the cache, or in a registry referrers of manifests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from cachefs.concurrency import LOOKUP_PARALLELISM, collected
from cachefs.digest import Digest
from cachefs.errors import AccessError, ConflictError, IntegrityError, ManifestError, NotFoundError
from cachefs.layout.contention import ATTEMPTS, pause
from cachefs.trust.statement import LARGEST
from cachefs.wire import oci
from cachefs.wire.referrers import Referrers, artifact, fallback_tag

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cachefs.store import Store

EXPLAINED: Final = 20
"""Number of other signatures that are read to say why none of them counts."""

LARGEST_INDEX: Final = 4 * 1024 * 1024
"""Bytes of a list of referrers. Registries have no larger manifests."""

_EMPTY: Final = b"{}"


class Stored(NamedTuple):
    """A signature as it is stored: where, and its bytes or why they cannot be read."""

    where: str
    data: bytes | IntegrityError


class Place(Protocol):
    """Where the signatures of one cache are."""

    async def put(
        self, store: Store, manifest: str, key_id: str, subject: str, data: bytes
    ) -> None:
        """Store a signature, in place of an older one by the same key for the same name."""

    async def by(
        self, store: Store, manifest: str, key_ids: Collection[str], subject: str
    ) -> list[Stored]:
        """The signatures of a manifest for a name, by these keys."""

    async def some(self, store: Store, manifest: str) -> list[Stored]:
        """Some signatures of a manifest, by whatever keys and for whatever names."""


class Beside:
    """Objects with keys ``{prefix}{manifest}/{key id}/{subject}``, in every store but registries.

    Args:
        prefix: the beginning of their keys.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    async def put(
        self, store: Store, manifest: str, key_id: str, subject: str, data: bytes
    ) -> None:
        """Write the object. Raises StoreError."""
        await store.put(f"{self._prefix}{manifest}/{key_id}/{subject}", data)

    async def by(
        self, store: Store, manifest: str, key_ids: Collection[str], subject: str
    ) -> list[Stored]:
        """Read one object for each key, all at the same time. Raises StoreError."""
        keys = [f"{self._prefix}{manifest}/{key_id}/{subject}" for key_id in key_ids]
        return await self._read(store, keys)

    async def some(self, store: Store, manifest: str) -> list[Stored]:
        """List, and read the first ones. Raises StoreError."""
        try:
            listed = await store.list(f"{self._prefix}{manifest}/")
        except (AccessError, NotFoundError):
            return []
        return await self._read(store, [stat.path for stat in listed[:EXPLAINED]])

    async def _read(self, store: Store, keys: Collection[str]) -> list[Stored]:
        async def read(key: str) -> Stored | None:
            try:
                return Stored(key, await store.read(key, LARGEST))
            except NotFoundError:
                return None
            except IntegrityError as error:
                return Stored(key, error)

        found = await collected(list(keys), read, LOOKUP_PARALLELISM)
        return [each for each in found if each is not None]


class InRegistry:
    """Manifests that refer to the signed one, with the signature in an annotation.

    So the list of referrers has all signatures, and one request reads them. A registry without
    that list has it under a tag, as OCI's distribution specification says.
    """

    async def put(
        self, store: Store, manifest: str, key_id: str, subject: str, data: bytes
    ) -> None:
        """Write the manifest and, if the registry keeps no list, the list.

        Raises StoreError, ManifestError if the list is not understood, and ConflictError if others
        were faster to change it each time.
        """
        signed = await store.read(f"manifests/{manifest}", LARGEST_INDEX)
        made = artifact(
            oci.Descriptor(media_type=oci.media_type_of(signed), digest=manifest, size=len(signed)),
            key_id,
            subject,
            data.decode(),
        )
        empty = f"blobs/{Digest.of(_EMPTY)}"
        if await store.stat(empty) is None:
            await store.put(empty, _EMPTY)
        await store.put(f"manifests/{made.digest}", made.raw)
        if await self._listed(store, manifest) is None:
            await self._add(store, manifest, made.referrer)

    async def by(
        self, store: Store, manifest: str, key_ids: Collection[str], subject: str
    ) -> list[Stored]:
        """Those in the list of referrers. Raises StoreError."""
        return [
            Stored(f"of {one.key_id}", one.statement.encode())
            for one in (await self._referrers(store, manifest)).signatures()
            if one.subject == subject and one.key_id in key_ids
        ]

    async def some(self, store: Store, manifest: str) -> list[Stored]:
        """The same, whoever signed. Raises StoreError."""
        found = (await self._referrers(store, manifest)).signatures()[:EXPLAINED]
        return [Stored(f"of {one.key_id}", one.statement.encode()) for one in found]

    async def _referrers(self, store: Store, manifest: str) -> Referrers:
        listed = await self._listed(store, manifest)
        return await self._tagged(store, manifest) if listed is None else listed

    async def _listed(self, store: Store, manifest: str) -> Referrers | None:
        """The list that the registry keeps, None if it keeps none."""
        try:
            raw = await store.read(f"referrers/{manifest}", LARGEST_INDEX)
        except NotFoundError:
            return None
        try:
            return Referrers.decode(raw)
        except ManifestError:
            return None  # a page of something that is no registry's list

    async def _tagged(self, store: Store, manifest: str) -> Referrers:
        """The list under the tag. One that is not understood is an error, and never replaced."""
        key = _list_key(manifest)
        try:
            raw = await store.read(key, LARGEST_INDEX)
        except NotFoundError:
            return Referrers()
        try:
            return Referrers.decode(raw)
        except ManifestError as error:
            error.operation, error.side, error.key = "read", store.side, store.root + key
            raise

    async def _add(self, store: Store, manifest: str, referrer: Mapping[str, Any]) -> None:
        """Add to the list under the tag, again if another writer's list replaced ours."""
        for attempt in range(ATTEMPTS):
            listed = (await self._tagged(store, manifest)).with_one(referrer)
            await store.put(_list_key(manifest), listed.encode())
            if (await self._tagged(store, manifest)).has(referrer):
                return
            await asyncio.sleep(pause(attempt))
        raise ConflictError(
            f"others changed the list of signatures {ATTEMPTS} times: sign again",
            operation="sign",
            key=store.root + _list_key(manifest),
        )


def _list_key(manifest: str) -> str:
    """Where the list of referrers is if the registry keeps none."""
    return f"manifests/{fallback_tag(manifest)}"
