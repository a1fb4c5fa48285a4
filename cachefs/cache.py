"""The cache that users work with: one location, read and written with blocking calls."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar, Unpack

from cachefs.concurrency import run
from cachefs.digest import Digest
from cachefs.errors import CacheError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layout.base import Manifest
from cachefs.layout.opening import open_layout
from cachefs.location.keys import as_names, key_fault
from cachefs.sides import as_caches, located, resolved
from cachefs.transfer import importer
from cachefs.transfer.importer import CachedResult, Miss, load_manifests, missed
from cachefs.transfer.workers import CacheSpec, Workers

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

    from cachefs.graph import Matches, Mode
    from cachefs.layout.base import Layout, NamedManifest
    from cachefs.location.keys import Names
    from cachefs.location.keywords import LocationKeywords
    from cachefs.location.options import Location
    from cachefs.operations.diff import CacheDiff
    from cachefs.operations.doctor import Examination
    from cachefs.operations.draw import Language
    from cachefs.operations.inspect import NameDetails, NameSummary
    from cachefs.operations.prune import PrunePlan, PruneReport
    from cachefs.operations.repair import RepairPlan, RepairReport
    from cachefs.operations.retention import PrunePolicy
    from cachefs.operations.undo import UndoPlan, UndoReport
    from cachefs.operations.usage import CacheUsage
    from cachefs.operations.verify import VerifyReport
    from cachefs.transfer.exporter import ExportReport
    from cachefs.transfer.publishing import Join, OnConflict
    from cachefs.transfer.sources import BlobSource
    from cachefs.wire.cacheconfig import RecordIndex

    CacheLike: TypeAlias = "str | os.PathLike[str] | Location | Cache"

T = TypeVar("T")

logger = logging.getLogger("cachefs")


class Cache:
    """Named manifests over content-addressed blobs, at one location.

    Made by ``cachefs.open``. No request is made before the first call that needs one, and there is
    nothing to close. Every method that reads or writes blocks until it is done; from asyncio, call
    it with ``asyncio.to_thread``. A cache may be used from several threads and in forked processes,
    and pickled to be opened in another process; it cannot be used inside fsspec's IO loop.

    The argument ``names`` of a method is one name or several. Without it, a method uses the names
    that the location gives; if there are none, the method's documentation says which it uses.

    Where there is no cache, :meth:`names`, :meth:`summaries`, ``in`` and :meth:`load` find nothing,
    because the first build has none. What would be a wrong answer then raises NoCacheError:
    :meth:`require_exists`, :meth:`usage`, :meth:`diff`, :meth:`verify`, :meth:`plan_prune` and
    :meth:`plan_repair`, and for their sources :func:`copy` and :func:`merge`. A cache whose names
    have all been removed is no such place.

    Attributes:
        location: where the cache is. Its text and repr show no secrets.
        misses: the latest thousand reasons why something could not be read, the newest last.
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

    def __iter__(self) -> Iterator[str]:
        """All names in the cache, sorted."""
        return iter([name.name for name in self.names()])

    def __contains__(self, name: object) -> bool:
        """Whether the cache has this name. Raises StoreError."""
        is_name = isinstance(name, str) and key_fault(name) is None
        return is_name and run(self._layout.find(str(name))) is not None

    @property
    def layout(self) -> Layout:
        """Where names, manifests and blobs are; the operations of this package work on it."""
        return self._layout

    @property
    def spec(self) -> CacheSpec:
        """What another process needs to open this cache. Its pickle holds credentials."""
        return CacheSpec(self.location, self._fs)

    @property
    def default_names(self) -> tuple[str, ...]:
        """The names that the location gives, or else ``buildkit``, or ``latest`` for OCI tags."""
        return self.location.names or (self._layout.default_name,)

    def with_names(self, names: Names) -> Cache:
        """The same cache whose location gives these names. Raises CacheNameError."""
        cache = object.__new__(Cache)
        cache.__dict__ |= self.__dict__  # the layout too, so that connections are shared
        cache.location = self.location.with_names(names)
        cache.misses = deque(maxlen=1000)
        return cache

    def names(self) -> list[NamedManifest]:
        """All names in the cache, ``pr-9`` before ``pr-10``; none if there is no cache yet.

        Raises StoreError.
        """
        return run(self._layout.names())

    def require_exists(self) -> None:
        """Raise NoCacheError, which says what is near, unless there is a cache, even without names.

        Raises StoreError if the bucket does not exist, or the store fails.
        """
        from cachefs.operations.nearby import require_cache

        run(require_cache(self._layout))

    def manifest(self, name: str) -> Manifest:
        """One name's manifest.

        Raises NotFoundError, ManifestError, IntegrityError and StoreError; :meth:`load` does not.
        """
        return run(self._layout.read(name))

    def summaries(self, names: Names = ()) -> list[NameSummary]:
        """A summary of each name, by default of all.

        The summary of an unreadable manifest states its fault. Raises StoreError.
        """
        from cachefs.operations import inspect

        return run(inspect.summarize(self._layout, as_names(names) or self.location.names))

    def describe(self, name: str) -> NameDetails:
        """Everything in a name's manifest, and what its results are. Raises as :meth:`manifest`."""
        from cachefs.operations import inspect

        return run(inspect.describe(self._layout, name))

    def usage(self, names: Names = ()) -> CacheUsage:
        """The space that the cache uses: by name, and shared, orphaned and missing blobs.

        By default all names are listed; the other figures always concern the whole cache. The
        figures of a name whose manifest is unreadable state its fault. Raises NoCacheError,
        StoreError, ManifestError if the names cannot be listed, and UsageError for a location with
        a digest.
        """
        from cachefs.operations import usage

        found = run(usage.measure(self._layout, as_names(names) or self.location.names))
        if not found.referenced.blobs:
            self.require_exists()
        return found

    def diff(self, other: CacheLike) -> CacheDiff:
        """How another cache differs from this one.

        Compared are the names that each location gives, or else all: first by name, then what all
        of them need together. ``cache.with_names("a").diff(cache.with_names("b"))`` compares two
        names of one cache. Raises UsageError for a name that does not exist, NoCacheError,
        ManifestError, IntegrityError and StoreError.
        """
        from cachefs.operations import diff

        side = resolved(other, "import", None)
        first = run(diff.load(self._layout, self._selected()))
        second = run(diff.load(side.layout, side.layout.selected(side.location.names)))
        return diff.compare_named(first, second)

    def draw(self, name: str, language: Language = "mermaid") -> str:
        """A drawing of a name's records and layers, as text. Raises what :meth:`manifest` does."""
        from cachefs.operations import draw

        return draw.draw(RecordGraph(self.manifest(name).config), language)

    def load(self, names: Names = ()) -> RecordGraph:
        """The union of these names' records, by default of :attr:`default_names`.

        A name that does not exist or cannot be read adds nothing: the reason is appended to
        :attr:`misses`, and logged as a warning unless the name just does not exist. Raises
        CacheNameError for an invalid name.
        """
        wanted = as_names(names) or self.default_names
        graphs = []
        for found in run(load_manifests(self._layout, wanted)):
            if isinstance(found, Miss):
                self._note(found)
            else:
                graphs.append(RecordGraph(found.config))
        return graphs[0] if len(graphs) == 1 else RecordGraph.union(graphs)

    def result(self, matches: Matches) -> CachedResult | Miss:
        """The newest result of the records found by :meth:`RecordGraph.find`, not yet fetched."""
        graph = matches.graph
        found = graph.results(matches)
        if not found:
            return self._note(
                Miss("result", "no record matches, or none has a result", absent=True)
            )
        layers = tuple(graph.layers[index] for index in found[0].layers)
        return CachedResult(layers, found[0].created_at, self.fetch_blob)

    def read_blob(self, digest: str, size: int | None = None) -> bytes | Miss:
        """A blob's verified bytes. ``size`` in bytes, if given, is verified too."""
        return self._or_miss(digest, importer.read_blob(self._layout, Digest(digest), size))

    def open_blob(self, digest: str, size: int | None = None) -> BinaryIO | Miss:
        """The verified blob as a file at its start: in memory up to 8 MiB, else on disk."""
        return self._or_miss(digest, importer.open_blob(self._layout, Digest(digest), size))

    def fetch_blob(
        self, digest: str, path: str | os.PathLike[str], size: int | None = None
    ) -> Path | Miss:
        """Write a blob to this path, where it appears complete and verified or not at all."""
        target = Path(path)
        work = importer.fetch_blob(self._layout, Digest(digest), target, size)
        miss = self._or_miss(digest, work)
        return miss if isinstance(miss, Miss) else target

    def export(
        self,
        graph: RecordGraph,
        source: Cache | BlobSource | Mapping[str, bytes | Path | str] | Sequence[Cache],
        names: Names = (),
        *,
        mode: Mode | None = None,
        finals: Collection[RecordIndex] | None = None,
        on_conflict: OnConflict = "replace",
        join: Join | None = None,
        callback: Callback | None = None,
    ) -> ExportReport:
        """Store a graph's blobs, then its manifest under each name.

        Args:
            graph: the records and their results. DiffIDs that it lacks are worked out and added.
            source: where blobs come from: bytes or paths by digest, other caches, or any
                :class:`BlobSource`. Only blobs that the cache lacks are read; all are verified.
            names: by default :attr:`default_names`.
            mode: ``min`` or ``max``, by default the location's.
            finals: for ``min``, the records whose results are kept (:meth:`RecordGraph.select`).
            on_conflict: what to do with a name that holds something else: ``replace`` it,
                ``merge`` both, so that concurrent writers lose nothing, or ``fail``.
            join: for ``merge``, of this graph and the stored one; else :meth:`RecordGraph.union`.
            callback: an fsspec callback that receives the number of bytes sent.

        Raises LocationError for ``force-compression=true``, and StoreError, IntegrityError,
        ConflictError, and with ``merge`` ManifestError for an unreadable name; it is unchanged
        then. With ``ignore-error`` all but the first are logged and set in the report.
        """
        from cachefs.transfer import diff_ids, exporter
        from cachefs.transfer.ignoring import unless_ignored
        from cachefs.transfer.publishing import Publisher
        from cachefs.transfer.sources import as_source

        self.location.require_no_recompression()
        targets = as_names(names) or self.default_names
        options, blobs = self.location.export, as_source(source)
        publisher = Publisher(self._layout, blobs, options.touch_refresh, on_conflict, join)
        selected = graph.select(mode or options.mode, finals)
        work = partial(
            exporter.export,
            self._layout,
            Manifest(targets[0], selected.to_config()),
            selected.blobs(),
            blobs,
            targets,
            touch_refresh=options.touch_refresh,
            callback=callback,
            learned=partial(diff_ids.note, graph.layers),
            publish=publisher.publish,
        )
        return run(unless_ignored(work, self.location))

    def sign(self, names: Names = (), *, expires: float | None = None) -> dict[str, str]:
        """Sign what names hold now, with the location's ``signing_key``.

        Every layer is signed with them, by its digest. Nothing else changes.

        Args:
            names: by default those that the location gives, or else all.
            expires: seconds from now for which the signatures count; None for ever.

        Returns the digest of each name's manifest. Raises UsageError without a key or if it cannot
        be used, and the errors of :meth:`manifest`.
        """
        from cachefs.operations.sign import sign

        return run(sign(self._layout, self._selected(names), expires))

    def examine(self, *, read_only: bool = False) -> Examination:
        """Find out whether the store is fit for a cache: rights, clock, rules, speed and more.

        The cache need not exist. Objects are written next to the blobs and deleted again, also if
        it is interrupted; what cannot be deleted is stated. What fails is a finding and no error.

        Args:
            read_only: change nothing; then less can be found out about writing.
        """
        from cachefs.operations import doctor

        return run(doctor.examine(self._layout, read_only=read_only))

    def verify(
        self,
        names: Names = (),
        *,
        read_data: float = 0.0,
        start: float | None = None,
        stored_checksums: bool = False,
        callback: Callback | None = None,
        executor: Executor | None = None,
    ) -> VerifyReport:
        """Check manifests and blobs, and collect every fault. Nothing is written.

        Args:
            names: by default all.
            read_data: the share of the digest space, from 0 to 1, whose blobs are read and hashed:
                1 reads all; 0.05 reads a different twentieth every day.
            start: where that share begins, from 0 to 1; by default it advances every day.
            stored_checksums: ask the store for the SHA-256 that it noted when it received a blob,
                for all blobs that are not read anyway; read those of which it has none, or another
                one. It is the store's word, and does not show that its disks still have the bytes.
            callback: an fsspec callback that receives the number of bytes read.
            executor: other processes or machines that list and read: any
                ``concurrent.futures.Executor``, such as Dask's ``Client.get_executor()``. A
                process pool has to spawn, not fork. Credentials are sent to its workers.

        Raises NoCacheError, UsageError and StoreError.
        """
        from fsspec.callbacks import DEFAULT_CALLBACK

        from cachefs.operations.verify import verify

        work = verify(
            self._layout,
            self._selected(names),
            read_data=read_data,
            start=start,
            stored_checksums=stored_checksums,
            callback=callback or DEFAULT_CALLBACK,
            workers=self._workers(executor),
        )
        report = run(work)
        if not report.blobs.blobs:
            self.require_exists()
        return report

    def plan_prune(
        self,
        policy: PrunePolicy | None = None,
        *,
        also: CacheLike | Sequence[CacheLike] = (),
        grace: float | None = None,
        executor: Executor | None = None,
        backup_to: CacheLike | None = None,
        backup_blobs: bool = False,
    ) -> PrunePlan:
        """Find the names that a policy removes, and the orphaned blobs. Deletes nothing.

        Args:
            policy: by default none, so that only orphaned blobs are deleted.
            also: the same cache with other manifests prefixes; all names there stay.
            grace: the grace period: seconds that a blob is left alone after it was written or
                touched; by default 72 hours, and more if ``touch_refresh`` is more than a day.
            executor: other processes or machines that list the blobs, as for :meth:`verify`.
            backup_to: another cache, to which names are copied before they are removed.
            backup_blobs: copy also the blobs that no other name needs. Without it, the copies are
                of use as long as this cache has those blobs.

        Raises NoCacheError, UsageError, ManifestError, IntegrityError and StoreError: anything that
        is not understood stops it, and so do manifests beside these that need the same blobs and
        are not given by ``also``. Executing the plan raises the same errors.
        """
        from cachefs.operations.backup import BackupTarget
        from cachefs.operations.prune import default_grace, plan_prune

        if grace is None:
            grace = default_grace(self.location.export.touch_refresh)
        layouts = [self._layout, *(resolved(one, None, None).layout for one in as_caches(also))]
        backup = None
        if backup_to is not None:
            goal = resolved(backup_to, "export", "target")
            refresh = goal.location.export.touch_refresh
            backup = BackupTarget(goal.layout, backup_blobs, refresh)
        elif backup_blobs:
            raise UsageError("backup_blobs without backup_to: say where blobs are to be copied")
        workers = self._workers(executor)
        return run(plan_prune(layouts, policy, grace=grace, workers=workers, backup=backup))

    def prune(
        self,
        policy: PrunePolicy | None = None,
        *,
        also: CacheLike | Sequence[CacheLike] = (),
        grace: float | None = None,
        executor: Executor | None = None,
        backup_to: CacheLike | None = None,
        backup_blobs: bool = False,
    ) -> PruneReport:
        """Make a plan as :meth:`plan_prune` does, and execute it."""
        plan = self.plan_prune(
            policy,
            also=also,
            grace=grace,
            executor=executor,
            backup_to=backup_to,
            backup_blobs=backup_blobs,
        )
        return plan.execute()

    def plan_undo_prune(self) -> UndoPlan:
        """Find what comes back of the last prune that was not taken back. Nothing is written.

        This works for a keyed cache in a bucket that keeps versions, as long as it keeps them: a
        prune there records what it removes. What was written since stays as it is, and a name whose
        blobs are not all kept does not come back.

        Raises UsageError if there is no prune that can be taken back, and StoreError.
        """
        from cachefs.operations.undo import plan_undo

        return run(plan_undo(self._layout, self.location.export.touch_refresh))

    def undo_prune(self) -> UndoReport:
        """Make a plan as :meth:`plan_undo_prune` does, and execute it."""
        return self.plan_undo_prune().execute()

    def plan_repair(
        self,
        replicas: CacheLike | Sequence[CacheLike] = (),
        names: Names = (),
        *,
        read_data: float = 0.0,
        remove_unreadable: bool = False,
        callback: Callback | None = None,
    ) -> RepairPlan:
        """Verify the cache and plan how to repair it. Nothing is written.

        Args:
            replicas: caches that may have what this one lacks, in order of preference.
            names: by default all.
            read_data: as for :meth:`verify`; only blobs that were read can be found damaged.
            remove_unreadable: remove names whose manifests are unreadable here and in every
                replica.
            callback: an fsspec callback that receives the number of bytes read to verify.

        Raises UsageError, NoCacheError if this cache or a replica does not exist, and StoreError if
        one fails.
        """
        from fsspec.callbacks import DEFAULT_CALLBACK

        from cachefs.operations.nearby import require_cache
        from cachefs.operations.repair import plan_repair

        sources = [resolved(one, "import", "source").layout for one in as_caches(replicas)]
        for layout in (self._layout, *sources):
            run(require_cache(layout))
        work = plan_repair(
            self._layout,
            sources,
            self._selected(names),
            touch_refresh=self.location.export.touch_refresh,
            read_data=read_data,
            remove_unreadable=remove_unreadable,
            callback=callback or DEFAULT_CALLBACK,
        )
        return run(work)

    def repair(
        self,
        replicas: CacheLike | Sequence[CacheLike] = (),
        names: Names = (),
        *,
        read_data: float = 0.0,
        remove_unreadable: bool = False,
        callback: Callback | None = None,
    ) -> RepairReport:
        """Make a plan as :meth:`plan_repair` does, and execute it."""
        from fsspec.callbacks import DEFAULT_CALLBACK

        plan = self.plan_repair(
            replicas,
            names,
            read_data=read_data,
            remove_unreadable=remove_unreadable,
            callback=callback,
        )
        return plan.execute(callback=callback or DEFAULT_CALLBACK)

    def _selected(self, names: Names = ()) -> tuple[str, ...]:
        """The names that are meant, also one given by its digest; empty for all."""
        return self._layout.selected(as_names(names) or self.location.names)

    def _workers(self, executor: Executor | None) -> Workers | None:
        return None if executor is None else Workers(executor, self.spec)

    def _or_miss(self, digest: str, work: Coroutine[Any, Any, T]) -> T | Miss:
        try:
            return run(work)
        except UsageError:
            raise
        except CacheError as error:
            return self._note(missed(digest, error))

    def _note(self, miss: Miss) -> Miss:
        given_up = self._layout.store.filesystem.patience.given_up
        if not miss.absent and not (given_up and any(not one.absent for one in self.misses)):
            logger.warning("a miss: %s", miss)
        self.misses.append(miss)
        return miss


def open(  # noqa: A001 - its name outside is cachefs.open
    location: str | os.PathLike[str] | Location,
    *,
    fs: AbstractFileSystem | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **attributes: Unpack[LocationKeywords],
) -> Cache:
    """Open a cache. No request is made yet, and the cache need not exist.

    Args:
        location: an fsspec URL, a path, builder attributes (``type=s3,bucket=...``), or a Location.
        fs: a filesystem object that is used as it is; the URL then gives only the path in it.
        storage_options: passed to the filesystem that fsspec makes; for S3 in the words of s3fs,
            with either engine.
        attributes: the same attributes as in the text, as Python values (``name="app"``).

    Raises LocationError, which says what would be valid.
    """
    return Cache(located(location, None, storage_options, attributes), fs)
