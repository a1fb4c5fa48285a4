"""The second half of a mirror: removing from the target what the source lacks, as a prune does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.errors import UsageError
from cachefs.operations.prune import execute_prune, plan_prune
from cachefs.operations.retention import PrunePolicy

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachefs.layout.base import Layout
    from cachefs.transfer.exporter import ExportReport


def require_whole(source_names: Collection[str], target_names: Collection[str]) -> None:
    """Raise UsageError if a location selects names: the others would be removed."""
    if source_names or target_names:
        raise UsageError(
            "a copy that deletes makes the target's names equal to the source's, so neither "
            "location may give names; leave name=... (or tag=...) out"
        )


async def remove_others(
    source: Layout, target: Layout, copied: ExportReport, grace: float
) -> ExportReport:
    """Remove the target's names that were not copied and that the source still lacks.

    To be called after all names have been copied. Orphaned blobs past the grace period, in seconds,
    are deleted. Returns the report with what was removed. Raises the same errors as
    :func:`cachefs.operations.prune.plan_prune`.
    """
    wanted = {name.name for name in await source.names()} | set(copied.names)
    plan = await plan_prune([target], PrunePolicy(wanted=frozenset(wanted)), grace=grace)
    pruned = await execute_prune([target], plan)
    return replace(
        copied,
        removed=pruned.removed,
        deleted=pruned.deleted,
        seconds=copied.seconds + pruned.seconds,
    )
