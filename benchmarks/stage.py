"""What the cases of a run use: blobs on disk and filled buckets, made when first needed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cachefs
from benchmarks.contenders import (
    DVC,
    OBSTORE,
    SCCACHE,
    SHELL,
    STARTING,
    Contender,
    Place,
    found,
)
from benchmarks.contenders.bare import native_store
from benchmarks.processes import run
from benchmarks.projects import write as write_project
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

    from benchmarks.projects import Project
    from tests.servers.s3 import S3Server

    Arguments = dict[str, Any]

_REQUESTS: Final = r'^SeaweedFS_s3_request_total{bucket="([^"]*)".*} (\S+)$'
_CPU: Final = r"^process_cpu_seconds_total (\S+)$"


class Served(NamedTuple):
    """Requests that a server has served for some buckets, and its total CPU seconds."""

    requests: int
    cpu: float


def _once(make: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the results of a method by its arguments; safe for threads."""

    @functools.wraps(make)
    def get(self: Stage, *about: Any) -> Any:
        with self.lock:
            key = (make.__name__, *about)
            if key not in self.made:
                self.made[key] = make(self, *about)
            return self.made[key]

    return get


class Stage:
    """One server and one directory.

    Args:
        server: a SeaweedFS, which counts its requests.
        folder: an empty directory, which the caller removes afterwards.
        sizes: the sizes of all workloads.
    """

    def __init__(self, server: S3Server, folder: Path, sizes: Sizes) -> None:
        self.server = server
        self.sizes = sizes
        self.folder = folder
        self.lock = threading.RLock()
        self.made: dict[tuple[Any, ...], Any] = {}
        self.stock: list[str] = []

    def place(self, bucket: str) -> Place:
        """A bucket in the form that contenders take."""
        server = self.server
        keys = server.access_key_id, server.secret_access_key
        return Place(server.endpoint_url, *keys, server.region, bucket)

    def served(self, buckets: Collection[str]) -> Served:
        """What the server has done so far.

        The server counts a request after responding, so this polls until the count is stable.
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
        """An empty bucket, deleted afterwards with its contents."""
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
        """A bucket with one object: the first write creates its volume, which may take a second."""
        bucket = self.server.bucket()
        self._put(bucket, {"first": b"first"})
        return bucket

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A path where nothing exists yet; files in it and next to it are truncated afterwards.

        They are deleted with the directory of the run. Deleting them now would slow down later
        runs: ext4 skips inodes that were freed in the last minute, and searches long for others.
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
        """A directory with the workload's blobs."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "blobs"
        workload.write(folder)
        return folder

    @_once
    def filled(self, workload: Workload, contender: Contender = OBSTORE) -> str:
        """A bucket with the workload's blobs, uploaded by this contender."""
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
        """A bucket with this number of tiny blobs, and some names that need them."""
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
        """A tree of many files, a hundred in each directory."""
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
            raise RuntimeError("the benchmark packs botocore, which comes with buildcachefs[s3]")
        return Path(shutil.copytree(Path(found.origin).parent, self.folder / "package"))

    @_once
    def output(self) -> Path:
        """A directory with one large file, half of which is compressible."""
        root = self.folder / "output"
        root.mkdir()
        with (root / "file").open("wb") as file:
            for _ in range(self.sizes.output // MIB):
                file.write(os.urandom(MIB // 2) + bytes(MIB // 2))
        return root

    @_once
    def packed(self, folder: Path) -> Path:
        """A directory packed by ``tar | zstd``."""
        blob = self.folder / "packed.tar.zst"
        run(SHELL, "pack", {"folder": str(folder), "blob": str(blob)}, self.folder)
        return blob

    @contextlib.contextmanager
    def new_project(self, project: Project, contender: Contender) -> Iterator[Arguments]:
        """A project that was never made, for a tool whose cache is empty."""
        with self.new_folder() as into:
            write_project(project, into, self.sizes.files)
            if contender is DVC:
                self._init_dvc(into)
            with self._serving(into, contender) as arguments:
                yield {"folder": str(into), "project": project.name, **arguments}

    @contextlib.contextmanager
    def made_project(self, project: Project, contender: Contender) -> Iterator[Arguments]:
        """A project that this tool has made: its results are in place and in the tool's cache."""
        folder = self._laid_project(project, contender)
        with self._serving(folder, contender) as arguments:
            arguments |= {"folder": str(folder), "project": project.name}
            self._make_once(project, contender, arguments)
            yield arguments

    @_once
    def _laid_project(self, project: Project, contender: Contender) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "project"
        write_project(project, folder, self.sizes.files)
        if contender is DVC:
            self._init_dvc(folder)
        return folder

    def _make_once(self, project: Project, contender: Contender, arguments: Arguments) -> None:
        if ("made", project, contender) not in self.made:
            run(contender, "cold", arguments, self.folder)
            self.made["made", project, contender] = True

    def _init_dvc(self, folder: Path) -> None:
        words = [found("dvc") or "dvc", "init", "--quiet", "--no-scm"]
        subprocess.run(words, cwd=folder, env={**os.environ, "DVC_NO_ANALYTICS": "1"}, check=True)

    @contextlib.contextmanager
    def _serving(self, folder: Path, contender: Contender) -> Iterator[Arguments]:
        """The server that sccache needs; it ends with the block."""
        if contender is not SCCACHE:
            yield {}
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        about = {"SCCACHE_DIR": f"{folder}-cache", "SCCACHE_SERVER_PORT": str(port)}
        sccache, environment = found("sccache") or "sccache", {**os.environ, **about}
        subprocess.run(
            [sccache, "--start-server"], env=environment, check=True, capture_output=True
        )
        try:
            yield {"port": port}
        finally:
            subprocess.run(
                [sccache, "--stop-server"], env=environment, check=True, capture_output=True
            )

    @_once
    def step(self) -> Path:
        """A directory in which a small step has run; byte code is compiled, the result cached."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "in").write_text("x")
        for operation in ("help_", "no_op"):
            run(STARTING, operation, {"folder": str(folder)}, self.folder)
        return folder

    def _put(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Put objects directly into the store, without anything that is measured."""
        store = native_store(self.place(bucket))
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda item: store.put(*item), objects.items()):
                pass
