"""The measured operations, each run in a process of its own so that its peak memory is its own.

``python -m benchmarks.cases NAME JSON-ARGUMENTS`` prints one line of JSON: seconds, CPU seconds
and the MiB that the operation added to the process's peak.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cachefs
from benchmarks.workloads import graph_of
from cachefs.wire import cacheconfig

if TYPE_CHECKING:
    from collections.abc import Callable

Operation = "Callable[[], object]"


def main() -> None:
    """Prepare the case that the command line names, measure it, and print the figures."""
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    operation = CASES[name](**arguments)
    before = _usage()
    operation()
    after = _usage()
    print(json.dumps({key: after[key] - before[key] for key in after}), flush=True)
    # obstore's threads may still hand results over while Python shuts down, and abort it.
    os._exit(0)


def _usage() -> dict[str, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": time.perf_counter(),
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "mib": _peak_memory(),
    }


def _peak_memory() -> float:
    """MiB. Not ``ru_maxrss``: Linux lets a new process begin with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def upload(location: str, folder: str) -> Callable[[], object]:
    """Export a folder of blobs. What is there already is kept or touched, as the location says."""
    cache = cachefs.open(location)
    cache.names()  # connect before the clock starts
    graph = graph_of(Path(folder))
    blobs: dict[str, bytes | Path | str] = {file.name: file for file in Path(folder).iterdir()}
    return lambda: cache.export(graph, blobs, mode="max")


def fetch(location: str, folder: str, into: str) -> Callable[[], object]:
    """Copy the cache of a folder's blobs to a local directory, verified."""
    cache = cachefs.open(location)
    cache.names()
    del folder
    return lambda: cachefs.copy(cache, into)


def s3fs_loop(endpoint: dict[str, Any], bucket: str, folder: str, parallelism: int) -> Any:
    """The peer: s3fs's own ``put_file`` in a plain loop, nothing hashed and nothing looked up."""
    import s3fs

    fs = s3fs.S3FileSystem(
        key=endpoint["access_key_id"],
        secret=endpoint["secret_access_key"],
        endpoint_url=endpoint["endpoint_url"],
        use_listings_cache=False,
    )
    fs.ls(bucket)

    async def put(file: Path) -> None:
        await fs._put_file(str(file), f"{bucket}/plain/{file.name}")

    return _loop(fs, put, folder, parallelism)


def obstore_loop(endpoint: dict[str, Any], bucket: str, folder: str, parallelism: int) -> Any:
    """The peer: obstore's fsspec filesystem's own ``put_file`` in a plain loop."""
    from obstore.fsspec import FsspecStore

    fs = FsspecStore(
        "s3",
        config={
            "endpoint": endpoint["endpoint_url"],
            "access_key_id": endpoint["access_key_id"],
            "secret_access_key": endpoint["secret_access_key"],
            "region": "us-east-1",
        },
        client_options={"allow_http": True},
    )

    async def put(file: Path) -> None:
        await fs._put_file(str(file), f"{bucket}/plain/{file.name}")

    return _loop(fs, put, folder, parallelism)


def _loop(fs: Any, put: Any, folder: str, parallelism: int) -> Any:
    from fsspec.asyn import sync

    async def work() -> None:
        files = iter(sorted(Path(folder).iterdir()))

        async def worker() -> None:
            for file in files:
                await put(file)

        await asyncio.gather(*(worker() for _ in range(parallelism)))

    return lambda: sync(fs.loop, work)


def plan_prune(location: str, grace: float) -> Callable[[], object]:
    """Plan what a prune would delete: every orphan, and half of the names by size."""
    cache = cachefs.open(location)
    policy = cachefs.PrunePolicy(keep_last={"*": 500})
    return lambda: cache.plan_prune(policy, grace=grace)


def verify(location: str) -> Callable[[], object]:
    """Read and hash every blob of a cache."""
    cache = cachefs.open(location)
    cache.names()
    return lambda: cache.verify(read_data=1.0)


def sha256(folder: str) -> Callable[[], object]:
    """The peer of verify: one core's SHA-256 over the same files."""
    return lambda: [cachefs.Digest.of_file(path) for path in Path(folder).rglob("sha256:*")]


def merge(manifests: list[str]) -> Callable[[], object]:
    """Decode manifests, merge them, and encode the union."""
    raws = [Path(manifest).read_bytes() for manifest in manifests]
    return lambda: cacheconfig.encode(
        cachefs.merge([cachefs.RecordGraph(cacheconfig.decode(raw)) for raw in raws]).to_config()
    )


def load(manifest: str) -> Callable[[], object]:
    """Decode a manifest and answer the first look-up."""
    raw = Path(manifest).read_bytes()
    return lambda: cachefs.RecordGraph(cacheconfig.decode(raw)).find("sha256:0")


def look(folder: str) -> Callable[[], object]:
    """Read a tree as a source: the first time every file, then what has changed."""
    from cachefs.building.sources import read_tree

    return lambda: read_tree(Path(folder))


def pack_layer(folder: str, blob: str) -> Callable[[], object]:
    """Pack a folder into one zstd layer, and keep its diffID beside it."""
    from cachefs.layers.packing import pack, tree

    def work() -> None:
        with Path(blob).open("wb") as file:
            packed = pack(Path(folder), tree(Path(folder)), file)
        Path(f"{blob}.diff").write_text(packed.diff_id)

    return work


def unpack_layer(blob: str, into: str) -> Callable[[], object]:
    """Extract a layer, verified, as a restore does."""
    from cachefs.layers.extracting import extract

    diff = cachefs.Digest(Path(f"{blob}.diff").read_text())

    def work() -> None:
        with Path(blob).open("rb") as file:
            extract(file, Path(into), media_type="", diff_id=diff)

    return work


def tar_pack(folder: str, blob: str) -> Callable[[], object]:
    """The peer of packing: nothing is hashed."""
    script = 'set -o pipefail; tar --sort=name -C "$0" -c . | zstd -q -f -T1 -o "$1"'
    return lambda: subprocess.run(["bash", "-c", script, folder, blob], check=True)


def tar_unpack(blob: str, into: str) -> Callable[[], object]:
    """The peer of extracting: nothing is verified."""
    script = 'set -o pipefail; mkdir "$1"; zstd -q -d -c "$0" | tar -C "$1" -x'
    return lambda: subprocess.run(["bash", "-c", script, blob, into], check=True)


CASES: Final[dict[str, Any]] = {
    "upload": upload,
    "fetch": fetch,
    "s3fs loop": s3fs_loop,
    "obstore loop": obstore_loop,
    "load": load,
    "plan prune": plan_prune,
    "verify": verify,
    "sha256": sha256,
    "merge": merge,
    "look": look,
    "pack": pack_layer,
    "unpack": unpack_layer,
    "tar pack": tar_pack,
    "tar unpack": tar_unpack,
}

if __name__ == "__main__":
    main()
