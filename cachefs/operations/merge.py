"""Merging names: the union of what they know, under one name or several, in any cache.

The union is that of :func:`cachefs.graph.merge`: the same names in any order, or merged once more
with what came out, give the same bytes. A record is only ever linked to what it was built on, so no
loop can come of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct

from cachefs.amount import Amount
from cachefs.concurrency import LOOKUP_PARALLELISM, for_each
from cachefs.digest import Digest
from cachefs.errors import CacheError, NotFoundError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layout.base import Manifest
from cachefs.layout.oci import BUILDER_LIMIT, OCILayout
from cachefs.location.keys import check_name
from cachefs.transfer.exporter import ExportReport, Transfer, plan_export
from cachefs.transfer.lookup import look_up
from cachefs.transfer.sources import FirstSource, LayoutSource
from cachefs.wire import codec
from cachefs.wire.cacheconfig import CacheConfig, Layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsspec.callbacks import Callback

    from cachefs.layout.base import Layout


class MergeSource(NamedTuple):
    """Names of one cache; none means all that it has."""

    layout: Layout
    names: Sequence[str] = ()


class MergedName(Struct, frozen=True, kw_only=True):
    """A name that is merged, the root of its cache, and how much it holds."""

    place: str
    name: str
    layers: int
    records: int


class MergePlan(Struct, frozen=True, kw_only=True):
    """What a merge will write, as plain data. Nothing has changed yet.

    Attributes:
        sources: the names that are merged.
        names: the names that the union will have.
        replaces: those of them that are there, and are not among what is merged: they are lost.
        layers: layers of the union.
        records: records of the union.
        blobs: blobs of the union, each counted once, with the sizes that manifests state.
        missing: those of them that the target lacks.
        manifest_bytes: bytes of the cache config that will be written.
        manifest_digest: digest of the union's canonical bytes: when the plan is executed, the
            sources must still give the same.
        over_limit: whether builders will refuse to import it, for its size, from this layout.
    """

    sources: list[MergedName]
    names: list[str]
    replaces: list[str]
    layers: int
    records: int
    blobs: Amount
    missing: Amount
    manifest_bytes: int
    manifest_digest: str
    over_limit: bool


async def plan_merge(
    sources: Sequence[MergeSource], target: Layout, names: Sequence[str]
) -> MergePlan:
    """Read what is to be merged and find what the union is. Reads only.

    Args:
        sources: caches, each with the names to take from it.
        target: the cache that the union is written to; may be one of the sources.
        names: what the union is to be called there.

    Raises UsageError where names are missing, with all that are; ManifestError and IntegrityError
    where one is damaged; and StoreError.
    """
    if not names:
        raise UsageError("the union needs a name to be stored under", operation="merge")
    new_names = [check_name(name) for name in dict.fromkeys(names)]
    read = await _read_all(sources)
    config = _union(manifest for _, manifest in read)
    blobs = RecordGraph(config).blobs()
    there = await look_up(target, blobs)
    lacking = [size for digest, size in blobs.items() if digest not in there]
    merged_here = {
        manifest.name for source, manifest in read if source.layout.store.root == target.store.root
    }
    size = _written_bytes(target, config)
    return MergePlan(
        sources=[
            MergedName(
                place=source.layout.store.root,
                name=manifest.name,
                layers=len(manifest.config.layers),
                records=len(manifest.config.records),
            )
            for source, manifest in read
        ],
        names=new_names,
        replaces=sorted(
            {name.name for name in await target.names()} & set(new_names) - merged_here
        ),
        layers=len(config.layers),
        records=len(config.records),
        blobs=Amount(len(blobs), sum(blobs.values())),
        missing=Amount(len(lacking), sum(lacking)),
        manifest_bytes=size,
        manifest_digest=_fingerprint(config),
        over_limit=isinstance(target, OCILayout) and size > BUILDER_LIMIT,
    )


async def execute_merge(
    plan: MergePlan,
    sources: Sequence[MergeSource],
    target: Layout,
    *,
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
) -> ExportReport:
    """Bring the blobs to the target and publish the union.

    The sources are read again, and once more right before the manifest is published: raises
    CacheError when they have changed since the plan, and nothing is published then. Raises
    NotFoundError and IntegrityError for a blob that no source has whole, and StoreError.
    """
    started = time.perf_counter()
    config = await _as_planned(plan, sources)
    blobs = RecordGraph(config).blobs()
    # The target itself comes last: what is asked for is not there, or not whole.
    layouts = sorted(
        (source.layout for source in sources), key=lambda one: one.store.root == target.store.root
    )
    transfer = Transfer(target, FirstSource([LayoutSource(one) for one in layouts]), callback)
    await transfer.execute(await plan_export(target, blobs, touch_refresh))
    await transfer.last_look()
    await _as_planned(plan, sources)
    await target.publish(plan.names, Manifest(plan.names[0], config))
    return transfer.report(plan.names, time.perf_counter() - started)


async def _as_planned(plan: MergePlan, sources: Sequence[MergeSource]) -> CacheConfig:
    config = _union(manifest for _, manifest in await _read_all(sources))
    if _fingerprint(config) != plan.manifest_digest:
        raise CacheError(
            "someone has written to the names since the plan was made; plan again",
            operation="merge",
        )
    return config


def _union(manifests: Iterable[Manifest]) -> CacheConfig:
    return RecordGraph.union(RecordGraph(manifest.config) for manifest in manifests).to_config()


def _fingerprint(config: CacheConfig) -> str:
    return str(Digest.of(codec.encode(config)))


def _written_bytes(target: Layout, config: CacheConfig) -> int:
    """Bytes of the config as the target's layout keeps it: OCI has the facts of layers apart."""
    if isinstance(target, OCILayout):
        bare = [Layer(layer.blob, layer.parent) for layer in config.layers]
        config = CacheConfig(bare, config.records)
    return len(codec.encode(config))


async def _read_all(sources: Sequence[MergeSource]) -> list[tuple[MergeSource, Manifest]]:
    """Each name once, in the order given. Raises UsageError with every name that is missing."""
    wanted: list[tuple[MergeSource, str]] = []
    for source in sources:
        names = source.names or [name.name for name in await source.layout.names()]
        if not names:
            raise UsageError(
                "there is nothing to merge: no names were found; check the location's prefixes",
                operation="merge",
                key=source.layout.store.root,
            )
        wanted += [(source, check_name(name)) for name in dict.fromkeys(names)]
    read: dict[int, Manifest] = {}
    missing: list[str] = []

    async def one(position: int) -> None:
        source, name = wanted[position]
        try:
            read[position] = await source.layout.read(name)
        except NotFoundError:
            missing.append(f"{name} in {source.layout.store.root}")

    await for_each(range(len(wanted)), one, LOOKUP_PARALLELISM)
    if missing:
        raise UsageError(
            f"names to merge are not there: {', '.join(sorted(missing))}", operation="merge"
        )
    return [(source, read[position]) for position, (source, _) in enumerate(wanted)]
