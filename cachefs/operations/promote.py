"""Promoting names from a cache that many may write to one that few may.

Nothing of the source is trusted but the keys that signed its names. Every blob is read here,
compared with its digest and examined as an extraction would, whether the target has it already or
not. Only then is a name published: on the condition that nobody else has written it meanwhile, and
signed anew with the key of the target.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from fsspec.callbacks import DEFAULT_CALLBACK
from msgspec import Struct

from cachefs.amount import Amount, counted_names
from cachefs.concurrency import for_each
from cachefs.errors import CacheError, LayerError, UsageError
from cachefs.graph import RecordGraph
from cachefs.layers.limits import DEFAULT_LIMITS
from cachefs.location.keys import in_order
from cachefs.operations.nearby import require_cache
from cachefs.operations.plan import Plan
from cachefs.transfer.examining import ExaminedSource
from cachefs.transfer.exporter import Blob, Transfer
from cachefs.transfer.lookup import look_up
from cachefs.transfer.manifests import blobs_of, read_manifests
from cachefs.transfer.publishing import publish_unchanged
from cachefs.transfer.sources import LayoutSource
from cachefs.wire.walks import fold_stacks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout.base import Layout, Manifest

AT_A_TIME: Final = os.cpu_count() or 1
"""Blobs of the target that are examined at the same time: that takes a processor for each."""


class PromoteLimits(NamedTuple):
    """What a name may hold to be promoted, besides the limits of extractions.

    Attributes:
        size: bytes of its blobs; None for any.
        layers: layers on top of each other in one result; None for any.
    """

    size: int | None = None
    layers: int | None = None

    def fault(self, graph: RecordGraph) -> str:
        """Why what a name holds is more than that; empty if it is not."""
        size = sum(graph.blobs().values())
        if self.size is not None and size > self.size:
            return f"its blobs have {size:,} bytes, more than the limit of {self.size:,}"
        if self.layers is None:
            return ""
        stacks = fold_stacks(graph.layers, 0, lambda _, below: below + 1)
        chains = (len(chain.layers) for record in graph.records for chain in record.chains)
        highest = max((*stacks, *chains), default=0)
        if highest > self.layers:
            return f"a result has {highest:,} layers, more than the limit of {self.layers:,}"
        return ""


class PromoteReport(Struct, frozen=True, kw_only=True):
    """What a promotion did.

    Attributes:
        names: the names that the target now holds as the source did, signed with its key.
        unchanged: those of them that held the same before.
        refused: names of the source that were not promoted, each with the reason.
        examined: blobs that were read and found sound.
        uploaded: those of them that were sent; the others the target had.
        seconds: the whole time.
    """

    names: list[str]
    unchanged: list[str]
    refused: dict[str, str]
    examined: Amount
    uploaded: Amount
    seconds: float


class PromotePlan(Plan[PromoteReport], frozen=True, kw_only=True):
    """What a promotion is going to do, if no blob is refused.

    Attributes:
        names: the names of the source, each with the names it gets in the target.
        refused: names of the source that are not promoted, each with the reason.
        examine: blobs that will be read.
        upload: those of them that the target lacks.
    """

    names: dict[str, list[str]]
    refused: dict[str, str]
    examine: Amount
    upload: Amount

    @property
    def is_empty(self) -> bool:
        """Whether no name can be promoted."""
        return not self.names

    def __str__(self) -> str:
        parts = [f"promote {counted_names(in_order(self.names))}; examine {self.examine}"]
        if self.refused:
            parts.append(f"not promoted, {counted_names(in_order(self.refused))}")
        return "; ".join(parts)


def require_lanes(source: Layout, target: Layout) -> None:
    """Raise UsageError unless the source is checked, the target is signed, and they differ."""
    if source.signing is None or source.signing.trusted is None:
        raise UsageError(
            "say which keys are trusted in the source: signed_by=... (--signed-by), or set "
            "$CACHEFS_TRUSTED_KEYS",
            operation="promote",
            side="source",
            key=source.store.root,
        )
    if target.signing is None or target.signing.signer is None:
        raise UsageError(
            "say which key signs in the target: signing_key=... (--key), or set "
            "$CACHEFS_SIGNING_KEY",
            operation="promote",
            side="target",
            key=target.store.root,
        )
    if source.store.root + source.blob_prefix == target.store.root + target.blob_prefix:
        raise UsageError(
            "source and target have the same blobs, which whoever writes to the source can delete: "
            "give the target a prefix of its own",
            operation="promote",
            key=target.store.root,
        )


async def plan_promotion(
    source: Layout,
    target: Layout,
    names: Mapping[str, Sequence[str]],
    *,
    touch_refresh: float,
    limits: PromoteLimits,
) -> PromotePlan:
    """Read the source's manifests and check signatures and limits. Writes nothing.

    Args:
        source: where names and blobs come from.
        target: where they are written.
        names: each name of the source with the names it gets in the target.
        touch_refresh: seconds after which the time of a blob that the target has is renewed.
        limits: what a name may hold.

    Raises NoCacheError, UsageError and StoreError.
    """
    accepted: list[Manifest] = []
    refused: dict[str, str] = {}
    for name, found in (await read_manifests(source, names)).items():
        if isinstance(found, CacheError):
            refused[name] = str(found)
        elif fault := found.refusal or limits.fault(RecordGraph(found.config)):
            refused[name] = fault
        else:
            accepted.append(found)
    if not accepted:
        await require_cache(source)
    versions = {new: await target.version(new) for each in names.values() for new in each}
    blobs = blobs_of(accepted)
    there = await look_up(target, list(blobs))
    promotion = _Promotion(source, target, names, versions, touch_refresh)
    return PromotePlan(
        names={manifest.name: list(names[manifest.name]) for manifest in accepted},
        refused=refused,
        examine=Amount.of(blobs.values()),
        upload=Amount.of(size for blob, size in blobs.items() if blob not in there),
    ).remembering(lambda plan, callback: promotion.execute(accepted, plan.refused, callback))


class _Promotion:
    """A promotion that was planned."""

    def __init__(
        self,
        source: Layout,
        target: Layout,
        names: Mapping[str, Sequence[str]],
        versions: Mapping[str, str],
        touch_refresh: float,
    ) -> None:
        self._source = source
        self._target = target
        self._names = names
        self._versions = versions
        self._touch_refresh = touch_refresh

    async def execute(
        self,
        manifests: Sequence[Manifest],
        refused: Mapping[str, str],
        callback: Callback = DEFAULT_CALLBACK,
    ) -> PromoteReport:
        """Bring the blobs, then publish the names whose blobs are all sound.

        Raises StoreError if the target fails; then some names may have been promoted.
        """
        started = time.perf_counter()
        blobs = blobs_of(manifests)
        transfer, faults = await self._bring(manifests, blobs, callback)
        refused = dict(refused)
        published: list[str] = []
        unchanged: list[str] = []
        for manifest in manifests:
            faulty = [one for one in RecordGraph(manifest.config).blobs() if one in faults]
            if faulty:
                more = f" (and {len(faulty) - 1:,} more)" if len(faulty) > 1 else ""
                refused[manifest.name] = f"{faulty[0]}: {faults[faulty[0]].reason}{more}"
                continue
            for name in self._names[manifest.name]:
                if await self._publish(replace(manifest, name=name), unchanged):
                    published.append(name)
                else:
                    refused[manifest.name] = f"{name} was written by another meanwhile: try again"
        sound = [size for blob, size in blobs.items() if blob not in faults]
        return PromoteReport(
            names=in_order(published),
            unchanged=in_order(unchanged),
            refused=refused,
            examined=Amount.of(sound),
            uploaded=transfer.report((), 0.0).uploaded,
            seconds=time.perf_counter() - started,
        )

    async def _bring(
        self, manifests: Sequence[Manifest], blobs: Mapping[Digest, int], callback: Callback
    ) -> tuple[Transfer, Mapping[Digest, CacheError]]:
        """Have every blob in the target and examined, and say which are refused."""
        layers = [layer for manifest in manifests for layer in manifest.config.layers]
        origin = ExaminedSource(LayoutSource(self._source), layers, DEFAULT_LIMITS)
        present = ExaminedSource(LayoutSource(self._target), layers, DEFAULT_LIMITS)
        transfer = Transfer(self._target, origin, callback, tolerant=True)
        faults: dict[Digest, CacheError] = {}
        unsound: list[Blob] = []
        examined: set[Digest] = set()

        async def examine(digest: Digest) -> None:
            try:
                await present.check(digest, blobs[digest] or None)
            except LayerError as error:
                faults[digest] = error
            except CacheError:
                unsound.append(Blob(digest, blobs[digest] or None))
            examined.add(digest)

        await for_each(list(await look_up(self._target, list(blobs))), examine, AT_A_TIME)
        await transfer.bring(blobs, self._touch_refresh)
        # What another writer has sent since the look-up was kept, and is not examined yet.
        known = examined | transfer.failures.keys()
        rest = [blob for blob in blobs if blob not in known and not transfer.sent(blob)]
        await for_each(rest, examine, AT_A_TIME)
        again = [blob for blob in unsound if not transfer.sent(blob.digest)]
        if again:
            await transfer.send(again)
        return transfer, faults | transfer.failures

    async def _publish(self, manifest: Manifest, unchanged: list[str]) -> bool:
        """Publish and sign under the name; False if it holds what was written meanwhile."""
        there = await self._target.find(manifest.name)
        if there is not None and await self._target.holds(there, manifest):
            await self._target.sign([manifest.name], manifest)
            unchanged.append(manifest.name)
            return True
        return await publish_unchanged(self._target, manifest, self._versions[manifest.name])
