"""No archive, however it is made, changes anything outside the directory it is extracted to."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachefs.digest import Digest
from cachefs.errors import CacheError, IntegrityError, LayerError
from cachefs.layers import applying, beneath, tarformat
from cachefs.layers.beneath import Beneath
from cachefs.layers.compression import MEDIA_TYPES, Compression, decompressed
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.layers.limits import Limits
from cachefs.layers.packing import pack, tree
from tests import trees
from tests.trees import File, Link

SMALL = Limits(max_bytes=1 << 20, max_entries=50, max_path=600, max_depth=20)

FILE, DIRECTORY, SYMLINK, HARD_LINK = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
)


def member(
    name: str, kind: bytes = FILE, link: str = "", data: bytes = b"", size: int | None = None
) -> bytes:
    """One member as another writer would write it, however wrong it is."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + (
        data + tarformat.padding(len(data))
    )


def source(raw: bytes, diff_id: Digest | None = None, media_type: str = "") -> LayerSource:
    return LayerSource(io.BytesIO(raw), media_type, diff_id or Digest.of(raw))


class Place:
    """A directory with a destination in it, and much that must stay as it is around that."""

    def __init__(self, base: Path) -> None:
        self.outside = trees.write(
            base / "outside",
            {
                "victim": File(b"precious"),
                "dir": {"a": File(b"1")},
                "way": Link("victim"),
                "in": {},
            },
        )
        self.destination = self.outside / "in" / "out"
        self._before = self._state()

    def _state(self) -> list[tuple[object, ...]]:
        state: list[tuple[object, ...]] = []
        for path in [self.outside, *sorted(self.outside.rglob("*"))]:
            if self.destination != path and self.destination not in path.parents:
                status = path.lstat()
                times = status.st_mtime_ns if path.name != "in" else 0
                state.append((path, status.st_mode, status.st_ino, status.st_size, times))
                state.append((status.st_nlink if path.is_file() else 0,))
        return state

    def extract(self, *layers: LayerSource) -> bool:
        """Whether it went well; nothing but a CacheError is a reason why not."""
        try:
            extract_chain(layers, self.destination, limits=SMALL)
        except CacheError:
            assert not os.path.lexists(self.destination)
            return False
        finally:
            assert self._state() == self._before
            assert (self.outside / "victim").read_bytes() == b"precious"
        return True


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as base:
        yield Place(Path(base))


ESCAPES = {
    "dots": [member("../victim", data=b"!")],
    "dots inside": [member("a/../../victim", data=b"!")],
    "dots after a link": [member("a", SYMLINK, "."), member("a/../../victim", data=b"!")],
    "absolute": [member("/etc/cachefs-was-here", data=b"!")],
    "absolute directory": [member("//tmp/cachefs-was-here/", DIRECTORY)],
    "only dots": [member("..", DIRECTORY)],
    "through a link": [member("a", SYMLINK, "../.."), member("a/victim", data=b"!")],
    "through an absolute link": [member("a", SYMLINK, "/var"), member("a/b", data=b"!")],
    "through two links": [
        member("a", SYMLINK, ".."),
        member("b", SYMLINK, "a/.."),
        member("b/victim", data=b"!"),
    ],
    "a directory through a link": [member("a", SYMLINK, "../.."), member("a/dir2/", DIRECTORY)],
    "a link through a link": [member("a", SYMLINK, "../.."), member("a/new", SYMLINK, "victim")],
    "a hard link outside": [member("a", HARD_LINK, "../../victim")],
    "a hard link to an absolute name": [member("a", HARD_LINK, "/etc/passwd")],
    "a hard link through a link": [
        member("l", SYMLINK, "../.."),
        member("a", HARD_LINK, "l/victim"),
    ],
    "a hard link to a link": [
        member("l", SYMLINK, "../../victim"),
        member("a", HARD_LINK, "l"),
    ],
    "a hard link to a directory": [member("d/", DIRECTORY), member("a", HARD_LINK, "d")],
    "a hard link to the root": [member("a", HARD_LINK, ".")],
    "a hard link to itself": [member("a", data=b"1"), member("a", HARD_LINK, "a")],
    "a hard link to nothing": [member("a", HARD_LINK, "b")],
    "a hard link from below its target": [
        member("a", data=b"1"),
        member("a/b", HARD_LINK, "a"),
    ],
    "a hard link over its target's directory": [
        member("d/a", data=b"1"),
        member("d", HARD_LINK, "d/a"),
    ],
    "a character device": [member("a", tarfile.CHRTYPE)],
    "a block device": [member("a", tarfile.BLKTYPE)],
    "a pipe": [member("a", tarfile.FIFOTYPE)],
    "a sparse file": [member("a", tarfile.GNUTYPE_SPARSE)],
    "an unknown type": [member("a", b"Z")],
    "the root as a link": [member(".", SYMLINK, "../../dir")],
    "the root as a file": [member("./", data=b"!")],
    "no name": [member("", data=b"!")],
    "a removal of dots": [member("a/.wh...", data=b"")],
    "a removal of a dot": [member(".wh..")],
    "a removal of no name": [member(".wh.")],
    "below a removal": [member(".wh.a/b")],
    "below a file": [member("a", data=b"1"), member("a/b", data=b"1")],
    "an empty link": [member("a", SYMLINK, "")],
    "a long name": [member("a" * 300)],
    "a long path": [member("a/" * 400)],
    "a deep path": [member("a/" * 21)],
    "a huge size": [member("a", data=b"1", size=1 << 62)],
    "a huge binary size": [member("a", data=b"1", size=1 << 80)],
    "a huge extended header": [member("a", tarfile.XHDTYPE, data=b"1", size=1 << 33)],
    "many extended headers": [member("a", tarfile.XHDTYPE, data=b"8 k=ab\n")] * 2049
    + [member("b")],
    "many long names": [member("a", tarfile.GNUTYPE_LONGNAME, data=b"n" * 1000)] * 1049
    + [member("b")],
    "a malformed extended header": [member("a", tarfile.XHDTYPE, data=b"8 path=a\n")],
    "an extended header without length": [member("a", tarfile.XHDTYPE, data=b"path=a\n")],
    "a long extended length": [member("a", tarfile.XHDTYPE, data=b"9999999 path=a\n")],
    "a name with a zero": [member("x", tarfile.XHDTYPE, data=b"12 path=a\0b\n"), member("a")],
    "a size that is no number": [
        member("x", tarfile.XHDTYPE, data=b"11 size=-1\n"),
        member("a"),
    ],
    "a size of many digits": [
        member("x", tarfile.XHDTYPE, data=b"5011 size=" + b"9" * 5000 + b"\n"),
        member("a"),
    ],
    "a new sparse file": [
        member("x", tarfile.XHDTYPE, data=b"22 GNU.sparse.major=1\n"),
        member("a"),
    ],
    **{
        f"a sparse file whose map is {map_}": [
            member(
                "x",
                tarfile.XHDTYPE,
                data=b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=1000\n",
            ),
            member("a", data=text.ljust(512, b"\0") + b"12345"),
        ]
        for map_, text in {
            "longer than its data": b"1\n0\n6\n",
            "shorter than its data": b"1\n0\n4\n",
            "beyond its size": b"1\n996\n5\n",
            "out of order": b"2\n500\n3\n100\n2\n",
            "overlapping": b"2\n100\n3\n102\n2\n",
            "not a number": b"1\n0x\n5\n",
            "negative": b"1\n-1\n5\n",
            "endless": b"9" * 512,
            "of too many parts": b"70000\n",
            "cut off": b"200\n" + b"0\n0\n" * 127,
        }.items()
    },
    "a sparse file outside": [
        member(
            "x",
            tarfile.XHDTYPE,
            data=b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=5\n"
            b"29 GNU.sparse.name=../victim\n",
        ),
        member("a", data=b"1\n0\n5\n".ljust(512, b"\0") + b"12345"),
    ],
    "a sparse file of a size that no disk has": [
        member(
            "x",
            tarfile.XHDTYPE,
            data=b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
            b"42 GNU.sparse.realsize=999999999999999999\n",
        ),
        member("a", data=b"0\n".ljust(512, b"\0")),
    ],
    "a name for all": [member("x", tarfile.XGLTYPE, data=b"9 path=a\n"), member("b")],
    "no archive": [b"nothing of the kind" * 100],
    "half a header": [member("a")[:100]],
    "too many": [member(str(number)) for number in range(51)],
    "too much": [member("a", data=bytes(2 << 20))],
}


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("upper", [False, True])
def test_known_tricks_are_refused(tmp_path: Path, name: str, upper: bool) -> None:
    raw = b"".join(ESCAPES[name]) + tarformat.END
    lower = [source(member("lower", data=b"1") + tarformat.END)] if upper else []
    here = Place(tmp_path)
    with pytest.raises(LayerError):
        extract_chain([*lower, source(raw)], here.destination, limits=SMALL)
    assert not here.extract(*[source(raw)])


def test_what_a_lower_layer_links_to_is_not_reached(tmp_path: Path) -> None:
    lower = member("out", SYMLINK, "../..") + member("file", SYMLINK, "../../victim")
    here = Place(tmp_path)
    for upper in (
        member("out/victim", data=b"!"),
        member("out/dir/", DIRECTORY),
        member("out/new", SYMLINK, "x"),
        member("a", HARD_LINK, "out/victim"),
        member("a", HARD_LINK, "file"),
    ):
        assert not here.extract(source(lower), source(upper))
    for upper in (
        member("out/.wh.victim"),
        member("out/.wh..wh..opq"),
        member("out/dir/.wh..wh..opq"),
        member(".wh.out") + member(".wh.file"),
        member("file", data=b"!"),
        member("file", HARD_LINK, "new"),
    ):
        if here.extract(source(lower), source(member("new") + upper)):
            shutil.rmtree(here.destination)


names = st.lists(
    st.sampled_from(
        ["a", "b", "c", "..", ".", "", "/", "victim", "dir", "out", "in", "é", "x" * 256, "\n"]
    )
    | st.sampled_from([".wh.a", ".wh.b", ".wh..wh..opq", ".wh..", ".wh...", ".wh."]),
    min_size=1,
    max_size=4,
).map("/".join)
benign = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
targets = st.sampled_from(
    ["..", "../..", "../../victim", "/", "/var", ".", "a", "b", "a/b", "../../dir", "", "c/../.."]
)
members = st.one_of(
    st.builds(member, benign | names, st.just(SYMLINK), targets | names),
    st.builds(member, benign | names, st.just(HARD_LINK), benign | targets | names),
    st.builds(member, benign | names, st.just(DIRECTORY)),
    st.builds(member, benign | names, data=st.binary(max_size=600)),
    st.builds(
        member,
        benign,
        st.integers(0, 255).map(lambda value: bytes([value])),
        data=st.binary(max_size=600),
        size=st.none() | st.integers(0, 1 << 66),
    ),
)
archives = st.lists(members, max_size=8).map(lambda made: b"".join(made) + tarformat.END)


@given(st.lists(archives, min_size=1, max_size=3))
def test_no_list_of_members_reaches_outside(layers: list[bytes]) -> None:
    with place() as here:
        here.extract(*map(source, layers))


@given(st.binary(max_size=2000) | st.lists(st.binary(min_size=512, max_size=512)).map(b"".join))
def test_no_bytes_reach_outside(raw: bytes) -> None:
    for media_type in ("", *MEDIA_TYPES.values()):
        with place() as here:
            here.extract(source(raw, media_type=media_type))


@given(data=st.data(), compression=st.sampled_from(list(MEDIA_TYPES)))
def test_damage_is_noticed(data: st.DataObject, compression: Compression) -> None:
    with place() as here:
        content: trees.Tree = {"a": File(b"text\n" * 300), "l" * 150: {"b": Link("a")}}
        root = trees.write(here.outside / "in" / "root", content)
        target = io.BytesIO()
        made = pack(root, tree(root), target, compression=compression)
        shutil.rmtree(root)
        blob = bytearray(target.getvalue())
        at = data.draw(st.integers(0, len(blob) - 1))
        if data.draw(st.booleans(), label="cut"):
            del blob[at:]
        else:
            blob[at] ^= 1 << data.draw(st.integers(0, 7))
        broken = source(bytes(blob), made.diff_id, made.media_type)
        try:
            extract_chain([broken], here.destination)
        except IntegrityError:
            assert list((here.outside / "in").iterdir()) == []
        else:  # some bytes of a compressed stream say nothing about the files
            assert compression != "uncompressed"
            assert trees.read(here.destination) == content


@given(st.lists(members, min_size=1, max_size=3).map(b"".join), st.binary(min_size=1, max_size=9))
@example(member("../victim", data=b"!"), b"!")
def test_damage_is_damage_even_where_it_looks_hostile(raw: bytes, rest: bytes) -> None:
    with place() as here, pytest.raises(CacheError) as caught:
        extract_chain([source(raw + rest, Digest.of(raw))], here.destination)
    assert isinstance(caught.value, IntegrityError)


@given(trees.trees, st.sampled_from(list(MEDIA_TYPES)), st.data())
def test_packing_and_extracting_have_the_same_limits(
    tree_: trees.Tree, compression: Compression, data: st.DataObject
) -> None:
    limits = Limits(
        max_bytes=data.draw(st.integers(2000, 20_000)),
        max_entries=data.draw(st.integers(1, 8)),
        max_path=data.draw(st.integers(1, 200)),
        max_depth=data.draw(st.integers(1, 3)),
    )
    with tempfile.TemporaryDirectory() as base:
        root = trees.write(Path(base, "root"), tree_)
        names = tree(root)
        if names and data.draw(st.booleans(), label="only some, and what leads there"):
            names = data.draw(st.lists(st.sampled_from(names), unique=True))
        blob = io.BytesIO()
        layer = pack(root, names, blob, compression=compression)
        try:
            pack(root, names, io.BytesIO(), compression=compression, limits=limits)
        except LayerError:
            outcome: contextlib.AbstractContextManager[object] = pytest.raises(LayerError)
        else:
            outcome = contextlib.nullcontext()
        blob.seek(0)
        with outcome:
            packed = LayerSource(blob, layer.media_type, layer.diff_id)
            extract_chain([packed], Path(base, "made"), limits=limits)


@given(
    st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 60_000)), min_size=1, max_size=6),
    st.sampled_from(list(MEDIA_TYPES)),
    st.integers(2, 2000),
    st.sampled_from([0, 3 << 20, 5 << 20]),
)
@example([(b"a", 4 << 20)], "zstd", 100, 3 << 20)
def test_what_is_packed_does_not_look_like_a_bomb_when_it_is_extracted(
    content: list[tuple[bytes, int]], compression: Compression, ratio: int, ratio_from: int
) -> None:
    limits = Limits(max_ratio=ratio, ratio_from=ratio_from)
    tree_: trees.Tree = {str(i): File(part * count) for i, (part, count) in enumerate(content)}
    with tempfile.TemporaryDirectory() as base:
        root = trees.write(Path(base, "root"), tree_)
        blob = io.BytesIO()
        with contextlib.suppress(LayerError):
            layer = pack(root, tree(root), blob, compression=compression, limits=limits)
            blob.seek(0)
            packed = LayerSource(blob, layer.media_type, layer.diff_id)
            try:
                extract_chain([packed], Path(base, "made"), limits=limits)
            except LayerError as error:
                raise AssertionError(f"packed, and then refused: {error}") from error


def test_extended_headers_are_refused_on_writing_as_on_reading() -> None:
    overhead = len(b"1048576 path=\n")
    fits = b"n" * (tarformat.EXTENSION_LIMIT - overhead)
    raw = tarformat.header(fits, tarformat.FILE, mode=0o644)
    assert next(tarformat.Archive(iter([raw])).members()).name == fits
    for name, link in ((fits + b"n", b""), (fits, b"t" * 101)):
        with pytest.raises(LayerError, match="bytes of extended headers"):
            tarformat.header(name, tarformat.SYMLINK, mode=0o644, link=link)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_what_would_be_refused_as_a_bomb_is_not_packed(
    tmp_path: Path, compression: Compression
) -> None:
    limits = Limits(max_ratio=100, ratio_from=20 << 20)
    for size, fits in ((10 << 20, True), (40 << 20, False)):
        (tmp_path / "same").write_bytes(b"\1" * size)
        blob = io.BytesIO()
        with contextlib.nullcontext() if fits else pytest.raises(LayerError, match="like a decomp"):
            pack(tmp_path, ["same"], blob, compression=compression, limits=limits)


def refused(destination: Path, limits: Limits, *layers: LayerSource) -> str:
    with pytest.raises(LayerError) as caught:
        extract_chain(layers, destination, limits=limits)
    assert not os.path.lexists(destination)
    return str(caught.value)


def test_directories_that_are_only_part_of_a_name_are_entries(tmp_path: Path) -> None:
    names = ["/".join([f"{first}", *"abcdefghijklmnopqr"]) for first in range(3)]
    raw = b"".join(member(name) for name in names)
    assert "more than 50 entries" in refused(tmp_path / "out", SMALL, source(raw))
    extract_chain([source(raw)], tmp_path / "out", limits=Limits(max_entries=57))


def test_a_chain_has_a_number_of_layers(tmp_path: Path) -> None:
    layers = [source(member(f"f{number}")) for number in range(4)]
    assert "more than 3 layers" in refused(tmp_path / "out", Limits(max_layers=3), *layers)


def test_repeated_whiteouts_scan_a_directory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[tuple[bytes, ...]] = []
    scan = Beneath.scan

    def counted(tree: Beneath, path: tuple[bytes, ...]) -> object:
        scanned.append(path)
        return scan(tree, path)

    monkeypatch.setattr(Beneath, "scan", counted)
    lower = member("d/old") + member("d/e/old") + member("kept")
    again = member(".wh.d") + member("d/.wh..wh..opq") + member("d/e/.wh..wh..opq")
    upper = member("d/new") + member("d/e/new") + again * 20
    extract_chain([source(lower), source(upper)], tmp_path / "out")
    assert trees.read(tmp_path / "out").keys() >= {"d", "kept"}
    assert sorted(path.name for path in (tmp_path / "out" / "d").iterdir()) == ["e", "new"]
    assert [path.name for path in (tmp_path / "out" / "d" / "e").iterdir()] == ["new"]
    assert sorted(scanned) == [(b"d",), (b"d", b"e")]


def test_names_that_whiteouts_need_take_the_same_memory_however_long_they_are() -> None:
    names = applying.Names()
    tracemalloc.start()
    for number in range(5000):
        names.add((*[b"d" * 30] * 100, b"%d" % number))
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 200 * 5000
    assert (*[b"d" * 30] * 100, b"7") in names
    assert (*[b"d" * 30] * 99, b"7") not in names


def test_a_directory_with_more_names_than_are_removed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_REMOVED", 3)
    lower = b"".join(member(f"d/{a}/{b}/{c}") for a in "wxyz" for b in "wxyz" for c in "wxyz")
    upper = member("d", data=b"now a file")
    extract_chain([source(lower), source(upper)], tmp_path / "out")
    assert trees.read(tmp_path / "out") == {"d": File(b"now a file")}
    assert "50 entries" in refused(tmp_path / "second", SMALL, source(lower))


def test_members_of_a_byte_arrive_in_larger_chunks() -> None:
    blob = gzip.compress(b"a", mtime=0) * 100_000
    chunks = list(decompressed(io.BytesIO(blob), MEDIA_TYPES["gzip"]))
    assert b"".join(chunks) == b"a" * 100_000
    assert len(chunks) <= 4


def test_an_extended_header_in_chunks_of_a_byte_takes_little_memory() -> None:
    raw = tarformat.header(b"n" * 200_000, tarformat.FILE, mode=0o644)
    archive = tarformat.Archive(raw[start : start + 1] for start in range(len(raw)))
    tracemalloc.start()
    assert len(next(archive.members()).name) == 200_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
