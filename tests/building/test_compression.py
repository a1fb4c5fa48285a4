"""A build compresses new layers as the location of ``cache_to`` says."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

import cachefs
from cachefs import Build
from cachefs.layers.compression import Compression, compressor
from cachefs.wire.oci import docker_media_type
from tests.programs import run_for_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs.wire.cacheconfig import Layer

TEXT = b"a line of text that repeats\n" * 4000
OCI = "application/vnd.oci.image.layer.v1.tar"


def _declare(build: Build) -> Any:
    return build.step(
        ["sh", "-c", "cat text > out; seq 20000 >> out"],
        inputs={"text": build.source(TEXT)},
        outputs=["out"],
    )


def _built(cache: str, into: Path) -> tuple[Layer, bytes, list[str]]:
    """The one layer of the build, the bytes of its blob, and what became of the steps."""
    with Build(cache_to=cache) as build:
        _declare(build).restore(into)
    assert (into / "out").read_bytes().startswith(TEXT)
    opened = cachefs.open(cache)
    (layer,) = opened.load().layers
    blob = opened.read_blob(layer.blob)
    assert isinstance(blob, bytes)
    assert layer.size == len(blob)
    return layer, blob, [step.outcome for step in build.report.steps]


def _expanded(blob: bytes) -> bytes:
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    return blob


@pytest.mark.parametrize(
    ("attributes", "media_type", "magic"),
    [
        ("", f"{OCI}+gzip", b"\x1f\x8b"),
        (",compression=gzip", f"{OCI}+gzip", b"\x1f\x8b"),
        (",compression=zstd", f"{OCI}+zstd", b"\x28\xb5\x2f\xfd"),
        (",compression=zstd,compression-level=0", f"{OCI}+zstd", b"\x28\xb5\x2f\xfd"),
        (",compression=uncompressed", OCI, b"out"),
        (",compression=zstd,oci-mediatypes=false", f"{OCI}+zstd", b"\x28\xb5\x2f\xfd"),
    ],
)
def test_new_layers_are_compressed_as_the_target_says(
    tmp_path: Path, attributes: str, media_type: str, magic: bytes
) -> None:
    cache = f"type=local,dest={tmp_path / 'oci'}{attributes}"
    layer, blob, outcomes = _built(cache, tmp_path / "first")
    assert outcomes == ["ran"]
    assert blob.startswith(magic)
    assert cachefs.Digest.of(blob) == layer.blob
    assert layer.annotations is not None
    assert layer.annotations.media_type in (media_type, docker_media_type(media_type))
    assert cachefs.Digest.of(_expanded(blob)) == layer.annotations.diff_id
    assert cachefs.open(cache).verify(read_data=1.0).faults == []
    again, _, outcomes = _built(cache, tmp_path / "second")
    assert (again, outcomes) == (layer, ["hit"])


@pytest.mark.parametrize(
    ("compression", "level", "used"),
    [("gzip", 0, 0), ("gzip", 1, 1), ("gzip", 9, 9), ("zstd", 0, 1), ("zstd", 9, 9)],
)
def test_the_level_is_used(tmp_path: Path, compression: Compression, level: int, used: int) -> None:
    attributes = f"compression={compression},compression-level={level}"
    _, blob, _ = _built(f"type=local,dest={tmp_path / 'oci'},{attributes}", tmp_path / "to")
    using = compressor(compression, used)
    assert blob == using.compress(_expanded(blob)) + using.flush()


def test_other_caches_get_zstd(tmp_path: Path) -> None:
    layer, blob, _ = _built(str(tmp_path / "cache"), tmp_path / "to")
    assert layer.annotations is not None
    assert layer.annotations.media_type == f"{OCI}+zstd"
    assert blob.startswith(b"\x28\xb5\x2f\xfd")


def test_layers_that_exist_stay_as_they_are(tmp_path: Path) -> None:
    first, _, _ = _built(f"type=local,dest={tmp_path / 'oci'},compression=zstd", tmp_path / "one")
    other = f"type=local,dest={tmp_path / 'oci'},compression=gzip"
    second, _, outcomes = _built(other, tmp_path / "two")
    assert (second, outcomes) == (first, ["hit"])


def test_compressing_existing_layers_again_is_refused(tmp_path: Path) -> None:
    cache = f"type=local,dest={tmp_path / 'oci'},compression=zstd,force-compression=true"
    with pytest.raises(
        cachefs.LocationError, match="force-compression=true: existing layers cannot"
    ):
        Build(cache_to=cache)
    Build(cache, tmp_path / "other")  # only read


def test_a_command_is_compressed_as_its_cache_says(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    cache = f"type=local,dest={tmp_path / 'oci'},tag=app,compression=uncompressed"
    words = [
        "--cache",
        cache,
        "--input",
        "in",
        "--output",
        "out",
        "--explain",
        "--no-describe",
        "--",
        "sh",
        "-c",
        "echo hi > out",
    ]
    explained = [run_for_bytes("run", *words, cwd=tmp_path).stderr for _ in range(2)]
    assert [line.split(b":")[1].strip() for line in explained] == [b"miss", b"hit"]
    layers = cachefs.open(cache).load().layers
    assert len(layers) == 2
    for layer in layers:
        assert layer.annotations is not None
        assert layer.annotations.media_type == OCI
