"""Repairing a cache: fetch lost blobs from replicas, or make the results that need them misses.

The plan is made from a fresh verify. When it is executed, each manifest is first read again; one
that has changed since is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct
from msgspec.structs import replace

from cachefs.amount import Amount
from cachefs.concurrency import for_each
from cachefs.digest import Digest
from cachefs.errors import CacheError, IntegrityError, NotFoundError, StoreError, UsageError
from cachefs.graph import RecordGraph
from cachefs.location.keys import in_order, natural_order
from cachefs.operations.plan import Plan
from cachefs.operations.publication import (
    Publication,
    content_of,
    means_the_same,
    mended,
    results_of,
)
from cachefs.operations.verify import Fault, refusal, verify
from cachefs.transfer.diff_ids import read_diff_id, without_diff_id
from cachefs.transfer.exporter import Blob, Transfer
from cachefs.transfer.importer import check_blob
from cachefs.transfer.lookup import look_up
from cachefs.transfer.manifests import NAME_FAULTS, read_manifests, read_names, readable_manifest
from cachefs.transfer.publishing import publish_unchanged
from cachefs.transfer.sources import FirstSource, LayoutSource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fsspec.callbacks import Callback

    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout, Manifest


class Fetch(Struct, frozen=True, kw_only=True):
    """A blob that a replica has intact: its size in bytes, and the index of the replica."""

    digest: str
    bytes: int
    replica: int


class RepairReport(Struct, frozen=True, kw_only=True):
    """What a repair did.

    Attributes:
        fetched: blobs that came from replicas.
        rewritten: names whose manifests were corrected.
        restored: names whose manifests came from a replica.
        removed: names that were removed because their manifests are unreadable.
        deleted: digests of damaged blobs that were deleted.
        left: each name or object that stays faulty, with the reason.
    """

    fetched: Amount = Amount()
    rewritten: list[str] = []
    restored: list[str] = []
    removed: list[str] = []
    deleted: list[str] = []
    left: dict[str, str] = {}


class RepairPlan(Plan[RepairReport], frozen=True, kw_only=True):
    """What a repair is going to do, in this order; what has changed since is left and reported.

    Attributes:
        faults: what verify found.
        fetch: blobs that come from replicas.
        publish: manifests that will be rewritten or restored.
        remove: names with unreadable manifests that will be removed.
        delete: damaged blobs that will be deleted, because exporters would take them for intact.
        leave: faults that stay.
    """

    faults: list[Fault]
    fetch: list[Fetch]
    publish: list[Publication]
    remove: list[str]
    delete: list[str]
    leave: list[Fault]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.fetch or self.publish or self.remove or self.delete)


# --- planning ------------------------------------------------------------------------------------


async def plan_repair(
    layout: Layout,
    replicas: Sequence[Layout] = (),
    names: Collection[str] = (),
    *,
    touch_refresh: float,
    read_data: float = 0.0,
    remove_unreadable: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
) -> RepairPlan:
    """Verify the cache and find a remedy for every fault. Nothing is written.

    Args:
        layout: the cache.
        replicas: caches that may have what it lacks, in order of preference. The blobs that the
            plan takes from them are read and verified.
        names: repair only these, by default all. With names no blob is deleted, because other names
            may need it.
        touch_refresh: seconds after which the time of a blob that a restored manifest needs is
            renewed.
        read_data: as for verify; only a blob that was read is known to be damaged.
        remove_unreadable: remove names whose manifests are unreadable here and in every replica.
        callback: an fsspec callback that receives the number of bytes that verify reads.

    Raises StoreError, also for a replica, and UsageError, also for a replica without names: blobs
    would be considered lost because it does not have them.
    """
    for replica in replicas:
        if not await replica.names():
            raise UsageError(
                "there is no cache to repair from: no names were found; check the location",
                operation="repair",
                side="source",
                key=replica.store.root,
            )
    report = await verify(layout, names, read_data=read_data, callback=callback)
    unreadable = {f.names[0]: f for f in report.faults if f.kind == "manifest" and f.names}
    restored = await _restorable(replicas, unreadable)
    search = _Search([layout, *replicas], _stored_sizes(report.faults))
    search.wanted.update(_digests(report.faults, "missing", "archived", "damaged"))
    search.wanted.update(await _lacking(layout, [manifest for _, manifest in restored.values()]))
    await search.find(replicas)
    publish = await _rewrites(layout, search, report.faults)
    for name, (position, manifest) in restored.items():
        again = await search.publication(manifest)
        publish.append(replace(again, replica=position, obstacle=unreadable[name].digest))
    removed = unreadable.keys() - restored.keys() if remove_unreadable else set()
    remedied = restored.keys() | removed
    damaged = _digests(report.faults, "damaged")
    damaged += _digests((unreadable[name] for name in sorted(removed)), "manifest")
    plan = RepairPlan(
        faults=report.faults,
        fetch=[search.found[digest] for digest in sorted(search.found)],
        publish=sorted(publish, key=lambda one: natural_order(one.name)),
        remove=in_order(removed),
        delete=[] if names else [str(d) for d in dict.fromkeys(damaged) if d not in search.found],
        leave=[f for f in report.faults if f.kind == "manifest" and not remedied & set(f.names)]
        + await _refused_still(layout, report.faults, publish),
    )
    return plan.remembering(
        lambda plan, callback: execute_repair(layout, plan, replicas, touch_refresh, callback)
    )


def _digests(faults: Iterable[Fault], *kinds: str) -> list[Digest]:
    return [Digest(fault.digest) for fault in faults if fault.kind in kinds and fault.digest]


def _stored_sizes(faults: Iterable[Fault]) -> dict[Digest, int]:
    return {
        Digest(fault.digest): fault.stored
        for fault in faults
        if fault.kind == "size" and fault.digest and fault.stored is not None
    }


async def _restorable(
    replicas: Sequence[Layout], names: Iterable[str]
) -> dict[str, tuple[int, Manifest]]:
    """The manifests that a replica has under these names, with the index of the replica."""
    found: dict[str, tuple[int, Manifest]] = {}
    for position, replica in enumerate(replicas):
        lacking = [name for name in names if name not in found]
        for name, manifest in (await read_manifests(replica, lacking)).items():
            if not isinstance(manifest, CacheError):
                found[name] = (position, manifest)
    return found


async def _lacking(layout: Layout, manifests: Iterable[Manifest]) -> list[Digest]:
    """Blobs of replicas' manifests that the cache lacks or has with another size."""
    sizes: dict[Digest, int] = {}
    for manifest in manifests:
        sizes |= RecordGraph(manifest.config).blobs()
    there = await look_up(layout, sizes)
    return [d for d, size in sizes.items() if d not in there or size not in {0, there[d].size}]


async def _refused_still(
    layout: Layout, faults: Iterable[Fault], publish: Sequence[Publication]
) -> list[Fault]:
    """The faults of manifests that builders will refuse even if they are published again."""
    again = {publication.name: publication for publication in publish}

    async def read(held: Layout, name: str) -> str:
        manifest = await held.read(name)
        return refusal(layout, mended(manifest, again[name]) if name in again else manifest)

    refused = {fault.names[0]: fault for fault in faults if fault.kind == "refused"}
    found = await read_names(layout, refused, read)
    return [
        replace(refused[name], reason=reason)
        for name, reason in found.items()
        if isinstance(reason, str) and reason
    ]


async def _rewrites(layout: Layout, search: _Search, faults: Iterable[Fault]) -> list[Publication]:
    """The corrected manifests of the names affected by faults of blobs."""
    names = sorted({n for fault in faults if fault.kind != "manifest" for n in fault.names})

    async def read(held: Layout, name: str) -> Publication:
        return await search.publication(await held.read(name))

    found = (await read_names(layout, names, read)).values()
    return [p for p in found if not isinstance(p, CacheError) and p.corrects]


@dataclass(slots=True)
class _Search:
    """The search for blobs in replicas: those wanted, those found, and the known true sizes.

    ``layouts`` are the cache and its replicas.
    """

    layouts: Sequence[Layout]
    sizes: dict[Digest, int]
    wanted: set[Digest] = field(default_factory=set)
    found: dict[Digest, Fetch] = field(default_factory=dict)

    async def find(self, replicas: Sequence[Layout]) -> None:
        """Read and verify, in each replica, the blobs that the earlier ones lack."""
        for position, replica in enumerate(replicas):
            there = await look_up(replica, sorted(self.wanted - self.found.keys()))

            async def one(
                item: tuple[Digest, Stat], position: int = position, replica: Layout = replica
            ) -> None:
                digest, stat = item
                try:
                    await check_blob(replica, digest, stat.size)
                except (IntegrityError, NotFoundError):
                    return
                self.found[digest] = Fetch(digest=str(digest), bytes=stat.size, replica=position)
                self.sizes[digest] = stat.size

            await for_each(there.items(), one, replica.store.filesystem.parallelism)

    async def publication(self, manifest: Manifest) -> Publication:
        """This manifest, corrected. Blobs of layers without a diffID are read to work it out."""
        graph = RecordGraph(manifest.config)
        stated = graph.blobs()
        lost = sorted(stated.keys() & (self.wanted - self.found.keys()))
        sizes = {
            str(digest): self.sizes[digest]
            for digest, size in sorted(stated.items())
            if size not in {0, self.sizes.get(digest, size)}
        }
        return Publication(
            name=manifest.name,
            original=content_of(manifest),
            lost=[str(digest) for digest in lost],
            misses=results_of(graph) - results_of(graph.without_blobs(lost)),
            sizes=sizes,
            left_out=manifest.left_out,
            diff_ids=await self._diff_ids(manifest, lost),
        )

    async def _diff_ids(self, manifest: Manifest, lost: Collection[Digest]) -> dict[str, str]:
        sources = [LayoutSource(layout) for layout in self.layouts]
        found: dict[str, str] = {}
        for digest, size in without_diff_id(manifest.config).items():
            if digest not in lost:
                true_size = self.sizes.get(digest, size) or None
                diff_id = await read_diff_id(sources, digest, true_size)
                if diff_id is not None:
                    found[str(digest)] = diff_id
        return found


# --- executing -----------------------------------------------------------------------------------


async def execute_repair(
    layout: Layout,
    plan: RepairPlan,
    replicas: Sequence[Layout],
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
) -> RepairReport:
    """Fetch blobs, then publish manifests, then remove and delete.

    What has changed since the plan was made, or can no longer be fetched from a replica, is left as
    it is and reported. Raises StoreError if the cache itself fails.
    """
    work = _Repair(layout, replicas, touch_refresh)
    for fault in plan.leave:
        work.left[fault.names[0] if fault.names else fault.key] = fault.reason
    await work.fetch(plan.fetch, callback)
    for publication in plan.publish:
        await work.publish(publication)
    for name in plan.remove:
        await work.remove(name)
    if not work.skipped:
        await for_each(plan.delete, work.delete, layout.store.filesystem.parallelism)
    return work.report()


class _Repair:
    """A repair that is being executed, and what it has done."""

    def __init__(self, layout: Layout, replicas: Sequence[Layout], touch_refresh: float) -> None:
        self.left: dict[str, str] = {}
        self.skipped = False
        self._layout = layout
        self._replicas = replicas
        self._touch_refresh = touch_refresh
        self._fetched = Amount()
        self._rewritten: list[str] = []
        self._restored: list[str] = []
        self._removed: list[str] = []
        self._deleted: list[str] = []

    def report(self) -> RepairReport:
        """What was done."""
        return RepairReport(
            fetched=self._fetched,
            rewritten=self._rewritten,
            restored=self._restored,
            removed=self._removed,
            deleted=sorted(self._deleted),
            left=self.left,
        )

    async def fetch(self, items: Sequence[Fetch], callback: Callback) -> None:
        """Bring blobs from the replicas, verified, replacing what is there."""
        for position, replica in enumerate(self._replicas):
            blobs = [Blob(Digest(i.digest), i.bytes) for i in items if i.replica == position]
            transfer = Transfer(self._layout, LayoutSource(replica), callback, tolerant=True)
            await transfer.send(blobs)
            self._fetched += transfer.report([], 0.0).uploaded
            for digest, error in transfer.failures.items():
                self.left[str(digest)] = str(error)

    async def publish(self, publication: Publication) -> None:
        """Rewrite or restore a manifest, if it is unchanged since the plan was made."""
        name = publication.name
        version = None if publication.replica is None else await self._version(name)
        own = await readable_manifest(self._layout, name)
        replica = publication.replica
        source = own if replica is None else await readable_manifest(self._replicas[replica], name)
        if source is None or content_of(source) != publication.original:
            self._skip(name)
        elif replica is None:
            if await publish_unchanged(self._layout, mended(source, publication), source.version):
                self._rewritten.append(name)
            else:
                self._skip(name)
        elif own is None:
            await self._restore(mended(source, publication), publication.obstacle, version)
        elif means_the_same(own, mended(source, publication)):
            # Another tag of the same manifest has just been restored.
            self._restored.append(name)
        else:
            self._skip(name)

    async def _version(self, name: str) -> str | None:
        """The version of an unreadable manifest, None if that cannot be read either."""
        try:
            return await self._layout.version(name)
        except NAME_FAULTS:
            return None

    async def _restore(self, manifest: Manifest, obstacle: str | None, version: str | None) -> None:
        if obstacle is not None:
            await self._delete_damaged(Digest(obstacle))
        source = FirstSource([LayoutSource(replica) for replica in self._replicas])
        transfer = Transfer(self._layout, source, unknown=without_diff_id(manifest.config))
        try:
            await transfer.bring(RecordGraph(manifest.config).blobs(), self._touch_refresh)
            whole = await transfer.complete(manifest)
        except (IntegrityError, StoreError) as error:
            if not (isinstance(error, IntegrityError) or error.side == "source"):
                raise
            self.left[manifest.name] = str(error)
            return
        if await publish_unchanged(self._layout, whole, version):
            self._restored.append(manifest.name)
        else:
            self._skip(manifest.name)

    async def remove(self, name: str) -> None:
        """Remove a name if its manifest is still unreadable, and not written in the meantime."""
        seen = await self._layout.find(name)
        unreadable = await readable_manifest(self._layout, name) is None
        if unreadable and (seen is None or await self._layout.remove_unchanged([seen])):
            self._removed.append(name)
        else:
            self._skip(name)

    async def delete(self, digest: str) -> None:
        """Delete a blob if it is still damaged."""
        if await self._delete_damaged(Digest(digest)):
            self._deleted.append(digest)

    async def _delete_damaged(self, digest: Digest) -> bool:
        """Read the blob once more right before the delete: it may have been sent again."""
        store = self._layout.store
        seen = await store.stat(self._layout.blob_key(digest))
        try:
            await check_blob(self._layout, digest)
        except IntegrityError:
            return seen is not None and await store.delete_unchanged(seen)
        except NotFoundError:
            return False
        return False

    def _skip(self, name: str) -> None:
        """Leave a name that was written to. Then no blob is deleted: its manifest may need it."""
        self.skipped = True
        self.left[name] = "its manifest has changed since the plan was made"
