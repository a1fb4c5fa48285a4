"""Large caches for the suite ``care``: 100,000 blobs under 1,000 manifests, written directly."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from cachefs import Digest, RecordGraph
from cachefs.wire import cacheconfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.s3 import S3Server

NAMES: Final = 1_000
LAYERS: Final = 90
"""Blobs that each name needs for itself; ten more of each hundred are orphans."""

WRITTEN: Final = "2026-01-01T00:00:00Z"


def blobs() -> Iterator[bytes]:
    """The content of all blobs: a tenth of them is needed by no name."""
    for number in range(NAMES * 100):
        yield b"%d" % number


def manifests() -> Iterator[tuple[str, bytes]]:
    """Each name with its manifest."""
    contents = list(blobs())
    for number in range(NAMES):
        graph = RecordGraph()
        for content in contents[number * 100 : number * 100 + LAYERS]:
            digest = Digest.of(content)
            layer = graph.add_layer(digest, size=len(content), created_at=WRITTEN)
            graph.add_result(graph.add(digest), layer, WRITTEN)
        yield f"branch-{number:04}", cacheconfig.encode(graph.to_config())


def write_to_folder(folder: Path) -> None:
    """The cache as files, all of them a week old."""
    week_ago = time.time() - 7 * 86_400
    for part in ("blobs", "manifests"):
        (folder / part).mkdir(parents=True)
    for content in blobs():
        _write(folder / "blobs" / Digest.of(content), content, week_ago)
    for name, raw in manifests():
        _write(folder / "manifests" / name, raw, week_ago)


def _write(path: Path, data: bytes, when: float) -> None:
    path.write_bytes(data)
    os.utime(path, (when, when))


def write_to_bucket(server: S3Server, bucket: str) -> None:
    """The cache as objects of an S3 server; they are new, so they are planned with no grace."""
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda c: store.put(f"blobs/{Digest.of(c)}", c), blobs()):
            pass
        for _ in pool.map(lambda item: store.put(f"manifests/{item[0]}", item[1]), manifests()):
            pass
