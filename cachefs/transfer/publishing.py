"""Publishing under names that others may write at the same time: replace, merge or fail.

A *conflict* is a name that holds something else than what is to be written, because of an earlier
writer or of one at the same moment.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from cachefs.errors import (
    ConflictError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    StoreError,
    UntrustedError,
    UsageError,
)
from cachefs.graph import RecordGraph
from cachefs.layout.contention import ATTEMPTS, pause
from cachefs.transfer.exporter import Transfer
from cachefs.transfer.sources import FirstSource, LayoutSource
from cachefs.wire.tying import tied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest
    from cachefs.transfer.sources import BlobSource
    from cachefs.wire.cacheconfig import CacheConfig

    Join: TypeAlias = Callable[[RecordGraph, RecordGraph], RecordGraph]

logger = logging.getLogger("cachefs")

OnConflict: TypeAlias = Literal["replace", "merge", "fail"]
"""What happens to a name that holds something else: it is replaced, joined, or an error."""

CHOICES: Final[tuple[OnConflict, ...]] = get_args(OnConflict)


def checked(on_conflict: str) -> OnConflict:
    """The choice. Raises UsageError for any other text."""
    for choice in CHOICES:
        if on_conflict == choice:
            return choice
    raise UsageError(f"on_conflict is {on_conflict!r}; it must be one of {', '.join(CHOICES)}")


def canonical_union(union: RecordGraph) -> CacheConfig:
    """What is stored of a union: in canonical order, tied so that a builder loses no links."""
    config = union.to_config()
    with_tie = tied(config)
    return config if with_tie is config else RecordGraph(with_tie).to_config()


def graph_of(manifest: Manifest) -> RecordGraph:
    """The manifest's graph, without what builders refuse."""
    graph = RecordGraph(manifest.config)
    return graph.filtered() if manifest.left_out else graph


async def publish_unchanged(layout: Layout, manifest: Manifest, version: str | None) -> bool:
    """Publish the manifest under its name, which was read before, and had this version.

    Returns False if it holds something else now. Where nothing can be compared, or the version is
    not known, it is published anyway.
    """
    if version is None or not await layout.compares():
        await layout.publish([manifest.name], manifest)
        return True
    if await layout.publish_if(manifest.name, manifest, version):
        return True
    return await _holds(layout, manifest.name, manifest)


async def _holds(layout: Layout, name: str, manifest: Manifest) -> bool:
    """Whether the name holds the manifest, as after a response that was lost."""
    there = await layout.find(name)
    return there is not None and await layout.holds(there, manifest)


class Publisher:
    """Publishes manifests whose blobs are in the store, and loses nothing that others wrote.

    Args:
        layout: the cache.
        source: where blobs come from that the other writers' records need and the cache lacks.
        touch_refresh: seconds after which the time of a blob of theirs is renewed.
        on_conflict: what happens to a name that holds something else.
        join: with ``merge``, what is made of the own graph and the stored one; by default the union
            of both.

    Raises UsageError for another ``on_conflict``.
    """

    def __init__(
        self,
        layout: Layout,
        source: BlobSource,
        touch_refresh: float,
        on_conflict: OnConflict,
        join: Join | None = None,
    ) -> None:
        self._layout = layout
        self._source = FirstSource([source, LayoutSource(layout)])
        self._touch_refresh = touch_refresh
        self._on_conflict = checked(on_conflict)
        self._join = join or (lambda own, stored: RecordGraph.union([own, stored]))

    async def publish(self, names: Sequence[str], manifest: Manifest) -> list[str]:
        """Publish the manifest under each name; return those that hold all of it already.

        With ``merge``, each name is read, joined, and written if it is unchanged; if another writer
        was faster, again, up to :data:`ATTEMPTS` times. Raises ConflictError, the errors of
        :meth:`Layout.publish`, and with ``merge`` ManifestError if what a name holds is unreadable.
        """
        if self._on_conflict == "replace":
            await self._layout.publish(names, manifest)
            return []
        compares = await self._layout.compares()
        if self._on_conflict == "merge":
            if not compares:
                logger.warning(
                    "%s does not compare before it writes: of two writers that join one name at "
                    "the same moment, one may be lost",
                    self._layout.store.root,
                )
            return [name for name in names if not await self._join_into(name, manifest, compares)]
        if not compares:
            raise StoreError(
                "this store does not compare before it writes, so a name could be lost: "
                "on_conflict must be merge or replace here",
                operation="write",
                side=self._layout.store.side,
                key=self._layout.store.root,
            )
        return [name for name in names if not await self._create(name, manifest)]

    async def _create(self, name: str, manifest: Manifest) -> bool:
        """Publish a new name. Returns False if it holds the same."""
        if await self._layout.publish_if(name, manifest, ""):
            return True
        if not await _holds(self._layout, name, manifest):
            raise self._conflict(name, "it exists: choose another name, or join or replace it")
        return False

    async def _join_into(self, name: str, manifest: Manifest, compares: bool) -> bool:
        """Publish the manifest, joined with what the name holds. Returns False if it has it all."""
        brought = set(RecordGraph(manifest.config).blobs())
        for attempt in range(ATTEMPTS):
            there = await self._there(name)
            joined = manifest if there is None else await self._joined(manifest, there, brought)
            # After a response that was lost, the name holds what was written.
            if there is not None and joined.config == there.config and not there.left_out:
                return False
            if not compares:
                await self._layout.publish([name], joined)
                return True
            if await self._layout.publish_if(name, joined, there.version if there else ""):
                return True
            await asyncio.sleep(pause(attempt))
        raise self._conflict(name, f"others were faster {ATTEMPTS} times: try again")

    async def _there(self, name: str) -> Manifest | None:
        try:
            return await self._layout.read_to_join(name)
        except NotFoundError:
            return None
        except UntrustedError as error:
            error.reason = (
                f"{name} cannot be joined: {error.reason}. If you trust what it holds, sign it "
                "(cachefs sign); or replace it"
            )
            raise
        except (ManifestError, IntegrityError) as error:
            raise ManifestError(
                f"{name} cannot be joined, because what it holds is unreadable ({error.reason}): "
                "repair or replace it",
                operation="read",
                side=error.side,
                key=error.key,
            ) from error

    async def _joined(self, own: Manifest, there: Manifest, brought: set[Digest]) -> Manifest:
        """Both manifests as one, without results of the stored one whose blobs are lost."""
        if own.config == there.config:
            return there
        stored = graph_of(there)
        if lost := await self._lost(stored, brought):
            stored = stored.without_blobs(lost)
        joined = self._join(graph_of(own), stored)
        config = canonical_union(joined)
        if config == there.config:
            return there
        kept = joined.blobs()
        others = {**there.annotations, **own.annotations}
        annotations = {blob: facts for blob, facts in others.items() if blob in kept}
        manifest = replace(own.changed(config), annotations=annotations)
        return await Transfer(self._layout, self._source).complete(manifest)

    async def _lost(self, stored: RecordGraph, brought: set[Digest]) -> set[Digest]:
        """Bring the blobs of the stored records up to date; those that no cache has are lost."""
        blobs = {digest: size for digest, size in stored.blobs().items() if digest not in brought}
        if not blobs:
            return set()
        transfer = Transfer(self._layout, self._source, tolerant=True)
        await transfer.bring(blobs, self._touch_refresh)
        brought |= blobs.keys() - transfer.failures.keys()
        for digest, error in transfer.failures.items():
            logger.warning("a result that was stored is left out: %s: %s", digest, error)
        return set(transfer.failures)

    def _conflict(self, name: str, reason: str) -> ConflictError:
        return ConflictError(
            f"{name} holds what another writer wrote; {reason}",
            operation="write",
            side=self._layout.store.side,
            key=self._layout.store.root,
        )
