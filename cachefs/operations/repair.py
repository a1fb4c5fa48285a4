"""Repairing a cache: what is lost is fetched from replicas, or becomes a miss that builders take.

The plan is made from a fresh verify and says all that will be done. Carrying it out looks at each
manifest again first: one that has changed since is left to its writer.
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
from cachefs.layout.base import Manifest
from cachefs.operations.verify import Fault, verify
from cachefs.transfer.exporter import Blob, ExportPlan, Transfer, export
from cachefs.transfer.importer import check_blob
from cachefs.transfer.lookup import look_up
from cachefs.transfer.sources import FirstSource, LayoutSource
from cachefs.wire import codec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fsspec.callbacks import Callback

    from cachefs.filesystems.base import Stat
    from cachefs.layout.base import Layout


class Fetch(Struct, frozen=True, kw_only=True):
    """A blob that a replica has, whole: its bytes, and the replica's place in the list of them."""

    digest: str
    bytes: int
    replica: int


class Publication(Struct, frozen=True, kw_only=True):
    """A manifest that is published anew.

    Attributes:
        name: its name.
        original: the digest of the manifest that it is made from.
        replica: the place of the replica that manifest comes from; None for the cache itself.
        lost: blobs that nobody has; every result that needs one becomes a miss.
        misses: how many results that are.
        sizes: blobs of which the manifest stated a wrong size, and their bytes.
        obstacle: a damaged part of the manifest that is deleted first, as its size is right.
    """

    name: str
    original: str
    replica: int | None = None
    lost: list[str] = []
    misses: int = 0
    sizes: dict[str, int] = {}
    obstacle: str | None = None


class RepairPlan(Struct, frozen=True, kw_only=True):
    """What a repair will do, in this order, and what it was made from.

    Attributes:
        faults: what verify found.
        fetch: blobs that come from replicas.
        publish: manifests that are rewritten or restored.
        drop: names whose manifests nobody can read, which are taken away.
        discard: damaged blobs that are deleted, as exporters would go on to take them for whole.
        leave: faults that stay.
    """

    faults: list[Fault]
    fetch: list[Fetch] = []
    publish: list[Publication] = []
    drop: list[str] = []
    discard: list[str] = []
    leave: list[Fault] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.fetch or self.publish or self.drop or self.discard)


class RepairReport(Struct, frozen=True, kw_only=True):
    """What a repair did. ``left`` tells of each name or object that stays faulty, and why."""

    fetched: Amount = Amount()
    rewritten: list[str] = []
    restored: list[str] = []
    dropped: list[str] = []
    discarded: list[str] = []
    left: dict[str, str] = {}


# --- planning ------------------------------------------------------------------------------------


async def plan_repair(
    layout: Layout,
    replicas: Sequence[Layout] = (),
    names: Collection[str] = (),
    *,
    read_data: float = 0.0,
    drop_broken: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
) -> RepairPlan:
    """Verify the cache and find a remedy for every fault. Nothing is written.

    Args:
        layout: the cache.
        replicas: caches that may have what it lacks, the preferred one first. What they are
            counted on for is read and verified.
        names: repair these only, by default all. Then no blob is deleted: others may need it.
        read_data: as for verify; only a blob that was read is known to be damaged.
        drop_broken: take away names whose manifests cannot be read here or in a replica.
        callback: told of the bytes that verify reads.

    Raises StoreError, also where a replica cannot be asked, and UsageError, also for a replica
    that has no names: what it does not have would be given up as lost.
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
    broken = {f.names[0]: f for f in report.faults if f.kind == "manifest" and f.names}
    restored = await _restorable(replicas, broken)
    search = _Search(_stored_sizes(report.faults))
    search.wanted.update(_digests(report.faults, "missing", "damaged"))
    search.wanted.update(await _lacking(layout, [manifest for _, manifest in restored.values()]))
    await search.find(replicas)
    publish = await _rewrites(layout, search, report.faults)
    for name, (place, manifest) in restored.items():
        again = search.publication(manifest)
        publish.append(replace(again, replica=place, obstacle=broken[name].digest))
    dropped = broken.keys() - restored.keys() if drop_broken else set()
    remedied = restored.keys() | dropped
    damaged = _digests(report.faults, "damaged")
    damaged += _digests((broken[name] for name in sorted(dropped)), "manifest")
    return RepairPlan(
        faults=report.faults,
        fetch=[search.found[digest] for digest in sorted(search.found)],
        publish=sorted(publish, key=lambda publication: publication.name),
        drop=sorted(dropped),
        discard=[] if names else [str(d) for d in dict.fromkeys(damaged) if d not in search.found],
        leave=[f for f in report.faults if f.kind == "manifest" and not remedied & set(f.names)],
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
    """The manifests that a replica has under these names, with the replica's place."""
    found: dict[str, tuple[int, Manifest]] = {}
    for name in names:
        for place, replica in enumerate(replicas):
            manifest = await _readable(replica, name)
            if manifest is not None:
                found[name] = (place, manifest)
                break
    return found


async def _readable(layout: Layout, name: str) -> Manifest | None:
    """The manifest, None where there is none that can be read. Raises StoreError."""
    try:
        return await layout.read(name)
    except NotFoundError:
        return None
    except (StoreError, UsageError):
        raise
    except CacheError:
        return None


async def _lacking(layout: Layout, manifests: Iterable[Manifest]) -> list[Digest]:
    """Blobs of manifests that come from elsewhere and that the cache has not, or not as stated."""
    sizes: dict[Digest, int] = {}
    for manifest in manifests:
        sizes |= RecordGraph(manifest.config).blobs()
    there = await look_up(layout, sizes)
    return [d for d, size in sizes.items() if d not in there or size not in {0, there[d].size}]


async def _rewrites(layout: Layout, search: _Search, faults: Iterable[Fault]) -> list[Publication]:
    """How the manifests that faults of blobs affect become right."""
    found: list[Publication] = []
    for name in sorted({n for fault in faults if fault.kind != "manifest" for n in fault.names}):
        manifest = await _readable(layout, name)
        if manifest is not None:
            publication = search.publication(manifest)
            if publication.lost or publication.sizes:
                found.append(publication)
    return found


@dataclass(slots=True)
class _Search:
    """Blobs that are wanted, those that a replica has, and the true sizes that are known."""

    sizes: dict[Digest, int]
    wanted: set[Digest] = field(default_factory=set)
    found: dict[Digest, Fetch] = field(default_factory=dict)

    async def find(self, replicas: Sequence[Layout]) -> None:
        """Read and verify what each replica has of that which those before it had not."""
        for place, replica in enumerate(replicas):
            there = await look_up(replica, sorted(self.wanted - self.found.keys()))

            async def one(
                item: tuple[Digest, Stat], place: int = place, replica: Layout = replica
            ) -> None:
                digest, stat = item
                try:
                    await check_blob(replica, digest, stat.size)
                except (IntegrityError, NotFoundError):
                    return
                self.found[digest] = Fetch(digest=str(digest), bytes=stat.size, replica=place)
                self.sizes[digest] = stat.size

            await for_each(there.items(), one, replica.store.filesystem.parallelism)

    def publication(self, manifest: Manifest) -> Publication:
        """How this manifest becomes right."""
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
            original=_content(manifest),
            lost=[str(digest) for digest in lost],
            misses=_results(graph) - _results(graph.without_blobs(lost)),
            sizes=sizes,
        )


def _results(graph: RecordGraph) -> int:
    return sum(len(record.layers) + len(record.chains) for record in graph.records)


def _content(manifest: Manifest) -> str:
    """A digest that changes when the manifest does."""
    return str(Digest.of(manifest.raw or codec.encode(manifest.config)))


def _means_the_same(one: Manifest, other: Manifest) -> bool:
    return codec.encode(one.config) == codec.encode(other.config)


# --- carrying it out -----------------------------------------------------------------------------


async def repair(
    layout: Layout,
    plan: RepairPlan,
    replicas: Sequence[Layout] = (),
    *,
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
) -> RepairReport:
    """Carry out a plan: blobs first, then manifests, and deletions last.

    Args:
        layout: the cache.
        plan: what :func:`plan_repair` gave for it.
        replicas: the same, in the same order.
        touch_refresh: seconds after which the time of a blob that a restored manifest needs is
            renewed.
        callback: told of the bytes fetched.

    What has changed since the plan was made, or can no longer be had from a replica, is left as it
    is and told in the report. Raises StoreError where the cache itself fails, and UsageError where
    replicas of the plan are missing.
    """
    places = [item.replica for item in plan.fetch]
    places += [item.replica for item in plan.publish if item.replica is not None]
    counted_on = max(places, default=-1) + 1
    if counted_on > len(replicas):
        raise UsageError(f"the plan counts on {counted_on} replicas: give them again")
    work = _Repair(layout, replicas, touch_refresh)
    for fault in plan.leave:
        work.left[fault.names[0] if fault.names else fault.key] = fault.reason
    await work.fetch(plan.fetch, callback)
    for publication in plan.publish:
        await work.publish(publication)
    for name in plan.drop:
        await work.drop(name)
    if not work.skipped:
        await for_each(plan.discard, work.discard, layout.store.filesystem.parallelism)
    return work.report()


class _Repair:
    """A repair under way, and what it has done."""

    def __init__(self, layout: Layout, replicas: Sequence[Layout], touch_refresh: float) -> None:
        self.left: dict[str, str] = {}
        self.skipped = False
        self._layout = layout
        self._replicas = replicas
        self._touch_refresh = touch_refresh
        self._fetched: list[Amount] = []
        self._rewritten: list[str] = []
        self._restored: list[str] = []
        self._dropped: list[str] = []
        self._discarded: list[str] = []

    def report(self) -> RepairReport:
        """What was done."""
        return RepairReport(
            fetched=Amount(
                sum(amount.blobs for amount in self._fetched),
                sum(amount.bytes for amount in self._fetched),
            ),
            rewritten=self._rewritten,
            restored=self._restored,
            dropped=self._dropped,
            discarded=sorted(self._discarded),
            left=self.left,
        )

    async def fetch(self, items: Sequence[Fetch], callback: Callback) -> None:
        """Bring blobs from the replicas, verified, in place of what is there."""
        for place, replica in enumerate(self._replicas):
            blobs = [Blob(Digest(i.digest), i.bytes) for i in items if i.replica == place]
            transfer = Transfer(self._layout, LayoutSource(replica), callback, tolerant=True)
            await transfer.execute(ExportPlan(upload=blobs, touch=[], keep=[], replace=[]))
            self._fetched.append(transfer.report([], 0.0).uploaded)
            for digest, error in transfer.failures.items():
                self.left[str(digest)] = str(error)

    async def publish(self, publication: Publication) -> None:
        """Rewrite or restore a manifest, if it is still what the plan was made from."""
        name = publication.name
        own = await _readable(self._layout, name)
        replica = publication.replica
        source = own if replica is None else await _readable(self._replicas[replica], name)
        if source is None or _content(source) != publication.original:
            self._skip(name)
        elif replica is None:
            await self._layout.publish([name], _mended(source, publication))
            self._rewritten.append(name)
        elif own is None:
            await self._restore(_mended(source, publication), publication)
        elif _means_the_same(own, _mended(source, publication)):
            # Another tag of the same manifest was restored a moment ago.
            self._restored.append(name)
        else:
            self._skip(name)

    async def _restore(self, manifest: Manifest, publication: Publication) -> None:
        if publication.obstacle is not None:
            await self._delete_damaged(Digest(publication.obstacle))
        try:
            await export(
                self._layout,
                manifest,
                RecordGraph(manifest.config).blobs(),
                FirstSource([LayoutSource(replica) for replica in self._replicas]),
                [manifest.name],
                touch_refresh=self._touch_refresh,
            )
        except (IntegrityError, StoreError) as error:
            if not (isinstance(error, IntegrityError) or error.side == "source"):
                raise
            self.left[manifest.name] = str(error)
        else:
            self._restored.append(manifest.name)

    async def drop(self, name: str) -> None:
        """Take a name away whose manifest still cannot be read."""
        if await _readable(self._layout, name) is None:
            await self._layout.unpublish([name])
            self._dropped.append(name)
        else:
            self._skip(name)

    async def discard(self, digest: str) -> None:
        """Delete a blob that is damaged still."""
        if await self._delete_damaged(Digest(digest)):
            self._discarded.append(digest)

    async def _delete_damaged(self, digest: Digest) -> bool:
        """Read it once more right before: by now somebody may have sent it again."""
        try:
            await check_blob(self._layout, digest)
        except IntegrityError:
            await self._layout.store.delete(self._layout.blob_key(digest))
            return True
        except NotFoundError:
            return False
        return False

    def _skip(self, name: str) -> None:
        """A writer was here; deleting what its manifest may name would not be a repair."""
        self.skipped = True
        self.left[name] = "its manifest has changed since the plan was made"


def _mended(manifest: Manifest, publication: Publication) -> Manifest:
    """The manifest without what is lost and with true sizes; as it is where there is neither."""
    if not (publication.lost or publication.sizes):
        return manifest
    graph = RecordGraph(manifest.config).without_blobs(publication.lost)
    for layer in graph.layers:
        size = publication.sizes.get(layer.blob)
        if size is not None and layer.annotations is not None and layer.annotations.size:
            layer.annotations = replace(layer.annotations, size=size)
    return Manifest(manifest.name, graph.to_config())
