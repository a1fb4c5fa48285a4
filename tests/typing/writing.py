"""Exporting, copying and merging."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_type

import cachefs

cache = cachefs.open("memory://demo/", name="app")
graph = cachefs.RecordGraph()
blob = cachefs.Digest.of(b"a layer")
below = graph.add_layer(blob, size=7)
assert_type(below, cachefs.LayerIndex)
step = graph.add(cachefs.output_key("sha256:" + "5" * 64, 0))
assert_type(graph.add(blob, [[cachefs.Key(step), cachefs.Key(step, "/src")]]), cachefs.RecordIndex)
graph.add_result(step, graph.add_layer(blob, parent=below))


class Registry:
    """A source of a user's own: it only has to have the method."""

    async def chunks(self, digest: cachefs.Digest, size: int | None) -> AsyncIterator[bytes]:
        yield f"{digest} of {size}".encode()


report = cache.export(graph, {blob: b"a layer"}, names=["app", "main"], mode="max", finals=[step])
assert_type(report, cachefs.ExportReport)
assert_type(report.uploaded, cachefs.Amount)
assert_type(report.uploaded.bytes, int)
assert_type(report.error, str | None)
cache.export(graph, {blob: Path("layer.tar")})
cache.export(graph, cache)
cache.export(graph, [cache, cachefs.open("mirror")])
cache.export(graph, Registry())
source: cachefs.BlobSource = Registry()

assert_type(cachefs.copy("mirror", cache, delete=True), cachefs.ExportReport)
with ThreadPoolExecutor() as executor:
    cachefs.copy(Path("mirror"), cachefs.open("other").location, executor=executor)

plan = cachefs.plan_merge([cache.with_names(["linux", "arm"])], cache, "all")
assert_type(plan, cachefs.MergePlan)
assert_type(plan.execute(), cachefs.ExportReport)
assert_type(cachefs.merge([cache], cache, ["all"]), cachefs.ExportReport)
