"""The same files give the same layer, whatever their surroundings."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.digest import Digest
from cachefs.errors import UsageError
from cachefs.layers import sparse, tarformat
from cachefs.layers.compression import MEDIA_TYPES, Compression, compressor, decompressed
from cachefs.layers.extracting import LayerSource, extract, extract_chain
from cachefs.layers.listing import Listing
from cachefs.layers.packing import PackedLayer, pack, tree
from tests import trees
from tests.trees import File, Link

EXAMPLE: trees.Tree = {
    "bin": {"tool": File(b"#!/bin/sh\n", executable=True), "alias": Link("tool")},
    "empty": {},
    "notes.txt": File(b"hello\n"),
    "ünï code": {"new\nline": File(b""), "dangling": Link("/nowhere/at/all")},
    "l" * 120: File(b"x" * 1000),
}
EXAMPLE_DIFF_ID = "sha256:b1908969d46cadaf5f588243aad144636482670239218a815b2e82b95cd85a7c"

compressions = pytest.mark.parametrize("compression", list(MEDIA_TYPES))


def packed(
    root: Path, names: list[str] | None = None, compression: Compression = "uncompressed"
) -> tuple[PackedLayer, bytes]:
    target = io.BytesIO()
    layer = pack(root, tree(root) if names is None else names, target, compression=compression)
    return layer, target.getvalue()


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_the_archive_of_a_known_tree_never_changes(tmp_path: Path) -> None:
    layer, _ = packed(trees.write(tmp_path / "root", EXAMPLE))
    assert layer.diff_id == EXAMPLE_DIFF_ID


@compressions
def test_a_layer_is_what_it_says(tmp_path: Path, compression: Compression) -> None:
    layer, blob = packed(trees.write(tmp_path / "root", EXAMPLE), compression=compression)
    assert layer.digest == Digest.of(blob)
    assert layer.size == len(blob)
    assert layer.media_type == MEDIA_TYPES[compression]
    archive = b"".join(decompressed(io.BytesIO(blob), layer.media_type))
    assert layer.diff_id == Digest.of(archive) == EXAMPLE_DIFF_ID


def test_other_readers_see_the_same_files(tmp_path: Path) -> None:
    _, blob = packed(trees.write(tmp_path / "root", EXAMPLE))
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        members = {member.name: member for member in archive}
        assert list(members) == [
            "bin",
            "bin/alias",
            "bin/tool",
            "empty",
            "l" * 120,
            "notes.txt",
            "ünï code",
            "ünï code/dangling",
            "ünï code/new\nline",
        ]
        assert members["bin/alias"].linkname == "tool"
        assert members["bin/tool"].mode == 0o755
        assert members["notes.txt"].mode == 0o644
        content = archive.extractfile("l" * 120)
        assert content is not None
        assert content.read() == b"x" * 1000
        assert {member.mtime for member in members.values()} == {tarformat.MTIME}
        assert {(m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {(0, 0, "", "")}


def test_gzip_tells_no_time_and_no_platform(tmp_path: Path) -> None:
    _, blob = packed(trees.write(tmp_path / "root", EXAMPLE), compression="gzip")
    assert blob[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    assert Digest.of(gzip.decompress(blob)) == EXAMPLE_DIFF_ID


@given(content=trees.trees, randomness=st.randoms(use_true_random=False))
def test_what_does_not_count_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, content: trees.Tree, randomness: random.Random
) -> None:
    base = tmp_path_factory.mktemp("packing")
    try:
        first = trees.write(base / "first", content)
        with umask(0o077):
            second = trees.write(base / "second", shuffled(content, randomness))
        for name in tree(second):
            path = second / name
            if not path.is_symlink():
                path.chmod((first / name).stat().st_mode | 0o4000)
            time = randomness.randrange(1 << 31)
            os.utime(path, (time, time), follow_symlinks=False)
        names = [f"./{name}/" if (second / name).is_dir() else name for name in tree(second)]
        names = [name.rstrip("/") for name in names] + names[:2]
        randomness.shuffle(names)
        layer, blob = packed(second, names, compression="zstd")
        assert packed(first, compression="zstd") == (replace(layer, special=()), blob)
    finally:
        shutil.rmtree(base)


def shuffled(content: trees.Tree, randomness: random.Random) -> trees.Tree:
    items = list(content.items())
    randomness.shuffle(items)
    return {
        name: shuffled(node, randomness) if isinstance(node, dict) else node for name, node in items
    }


def test_locale_and_hash_seed_leave_no_trace(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", EXAMPLE)
    program = (
        "import io, pathlib, sys\n"
        "from cachefs.layers.packing import pack, tree\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "print(pack(root, tree(root), io.BytesIO()).diff_id)\n"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, os.fspath(root)],
            env=os.environ | environment | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == EXAMPLE_DIFF_ID


@given(
    compression=st.sampled_from(list(MEDIA_TYPES)),
    chunks=st.lists(st.binary(max_size=300).map(lambda data: data * 997), max_size=5),
    randomness=st.randoms(use_true_random=False),
)
def test_how_data_is_cut_leaves_no_trace(
    compression: Compression, chunks: list[bytes], randomness: random.Random
) -> None:
    data = b"".join(chunks)
    cuts = sorted(randomness.randrange(len(data) + 1) for _ in range(5))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert compressed(compression, parts) == compressed(compression, [data])
    blob = io.BytesIO(compressed(compression, parts))
    assert b"".join(decompressed(blob, MEDIA_TYPES[compression])) == data


def compressed(compression: Compression, parts: list[bytes]) -> bytes:
    using = compressor(compression)
    return b"".join([using.compress(part) for part in parts] + [using.flush()])


def test_holes_depend_on_the_content_alone(tmp_path: Path) -> None:
    """Zeros are holes in the archive and when they come back, whether or not they were before."""
    data = bytearray(1_000_001)
    for offset in (0, 200_000, 1_000_000):
        data[offset] = 1
    hole, written = tmp_path / "hole", tmp_path / "written"
    for root in (hole, written):
        root.mkdir()
    (written / "a").write_bytes(data)
    with (hole / "a").open("wb") as file:
        for offset in (0, 200_000, 1_000_000):
            os.pwrite(file.fileno(), data[offset : offset + 1], offset)
    assert (hole / "a").read_bytes() == data
    made, raw = packed(hole)
    assert (made, raw) == packed(written)
    assert len(raw) < 200_000
    extract(io.BytesIO(raw), tmp_path / "out", media_type=made.media_type, diff_id=made.diff_id)
    assert (tmp_path / "out" / "a").read_bytes() == data
    assert (tmp_path / "out" / "a").stat().st_blocks < 400


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_000])
@pytest.mark.parametrize("name", ["a", "long" * 60, "ö" * 100])
@pytest.mark.parametrize("end", [b"", b"end"])
def test_sparse_files_say_the_same_to_every_reader(
    tmp_path: Path, size: int, name: str, end: bytes
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(bytes(size) + end)
    made, raw = packed(tmp_path / "in")
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.size) == (name, size + len(end))
        data = tar.extractfile(member)
        assert data is not None
        assert data.read() == bytes(size) + end
    extract(io.BytesIO(raw), tmp_path / "out", media_type=made.media_type, diff_id=made.diff_id)
    (tmp_path / "gnu").mkdir()
    subprocess.run(["tar", "-x", "-C", str(tmp_path / "gnu")], input=raw, check=True)  # noqa: S607
    for place in ("out", "gnu"):
        assert (tmp_path / place / name).read_bytes() == bytes(size) + end


def test_a_file_with_too_many_parts_is_stored_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (b"x" + bytes(3 * sparse.BLOCK - 1)) * 10
    (tmp_path / "a").write_bytes(data)
    assert len(packed(tmp_path)[1]) < len(data)
    monkeypatch.setattr(sparse, "MOST_PARTS", 9)
    assert len(packed(tmp_path)[1]) > len(data)


def test_hard_links_within_the_layer_are_kept(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "in", {"b": File(b"data"), "outside": File(b"x"), "d": {}})
    os.link(root / "b", root / "d" / "c")
    os.link(root / "b", root / "a")
    os.link(root / "outside", tmp_path / "outside")
    made, raw = packed(root)
    extract(io.BytesIO(raw), tmp_path / "out", media_type=made.media_type, diff_id=made.diff_id)
    names = {path: (tmp_path / "out" / path).stat() for path in ("a", "b", "d/c", "outside")}
    assert names["a"].st_ino == names["b"].st_ino == names["d/c"].st_ino
    assert [status.st_nlink for status in names.values()] == [3, 3, 3, 1]
    assert packed(tmp_path / "out") == (made, raw)


def test_permissions_are_kept_and_special_bits_told(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "in", {"secret": {"key": File(b"")}, "tool": File(b"")})
    (root / "secret").chmod(0o700)
    (root / "secret" / "key").chmod(0o600)
    (root / "tool").chmod(0o6755)
    made, raw = packed(root)
    assert made.special == ("tool",)
    with umask(0o077):
        extract(io.BytesIO(raw), tmp_path / "out", media_type=made.media_type, diff_id=made.diff_id)
    modes = {path: (tmp_path / "out" / path).stat().st_mode & 0o7777 for path in tree(root)}
    assert modes == {"secret": 0o700, "secret/key": 0o600, "tool": 0o755}


def test_a_listing_says_the_same_of_what_is_packed_and_extracted(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "in", EXAMPLE)
    (root / "large").write_bytes(b"".join(b"%d" % number for number in range(60_000)))
    (root / "sparse").write_bytes(b"x" + bytes(500_000))
    os.link(root / "large", root / "linked")
    blob, made, found = io.BytesIO(), Listing(), Listing()
    layer = pack(root, tree(root), blob, listing=made)
    blob.seek(0)
    source = LayerSource(blob, layer.media_type, layer.diff_id)
    extract_chain([source], tmp_path / "out", listing=found)
    assert made.whole
    assert found.whole
    assert made.members == found.members
    assert made.members[b"linked"].value == b"large"
    for name in (b"large", b"sparse", b"notes.txt"):
        listed = made.members[name]
        with (root / os.fsdecode(name)).open("rb") as file:
            assert listed.value == sparse.hash_stored(file.fileno(), listed.size)


def test_named_files_bring_the_directories_that_lead_to_them(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", {"a": {"b": {"c": File(b"1")}, "other": File(b"2")}})
    _, blob = packed(root, ["a/b/c"])
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        assert archive.getnames() == ["a", "a/b", "a/b/c"]


def test_no_names_are_an_empty_layer(tmp_path: Path) -> None:
    assert packed(tmp_path, []) == packed(tmp_path, ["."])
    assert packed(tmp_path, [])[1] == tarformat.END


def test_tree_names_what_is_below_the_paths(tmp_path: Path) -> None:
    root = trees.write(
        tmp_path / "root", {"a": {"b": File(b""), "up": Link("..")}, "c": File(b""), "d": {}}
    )
    assert sorted(tree(root)) == ["a", "a/b", "a/up", "c", "d"]
    assert sorted(tree(root, ["./a/", "c"])) == ["a", "a/b", "a/up", "c"]
    with pytest.raises(UsageError, match="'absent' is not in"):
        tree(root, ["absent"])


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/etc/passwd", "a\0b"])
def test_names_outside_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="inside"):
        tree(tmp_path, [name])
    with pytest.raises(UsageError, match="inside"):
        packed(tmp_path, [name])


def test_sockets_pipes_and_devices_are_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind("socket")
    for name in ("pipe", "socket"):
        with pytest.raises(UsageError, match=f"'{name}' is not a file"):
            packed(tmp_path, [name])
    with pytest.raises(UsageError, match="'null' is not a file"):
        packed(Path("/dev"), ["null"])


def test_names_that_would_remove_something_are_refused(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", {".wh.a": {"b": File(b"")}})
    for name in (".wh.a", ".wh.a/b"):
        with pytest.raises(UsageError, match="removals"):
            packed(root, [name])


def test_names_through_links_and_absent_names_are_refused(tmp_path: Path) -> None:
    root = trees.write(tmp_path / "root", {"a": {"b": File(b"")}, "link": Link("a")})
    with pytest.raises(UsageError, match="'link' is not a directory"):
        packed(root, ["link/b"])
    with pytest.raises(UsageError, match="'gone' does not exist"):
        packed(root, ["gone"])
    with pytest.raises(UsageError, match="'a/b' is not a directory"):
        packed(root, ["a/b/c"])


class _Touching(io.BytesIO):
    """A target that changes a file as soon as something is written."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._path = path
        self._size = size

    def write(self, data: object, /) -> int:
        os.truncate(self._path, self._size)
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 20_000_000, 100_000_000])
def test_a_file_that_changes_its_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 50_000_000)
    target: BinaryIO = _Touching(path, size)
    with pytest.raises(UsageError, match="size of 'log' changed"):
        pack(tmp_path, ["log"], target, compression="uncompressed")


def test_a_target_that_fails_is_reported_as_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(5_000_000))
    with Path("/dev/full").open("wb", buffering=0) as target, pytest.raises(OSError, match="space"):
        pack(tmp_path, ["a"], target)


@pytest.mark.parametrize(
    ("compression", "level"), [("zstd", -1), ("zstd", 23), ("gzip", 10), ("uncompressed", 1)]
)
def test_levels_that_do_not_exist_are_refused(compression: Compression, level: int) -> None:
    with pytest.raises(UsageError, match="no level"):
        compressor(compression, level)


def test_compressions_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'lzma' is not one of zstd, gzip, uncompressed"):
        pack(tmp_path, [], io.BytesIO(), compression="lzma")  # type: ignore[arg-type]


def test_level_0_of_zstd_is_the_fastest_as_for_builders() -> None:
    data = b"".join(index.to_bytes(3, "big") for index in range(20_000))
    blobs = []
    for level in (0, 1, None):
        stream = compressor("zstd", level)
        blobs.append(stream.compress(data) + stream.flush())

    assert blobs[0] == blobs[1] != blobs[2]


def test_levels_change_the_blob_and_not_the_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"".join(b"%d\n" % (n * n) for n in range(10_000)))
    low, high = (pack(tmp_path, ["a"], io.BytesIO(), level=level) for level in (1, 19))
    assert low.diff_id == high.diff_id
    assert low.digest != high.digest


@given(
    size=st.sampled_from([0, 8**11 - 1, 8**11, 1 << 40]),
    name=st.binary(min_size=1, max_size=300).filter(lambda raw: b"\0" not in raw),
    link=st.binary(max_size=300).filter(lambda raw: b"\0" not in raw),
)
def test_headers_say_the_same_to_every_reader(size: int, name: bytes, link: bytes) -> None:
    raw = tarformat.header(name, tarformat.FILE, mode=0o644, size=size, link=link)
    assert len(raw) % tarformat.BLOCK == 0
    member = next(tarformat.Archive(iter([raw])).members())
    assert (member.name, member.size, member.link) == (name, size, link)
    theirs = tarfile.TarFile(fileobj=io.BytesIO(raw)).next()
    assert theirs is not None
    assert theirs.size == size
    assert os.fsencode(theirs.name).rstrip(b"/") == name.rstrip(b"/")


def test_memory_stays_flat(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    tracemalloc.start()
    try:
        with (tmp_path / "blob").open("wb") as target:
            pack(tmp_path, ["big"], target)
        assert tracemalloc.get_traced_memory()[1] < 24 * 1024 * 1024
    finally:
        tracemalloc.stop()
