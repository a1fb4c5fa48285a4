"""A cache as its users hold it: one location, read and written with synchronous calls."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec.structs import replace

from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import CacheError, LocationError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layout.base import Layout, Manifest, NamedManifest
from cachefs.layout.opening import open_layout
from cachefs.location.keys import check_name
from cachefs.location.options import Location
from cachefs.location.parsing import parse
from cachefs.operations import diff, draw, inspect, usage
from cachefs.operations import merge as merging
from cachefs.operations.copy import CopyError, Senders, copy_names, renamed
from cachefs.operations.merge import MergePlan, MergeSource
from cachefs.operations.mirror import delete_others, require_whole
from cachefs.operations.prune import (
    PrunePlan,
    PruneReport,
    default_grace,
    execute_prune,
    plan_prune,
)
from cachefs.operations.repair import RepairPlan, RepairReport, plan_repair, repair
from cachefs.operations.verify import VerifyReport, verify
from cachefs.transfer import exporter, importer
from cachefs.transfer.exporter import ExportReport
from cachefs.transfer.importer import Miss, missed, read_manifests
from cachefs.transfer.sources import BlobSource, FirstSource, LayoutSource, MappingSource
from cachefs.transfer.workers import CacheSpec, Workers

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Coroutine, Mapping, Sequence
    from concurrent.futures import Executor

    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

    from cachefs.graph import Found, Matches, Mode
    from cachefs.location.attributes import Role
    from cachefs.operations.diff import CacheDiff
    from cachefs.operations.draw import Language
    from cachefs.operations.inspect import NameDetails, NameSummary
    from cachefs.operations.retention import PrunePolicy
    from cachefs.operations.usage import CacheUsage
    from cachefs.wire.cacheconfig import Layer, RecordIndex

T = TypeVar("T")

logger = logging.getLogger("cachefs")


class Cache:
    """Named manifests over content-addressed blobs, at one location.

    Made by ``cachefs.open``. Nothing is requested before the first call that
    needs it, and nothing is held that would have to be closed. May be used from several threads,
    and pickled to be opened elsewhere; not from inside fsspec's IO loop, and not across a fork.

    Attributes:
        location: where the cache is. Its text and repr show no secrets.
        misses: the latest thousand reasons why something was not to be had, the newest last.
    """

    def __init__(self, location: Location, fs: AbstractFileSystem | None = None) -> None:
        self.location = location
        self.misses: deque[Miss] = deque(maxlen=1000)
        self._fs = fs
        self._layout = open_layout(location, fs=fs)

    def __repr__(self) -> str:
        return f"<Cache at {self.location}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Cache, (self.location, self._fs))

    @property
    def layout(self) -> Layout:
        """Where names, manifests and blobs lie: what the verbs of this package work on."""
        return self._layout

    @property
    def default_names(self) -> tuple[str, ...]:
        """The names that the location gives, else ``buildkit``, or ``latest`` for OCI tags."""
        return self.location.names or (self._layout.default_name,)

    # --- reading ---------------------------------------------------------------------------------

    def names(self) -> list[NamedManifest]:
        """All names in the cache, sorted; none where there is no cache yet. Raises StoreError."""
        return run(self._layout.names())

    def manifest(self, name: str) -> Manifest:
        """One name's manifest, for looking into it.

        Raises NotFoundError, ManifestError, IntegrityError and StoreError; :meth:`load` does not.
        """
        return run(self._layout.read(name))

    def summaries(self) -> list[NameSummary]:
        """What each name holds, at a glance: all names, or those that the location gives.

        A manifest that is damaged has its fault in its summary. Raises StoreError.
        """
        return run(inspect.summarize(self._layout, self.location.names))

    def describe(self, name: str) -> NameDetails:
        """All that a name's manifest holds. Raises as :meth:`manifest`."""
        return inspect.describe(self.manifest(name))

    def usage(self) -> CacheUsage:
        """What the cache uses: by name, and what is shared, orphaned and missing.

        All names are listed, or those that the location gives; the other figures are of the whole
        cache. A manifest that is damaged has its fault in its name's figures. Raises StoreError,
        ManifestError where the names cannot be told, and UsageError for a location with a digest.
        """
        return run(usage.measure(self._layout, self.location.names))

    def diff(
        self, other: Cache, names: Sequence[str] = (), other_names: Sequence[str] = ()
    ) -> CacheDiff:
        """How another cache differs from this one, or a name from another of the same cache.

        Args:
            other: may be this cache.
            names: compare these names of this cache together; by default those that its location
                gives, else all.
            other_names: the same of the other cache.

        Raises UsageError for a name that is not there, ManifestError, IntegrityError and
        StoreError.
        """
        first = run(diff.load(self._layout, names or self._given_names))
        second = run(diff.load(other.layout, other_names or other._given_names))
        return diff.compare(first, second)

    def draw(self, name: str, language: Language = "mermaid") -> str:
        """A name's records and layers as a drawing's text. Raises as :meth:`manifest`."""
        return draw.draw(RecordGraph(self.manifest(name).config), language)

    def load(self, *names: str) -> RecordGraph:
        """The records of these names together, by default of all that the location gives.

        A name that is not there, or cannot be read, adds nothing: the reason is appended to
        :attr:`misses`, and logged as a warning unless the name is just not there. Raises
        CacheNameError for text that is no name.
        """
        wanted = [check_name(name) for name in names or self.default_names]
        read = run(read_manifests(self._layout, wanted))
        graphs = []
        for found in read:
            if isinstance(found, Miss):
                self._note(found)
            else:
                graphs.append(RecordGraph(found.config))
        return graphs[0] if len(graphs) == 1 else RecordGraph.union(graphs)

    def result(self, matches: Matches) -> CachedResult | Miss:
        """The newest result of the records that :meth:`RecordGraph.find` gave. Pulls nothing."""
        found = matches.graph.results(matches)
        if not found:
            return self._note(
                Miss("result", "no record matches, or none has a result", absent=True)
            )
        return CachedResult(self, matches.graph, found[0])

    def read(self, digest: str, size: int | None = None) -> bytes | Miss:
        """A blob's verified bytes. ``size`` in bytes, where known, is verified too."""
        return self._or_miss(digest, importer.read_blob(self._layout, Digest(digest), size))

    def open(self, digest: str, size: int | None = None) -> BinaryIO | Miss:
        """A file at its start with the verified blob; in memory up to 8 MiB, else on disk."""
        return self._or_miss(digest, importer.open_blob(self._layout, Digest(digest), size))

    def fetch(
        self, digest: str, path: str | os.PathLike[str], size: int | None = None
    ) -> Path | Miss:
        """Write a blob to this path, where it appears whole and verified or not at all."""
        target = Path(path)
        work = importer.fetch_blob(self._layout, Digest(digest), target, size)
        miss = self._or_miss(digest, work)
        return miss if isinstance(miss, Miss) else target

    # --- writing ---------------------------------------------------------------------------------

    def export(
        self,
        graph: RecordGraph,
        source: Cache | BlobSource | Mapping[str, bytes | Path | str] | Sequence[Cache],
        *,
        names: Sequence[str] = (),
        mode: Mode | None = None,
        finals: Collection[RecordIndex] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> ExportReport:
        """Store a graph's blobs, then its manifest under each name.

        Args:
            graph: the records and their results.
            source: where blobs come from: bytes or paths by digest, other caches, or any
                :class:`BlobSource`. Only what the cache lacks is asked for, and it is verified.
            names: by default those of the location.
            mode: ``min`` or ``max``, by default the location's.
            finals: for ``min``, the records whose results are kept (:meth:`RecordGraph.select`).
            callback: told of the bytes sent (fsspec's).

        Raises StoreError and IntegrityError, and then no name has changed; with ``ignore-error``
        these are logged as a warning and stand in the report.
        """
        targets = [check_name(name) for name in names or self.default_names]
        options = self.location.export
        selected = graph.select(mode or options.mode, finals)
        work = exporter.export(
            self._layout,
            Manifest(targets[0], selected.to_config()),
            selected.blobs(),
            as_source(source),
            targets,
            touch_refresh=options.touch_refresh,
            callback=callback,
        )
        return _exported(work, self.location)

    # --- caring ----------------------------------------------------------------------------------

    def verify(
        self,
        *names: str,
        read_data: float = 0.0,
        start: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
        executor: Executor | None = None,
    ) -> VerifyReport:
        """Check manifests and blobs, and gather every fault. Nothing is written.

        Args:
            names: by default those that the location gives, else all.
            read_data: the share of the digest space, from 0 to 1, whose blobs are read and hashed:
                1 is all; with 0.05 another twentieth every day.
            start: where that share begins, from 0 to 1, in place of a place that goes by the day.
            callback: told of the bytes read (fsspec's).
            executor: other processes or machines that list and read: any
                ``concurrent.futures.Executor``, such as Dask's ``Client.get_executor()``. A
                process pool has to spawn, not fork. Credentials travel to its workers.

        Raises UsageError and StoreError.
        """
        workers = None if executor is None else Workers(executor, self.spec)
        return run(
            verify(
                self._layout,
                names or self._given_names,
                read_data=read_data,
                start=start,
                callback=callback,
                workers=workers,
            )
        )

    def plan_prune(
        self,
        policy: PrunePolicy | None = None,
        *,
        also: Sequence[Cache] = (),
        grace: float | None = None,
        executor: Executor | None = None,
    ) -> PrunePlan:
        """Find the names that a policy lets go, and the blobs that nothing needs. Deletes nothing.

        Args:
            policy: by default none, so that only orphans go.
            also: the same cache with other manifests prefixes, whose names are honoured.
            grace: seconds that a blob is left alone after it was written or renewed; by default 72
                hours, and more where ``touch_refresh`` is more than a day.
            executor: other processes or machines that list the blobs, as for :meth:`verify`.

        Raises UsageError, ManifestError, IntegrityError and StoreError: what is not understood
        stops it.
        """
        if grace is None:
            grace = default_grace(self.location.export.touch_refresh)
        places = [cache.layout for cache in also]
        workers = None if executor is None else Workers(executor, self.spec)
        return run(plan_prune(self._layout, policy, also=places, grace=grace, workers=workers))

    def prune(self, plan: PrunePlan, *, also: Sequence[Cache] = ()) -> PruneReport:
        """Execute a plan of this cache, with the same ``also``. Raises as :meth:`plan_prune`."""
        places = [cache.layout for cache in also]
        return run(execute_prune(self._layout, plan, also=places))

    def plan_repair(
        self,
        replicas: Sequence[str | os.PathLike[str] | Location | Cache] = (),
        *,
        read_data: float = 0.0,
        drop_broken: bool = False,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairPlan:
        """Verify the cache, or the names that its location gives, and plan how to repair it.

        Args:
            replicas: caches that may have what this one lacks, the preferred one first.
            read_data: as for :meth:`verify`: only blobs that were read are known to be damaged.
            drop_broken: take away names whose manifests cannot be read here or in a replica.
            callback: told of the bytes that verifying reads (fsspec's).

        Nothing is written. Raises UsageError, and StoreError where this cache or a replica cannot
        be asked.
        """
        work = plan_repair(
            self._layout,
            [_layout(replica, "import", "source") for replica in replicas],
            self._given_names,
            read_data=read_data,
            drop_broken=drop_broken,
            callback=callback,
        )
        return run(work)

    def repair(
        self,
        plan: RepairPlan,
        replicas: Sequence[str | os.PathLike[str] | Location | Cache] = (),
        *,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairReport:
        """Carry out a plan of :meth:`plan_repair`, with the same replicas.

        Blobs are fetched, then manifests rewritten so that what is lost becomes a miss, then
        damaged blobs deleted. What has changed since the plan is left and told in the report.
        Raises UsageError, and StoreError where this cache fails.
        """
        work = repair(
            self._layout,
            plan,
            [_layout(replica, "import", "source") for replica in replicas],
            touch_refresh=self.location.export.touch_refresh,
            callback=callback,
        )
        return run(work)

    # ---------------------------------------------------------------------------------------------

    @property
    def _given_names(self) -> tuple[str, ...]:
        """The names that the location gives, also one by its digest; none where it means all."""
        return self.default_names if self.location.digest else self.location.names

    @property
    def spec(self) -> CacheSpec:
        """What another process needs to open this cache. Its pickle holds credentials."""
        return CacheSpec(self.location, self._fs)

    def _or_miss(self, digest: str, work: Coroutine[Any, Any, T]) -> T | Miss:
        try:
            return run(work)
        except UsageError:
            raise
        except CacheError as error:
            return self._note(missed(digest, error))

    def _note(self, miss: Miss) -> Miss:
        self.misses.append(miss)
        if not miss.absent:
            logger.warning("a miss: %s", miss)
        return miss


class CachedResult:
    """A result that the cache has, pulled when it is needed and not before.

    Attributes:
        layers: what it consists of, from the bottom up.
        created_at: when it was made, as RFC 3339 text.
    """

    def __init__(self, cache: Cache, graph: RecordGraph, found: Found) -> None:
        self.layers: tuple[Layer, ...] = tuple(graph.layers[index] for index in found.layers)
        self.created_at = found.created_at
        self._cache = cache

    def __repr__(self) -> str:
        return f"<CachedResult of {len(self.layers)} layers from {self.created_at}>"

    def pull(self, directory: str | os.PathLike[str]) -> list[Path] | Miss:
        """Fetch the layers' blobs into a directory, each as a file named by its 64 hex digits.

        From the bottom up; the first that cannot be had ends it as a miss. The directory is made.
        """
        Path(directory).mkdir(parents=True, exist_ok=True)
        paths = []
        for layer in self.layers:
            size = layer.size or None
            path = Path(directory, Digest(layer.blob).hex)
            fetched = self._cache.fetch(layer.blob, path, size)
            if isinstance(fetched, Miss):
                return fetched
            paths.append(fetched)
        return paths


def as_source(
    source: Cache | BlobSource | Mapping[str, bytes | Path | str] | Sequence[Cache],
) -> BlobSource:
    """What an export can take blobs from, as the source that it is."""
    if isinstance(source, Cache):
        return LayoutSource(source.layout)
    if isinstance(source, BlobSource):
        return source
    if isinstance(source, list | tuple):
        return FirstSource([as_source(one) for one in source])
    return MappingSource(source)  # type: ignore[arg-type]  # a mapping is what is left


def open(  # noqa: A001 - its name outside is cachefs.open
    location: str | os.PathLike[str] | Location,
    *,
    fs: AbstractFileSystem | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Cache:
    """Open a cache; nothing is requested yet, and the cache need not be there.

    Args:
        location: an fsspec URL, a path, builder attributes (``type=s3,bucket=...``), or a Location.
        fs: a filesystem object that is used as it is; then the URL only tells the path in it.
        storage_options: handed to the filesystem that fsspec makes.
        attributes: the same attributes as in the text, as Python values (``name="app"``).

    Raises LocationError, with what would be right.
    """
    where = _located(location, None, storage_options, attributes)
    return Cache(where, fs)


def copy(
    source: str | os.PathLike[str] | Location | Cache,
    target: str | os.PathLike[str] | Location | Cache,
    *,
    delete: bool = False,
    callback: Callback = DEFAULT_CALLBACK,
    executor: Executor | None = None,
) -> ExportReport:
    """Copy a cache, as it is, to any other location.

    All names of the source, or those that its location gives, keep their names unless the
    target's location gives others; an OCI tag is a name. Blobs that are there are not sent, and
    every blob is verified on its way. With an ``executor`` (any ``concurrent.futures.Executor``, as
    for :meth:`Cache.verify`) its workers send the blobs.

    With ``delete``, names that the source lacks go from the target afterwards, and blobs by the
    rules of :meth:`Cache.plan_prune`: a mirror. Not after a CopyError.

    Raises LocationError, UsageError, StoreError, and CopyError when some names could not be copied;
    then the others are in place. With the target's ``ignore-error``, StoreError and CopyError are
    logged as a warning and stand in the report.
    """
    origin = _layout(source, "import", "source")
    goal = _layout(target, "export", "target")
    source_location, target_location = (
        _location_of(source, "import"),
        _location_of(target, "export"),
    )
    if target_location.export.mode == "min" and "mode" in target_location.given:
        raise LocationError(
            "mode=min is for an export; a copy keeps each manifest as it is, so leave mode out"
        )

    if delete:
        require_whole(source_location.names, target_location.names)
    senders = None
    if executor is not None:
        senders = Senders(
            executor,
            CacheSpec(source_location, _fs_of(source), "source"),
            CacheSpec(target_location, _fs_of(target), "target"),
        )

    async def work() -> ExportReport:
        names = await renamed(origin, source_location.names, target_location.names)
        touch_refresh = target_location.export.touch_refresh
        report = await copy_names(
            origin,
            goal,
            names,
            touch_refresh=touch_refresh,
            callback=callback,
            senders=senders,
        )
        if delete:
            report = await delete_others(origin, goal, report, default_grace(touch_refresh))
        return report

    return _exported(work(), target_location)


def _exported(work: Coroutine[Any, Any, ExportReport], target: Location) -> ExportReport:
    """Run an export or copy; with ``ignore-error``, a failure is a warning and in the report."""
    try:
        return run(work)
    except UsageError:
        raise
    except CacheError as error:
        if not target.export.ignore_error:
            raise
        logger.warning("the export to %s failed and is ignored: %s", target, error)
        done = error.report if isinstance(error, CopyError) else ExportReport(names=[])
        return replace(done, error=str(error))


def plan_merge(
    sources: Sequence[tuple[Cache, Sequence[str]]], target: Cache, names: Sequence[str]
) -> MergePlan:
    """Read names of one or more caches, and find what their union is. Writes nothing.

    Args:
        sources: caches, each with the names to take; none means all.
        target: where the union is to be stored; may be one of the sources.
        names: what it is to be called there.

    Raises UsageError with all names that are missing, ManifestError and IntegrityError where one is
    damaged, and StoreError.
    """
    return run(merging.plan_merge(_merge_sources(sources), target.layout, names))


def execute_merge(
    plan: MergePlan,
    sources: Sequence[tuple[Cache, Sequence[str]]],
    target: Cache,
    *,
    callback: Callback = DEFAULT_CALLBACK,
) -> ExportReport:
    """Execute a plan that was made with the same sources and target.

    Raises CacheError when the names were written to since, NotFoundError and IntegrityError for a
    blob that no source has whole, and StoreError; then nothing is published.
    """
    return run(
        merging.execute_merge(
            plan,
            _merge_sources(sources),
            target.layout,
            touch_refresh=target.location.export.touch_refresh,
            callback=callback,
        )
    )


def merge_names(
    sources: Sequence[tuple[Cache, Sequence[str]]],
    target: Cache,
    names: Sequence[str],
    *,
    callback: Callback = DEFAULT_CALLBACK,
) -> ExportReport:
    """Store the union of names under one name or more: :func:`plan_merge`, then execute it."""
    plan = plan_merge(sources, target, names)
    return execute_merge(plan, sources, target, callback=callback)


def _merge_sources(sources: Sequence[tuple[Cache, Sequence[str]]]) -> list[MergeSource]:
    return [MergeSource(cache.layout, tuple(names)) for cache, names in sources]


def _fs_of(place: str | os.PathLike[str] | Location | Cache) -> AbstractFileSystem | None:
    return place.spec.fs if isinstance(place, Cache) else None


def _location_of(place: str | os.PathLike[str] | Location | Cache, role: Role) -> Location:
    if isinstance(place, Cache):
        return place.location
    return _located(place, role, None, {})


def _layout(place: str | os.PathLike[str] | Location | Cache, role: Role, side: str) -> Layout:
    if isinstance(place, Cache):
        return place.layout
    return open_layout(_located(place, role, None, {}), side=side)


def _located(
    place: str | os.PathLike[str] | Location,
    role: Role | None,
    storage_options: Mapping[str, Any] | None,
    attributes: Mapping[str, Any],
) -> Location:
    if isinstance(place, Location):
        if storage_options or attributes:
            raise UsageError(
                "attributes and storage_options go with a location's text, not with it"
            )
        return place
    return parse(place, role=role, storage_options=storage_options, **attributes)
