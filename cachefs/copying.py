"""Copying a cache: every name of the source, or those it gives, to any other location."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK

from cachefs.concurrency import for_each
from cachefs.errors import (
    CacheError,
    IntegrityError,
    ManifestError,
    NotFoundError,
    UsageError,
)
from cachefs.exporter import ExportReport, Transfer, plan_export
from cachefs.graph import RecordGraph
from cachefs.layout import Manifest
from cachefs.layout.keyed import KeyedLayout
from cachefs.listing import LOOKUPS
from cachefs.sources import LayoutSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fsspec.callbacks import Callback

    from cachefs.digest import Digest
    from cachefs.layout import Layout


class CopyError(CacheError):
    """Some names could not be copied; :attr:`report` tells of the others, which are in place."""

    report: ExportReport

    @classmethod
    def of(cls, refused: Sequence[str], report: ExportReport) -> CopyError:
        """The error for names that were refused, each with its reason."""
        error = cls(
            f"{len(refused)} of the names stay as they were in the target: {'; '.join(refused)}",
            operation="copy",
        )
        error.report = report
        return error


async def copy_names(
    source: Layout,
    target: Layout,
    names: Mapping[str, Sequence[str]],
    *,
    touch_refresh: float,
    callback: Callback = DEFAULT_CALLBACK,
) -> ExportReport:
    """Copy each name of the source to one or more names of the target.

    Blobs that are there are not sent. A name whose blobs are not all in the source is not
    published, and what it was in the target stays; the others are. Raises CopyError then, and
    StoreError where the target fails.
    """
    started = time.perf_counter()
    manifests, refused = await _read_all(source, list(names))
    transfer = Transfer(target, LayoutSource(source), callback, tolerant=True)
    blobs: dict[Digest, int] = {}
    for manifest in manifests:
        blobs |= RecordGraph(manifest.config).blobs()
    await transfer.execute(await plan_export(target, blobs, touch_refresh))
    await transfer.last_look()
    done: list[str] = []
    for manifest in manifests:
        lost = [b for b in RecordGraph(manifest.config).blobs() if b in transfer.failures]
        if lost:
            refused.append(f"{manifest.name} lacks {len(lost)} blobs: {transfer.failures[lost[0]]}")
            continue
        await target.publish(names[manifest.name], _as_written(manifest, target))
        done += names[manifest.name]
    report = transfer.report(done, time.perf_counter() - started)
    if refused:
        raise CopyError.of(refused, report)
    return report


async def _read_all(source: Layout, names: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """The manifests that can be copied, in order, and why the others cannot."""
    read: dict[str, Manifest] = {}
    refused: dict[str, str] = {}

    async def one(name: str) -> None:
        try:
            read[name] = await source.read(name)
        except (IntegrityError, ManifestError, NotFoundError) as error:
            refused[name] = f"{name}: {error}"

    await for_each(names, one, LOOKUPS)
    return [read[n] for n in names if n in read], [refused[n] for n in names if n in refused]


def _as_written(manifest: Manifest, target: Layout) -> Manifest:
    """The bytes that were read are kept where they mean the same."""
    return manifest if isinstance(target, KeyedLayout) else Manifest(manifest.name, manifest.config)


async def renamed(
    source: Layout, wanted: Sequence[str], new_names: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """What is copied to what: all names or the wanted ones, kept unless the target names others.

    Raises UsageError when several names would become one.
    """
    chosen = list(wanted) or [name.name for name in await source.names()]
    if not chosen:
        raise UsageError(
            "there is nothing to copy: no names were found; check the location's prefixes",
            operation="copy",
            side="source",
            key=source.store.root,
        )
    if not new_names:
        return {name: (name,) for name in chosen}
    if len(chosen) == 1:
        return {chosen[0]: tuple(new_names)}
    raise UsageError(
        f"{len(chosen)} names of the source ({', '.join(chosen[:5])}) cannot all become "
        f"{';'.join(new_names)}; give the source's name, or leave out the target's"
    )
