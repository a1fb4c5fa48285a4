"""The second half of a mirror: removing from the target what the source lacks, as a prune does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cachefs.errors import UsageError
from cachefs.operations.prune import PrunePlan, execute_prune, plan_prune
from cachefs.operations.retention import PrunePolicy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout
    from cachefs.transfer.exporter import ExportReport


def require_whole(source_names: Collection[str], target_names: Collection[str]) -> None:
    """Raise UsageError if a location selects names: the others would be removed."""
    if source_names or target_names:
        raise UsageError(
            "a copy that deletes makes the target's names equal to the source's, so neither "
            "location may give names; leave --name, name=... and tag=... out"
        )


async def plan_removal(
    target: Layout,
    wanted: Collection[str],
    becoming: Mapping[str, frozenset[Digest]],
    grace: float,
) -> PrunePlan | None:
    """Find what to remove and delete once all names have been copied. None if nothing is there.

    Args:
        target: the cache that becomes a mirror.
        wanted: the names that stay, because the source has them.
        becoming: the blobs that the copied names need.
        grace: the grace period in seconds.

    Raises the same errors as :func:`cachefs.operations.prune.plan_prune`.
    """
    if not await target.names():
        return None
    policy = PrunePolicy(wanted=frozenset(wanted))
    return await plan_prune([target], policy, grace=grace, becoming=becoming)


async def remove_others(
    source: Layout, target: Layout, plan: PrunePlan, copied: ExportReport
) -> ExportReport:
    """Execute the plan, except for names that the source has got since it was made.

    To be called after all names have been copied. Returns the report with what was removed. Raises
    the same errors as :func:`cachefs.operations.prune.execute_prune`.
    """
    there = {name.name for name in await source.names()}
    remove = [removal for removal in plan.remove if removal.manifest.name not in there]
    pruned = await execute_prune([target], replace(plan, remove=remove))
    return replace(
        copied,
        removed=pruned.removed,
        deleted=pruned.deleted,
        seconds=copied.seconds + pruned.seconds,
    )
