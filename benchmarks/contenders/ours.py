"""cachefs through its public interface; connecting is not timed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cachefs
from benchmarks.contenders import Place
from benchmarks.workloads import graph_of, graph_of_numbers, numbered
from cachefs.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]


def _open(place: list[str], engine: str, parallelism: int | None, **more: Any) -> cachefs.Cache:
    there = Place(*place)
    if parallelism is not None:
        more["upload_parallelism"] = parallelism
    cache = cachefs.open(
        f"s3://{there.bucket}/",
        engine=engine,
        endpoint_url=there.endpoint,
        access_key_id=there.key,
        secret_access_key=there.secret,
        region=there.region,
        use_path_style=True,
        **more,
    )
    cache.names()  # connects
    return cache


def upload(
    place: list[str], folder: str, parallelism: int | None, engine: str, **more: str
) -> Work:
    """Export a directory of blobs. Stored blobs are kept or touched, depending on ``more``."""
    cache = _open(place, engine, parallelism, **more)
    graph = graph_of(Path(folder))
    blobs: dict[str, bytes | Path | str] = {file.name: file for file in Path(folder).iterdir()}
    return lambda: cache.export(graph, blobs, mode="max")


def again(place: list[str], folder: str, parallelism: int | None, engine: str) -> Work:
    """Export blobs that are already stored."""
    return upload(place, folder, parallelism, engine)


def touch(place: list[str], folder: str, parallelism: int | None, engine: str) -> Work:
    """Export blobs that are already stored and all old."""
    return upload(place, folder, parallelism, engine, touch_refresh="0s")


def again_numbers(
    place: list[str], count: int, of: int, parallelism: int | None, engine: str
) -> Work:
    """Export tiny blobs that a store of ``of`` blobs already has."""
    cache = _open(place, engine, parallelism)
    blobs = numbered(count, of)
    graph = graph_of_numbers(blobs)
    return lambda: cache.export(graph, blobs, mode="max", names=["again"])


def fetch(place: list[str], into: str, parallelism: int | None, engine: str) -> Work:
    """Copy a cache to a local directory: each blob verified, synced to disk and renamed."""
    cache = _open(place, engine, parallelism)
    return lambda: cachefs.copy(cache, into)


def copy(place: list[str], to: list[str], parallelism: int | None, engine: str) -> Work:
    """Copy a cache from bucket to bucket: each blob passes through here and is verified."""
    source, target = (_open(each, engine, parallelism) for each in (place, to))
    return lambda: cachefs.copy(source, target)


def load(manifest: str) -> Work:
    """Decode a manifest and answer the first look-up."""
    raw = Path(manifest).read_bytes()

    def work() -> cachefs.RecordGraph:
        graph = cachefs.RecordGraph(codec.decode(raw))
        graph.find("sha256:0")
        return graph

    return work


def merge(manifests: list[str]) -> Work:
    """Decode manifests, merge them, and encode the union."""
    raws = [Path(manifest).read_bytes() for manifest in manifests]
    return lambda: codec.encode(
        cachefs.RecordGraph.union(
            [cachefs.RecordGraph(codec.decode(raw)) for raw in raws]
        ).to_config()
    )


def plan_prune(place: list[str], keep: int, parallelism: int | None, engine: str) -> Work:
    """Plan to delete orphaned blobs and remove all names but the newest."""
    cache = _open(place, engine, parallelism)
    # The blobs are new: with a grace period, none would be deleted.
    return lambda: cache.plan_prune(cachefs.PrunePolicy(keep_last={"*": keep}), grace=0.0)


def plan_prune_of_folder(folder: str, keep: int) -> Work:
    """The same on a local directory."""
    cache = cachefs.open(folder)
    return lambda: cache.plan_prune(cachefs.PrunePolicy(keep_last={"*": keep}), grace=0.0)


def verify(folder: str) -> Work:
    """Read and hash every blob of a local cache."""
    cache = cachefs.open(folder)
    cache.names()
    return lambda: cache.verify(read_data=1.0)


def sha256(folder: str) -> Work:
    """The peer of verify: one core's SHA-256 over the same files."""
    return lambda: [cachefs.Digest.of_file(path) for path in Path(folder).rglob("sha256:*")]


def look(folder: str, twice: bool) -> Work:
    """Read a tree as a source: every file the first time, then only what has changed."""
    from cachefs.keying.sources import read_tree

    if twice:
        read_tree(Path(folder))
    return lambda: read_tree(Path(folder))


def pack(folder: str, blob: str) -> Work:
    """Pack a directory into one zstd layer."""
    from cachefs.layers.packing import pack, tree

    def work() -> object:
        with Path(blob).open("wb") as file:
            return pack(Path(folder), tree(Path(folder)), file)

    return work


def unpack(folder: str, blob: str) -> Work:
    """Pack a directory, then extract the layer and verify it, as a restore does."""
    from cachefs.layers.extracting import extract

    diff_id: Any = pack(folder, blob)().diff_id  # type: ignore[attr-defined]
    into = tempfile.mkdtemp(dir=Path(blob).parent)

    def work() -> None:
        with Path(blob).open("rb") as file:
            extract(file, Path(into) / "unpacked", media_type="", diff_id=diff_id)

    return work
