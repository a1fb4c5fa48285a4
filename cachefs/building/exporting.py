"""Exporting a build to several caches, each on its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from cachefs.building.recording import recorded, with_others
from cachefs.concurrency import run
from cachefs.errors import CacheError, DigestError, ManifestError
from cachefs.transfer.exporter import Blob, ExportReport, Transfer
from cachefs.transfer.sources import FirstSource, MappingSource, as_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachefs.building.engine import Engine
    from cachefs.building.steps import Step
    from cachefs.cache import Cache
    from cachefs.graph import Mode, RecordGraph

logger = logging.getLogger("cachefs")

MALFORMED: Final = (DigestError, ManifestError)
"""What joining records raises if they are not valid."""


class Exporter:
    """Exports what an engine has obtained.

    Args:
        engine: the engine.
        caches: the caches that blobs may be taken from.
        mode: ``min`` or ``max``; None for that of the target's location.
        keep: how many records with results the names keep, see :class:`Build`.
        ignore_error: whether a failure is a warning.

    Attributes:
        reports: what was done, by cache.
    """

    def __init__(
        self,
        engine: Engine,
        caches: Sequence[Cache],
        *,
        mode: Mode | None,
        keep: int,
        ignore_error: bool,
    ) -> None:
        self.reports: dict[Cache, ExportReport] = {}
        self._engine = engine
        self._caches = caches
        self._mode = mode
        self._keep = keep
        self._ignore_error = ignore_error

    def export(self, targets: Iterable[Cache], finals: Sequence[Step]) -> None:
        """Export to each target.

        Args:
            targets: the caches.
            finals: the steps whose results are kept with ``mode=min``.

        One that fails does not keep the others from being written; then the first error is raised,
        unless errors are ignored.
        """
        errors = []
        for target in targets:
            # Of a cache that did not respond before, a warning has said so then.
            if self._ignore_error and target.layout.store.filesystem.patience.given_up:
                continue
            try:
                self.reports[target] = self._export(target, finals)
            except (CacheError, OSError) as error:
                errors.append(error)
                self.reports[target] = ExportReport(names=[], error=str(error))
                if self._ignore_error:
                    logger.warning(
                        "the export to %s failed and is ignored: %s", target.location, error
                    )
        if errors and not self._ignore_error:
            raise errors[0]

    def _export(self, target: Cache, finals: Sequence[Step]) -> ExportReport:
        """Export; a result whose blobs are no longer in any cache is left out, with a warning."""
        engine = self._engine
        lost: set[str] = set()
        while True:
            graph, records = recorded(engine.states, engine.graph)
            known = [records[step] for step in finals if step in records]
            selected = graph.select(self._mode or target.location.export.mode, known)
            try:
                selected = selected.without_blobs(lost)
                self._replace_damaged(target, selected)
                return self._publish(target, selected)
            except CacheError as error:
                if error.digest is None or error.digest in lost or error.side == "target":
                    raise
                if not self._without_description(error.digest):
                    lost.add(error.digest)
                    logger.warning("a result is left out of the export: %s", error)

    def _replace_damaged(self, target: Cache, graph: RecordGraph) -> None:
        """Send blobs again that were found damaged: an export leaves what is there as it is."""
        made = self._engine.scratch.blob
        damaged = [
            Blob(blob, size)
            for blob, size in graph.blobs().items()
            if blob in self._engine.results.damaged and made(blob).exists()
        ]
        if damaged:
            run(Transfer(target.layout, self._blob_source(graph)).send(damaged))

    def _without_description(self, blob: str) -> bool:
        """Export a result without its description if that is this blob, which no cache has."""
        for state in self._engine.states.values():
            output = state.output
            if output is not None and output.description and output.description.blob == blob:
                state.output = output._replace(description=None)
                return True
        return False

    def _publish(self, target: Cache, graph: RecordGraph) -> ExportReport:
        """Export, joined with what the names hold, if that is kept and can be read."""
        source = self._blob_source(graph)
        if not self._keep:
            return target.export(graph, source, mode="max")

        def join(own: RecordGraph, stored: RecordGraph) -> RecordGraph:
            whole = stored.without_blobs(self._engine.results.damaged)
            return with_others(own, whole, self._keep)

        try:
            return target.export(graph, source, mode="max", on_conflict="merge", join=join)
        except MALFORMED as error:
            logger.warning("what %s holds is replaced: %s", target.location, error)
            return target.export(graph, source, mode="max")

    def _blob_source(self, graph: RecordGraph) -> FirstSource:
        paths = {blob: self._engine.scratch.blob(blob) for blob in graph.blobs()}
        made = MappingSource({blob: path for blob, path in paths.items() if path.exists()})
        return FirstSource([made, *(as_source(cache) for cache in self._caches)])
