"""Merging names: the union of their records, under one name or several, in any cache.

The union is that of :meth:`cachefs.graph.RecordGraph.union`: the same names in any order, or merged
again with the result, give the same bytes. If a builder would lose links when it imports the union,
a record ties it together (:func:`cachefs.wire.tying.tied`). A name that the union is stored under
keeps what it holds, unless it is to be replaced.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct
from msgspec.structs import replace

from cachefs.amount import Amount, counted_names
from cachefs.digest import Digest
from cachefs.errors import CacheError, NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layout.base import Manifest
from cachefs.location.keys import check_name, in_order
from cachefs.operations.nearby import require_cache
from cachefs.operations.plan import Plan
from cachefs.transfer.diff_ids import without_diff_id
from cachefs.transfer.exporter import ExportReport, Transfer, plan_export
from cachefs.transfer.manifests import read_manifests
from cachefs.transfer.publishing import Publisher, canonical_union, graph_of
from cachefs.transfer.sources import FirstSource, LayoutSource
from cachefs.wire import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsspec.callbacks import Callback

    from cachefs.layout.base import Layout
    from cachefs.transfer.publishing import OnConflict
    from cachefs.wire.cacheconfig import CacheConfig


class MergeSource(NamedTuple):
    """Names of one cache; if empty, all of its names."""

    layout: Layout
    names: Sequence[str] = ()


class MergedName(Struct, frozen=True, kw_only=True):
    """A name that is merged: the root of its cache, and the size of its content.

    ``refusal`` says why builders refuse it, as it is; the union is without what they refuse.
    """

    root: str
    name: str
    layers: int
    records: int
    refusal: str = ""


class MergePlan(Plan[ExportReport], frozen=True, kw_only=True):
    """What a merge is going to write.

    Attributes:
        sources: the names that are merged.
        names: the names that the union will have.
        replaces: those of them that exist, hold something else and are not among the sources, if
            they are to be replaced: their records are lost.
        joins: the same, if they are to be joined: each also keeps what it holds.
        unchanged: those of them that hold the union already.
        layers: number of layers of the union, with what the names of ``joins`` hold.
        records: number of records of it.
        blobs: distinct blobs of the union, with the sizes that manifests state.
        upload: blobs to be sent: the target lacks them, or has them with another size.
        touch: blobs that the target has and whose time will be renewed.
        manifest_bytes: bytes of the cache config that will be written.
        manifest_digest: digest of the canonical bytes of the union of the sources: when the plan is
            executed, they must still give the same one.
        over_limit: whether builders will refuse to import the union from this layout because of
            its size.
    """

    sources: list[MergedName]
    names: list[str]
    replaces: list[str]
    joins: list[str]
    unchanged: list[str]
    layers: int
    records: int
    blobs: Amount
    upload: Amount
    touch: Amount
    manifest_bytes: int
    manifest_digest: str
    over_limit: bool

    @property
    def is_empty(self) -> bool:
        """Whether every name holds the union already, with blobs that are there and recent."""
        return set(self.unchanged) == set(self.names) and not (
            self.upload.blobs or self.touch.blobs
        )

    def __str__(self) -> str:
        sources = counted_names([one.name for one in self.sources])
        return f"merge: {sources}; write {counted_names(self.names)}; send {self.upload}"


class _Read(NamedTuple):
    """A manifest that was read, and where."""

    source: MergeSource
    manifest: Manifest

    def is_in(self, layout: Layout) -> bool:
        return self.source.layout.store.root == layout.store.root


async def plan_merge(
    sources: Sequence[MergeSource],
    target: Layout,
    names: Sequence[str],
    *,
    touch_refresh: float,
    on_conflict: OnConflict = "merge",
    trust_store: bool = False,
) -> MergePlan:
    """Read the names to be merged and find their union. Reads only.

    Args:
        sources: caches, each with the names to take from it.
        target: the cache that the union is written to; may be one of the sources.
        names: the names of the union there.
        touch_refresh: seconds after which the time of a blob of the target is renewed.
        on_conflict: whether names that exist are joined (``merge``) or replaced.
        trust_store: let the store copy blobs also if it does not state their digests.

    Raises UsageError with all names that are missing, ManifestError and IntegrityError if a
    manifest is unreadable, and StoreError.
    """
    if not names:
        raise UsageError("the union needs a name to be stored under", operation="merge")
    new_names = [check_name(name) for name in dict.fromkeys(names)]
    read = await _read_all(sources)
    config = _union(read)
    source_digest = _digest(config)
    own = {each.manifest.name: each.manifest for each in read if each.is_in(target)}
    there = {name.name for name in await target.names()} & set(new_names)
    held = await read_manifests(target, sorted(there - own.keys()))
    if on_conflict == "merge":
        joined = [_readable(found) for found in held.values()]
        if joined:
            config = _union_of([each.manifest for each in read] + joined)
    digest = _digest(config)
    held |= {name: own[name] for name in there & own.keys()}
    unchanged = {
        name
        for name, found in held.items()
        if not isinstance(found, CacheError) and _digest(found.config) == digest
    }
    others = in_order(there - own.keys() - unchanged)
    blobs = RecordGraph(config).blobs()
    export = await plan_export(target, blobs, touch_refresh)
    written_bytes = len(target.encode(config))
    plan = MergePlan(
        sources=[
            MergedName(
                root=source.layout.store.root,
                name=manifest.name,
                layers=len(manifest.config.layers),
                records=len(manifest.config.records),
                refusal=manifest.refusal,
            )
            for source, manifest in read
        ],
        names=new_names,
        replaces=others if on_conflict == "replace" else [],
        joins=others if on_conflict == "merge" else [],
        unchanged=[name for name in new_names if name in unchanged],
        layers=len(config.layers),
        records=len(config.records),
        blobs=Amount.of(blobs.values()),
        upload=Amount.of(blob.size or 0 for blob in export.upload),
        touch=Amount.of(blob.size or 0 for blob, _ in export.touch),
        manifest_bytes=written_bytes,
        manifest_digest=source_digest,
        over_limit=target.builder_limit is not None and written_bytes > target.builder_limit,
    )
    return plan.remembering(
        lambda plan, callback: execute_merge(
            plan,
            sources,
            target,
            touch_refresh,
            callback,
            on_conflict=on_conflict,
            trust_store=trust_store,
        )
    )


async def execute_merge(
    plan: MergePlan,
    sources: Sequence[MergeSource],
    target: Layout,
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
    *,
    on_conflict: OnConflict = "merge",
    trust_store: bool = False,
) -> ExportReport:
    """Bring the blobs to the target and publish the union.

    The sources are read again, and once more right before the manifest is published: raises
    CacheError if they have changed since the plan, and then publishes nothing. What a name holds
    then is joined or replaced. Raises NotFoundError and IntegrityError for a blob that no source
    has intact, ConflictError, and StoreError.
    """
    started = time.perf_counter()
    read = await _read_all(sources)
    config = _union(read)
    _require_unchanged(_digest(config) == plan.manifest_digest)
    annotations = {k: v for each in read for k, v in each.manifest.annotations.items()}
    # The target comes last: the blobs to be sent are missing there, or damaged.
    layouts = sorted(
        (source.layout for source in sources), key=lambda one: one.store.root == target.store.root
    )
    source = FirstSource([LayoutSource(one) for one in layouts])
    transfer = Transfer(
        target, source, callback, unknown=without_diff_id(config), trust_store=trust_store
    )
    await transfer.bring(RecordGraph(config).blobs(), touch_refresh)
    union = await transfer.complete(Manifest(plan.names[0], config, annotations=annotations))
    again = await _read_all(sources)
    _require_unchanged(_same(again, read) or _union(again) == config)
    publisher = Publisher(target, source, touch_refresh, on_conflict)
    unchanged = await publisher.publish(plan.names, union)
    report = transfer.report(plan.names, time.perf_counter() - started)
    return replace(report, unchanged=unchanged)


def _require_unchanged(unchanged: bool) -> None:
    if not unchanged:
        raise CacheError(
            "the names to merge have changed since the plan was made; plan again",
            operation="merge",
        )


def _same(read: Sequence[_Read], before: Sequence[_Read]) -> bool:
    """Whether the names still hold the same: much faster to tell than whether the union does."""
    return [each.manifest.config for each in read] == [each.manifest.config for each in before]


def _union(read: Iterable[_Read]) -> CacheConfig:
    return _union_of([each.manifest for each in read])


def _union_of(manifests: Iterable[Manifest]) -> CacheConfig:
    return canonical_union(RecordGraph.union(map(graph_of, manifests)))


def _readable(found: Manifest | CacheError) -> Manifest:
    if isinstance(found, CacheError):
        raise found
    return found


def _digest(config: CacheConfig) -> str:
    return str(Digest.of(codec.encode(config)))


async def _read_all(sources: Sequence[MergeSource]) -> list[_Read]:
    """Read each name once, in the order given. Raises UsageError with all missing names."""
    read: list[_Read] = []
    missing: list[str] = []
    if not sources:
        raise UsageError("there is nothing to merge: no caches were given", operation="merge")
    for source in sources:
        names = source.names or [name.name for name in await source.layout.names()]
        if not names:
            await require_cache(source.layout)
            raise UsageError(
                "there is nothing to merge: the cache has no names",
                operation="merge",
                key=source.layout.store.root,
            )
        wanted = [check_name(name) for name in names]
        for name, found in (await read_manifests(source.layout, wanted)).items():
            if isinstance(found, NotFoundError):
                missing.append(f"{name} in {source.layout.store.root}")
            elif isinstance(found, CacheError):
                raise found
            else:
                read.append(_Read(source, found))
    if missing:
        raise UsageError(
            f"names to merge do not exist: {', '.join(in_order(missing))}",
            operation="merge",
        )
    return read
