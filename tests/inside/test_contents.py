"""What results hold: the right files, read once, verified, and nothing from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cachefs
from cachefs.digest import Digest
from cachefs.errors import IntegrityError, LayerError, NotFoundError, UsageError
from cachefs.inside import results
from cachefs.layers.compression import MEDIA_TYPES, Compression
from cachefs.layers.packing import pack
from cachefs.testing.checks import noise
from tests.graphs import digest_of
from tests.inside.layered import archive, write
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server
from tests.trees import Link

LOWER = archive(
    {
        "etc": None,
        "etc/os": b"old",
        "etc/gone": b"x",
        "lib": Link("usr/lib"),
        "usr/lib/libc": b"\x7fELF",
        "tmp/a": b"1",
        "absolute": Link("/etc/os"),
        "loop": Link("loop"),
        "up": Link("../../../../etc/os"),
        "nothing": Link("nowhere"),
    }
)
UPPER = archive({"etc/os": b"new", "etc/.wh.gone": b"", "tmp/.wh..wh..opq": b"", "tmp/b": b"22"})


@pytest.fixture
def cache(tmp_path: Path) -> str:
    location = str(tmp_path / "cache")
    write(location, [[LOWER, UPPER]])
    return location


def test_the_files_of_a_result_are_those_that_an_extraction_has(cache: str, tmp_path: Path) -> None:
    contents = cachefs.look_inside(cache)
    contents.extract(tmp_path / "out")
    on_disk = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    entries = {entry.path: entry for entry in contents.entries()}
    assert entries.keys() == on_disk
    assert "etc/gone" not in entries
    assert "tmp/a" not in entries
    for path, entry in entries.items():
        if entry.kind == "file":
            assert contents.read(path) == (tmp_path / "out" / path).read_bytes()
            assert entry.size == (tmp_path / "out" / path).stat().st_size
    assert entries["lib"].target == "usr/lib"
    assert entries["etc/os"].layer == contents.layers[1].blob
    assert entries["usr/lib/libc"].layer == contents.layers[0].blob
    assert list(entries) == sorted(entries, key=lambda path: path.split("/"))


def test_one_directory_at_a_time(cache: str) -> None:
    contents = cachefs.look_inside(cache)
    assert [one.path for one in contents.entries("tmp")] == ["tmp/b"]
    assert [one.path for one in contents.entries("usr", deep=False)] == ["usr/lib"]
    assert [one.path for one in contents.entries("lib")] == ["usr/lib/libc"]
    assert [one.path for one in contents.entries("etc/os")] == ["etc/os"]


def test_links_are_followed_inside_only(cache: str) -> None:
    contents = cachefs.look_inside(cache)
    for path in (
        "absolute",
        "up",
        "/etc/os",
        "./etc/../etc/os",
        "../../etc/os",
        "lib/../../etc/os",
    ):
        assert contents.read(path) == b"new"
    assert contents.read("lib/libc") == b"\x7fELF"
    assert contents.entry("lib", follow=False).kind == "link"
    assert contents.entry("lib").kind == "directory"
    with pytest.raises(UsageError, match="more than 40 symbolic links"):
        contents.read("loop")
    for missing in ("nothing", "etc/none", "etc/os/x", "etc/passwd"):
        with pytest.raises(NotFoundError, match="there is no"):
            contents.read(missing)
    with pytest.raises(UsageError, match="etc is not a file but a directory"):
        contents.read("etc")


def test_parts_of_files(tmp_path: Path) -> None:
    data = noise(3_500_000)
    raw = archive({"before": b"x" * 700, "large": data})
    for compression in MEDIA_TYPES:
        write(str(tmp_path / compression), [[raw]], compression=compression)
        contents = cachefs.look_inside(str(tmp_path / compression))
        assert contents.read("large") == data
        for start, end in ((0, 1), (5, 5), (1_048_000, 1_049_000), (3_499_999, 9_999_999)):
            assert contents.read("large", start, end) == data[start:end]
        assert contents.read("large", 4_000_000) == b""


def test_holes_of_sparse_files_are_zeros(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "disk").open("wb") as file:
        file.write(b"begin")
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(9_000_000)
    whole = (source / "disk").read_bytes()
    with (tmp_path / "blob").open("w+b") as blob:
        packed = pack(source, ["disk"], blob, compression="uncompressed")
    raw = (tmp_path / "blob").read_bytes()
    assert len(raw) < 1_000_000, "it has holes"
    assert packed.diff_id == Digest.of(raw)
    write(str(tmp_path / "cache"), [[raw]])
    contents = cachefs.look_inside(str(tmp_path / "cache"))
    assert contents.entry("disk").size == len(whole)
    assert contents.read("disk") == whole
    for start, end in ((0, 10), (4_999_990, 5_000_010), (8_999_990, 9_999_999), (100, 200)):
        assert contents.read("disk", start, end) == whole[start:end]


# --- which result is meant -----------------------------------------------------------------------


def test_several_results_are_told_apart(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    old, new = archive({"v": b"old"}), archive({"v": b"new"})
    (old_blob,), (new_blob,) = write(location, [[old], [new]])
    with pytest.raises(UsageError, match="main has 2 results") as caught:
        cachefs.look_inside(location)
    assert old_blob in str(caught.value)
    assert new_blob in str(caught.value)
    assert cachefs.look_inside(location, result="newest").read("v") == b"new"
    for wanted in (old_blob, old_blob[:20], Digest.of(old), digest_of("main 0")):
        assert cachefs.look_inside(location, result=wanted).read("v") == b"old"
    with pytest.raises(UsageError, match="has no result sha256:0123456"):
        cachefs.look_inside(location, result="sha256:0123456")
    with pytest.raises(UsageError, match="has no result"):
        cachefs.look_inside(location, result=old_blob[:9])  # two digits could be anything
    listed = results.results(cachefs.open(location))
    assert [(one.layer, one.final) for one in listed] == [(new_blob, True), (old_blob, True)]
    assert [one.record for one in listed] == [digest_of("main 1"), digest_of("main 0")]


def test_the_name_has_to_be_clear(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    write(location, [[archive({"v": b"1"})]], "one")
    assert cachefs.look_inside(location).read("v") == b"1"
    write(location, [[archive({"v": b"2"})]], "two")
    with pytest.raises(UsageError, match="one, two"):
        cachefs.look_inside(location)
    assert cachefs.look_inside(location, "two").read("v") == b"2"
    assert cachefs.look_inside(cachefs.open(location, name="one")).read("v") == b"1"
    with pytest.raises(cachefs.NoCacheError):
        cachefs.look_inside(str(tmp_path / "nowhere"))


def test_a_layer_alone(cache: str) -> None:
    lower, upper = cachefs.look_inside(cache).layers
    contents = cachefs.look_inside(cache, layer=upper.blob)
    assert [one.path for one in contents.entries()] == ["etc", "etc/os", "tmp", "tmp/b"]
    assert [(one.path, one.all_below) for one in contents.whiteouts] == [
        ("etc/gone", False),
        ("tmp", True),
    ]
    assert cachefs.look_inside(cache, layer=lower.diff_id).read("etc/gone") == b"x"
    with pytest.raises(UsageError, match="has no layer"):
        cachefs.look_inside(cache, layer="sha256:" + "0" * 64)


def test_the_recorded_caches_of_a_builder(recorded: Path) -> None:
    for place in ("s3/max", "local-max", "local-min", "local-zstd", "local-docker-mediatypes"):
        cache = cachefs.open(str(recorded / place))
        name = next(iter(cache))
        contents = cachefs.look_inside(cache, name)
        assert contents.read("app.py").startswith(b"print(")
        assert contents.entry("bin/put").mode == 0o755


# --- reading little ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_file_of_a_layer_that_is_not_compressed_is_one_small_request(
    moto_s3: S3Server, recording: Callable[[S3Server], RecordingProxy], engine: str
) -> None:
    data = noise(20_000_000)
    raw = archive({"large": data, "small": b"tiny"})
    bucket = moto_s3.bucket()
    write(moto_s3.attributes(bucket), [[raw]], compression="uncompressed")
    proxy = recording(moto_s3)
    location = proxy.server.attributes(bucket) + f",engine={engine}"
    assert cachefs.look_inside(location, "main").entry("small").size == 4
    proxy.clear()
    contents = cachefs.look_inside(location, "main")
    assert [one.path for one in contents.entries()] == ["large", "small"]
    listing = [each for each in proxy.requests if "blobs" in each.path]
    assert not listing, "the index is kept"
    proxy.clear()
    assert contents.read("small") == b"tiny"
    (request,) = proxy.requests
    first, last = request.headers["range"].removeprefix("bytes=").split("-")
    assert int(last) - int(first) < 2**20
    proxy.clear()
    assert contents.read("large", 3_000_000, 7_000_000) == data[3_000_000:7_000_000]
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_layer_is_read_once(
    tmp_path: Path, compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = str(tmp_path / "cache")
    ((blob,),) = write(location, [[archive({"a": b"1", "b": b"2"})]], compression=compression)
    assert cachefs.look_inside(location).read("a") == b"1"
    path = tmp_path / "cache" / "blobs" / blob
    assert path.exists()
    path.unlink()
    assert cachefs.look_inside(location).read("b") == b"2", "from what is kept on this machine"


def kept_archives(home: Path) -> list[Path]:
    return sorted((home / ".cache" / "cachefs" / "layers").glob("*.tar"))


def test_what_is_kept_is_checked_and_made_again(cache: str, nobodys_home: Path) -> None:
    assert cachefs.look_inside(cache).read("etc/os") == b"new"
    for path in kept_archives(nobodys_home):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"new", b"bad"))
    assert cachefs.look_inside(cache).read("etc/os") == b"new"
    for path in kept_archives(nobodys_home):
        path.write_bytes(b"short")
    assert cachefs.look_inside(cache).read("etc/os") == b"new"
    for path in (nobodys_home / ".cache" / "cachefs" / "layers").iterdir():
        path.write_bytes(b"no index")
    assert cachefs.look_inside(cache).read("etc/os") == b"new"


def test_what_is_kept_stays_below_its_limit(
    tmp_path: Path, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFS_CACHE_SIZE", str(4 * 300_000))
    raws = [archive({f"f{number}": os.urandom(120_000)}) for number in range(4)]
    write(str(tmp_path / "cache"), [raws])
    contents = cachefs.look_inside(str(tmp_path / "cache"))
    for number in range(4):
        assert len(contents.read(f"f{number}")) == 120_000
    kept = kept_archives(nobodys_home)
    assert 0 < sum(path.stat().st_size for path in kept) <= 300_000
    large = archive({"large": os.urandom(400_000)})
    write(str(tmp_path / "large"), [[large]])
    assert len(cachefs.look_inside(str(tmp_path / "large")).read("large")) == 400_000
    assert not [path for path in kept_archives(nobodys_home) if path.stat().st_size > 300_000]


def test_a_layer_can_be_read_without_a_directory_to_keep_it_in(
    cache: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobodys_home / ".cache" / "cachefs").mkdir(parents=True)
    (nobodys_home / ".cache" / "cachefs" / "layers").write_text("in the way")
    contents = cachefs.look_inside(cache)
    assert contents.read("etc/os") == b"new"
    assert contents.read("usr/lib/libc") == b"\x7fELF"


# --- what is damaged or hostile ------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(MEDIA_TYPES))
def test_damaged_bytes_are_never_returned(tmp_path: Path, compression: Compression) -> None:
    location = str(tmp_path / "cache")
    raw = archive({"a": b"right", "b": os.urandom(3_000_000)})
    ((blob,),) = write(location, [[raw]], compression=compression)
    path = tmp_path / "cache" / "blobs" / blob
    data = bytearray(path.read_bytes())
    data[2_500_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        cachefs.look_inside(location).read("b")


def test_a_blob_that_is_damaged_after_it_was_indexed(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    raw = archive({"a": b"right", "b": os.urandom(3_000_000)})
    ((blob,),) = write(location, [[raw]], compression="uncompressed")
    contents = cachefs.look_inside(location)
    assert contents.read("a") == b"right"
    path = tmp_path / "cache" / "blobs" / blob
    data = bytearray(path.read_bytes())
    data[2_500_000] ^= 1
    path.write_bytes(data)
    assert len(contents.read("b", 0, 1_000_000)) == 1_000_000, "of the other blocks"
    with pytest.raises(IntegrityError, match="when it was indexed"):
        contents.read("b")
    path.write_bytes(data[:2_000_000])
    with pytest.raises(IntegrityError):
        contents.read("b", 2_900_000)


def test_a_result_that_an_extraction_refuses_is_refused(tmp_path: Path) -> None:
    for number, members in enumerate(
        ({"../out": b"x"}, {"/abs": b"x"}, {"a": Link("/etc"), "a/passwd": b"x"})
    ):
        location = str(tmp_path / f"cache{number}")
        write(location, [[archive(members)]])
        with pytest.raises(LayerError):
            list(cachefs.look_inside(location).entries())
        with pytest.raises(LayerError):
            cachefs.look_inside(location).extract(tmp_path / "out")
        assert not (tmp_path / "out").exists()
