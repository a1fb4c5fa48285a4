"""What must not pass a type checker."""

from __future__ import annotations

import cachefs

cache = cachefs.open("memory://demo/")
graph = cachefs.RecordGraph()
digest = cachefs.Digest.of(b"a layer")

cachefs.open()  # type: ignore[call-arg]
cachefs.open(b"bytes")  # type: ignore[arg-type]
cachefs.opened("memory://demo/")  # type: ignore[attr-defined]
cachefs.open("s3://bucket/", moode="max")  # type: ignore[call-arg]
cachefs.open("s3://bucket/", mode="most")  # type: ignore[arg-type]
cachefs.open("s3://bucket/", name=7)  # type: ignore[arg-type]
cachefs.open("s3://bucket/", use_path_style=7)  # type: ignore[arg-type]
cachefs.open("s3://bucket/", touch_refresh=b"12h")  # type: ignore[arg-type]
cachefs.copy("mirror")  # type: ignore[call-arg]

# A miss has no bytes: forgetting the check is an error.
cache.read_blob(digest).decode()  # type: ignore[union-attr]
cache.fetch_blob(digest, "layer").exists()  # type: ignore[union-attr]
with cache.open_blob(digest) as file:  # type: ignore[union-attr]
    pass

cache.export(graph)  # type: ignore[call-arg]
cache.export(graph, {digest: 7})  # type: ignore[dict-item]
cache.export(graph, {}, mode="most")  # type: ignore[arg-type]
cache.load("app", "main")  # type: ignore[call-arg]
cache.draw("app", "latex")  # type: ignore[arg-type]
graph.add_result(digest, 0)  # type: ignore[arg-type]
graph.find(digest, [[0]])  # type: ignore[list-item]

# A record's index is not a layer's.
record, layer = graph.add(digest), graph.add_layer(digest)
graph.add_result(layer, record)  # type: ignore[arg-type]
graph.chain(record)  # type: ignore[arg-type]
graph.results([layer])  # type: ignore[list-item]
graph.select("min", [layer])  # type: ignore[list-item]
graph.add_layer(digest, parent=record)  # type: ignore[arg-type]
cachefs.Key(layer)  # type: ignore[arg-type]
cache.result(graph.finals())  # type: ignore[arg-type]

# What was planned or reported is not to be changed, and one plan is not another.
plan = cache.plan_prune()
plan.grace = 0.0  # type: ignore[misc]
cache.repair(plan)  # type: ignore[arg-type]
cache.prune(plan)  # type: ignore[arg-type]
cachefs.PrunePolicy(older_then=3600)  # type: ignore[call-arg]
cachefs.PrunePolicy(7)  # type: ignore[call-arg]

with cachefs.Build() as build:
    build.step(["make"])  # type: ignore[call-arg]
    build.step(["cc", 7], outputs=["a"])  # type: ignore[list-item]
    build.step(["make"], inputs={"src": "src"}, outputs=["a"])  # type: ignore[dict-item]
