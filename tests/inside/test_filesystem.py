"""``cachefs://``: other programs read a cache's files through fsspec."""

from __future__ import annotations

import errno
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from fsspec.generic import rsync

from cachefs.errors import UsageError
from cachefs.testing.checks import noise
from tests.inside.layered import archive, write
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.trees import Link

LARGE = noise(12_000_000)
FILES = archive(
    {
        "usr/bin/tool": b"#!/bin/sh\n",
        "usr/share/large": LARGE,
        "bin": Link("usr/bin"),
        "tool": Link("bin/tool"),
        "broken": Link("nowhere"),
        "up": Link("."),
        "empty": None,
        "table.csv": b"a,b\n1,2\n3,4\n",
    }
)


@pytest.fixture
def target(tmp_path: Path) -> str:
    location = str(tmp_path / "cache")
    write(location, [[FILES]], "app")
    write(location, [[archive({"v": b"1"})]], "feature/x")
    return location


@pytest.fixture
def fs(target: str) -> Any:
    return fsspec.filesystem("cachefs", target=target, skip_instance_cache=True)


def test_any_program_opens_a_file(target: str) -> None:
    with fsspec.open("cachefs://app/usr/bin/tool", target=target) as file:
        assert file.read() == b"#!/bin/sh\n"
    with fsspec.open("cachefs://app/table.csv", "rt", target=target) as text:
        assert text.readline() == "a,b\n"


def test_names_are_directories(fs: Any) -> None:
    assert fs.ls("", detail=False) == ["app", "feature"]
    assert fs.ls("cachefs://feature", detail=False) == ["feature/x"]
    assert fs.cat_file("feature/x/v") == b"1"
    assert fs.info("")["type"] == "directory"
    assert fs.isdir("feature")
    assert fs.isdir("feature/x")
    for missing in ("ap", "app/none", "feature/y", "app/table.csv/x"):
        assert not fs.exists(missing)
        with pytest.raises(FileNotFoundError):
            fs.info(missing)
        with pytest.raises(FileNotFoundError):
            fs.ls(missing)


def test_walks_end_and_have_all_files_once(fs: Any) -> None:
    names = ("bin", "broken", "table.csv", "tool", "up", "usr/bin/tool", "usr/share/large")
    assert sorted(fs.find("app")) == [f"app/{name}" for name in names]
    assert [path for path, _, _ in fs.walk("app/usr")] == [
        "app/usr",
        "app/usr/bin",
        "app/usr/share",
    ]
    assert fs.glob("app/**/tool") == ["app/tool", "app/usr/bin/tool"]
    assert fs.du("app/usr") == 10 + len(LARGE)


def test_links(fs: Any) -> None:
    tool = fs.info("app/tool")
    assert (tool["type"], tool["size"], tool["destination"]) == ("file", 10, "bin/tool")
    assert fs.cat_file("app/tool") == b"#!/bin/sh\n"
    assert fs.info("app/up")["type"] == "link"
    assert fs.info("app/broken")["type"] == "link"
    assert fs.ls("app/bin", detail=False) == ["app/bin/tool"]
    assert fs.cat_file("app/up/up/bin/tool") == b"#!/bin/sh\n"
    assert fs.cat_file("app/usr/../../../tool") == b"#!/bin/sh\n"
    with pytest.raises(FileNotFoundError):
        fs.cat_file("app/../feature/x/v")
    with pytest.raises(FileNotFoundError):
        fs.cat_file("app/broken/x")
    with pytest.raises(IsADirectoryError):
        fs.cat_file("app/usr")
    with pytest.raises(IsADirectoryError):
        fs.open("app/usr")


def test_parts_of_a_file(fs: Any) -> None:
    path = "app/usr/share/large"
    for start, end in ((None, None), (5, 10), (-7, None), (11_999_990, 99_999_999), (4, 4)):
        assert fs.cat_file(path, start, end) == LARGE[start:end]
    with fs.open(path, block_size=1_000_000) as file:
        assert file.seek(7_500_000) == 7_500_000
        assert file.read(3) == LARGE[7_500_000:7_500_003]
        file.seek(-5, io.SEEK_END)
        assert file.read() == LARGE[-5:]
        file.seek(0)
        assert file.read() == LARGE
    assert fs.cat_ranges([path, path], [0, 100], [3, 110]) == [LARGE[:3], LARGE[100:110]]


def test_many_threads_read(fs: Any) -> None:
    def read(number: int) -> bool:
        start = number * 350_000
        found: bytes = fs.cat_file("app/usr/share/large", start, start + 350_000)
        return found == LARGE[start : start + 350_000]

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(read, range(34)))
    assert len(fs.cat(fs.find("app/usr"))) == 2


def test_pandas_reads_a_table(target: str) -> None:
    table = pd.read_csv("cachefs://app/table.csv", storage_options={"target": target})
    assert table.to_dict("list") == {"a": [1, 3], "b": [2, 4]}


def test_rsync_copies_a_result(target: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {
        "default_method": "options",
        "storage_options": {"cachefs": {"target": target}, "file": {"auto_mkdir": True}},
    }
    rsync("cachefs://app/usr", f"file://{out}", inst_kwargs=options)
    assert (out / "share" / "large").read_bytes() == LARGE
    assert (out / "bin" / "tool").read_bytes() == b"#!/bin/sh\n"
    assert not rsync("cachefs://app/usr", f"file://{out}", inst_kwargs=options), "nothing is left"


def test_directories_are_fetched(fs: Any, tmp_path: Path) -> None:
    fs.get("app/usr", f"{tmp_path}/out", recursive=True)
    assert (tmp_path / "out" / "share" / "large").read_bytes() == LARGE


@pytest.mark.parametrize(
    "change",
    [
        lambda fs: fs.open("app/new", "wb"),
        lambda fs: fs.pipe_file("app/new", b"1"),
        lambda fs: fs.mkdir("app/new"),
        lambda fs: fs.makedirs("app/new"),
        lambda fs: fs.rm("app/tool"),
        lambda fs: fs.rm_file("app/tool"),
        lambda fs: fs.rmdir("app/empty"),
        lambda fs: fs.touch("app/new"),
        lambda fs: fs.cp_file("app/tool", "app/new"),
        lambda fs: fs.mv("app/tool", "app/new"),
    ],
)
def test_nothing_is_changed(fs: Any, change: Callable[[Any], object]) -> None:
    before = fs.find("app", withdirs=True)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number tells
        change(fs)
    assert caught.value.errno == errno.EROFS
    assert fs.find("app", withdirs=True) == before


def test_which_of_several_results_is_an_option(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    write(location, [[archive({"v": b"old"})], [archive({"v": b"new"})]], "app")
    fs = fsspec.filesystem("cachefs", target=location, skip_instance_cache=True)
    with pytest.raises(UsageError, match="app has 2 results"):
        fs.cat_file("app/v")
    newest = fsspec.filesystem("cachefs", target=location, result="newest")
    assert newest.cat_file("app/v") == b"new"


def test_what_was_seen_stays_until_the_cache_is_invalidated(target: str, fs: Any) -> None:
    assert fs.cat_file("feature/x/v") == b"1"
    write(target, [[archive({"v": b"2"})]], "feature/x")
    write(target, [[archive({"v": b"3"})]], "later")
    assert fs.cat_file("feature/x/v") == b"1"
    assert not fs.exists("later")
    fs.invalidate_cache()
    assert fs.cat_file("feature/x/v") == b"2"
    assert fs.cat_file("later/v") == b"3"


def test_it_can_be_sent_to_another_process(fs: Any) -> None:
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301 - it is ours
    assert again.cat_file("app/tool") == b"#!/bin/sh\n"


def test_the_environment_says_which_cache(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFS_CACHE", target)
    fs = fsspec.filesystem("cachefs", skip_instance_cache=True)
    assert fs.cat_file("app/tool") == b"#!/bin/sh\n"


def test_nothing_is_read_before_it_is_needed(
    moto_s3: S3Server, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    bucket = moto_s3.bucket()
    write(moto_s3.attributes(bucket), [[FILES]], "app", compression="gzip")
    write(moto_s3.attributes(bucket), [[archive({"v": b"1"})]], "other", compression="gzip")
    proxy = recording(moto_s3)
    target = proxy.server.attributes(bucket)

    def blobs() -> int:
        return proxy.count("GET", lambda each: "/blobs/" in each.path)

    fs = fsspec.filesystem("cachefs", target=target, skip_instance_cache=True)
    assert not proxy.requests
    assert fs.ls("", detail=False) == ["app", "other"]
    assert proxy.count("GET", lambda each: "/manifests/" in each.path) == 0
    assert fs.cat_file("other/v") == b"1"
    assert proxy.count("GET", lambda each: "/manifests/" in each.path) == 1
    assert blobs() == 1
    assert len(fs.find("app")) == 7
    read = blobs()
    for path in ("app/tool", "app/table.csv", "app/usr/share/large"):
        fs.cat_file(path)
    assert blobs() == read, "what was decompressed is kept"
    proxy.clear()
    later = fsspec.filesystem("cachefs", target=target, skip_instance_cache=True)
    assert later.cat_file("app/table.csv") == b"a,b\n1,2\n3,4\n"
    assert blobs() == 0
