"""Opening a cache, and what comes out of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, assert_type

import cachefs
from cachefs import testing

assert_type(cachefs.__version__, str)

cache = cachefs.open("s3://bucket/ci/", name="app", touch_refresh="1h")
assert_type(cache, cachefs.Cache)
assert_type(cachefs.open(Path("mirror")), cachefs.Cache)
assert_type(cachefs.open(cache.location), cachefs.Cache)
assert_type(cache.location, cachefs.Location)
assert_type(cache.names(), list[cachefs.NamedManifest])
assert_type(cache.manifest("app"), cachefs.Manifest)
assert_type(cache.summaries(), list[cachefs.NameSummary])
assert_type(cache.describe("app").layers, list[cachefs.LayerDetails])
assert_type(cache.describe("app").records, list[cachefs.RecordDetails])
assert_type(cache.usage().names, list[cachefs.NameUsage])
assert_type(cache.diff(cache.with_names("main")), cachefs.CacheDiff)
assert_type(cache.draw("app", "dot"), str)
assert_type(cache.misses, deque[cachefs.Miss])

# A digest is text, so a variable for text can hold it.
digest = cachefs.Digest.of(b"a layer")
assert_type(digest, cachefs.Digest)
text: str = digest

# A miss is false, and its attributes say why. A blob may be empty, so bytes are recognised by
# their class.
data = cache.read_blob(digest)
assert_type(data, bytes | cachefs.Miss)
if isinstance(data, cachefs.Miss):
    assert_type(data.reason, str)
    assert_type(data.absent, bool)
else:
    assert_type(data, bytes)
if file := cache.open_blob(digest, size=7):
    assert_type(file, BinaryIO)
    with file:
        assert_type(file.read(), bytes)
if path := cache.fetch_blob(digest, "layer"):
    assert_type(path, Path)

graph = cache.load(["app", "main"])
assert_type(graph, cachefs.RecordGraph)
base = graph.find(cachefs.output_key("sha256:" + "4" * 64, 0))
assert_type(base, cachefs.Matches)
assert_type(base.keys("/src"), frozenset[cachefs.Key])
matches = graph.find(cachefs.output_key("sha256:" + "5" * 64, 0), [base.keys("/src")])
assert_type(matches.records, frozenset[cachefs.RecordIndex])
assert_type(graph.results(matches), list[cachefs.Found])
assert_type(cachefs.RecordGraph.union([graph, graph]), cachefs.RecordGraph)
if result := cache.result(matches):
    assert_type(result, cachefs.CachedResult)
    if paths := result.pull("layers"):
        assert_type(paths, list[Path])


def sizes(layers: Sequence[cachefs.LayerDetails]) -> int:
    """Public types can be named where users annotate their own code."""
    return sum(layer.size or 0 for layer in layers)


assert_type(sizes(cache.describe("app").layers), int)

generated = testing.random_graph(seed=7, records=40)
assert_type(generated.graph, cachefs.RecordGraph)
assert_type(generated.blobs, dict[str, bytes])
assert_type(testing.write_random_cache(cache), dict[str, testing.Generated])
