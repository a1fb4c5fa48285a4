"""The second half of a mirror: what the source lacks goes from the target, by the prune's rules."""

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
    """Raises UsageError where a location chooses names: the others would be deleted."""
    if source_names or target_names:
        raise UsageError(
            "a copy that deletes makes the target's names equal to the source's, so neither "
            "location may give names; leave name=... (or tag=...) out"
        )


async def delete_others(
    source: Layout, target: Layout, copied: ExportReport, grace: float
) -> ExportReport:
    """Take away the target's names that were not copied and that the source still lacks.

    To be called after all names were copied; returns the report with what went. Blobs that nothing
    needs any more go once they are past the grace, in seconds. Raises as
    :func:`cachefs.operations.prune.plan_prune`.
    """
    wanted = {name.name for name in await source.names()} | set(copied.names)
    plan = await plan_prune(target, PrunePolicy(wanted=frozenset(wanted)), grace=grace)
    pruned = await execute_prune(target, plan)
    return replace(
        copied,
        removed=pruned.names,
        deleted=pruned.deleted,
        seconds=copied.seconds + pruned.seconds,
    )
