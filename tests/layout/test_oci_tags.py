"""Tags of one OCI directory, written by many processes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cachefs

CREATED = "2026-01-01T00:00:00Z"


def built(number: int) -> tuple[cachefs.RecordGraph, dict[str, bytes]]:
    content = b"layer %d" % number
    digest = cachefs.Digest.of(content)
    graph = cachefs.RecordGraph()
    layer = graph.add_layer(digest, size=len(content), created_at=CREATED)
    graph.add_result(graph.add(digest), layer, CREATED)
    return graph, {digest: content}


def test_every_tag_of_32_exporters_is_kept(tmp_path: Path) -> None:
    """More than there are threads in the IO loop: those that wait must not keep them all busy."""

    def export(number: int) -> None:
        graph, blobs = built(number)
        cachefs.open(f"type=local,dest={tmp_path},tag=t{number:02}").export(graph, blobs)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(export, range(32)))
    cache = cachefs.open(f"type=local,src={tmp_path}")
    assert [name.name for name in cache.names()] == [f"t{number:02}" for number in range(32)]
    for number in range(32):
        graph, blobs = built(number)
        read = cache.load(f"t{number:02}")
        assert {record.digest for record in read.records} == {r.digest for r in graph.records}
        assert {digest: cache.read_blob(digest) for digest in read.blobs()} == blobs
