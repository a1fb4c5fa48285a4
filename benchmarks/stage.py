"""What the cases of a run stand on: blobs on disk, filled buckets; made when first needed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cachefs
from benchmarks.contenders import OBSTORE, SHELL, STARTING, Contender, Place
from benchmarks.contenders.bare import native_store
from benchmarks.processes import run
from benchmarks.workloads import (
    MIB,
    QUICK,
    Sizes,
    Workload,
    graph_of,
    large_manifest,
    manifests,
    numbered,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from tests.servers.s3 import S3Server

_REQUESTS: Final = r'^SeaweedFS_s3_request_total{bucket="([^"]*)".*} (\S+)$'
_CPU: Final = r"^process_cpu_seconds_total (\S+)$"


class Served(NamedTuple):
    """Requests that a server has had for some buckets, and CPU seconds that it has used in all."""

    requests: int
    cpu: float


def _once(make: Callable[..., Any]) -> Callable[..., Any]:
    """A method that makes each thing once, however many threads ask for it."""

    @functools.wraps(make)
    def get(self: Stage, *about: Any) -> Any:
        with self.lock:
            key = (make.__name__, *about)
            if key not in self.made:
                self.made[key] = make(self, *about)
            return self.made[key]

    return get


class Stage:
    """One server and one folder.

    Args:
        server: a SeaweedFS, for it tells how many requests it had.
        folder: empty, and removed by the caller afterwards.
        sizes: how much of everything.
    """

    def __init__(self, server: S3Server, folder: Path, sizes: Sizes) -> None:
        self.server = server
        self.sizes = sizes
        self.folder = folder
        self.lock = threading.RLock()
        self.made: dict[tuple[Any, ...], Any] = {}
        self.stock: list[str] = []

    def place(self, bucket: str) -> Place:
        """A bucket as contenders get it."""
        server = self.server
        keys = server.access_key_id, server.secret_access_key
        return Place(server.endpoint_url, *keys, server.region, bucket)

    def served(self, buckets: Collection[str]) -> Served:
        """What the server has done so far.

        It counts after it has answered, so this looks until nothing is added.
        """
        now, before = self._served(buckets), None
        while before is None or now.requests != before.requests:
            time.sleep(0.02)
            now, before = self._served(buckets), now
        return now

    def _served(self, buckets: Collection[str]) -> Served:
        metrics = urllib.request.urlopen(self.server.metrics_url or "")  # noqa: S310 - our own server's
        with metrics:
            text = metrics.read().decode()
        asked = re.findall(_REQUESTS, text, re.MULTILINE)
        (cpu,) = re.findall(_CPU, text, re.MULTILINE)
        return Served(sum(int(float(n)) for bucket, n in asked if bucket in buckets), float(cpu))

    @contextlib.contextmanager
    def new_bucket(self) -> Iterator[str]:
        """An empty bucket, deleted with all that it holds."""
        with self.lock:
            if not self.stock:
                with ThreadPoolExecutor(8) as pool:
                    self.stock = list(pool.map(lambda _: self._begun(), range(8)))
            bucket = self.stock.pop()
        try:
            yield bucket
        finally:
            self.server.client.delete_bucket(Bucket=bucket)

    def _begun(self) -> str:
        """The first write to a bucket makes its volume, which takes up to a second."""
        bucket = self.server.bucket()
        self._put(bucket, {"first": b"first"})
        return bucket

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A path of which nothing is there; what is written to it or beside it is emptied later.

        It goes with the run's folder. Were files deleted now, ext4 would look for a long time for
        inodes for the next ones: it passes over those that have become free in the last minute.
        """
        into = Path(tempfile.mkdtemp(dir=self.folder)) / "into"
        try:
            yield into
        finally:
            for path in into.parent.rglob("*"):
                if path.is_file():
                    os.truncate(path, 0)

    @_once
    def blobs(self, workload: Workload) -> Path:
        """A folder of the workload's blobs."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "blobs"
        workload.write(folder)
        return folder

    @_once
    def filled(self, workload: Workload, contender: Contender = OBSTORE) -> str:
        """A bucket with the workload's blobs, which this contender uploaded."""
        bucket = self.server.bucket()
        arguments = {
            "place": self.place(bucket),
            "folder": str(self.blobs(workload)),
            "parallelism": 8,
        }
        run(contender, "upload", arguments, self.folder)
        return bucket

    @_once
    def store(self, count: int) -> str:
        """A bucket with so many tiny blobs, and some names over them."""
        bucket = self.server.bucket()
        self._put(bucket, {f"blobs/{d}": content for d, content in numbered(count, count).items()})
        named = manifests(self.sizes.names, count) if count == self.sizes.stores[-1] else ()
        self._put(bucket, {f"manifests/{name}": raw for name, raw in named})
        return bucket

    @_once
    def stored_folder(self) -> Path:
        """The largest store as a local directory."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "blobs").mkdir()
        (folder / "manifests").mkdir()
        count = self.sizes.stores[-1]
        for digest, content in numbered(count, count).items():
            (folder / "blobs" / digest).write_bytes(content)
        for name, raw in manifests(self.sizes.names, count):
            (folder / "manifests" / name).write_bytes(raw)
        return folder

    @_once
    def exported(self, workload: Workload) -> Path:
        """The workload's blobs as a local cache."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        files: dict[str, Any] = {file.name: file for file in self.blobs(workload).iterdir()}
        cachefs.open(folder).export(graph_of(self.blobs(workload)), files, mode="max")
        return folder

    @_once
    def manifest(self, seed: int) -> Path:
        """A manifest of many random records."""
        path = self.folder / f"manifest-{seed}"
        path.write_bytes(large_manifest(self.sizes.records, seed))
        return path

    @_once
    def tree(self) -> Path:
        """Many files in folders of a hundred."""
        root = self.folder / "tree"
        for index in range(self.sizes.tree):
            below = root / str(index // 100)
            below.mkdir(parents=True, exist_ok=True)
            (below / str(index)).write_bytes(os.urandom(2048))
        return root

    @_once
    def package(self) -> Path:
        """A copy of an installed package of many files: botocore, which comes with s3fs."""
        found = importlib.util.find_spec("botocore" if self.sizes.tree > QUICK.tree else "s3fs")
        if found is None or found.origin is None:
            raise RuntimeError("the benchmark packs botocore, which comes with cachefs[s3]")
        return Path(shutil.copytree(Path(found.origin).parent, self.folder / "package"))

    @_once
    def output(self) -> Path:
        """A folder with one large file, half of which can be compressed."""
        root = self.folder / "output"
        root.mkdir()
        with (root / "file").open("wb") as file:
            for _ in range(self.sizes.output // MIB):
                file.write(os.urandom(MIB // 2) + bytes(MIB // 2))
        return root

    @_once
    def packed(self, folder: Path) -> Path:
        """A folder as ``tar | zstd`` packs it."""
        blob = self.folder / "packed.tar.zst"
        run(SHELL, "pack", {"folder": str(folder), "blob": str(blob)}, self.folder)
        return blob

    @_once
    def step(self) -> Path:
        """A folder for a small step, which has run: byte code is compiled and its result cached."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "in").write_text("x")
        for operation in ("help_", "no_op"):
            run(STARTING, operation, {"folder": str(folder)}, self.folder)
        return folder

    def _put(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Past everything that is measured."""
        store = native_store(self.place(bucket))
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda item: store.put(*item), objects.items()):
                pass
