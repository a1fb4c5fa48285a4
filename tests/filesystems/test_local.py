"""Local caches in which something is not a file: nothing hangs, and errors say what it is."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.errors import NotFoundError
from cachefs.testing import random_graph


def pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # A path of a socket may have only 100 characters.
        folder = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = {"a named pipe": pipe, "a socket": socket_at, "a device": link_to_device}
EVERY_KIND = pytest.mark.parametrize(("kind", "make"), KINDS.items())


@pytest.fixture(params=["keyed", "oci"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> cachefs.Cache:
    location = str(tmp_path) if request.param == "keyed" else f"type=local,dest={tmp_path}"
    cache = cachefs.open(location)
    generated = random_graph(1, records=5)
    cache.export(generated.graph, generated.blobs, "main", mode="max")
    return cache


def replace(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


@EVERY_KIND
def test_a_manifest_that_is_no_file_is_not_there(
    cache: cachefs.Cache, tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    keyed = tmp_path / "manifests" / "main"
    replace(keyed if keyed.exists() else tmp_path / "index.json", make)
    with pytest.raises(NotFoundError, match=f"it is {kind}, which is never read"):
        cache.manifest("main")
    assert cache.names() == [] or tmp_path.joinpath("index.json").exists()


@EVERY_KIND
def test_a_blob_that_is_no_file_is_missing_and_sent_again(
    cache: cachefs.Cache, tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    generated = random_graph(1, records=5)
    folder = tmp_path / "blobs"
    digest = next(iter(generated.blobs))
    (path,) = folder.rglob(f"*{digest[7:]}")
    replace(path, make)
    miss = cache.read_blob(digest)
    assert isinstance(miss, cachefs.Miss)
    assert f"it is {kind}" in miss.reason
    assert [fault.digest for fault in cache.verify().faults] == [digest]
    cache.export(generated.graph, generated.blobs, "main", mode="max")
    assert cache.read_blob(digest) == generated.blobs[digest]
    assert cache.verify().faults == []


@EVERY_KIND
def test_a_blob_given_as_something_else_is_refused(
    tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "given")
    digest = cachefs.Digest.of(b"blob")
    for size in (4, 1 << 20):
        graph = cachefs.RecordGraph()
        graph.add_result(graph.add(digest), graph.add_layer(digest, size=size))
        with pytest.raises(NotFoundError, match=f"it is {kind}"):
            cachefs.open(tmp_path / "cache").export(graph, {digest: tmp_path / "given"})


def test_links_to_files_are_followed(cache: cachefs.Cache, tmp_path: Path) -> None:
    for path in [*(tmp_path / "blobs").rglob("*")]:
        if path.is_file():
            elsewhere = tmp_path / f"elsewhere-{path.name[-8:]}"
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
    assert cache.verify(read_data=1.0).faults == []


@pytest.mark.parametrize("folder", ["manifests", "blobs"])
def test_a_file_in_place_of_a_folder_is_no_empty_cache(folder: str, tmp_path: Path) -> None:
    cachefs.open(tmp_path).export(cachefs.RecordGraph(), {})
    (tmp_path / "blobs").mkdir(exist_ok=True)
    shutil.rmtree(tmp_path / folder)
    (tmp_path / folder).write_bytes(b"")
    with pytest.raises(cachefs.StoreError, match="a file is in the way of a directory"):
        cachefs.open(tmp_path).usage()
