"""A layer becomes its files again, complete and verified, or nothing appears."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cachefs.digest import Digest
from cachefs.errors import IntegrityError, LayerError, UsageError
from cachefs.layers.compression import MEDIA_TYPES, Compression
from cachefs.layers.extracting import LayerSource, extract, extract_chain
from cachefs.layers.limits import Limits
from cachefs.layers.packing import pack, tree
from tests import trees
from tests.trees import File, Link

RECORDED = Path(__file__).parents[1] / "data" / "buildkit-caches"
GZIP, ZSTD, TAR = (MEDIA_TYPES[name] for name in ("gzip", "zstd", "uncompressed"))
WRONG = Digest.of(b"something else")


def archive(*members: tuple[str, object], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, content) pairs: bytes, a Link, None for a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(content, Link):
                info.type, info.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(info)
            else:
                assert isinstance(content, bytes)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def layer(*members: tuple[str, object]) -> LayerSource:
    raw = archive(*members)
    return LayerSource(io.BytesIO(raw), "", Digest.of(raw))


def extract_bytes(raw: bytes, destination: Path, limits: Limits = Limits()) -> None:  # noqa: B008
    extract(io.BytesIO(raw), destination, media_type=TAR, diff_id=Digest.of(raw), limits=limits)


@given(content=trees.trees, compression=st.sampled_from(list(MEDIA_TYPES)))
def test_what_was_packed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, content: trees.Tree, compression: Compression
) -> None:
    base = tmp_path_factory.mktemp("extracting")
    try:
        root = trees.write(base / "root", content)
        blob = io.BytesIO()
        made = pack(root, tree(root), blob, compression=compression)
        for number, media_type in enumerate((made.media_type, "", "application/octet-stream")):
            blob.seek(0)
            destination = base / str(number)
            extract(blob, destination, media_type=media_type, diff_id=made.diff_id)
            assert trees.read(destination) == content
    finally:
        shutil.rmtree(base)


@given(
    names=st.lists(trees.names, min_size=1, max_size=8),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    data=st.binary(max_size=1100),
)
def test_archives_of_other_writers_come_out(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], form: int, data: bytes
) -> None:
    base = tmp_path_factory.mktemp("foreign")
    try:
        name = "/".join(names)
        raw = archive((name, data), (f"./{name}.link", Link(name)), form=form)
        extract_bytes(raw, base / "out")
        found: object = trees.read(base / "out")
        for part in names:
            assert isinstance(found, dict)
            found = found[part]
        assert found == File(data)
        assert os.readlink(base / "out" / f"{name}.link") == name  # noqa: PTH115 - as it is
    except LayerError as error:  # the name with ".link" may be too long for a disk
        assert "too long" in str(error).lower()  # noqa: PT017
    finally:
        shutil.rmtree(base)


def recorded_layers() -> Iterator[tuple[str, str, str]]:
    """(blob's path, media type, diffID) of every layer that a real builder recorded."""
    for manifest in sorted(RECORDED.glob("s3/*/**/*")):
        if manifest.is_file() and not manifest.name.startswith("sha256:"):
            blobs = next(manifest.parent.parent.glob("*/sha256:*")).parent
            for entry in json.loads(manifest.read_bytes())["layers"]:
                facts = entry["annotations"]
                yield os.fspath(blobs / entry["blob"]), facts["mediaType"], facts["diffID"]
    for index in sorted(RECORDED.glob("local-*/index.json")):
        blobs = index.parent / "blobs" / "sha256"
        for tag in json.loads(index.read_bytes())["manifests"]:
            manifest = json.loads((blobs / tag["digest"][7:]).read_bytes())
            for entry in manifest.get("layers", manifest.get("manifests")):
                if "layer" in entry["mediaType"] or "rootfs" in entry["mediaType"]:
                    diff_id = entry["annotations"]["containerd.io/uncompressed"]
                    blob = os.fspath(blobs / entry["digest"][7:])
                    yield blob, entry["mediaType"], diff_id


def test_the_layers_of_a_real_builder_come_out(tmp_path: Path) -> None:
    layers = sorted(set(recorded_layers()))
    assert {media_type.rpartition(".")[2] for _, media_type, _ in layers} == {
        "tar+gzip",
        "tar+zstd",
        "gzip",
        "zstd",
    }
    for number, (blob, media_type, diff_id) in enumerate(layers):
        destination = tmp_path / str(number)
        with Path(blob).open("rb") as stream:
            extract(stream, destination, media_type=media_type, diff_id=Digest(diff_id))
        assert any(destination.iterdir())


def test_modes_lose_what_is_dangerous_and_stay_usable(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    modes = {"suid": 0o4755, "sgid": 0o2711, "none": 0, "read": 0o444, "dir": 0o1000}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in modes.items():
            info = tarfile.TarInfo(name)
            info.mode = mode
            info.type = tarfile.DIRTYPE if name == "dir" else tarfile.REGTYPE
            tar.addfile(info)
    extract_bytes(buffer.getvalue(), tmp_path / "out")
    found = {name: stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in modes}
    assert found == {"suid": 0o755, "sgid": 0o711, "none": 0o400, "read": 0o444, "dir": 0o700}


def _sparse_archive(path: Path, form: tuple[str, ...]) -> bytes:
    """An archive of GNU tar, which finds the holes of the files."""
    archived = subprocess.run(
        ["tar", "--sparse", *form, "-cf", "-", "-C", str(path), "."],  # noqa: S607
        capture_output=True,
        check=True,
    )
    return archived.stdout


def _image(path: Path, size: int = 50_000_000) -> Path:
    with path.open("wb") as file:
        for offset in (100_000, 20_000_000, size - 3):
            file.seek(offset)
            file.write(b"end")
    return path


def test_sparse_files_of_gnu_tar_get_their_holes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = _image(tmp_path / "in" / "image")
    (tmp_path / "in" / ("ö" * 60)).write_bytes(bytes(3_000_000))
    os.truncate(tmp_path / "in" / ("ö" * 60), 5_000_000)
    raw = _sparse_archive(tmp_path / "in", ("--format=pax", "--sparse-version=1.0"))
    extract_bytes(raw, tmp_path / "out")
    assert trees.read(tmp_path / "out") == trees.read(tmp_path / "in")
    assert (tmp_path / "out" / "image").stat().st_blocks == image.stat().st_blocks
    for form in (["--format=gnu"], ["--format=pax", "--sparse-version=0.1"]):
        with pytest.raises(LayerError, match="is a sparse file"):
            extract_bytes(_sparse_archive(tmp_path / "in", tuple(form)), tmp_path / "other")


def test_a_large_empty_disk_image_is_refused_only_beyond_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(1 << 34)
    blob = io.BytesIO()
    made = pack(tmp_path, ["disk"], blob)
    assert made.size < 1000
    for most, fits in ((1 << 34, True), ((1 << 34) - 1, False)):
        limits = Limits(max_apparent=most)
        with contextlib.nullcontext() if fits else pytest.raises(LayerError, match="sparse files"):
            blob.seek(0)
            extract(
                blob,
                tmp_path / f"out{fits}",
                media_type=made.media_type,
                diff_id=made.diff_id,
                limits=limits,
            )
        with contextlib.nullcontext() if fits else pytest.raises(LayerError, match="sparse files"):
            pack(tmp_path, ["disk"], io.BytesIO(), limits=limits)
    assert (tmp_path / "outTrue" / "disk").stat().st_blocks == 0


def test_hard_links_inside_are_made(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a/file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("b/link")
        link.type, link.linkname = tarfile.LNKTYPE, "./a/file"
        tar.addfile(link)
    extract_bytes(buffer.getvalue(), tmp_path / "out")
    assert (tmp_path / "out" / "b" / "link").samefile(tmp_path / "out" / "a" / "file")


def test_upper_layers_replace_and_remove(tmp_path: Path) -> None:
    layers = [
        layer(
            ("etc/", None),
            ("etc/gone", b"1"),
            ("etc/kept", b"1"),
            ("data/deep/old", b"1"),
            ("file", b"1"),
            ("dir/inner", b"1"),
            ("link", Link("etc")),
        ),
        layer(
            ("etc/.wh.gone", b""),
            ("etc/.wh.never-was", b""),
            ("no/such/.wh.thing", b""),
            ("data/new", b"2"),
            ("data/.wh..wh..opq", b""),
            ("file/", None),
            ("dir", b"2"),
            ("link/", None),
            ("link/x", b"2"),
            (".wh..wh.plnk", b""),
        ),
    ]
    extract_chain(layers, tmp_path / "out")
    assert trees.read(tmp_path / "out") == {
        "etc": {"kept": File(b"1")},
        "data": {"new": File(b"2")},
        "file": {},
        "dir": File(b"2"),
        "link": {"x": File(b"2")},
    }


def test_whiteouts_spare_what_their_own_layer_brings(tmp_path: Path) -> None:
    lower = layer(("a/old", b"1"), ("a/sub/old", b"1"), ("b", b"1"))
    for upper in (
        layer(("a/sub/new", b"2"), ("b", b"2"), (".wh..wh..opq", b"")),
        layer((".wh..wh..opq", b""), ("a/sub/new", b"2"), ("b", b"2")),
        layer(("a/sub/new", b"2"), (".wh.a", b""), ("b", b"2"), (".wh.b", b"")),
    ):
        lower.stream.seek(0)
        extract_chain([lower, upper], tmp_path / "out")
        assert trees.read(tmp_path / "out") == {
            "a": {"sub": {"new": File(b"2")}},
            "b": File(b"2"),
        }
        shutil.rmtree(tmp_path / "out")


def test_whiteouts_of_the_lowest_layer_have_nothing_to_remove(tmp_path: Path) -> None:
    raw = archive(("a", b"1"), (".wh.a", b""), ("d/b", b"1"), ("d/.wh..wh..opq", b""))
    extract_bytes(raw, tmp_path / "out")
    assert trees.read(tmp_path / "out") == {"a": File(b"1"), "d": {"b": File(b"1")}}


def test_layers_of_an_iterator_are_opened_one_at_a_time(tmp_path: Path) -> None:
    open_now = []

    def layers() -> Iterator[LayerSource]:
        for name in ("a", "b", "c"):
            open_now.append(name)
            assert len(open_now) == 1
            yield layer((name, name.encode()))
            open_now.remove(name)

    extract_chain(layers(), tmp_path / "out")
    assert sorted(trees.read(tmp_path / "out")) == ["a", "b", "c"]


def test_no_layers_are_an_empty_directory(tmp_path: Path) -> None:
    extract_chain([], tmp_path / "out")
    assert trees.read(tmp_path / "out") == {}


def test_many_members_and_frames_make_one_layer(tmp_path: Path) -> None:
    raw = archive(("a", os.urandom(3_000_000)), ("b", b"2"))
    half = len(raw) // 2
    for media_type, compress in ((GZIP, gzip.compress), (ZSTD, zstandard.compress)):
        blob = compress(raw[:half]) + compress(raw[half:])
        out = tmp_path / media_type.rpartition("+")[2]
        extract(io.BytesIO(blob), out, media_type=media_type, diff_id=Digest.of(raw))
        assert (out / "b").read_bytes() == b"2"


def test_the_end_of_an_archive_may_be_missing_or_long(tmp_path: Path) -> None:
    raw = archive(("a", b"1"))
    extract_bytes(raw[:1024], tmp_path / "short")
    extract_bytes(raw + bytes(1_000_000), tmp_path / "long")
    assert trees.read(tmp_path / "short") == trees.read(tmp_path / "long") == {"a": File(b"1")}


def test_an_empty_directory_may_be_the_destination(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    extract_bytes(archive(("a", b"1")), tmp_path / "out")
    assert trees.read(tmp_path / "out") == {"a": File(b"1")}


@pytest.mark.parametrize("there", ["file", "full", "link"])
def test_what_is_there_already_stays(tmp_path: Path, there: str) -> None:
    trees.write(
        tmp_path / "base",
        {"file": File(b"old"), "full": {"a": File(b"old")}, "link": Link("empty"), "empty": {}},
    )
    before = trees.read(tmp_path / "base")
    with pytest.raises(UsageError, match="already exists"):
        extract_bytes(archive(("a", b"new")), tmp_path / "base" / there)
    assert trees.read(tmp_path / "base") == before


def test_a_wrong_diff_id_leaves_nothing(tmp_path: Path) -> None:
    raw = archive(("a", b"1"))
    with pytest.raises(IntegrityError, match="damaged") as caught:
        extract(io.BytesIO(raw), tmp_path / "out", media_type=TAR, diff_id=WRONG)
    assert caught.value.digest == WRONG
    assert list(tmp_path.iterdir()) == []


def test_a_failing_upper_layer_leaves_nothing(tmp_path: Path) -> None:
    upper = layer(("../b", b"2"))
    with pytest.raises(LayerError, match="outside"):
        extract_chain([layer(("a", b"1")), upper], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2_000_000:
                raise ConnectionResetError("gone")
            return super().read(size)

    raw = archive(("a", bytes(10_000_000)))
    with pytest.raises(ConnectionResetError):
        extract(Failing(raw), tmp_path / "out", media_type=TAR, diff_id=Digest.of(raw))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("media_type", ["text/plain", "application/vnd.oci.image.manifest.v1+json"])
def test_media_types_of_other_things_are_refused(tmp_path: Path, media_type: str) -> None:
    with pytest.raises(LayerError, match="not the media type of a layer"):
        extract(io.BytesIO(b""), tmp_path / "out", media_type=media_type, diff_id=Digest.of(b""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_bytes=100 << 20), "expand to more than 104857600 bytes"),
        (Limits(max_ratio=100, ratio_from=50 << 20), "like a decompression bomb"),
        (Limits(max_bytes=1 << 20), "expand to more than 1048576 bytes"),
    ],
)
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_a_bomb_is_stopped_in_flat_memory(
    tmp_path: Path, compression: Compression, limits: Limits, reason: str
) -> None:
    (tmp_path / "same").write_bytes(b"\1" * (200 << 20))
    blob = io.BytesIO()
    made = pack(tmp_path, ["same"], blob, compression=compression, level=1)
    (tmp_path / "same").unlink()
    blob = io.BytesIO(blob.getvalue() * 5)
    tracemalloc.start()
    try:
        with pytest.raises(LayerError, match=reason):
            extract(
                blob,
                tmp_path / "out",
                media_type=made.media_type,
                diff_id=made.diff_id,
                limits=limits,
            )
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("members", "limits", "reason"),
    [
        ([(str(n), None) for n in range(4)], Limits(max_entries=3), "more than 3 entries"),
        ([("a" * 9, b"")], Limits(max_path=8), "a name of more than 8 bytes"),
        ([("a", Link("b" * 9))], Limits(max_path=8), "a name of more than 8 bytes"),
        ([("a/b/c", b"")], Limits(max_depth=2), "deeper than 2"),
    ],
)
def test_limits_are_kept(
    tmp_path: Path, members: list[tuple[str, object]], limits: Limits, reason: str
) -> None:
    with pytest.raises(LayerError, match=reason):
        extract_bytes(archive(*members), tmp_path / "out", limits)
    assert list(tmp_path.iterdir()) == []


def test_deep_and_wide_trees_need_few_descriptors(tmp_path: Path) -> None:
    deep = "/".join("d" * 128)
    members = [(f"{deep[: 2 * number]}x/{number}", b"1") for number in range(100)]
    extract_bytes(archive(*members, (deep, None), (deep[:-2] + "/e", None)), tmp_path / "out")
    assert (tmp_path / "out" / deep).is_dir()
