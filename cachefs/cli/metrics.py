"""``--metrics``: the figures of a run in a file, for Prometheus's textfile collector."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Gauge

    from cachefs import Amount, Cache, CacheUsage, PruneReport, VerifyReport
    from cachefs.operations.prune import PrunePlan


def _ready(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Find out before the work, which may change a cache, that its figures cannot be written."""
    if path is not None:
        try:
            import prometheus_client  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise UsageError(
                "--metrics needs a library; pip install 'buildcachefs[metrics]'"
            ) from error
        if not path.parent.is_dir():
            raise click.BadParameter(f"there is no directory {str(path.parent)!r}")
    return path


metrics_option = click.option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_ready,
    metavar="FILE",
    help="Also write the figures to FILE, for the textfile collector of Prometheus.",
)


class Metrics:
    """The gauges of one command for one cache, written together.

    A file is written only if the command has got its figures. So a run that fails leaves the older
    file, whose ``cachefs_COMMAND_timestamp_seconds`` tells how old its figures are.

    Args:
        command: the name of the command, a part of the name of each gauge.
        cache: the cache; its location is the label ``cache``.
    """

    def __init__(self, command: str, cache: Cache) -> None:
        from prometheus_client import CollectorRegistry

        self._registry = CollectorRegistry()
        self._command = command
        self._cache = str(cache.location)

    def add(self, figure: str, value: float, what: str) -> None:
        """Add one figure, such as ``stored_bytes``."""
        self._gauge(figure, what).labels(self._cache).set(value)

    def add_amount(self, figure: str, amount: Amount | None, what: str) -> None:
        """Add a number of blobs and their bytes; 0 for None."""
        blobs, size = (0, 0) if amount is None else (amount.blobs, amount.bytes)
        self.add(f"{figure}_blobs", blobs, f"Blobs {what}")
        self.add(f"{figure}_bytes", size, f"Bytes of the blobs {what}")

    def add_each(self, figure: str, values: Mapping[str, float], what: str, label: str) -> None:
        """Add a figure with a value for each value of a label."""
        gauge = self._gauge(figure, what, label)
        for key, value in values.items():
            gauge.labels(self._cache, key).set(value)

    def _gauge(self, figure: str, what: str, *labels: str) -> Gauge:
        from prometheus_client import Gauge

        name = f"cachefs_{self._command}_{figure}"
        return Gauge(name, f"{what}.", ("cache", *labels), registry=self._registry)

    def write(self, path: Path) -> None:
        """Replace the file in one step. Raises OSError."""
        from prometheus_client import write_to_textfile

        self.add("timestamp_seconds", time.time(), "When these figures were written")
        write_to_textfile(str(path), self._registry)


def write_usage(path: Path, cache: Cache, usage: CacheUsage) -> None:
    """Write what ``du`` measured."""
    metrics = Metrics("du", cache)
    metrics.add("names", len(usage.names), "Names")
    unreadable = sum(one.fault is not None for one in usage.names)
    metrics.add("unreadable_names", unreadable, "Names whose manifest cannot be read")
    metrics.add_amount("stored", usage.stored, "in the store")
    metrics.add_amount("referenced", usage.referenced, "that names need")
    metrics.add_amount("orphaned", usage.orphaned, "that no name needs")
    metrics.add_amount("uncertain", usage.uncertain, "that an unreadable manifest may need")
    metrics.add_amount("missing", usage.missing, "that a name needs and the store lacks")
    for which, when in (("oldest", usage.oldest), ("newest", usage.newest)):
        if when is not None:
            what = f"When the {which} blob was written or touched"
            metrics.add(f"{which}_blob_timestamp_seconds", when, what)
    metrics.write(path)


def write_verification(path: Path, cache: Cache, report: VerifyReport) -> None:
    """Write what ``verify`` found; every kind of fault, also those of which there are none."""
    from cachefs.operations.verify import Kind

    metrics = Metrics("verify", cache)
    faults = dict.fromkeys(get_args(Kind), 0)
    for fault in report.faults:
        faults[fault.kind] += 1
    metrics.add_each("faults", faults, "Faults", label="kind")
    metrics.add("names", len(report.names), "Names whose manifests were read")
    metrics.add_amount("needed", report.blobs, "that these names need")
    metrics.add_amount("read", report.read, "that were read and hashed")
    metrics.add_amount("stated", report.stated, "whose digest the store stated")
    metrics.add("duration_seconds", report.seconds, "How long it took")
    metrics.write(path)


def write_prune(path: Path, cache: Cache, plan: PrunePlan, report: PruneReport | None) -> None:
    """Write what ``prune`` did; zeros if there was nothing to do."""
    metrics = Metrics("prune", cache)
    removed, deleted, spared, seconds = 0, None, None, 0.0
    if report is not None:
        removed, seconds = len(report.removed), report.seconds
        deleted, spared = report.deleted, report.spared
    metrics.add("removed_names", removed, "Names that were removed")
    metrics.add("kept_names", len(plan.staying[0]), "Names that stay")
    metrics.add_amount("deleted", deleted, "that were deleted")
    metrics.add_amount("spared", spared, "that were used meanwhile and stay")
    metrics.add_amount("kept", plan.kept, "that names need")
    metrics.add_amount("waiting", plan.waiting, "that are orphaned, within the grace period")
    metrics.add("duration_seconds", seconds, "How long it took")
    metrics.write(path)
