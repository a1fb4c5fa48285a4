"""Caches of layers that a test chooses, archive by archive."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence

import zstandard

import cachefs
from cachefs import RecordGraph
from cachefs.digest import Digest
from cachefs.layers.compression import MEDIA_TYPES, Compression
from tests.graphs import digest_of
from tests.trees import Link

Members = dict[str, "bytes | Link | None"]


def archive(members: Members) -> bytes:
    """A tar of these members; None for a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(content, Link):
                info.type, info.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def compressed(raw: bytes, compression: Compression) -> bytes:
    if compression == "zstd":
        return zstandard.compress(raw)
    return gzip.compress(raw, mtime=0) if compression == "gzip" else raw


def write(
    location: str,
    results: Sequence[Sequence[bytes]],
    name: str = "main",
    compression: Compression = "gzip",
) -> list[list[str]]:
    """Write results, each of archives from the bottom up, the oldest first; returns their blobs."""
    graph, blobs, made = RecordGraph(), {}, []
    for number, raws in enumerate(results):
        layer, chain = -1, []
        for raw in raws:
            blob = compressed(raw, compression)
            digest = Digest.of(blob)
            blobs[digest] = blob
            layer = graph.add_layer(
                digest,
                parent=layer,  # type: ignore[arg-type]
                diff_id=Digest.of(raw),
                size=len(blob),
                media_type=MEDIA_TYPES[compression],
                created_at="2026-01-01T00:00:00Z",
            )
            chain.append(str(digest))
        record = graph.add(digest_of(f"{name} {number}"))
        graph.add_result(record, layer, f"2026-01-0{number + 1}T00:00:00Z")
        made.append(chain)
    cachefs.open(location).export(graph, blobs, [name], mode="max")
    return made
