"""Measure, print a table, and write JSON.

Each case runs in a process of its own against one SeaweedFS, started for the run; the runs of all
cases are interleaved, so that a machine that slows down slows all of them. Medians are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import platform
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track
from rich.table import Table

import cachefs
from benchmarks.caring import write_to_bucket, write_to_folder
from benchmarks.measuring import Measured
from benchmarks.workloads import WORKLOADS, graph_of, large_manifest
from tests.servers.proxy import recording_proxy
from tests.servers.seaweed import shared_seaweed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.s3 import S3Server

PRUNE = "plan a prune of 100,000 blobs, 1,000 names"
VERIFY = "verify 64 x 8 MiB, all read"
SUITES = ("upload", "memory", "load", "care")


def main() -> None:
    """Parse the command line and run the suites that it names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", default=[], metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--runs", type=int, default=3, help="counted runs a case (default 3)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/local/latest.json"))
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    with tempfile.TemporaryDirectory(prefix="cachefs-bench-") as folder, _server(folder) as server:
        cases = [
            case
            for suite in options.suites or SUITES
            for case in _cases(suite, server, Path(folder))
        ]
        rounds = list(itertools.chain.from_iterable([cases] * options.runs))
        for case in track(rounds, description="measuring", transient=True):
            case.run()
    results = [case.result() for case in cases]
    _print(results)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    options.json.write_text(json.dumps({**machine, "results": results}, indent=1) + "\n")


@contextlib.contextmanager
def _server(folder: str) -> Iterator[S3Server]:
    data = Path(folder, "seaweed")
    data.mkdir()
    with shared_seaweed(data) as server:
        yield server
    _wait_for_the_end(server)


def _wait_for_the_end(server: S3Server) -> None:
    """Its keeper ends the server once the last user has gone; only then is the folder still."""
    address = urlsplit(server.endpoint_url)
    for _ in range(100):
        time.sleep(0.2)
        try:
            socket.create_connection((address.hostname, address.port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
            return


def _cases(suite: str, server: S3Server, folder: Path) -> Iterator[Measured]:
    suites = {"upload": _uploads, "memory": _large, "load": _loads, "care": _care}
    return suites[suite](server, folder)


def _uploads(server: S3Server, folder: Path) -> Iterator[Measured]:
    for work in ("64 x 8 MiB", "2000 x 16 KiB"):
        blobs = folder / work.replace(" ", "")
        WORKLOADS[work].write(blobs)
        for parallelism in (1, 4, 16):
            for engine in ("s3fs", "obstore"):
                yield Measured(
                    f"upload {work}",
                    f"cachefs, {engine}",
                    parallelism,
                    WORKLOADS[work].bytes,
                    "upload",
                    _to_new_bucket(server, blobs, parallelism, engine),
                )
                yield Measured(
                    f"upload {work}",
                    f"plain {engine} loop",
                    parallelism,
                    WORKLOADS[work].bytes,
                    f"{engine} loop",
                    _peer_to_new_bucket(server, blobs, parallelism),
                )


def _large(server: S3Server, folder: Path) -> Iterator[Measured]:
    blobs = folder / "large"
    WORKLOADS["1 x 1 GiB"].write(blobs)
    size = WORKLOADS["1 x 1 GiB"].bytes
    for engine in ("s3fs", "obstore"):
        tool = f"cachefs, {engine}"
        bucket = server.bucket()
        there = _attributes(server, bucket, 4, engine)

        def sent(there: str = there) -> dict[str, Any]:
            return {"location": there, "folder": str(blobs)}

        def fetched(there: str = there) -> dict[str, Any]:
            into = tempfile.mkdtemp(dir=folder)
            return {"location": there, "folder": str(blobs), "into": into}

        Measured("", tool, 4, size, "upload", sent).run()
        to_new = _to_new_bucket(server, blobs, 4, engine)
        yield Measured("upload 1 x 1 GiB", tool, 4, size, "upload", to_new)
        yield Measured("export it again", tool, 4, 0, "upload", sent)
        yield Measured("fetch 1 x 1 GiB", tool, 4, size, "fetch", fetched)


def _loads(server: S3Server, folder: Path) -> Iterator[Measured]:
    del server
    manifest = folder / "manifest"
    manifest.write_bytes(large_manifest(100_000))
    size = manifest.stat().st_size
    where = {"manifest": str(manifest)}
    yield Measured("load 100,000 records", "cachefs", 1, size, "load", lambda: where)


def _care(server: S3Server, folder: Path) -> Iterator[Measured]:
    on_disk = {"location": str(folder / "care"), "grace": 72 * 3600.0}
    write_to_folder(folder / "care")
    yield Measured(PRUNE, "cachefs, local directory", 4, 0, "plan prune", lambda: on_disk)
    bucket = server.bucket()
    write_to_bucket(server, bucket)
    for engine in ("s3fs", "obstore"):
        there = {"location": _attributes(server, bucket, 4, engine), "grace": 0.0}
        case = Measured(PRUNE, f"cachefs, {engine}", 4, 0, "plan prune", lambda there=there: there)
        case.requests = _requests(server, there["location"])
        yield case
    work = WORKLOADS["64 x 8 MiB"]
    work.write(folder / "verify-blobs")
    graph = graph_of(folder / "verify-blobs")
    files = {file.name: file for file in (folder / "verify-blobs").iterdir()}
    cachefs.open(folder / "verify").export(graph, files, mode="max")
    hashed = {"folder": str(folder / "verify")}
    checked = {"location": str(folder / "verify")}
    yield Measured(VERIFY, "cachefs", 4, work.bytes, "verify", lambda: checked)
    yield Measured(VERIFY, "one core's SHA-256", 1, work.bytes, "sha256", lambda: hashed)
    manifests = [folder / "one", folder / "other"]
    for seed, manifest in enumerate(manifests):
        manifest.write_bytes(large_manifest(100_000, seed))
    both = {"manifests": [str(manifest) for manifest in manifests]}
    yield Measured("merge 2 x 100,000 records", "cachefs", 1, 0, "merge", lambda: both)


def _requests(server: S3Server, location: str) -> int:
    """How many requests a plan makes, counted by a proxy in a run that is not measured."""
    with recording_proxy(server) as proxy:
        endpoint = proxy.server.endpoint_url
        cache = cachefs.open(location.replace(server.endpoint_url, endpoint))
        cache.plan_prune(cachefs.PrunePolicy(keep_last={"*": 500}), grace=0.0)
        return len(proxy.requests)


def _attributes(server: S3Server, bucket: str, parallelism: int, engine: str) -> str:
    return server.attributes(bucket, upload_parallelism=str(parallelism), engine=engine)


def _to_new_bucket(server: S3Server, blobs: Path, parallelism: int, engine: str) -> Any:
    def arguments() -> dict[str, Any]:
        location = _attributes(server, server.bucket(), parallelism, engine)
        return {"location": location, "folder": str(blobs)}

    return arguments


def _peer_to_new_bucket(server: S3Server, blobs: Path, parallelism: int) -> Any:
    def arguments() -> dict[str, Any]:
        return {
            "endpoint": dataclasses.asdict(server),
            "bucket": server.bucket(),
            "folder": str(blobs),
            "parallelism": parallelism,
        }

    return arguments


def _print(results: list[dict[str, Any]]) -> None:
    table = Table(
        "work", "tool", "at a time", "seconds", "MiB/s", "client CPU s", "added MiB", "requests"
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for result in results:
        seconds = result["median_seconds"]
        table.add_row(
            result["work"],
            result["tool"],
            str(result["parallelism"]),
            f"{seconds:.2f}",
            f"{result['bytes'] / 2**20 / seconds:.0f}" if result["bytes"] else "",
            f"{result['median_cpu']:.2f}",
            f"{result['median_mib']:.0f}",
            "" if result["requests"] is None else str(result["requests"]),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
