"""Both ways, on the caches that a real builder wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import cachefs
from cachefs.wire import codec
from tests.servers.s3 import S3Server

S3_MANIFESTS = [
    "min/manifests/app",
    "max/manifests/app",
    "max/manifests/app-v2",
    "multi/manifests/multi",
    "team/ci/refs/main",
    "team/ci/refs/0a1b2c3d",
]
LOCALS = [
    "local-min",
    "local-max",
    "local-zstd",
    "local-index",
    "local-docker-mediatypes",
]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("manifest", S3_MANIFESTS)
def test_manifests_decode_and_encode_to_the_same_bytes(recorded: Path, manifest: str) -> None:
    raw = (recorded / "s3" / manifest).read_bytes()
    config = codec.decode(raw)
    assert codec.encode(config) == raw
    graph = cachefs.RecordGraph(config)
    assert codec.encode(graph.to_config()) == raw
    assert codec.encode(graph.select("max").to_config()) == raw
    assert codec.encode(cachefs.RecordGraph.union([graph, graph]).to_config()) == raw


@pytest.mark.parametrize(
    ("local", "tag", "manifest"),
    [
        ("local-min", "latest", "min/manifests/app"),
        ("local-max", "latest", "max/manifests/app"),
        ("local-max", "v2", "max/manifests/app-v2"),
    ],
)
def test_local_caches_become_what_the_builder_wrote_to_s3(
    recorded: Path, tmp_path: Path, local: str, tag: str, manifest: str
) -> None:
    cachefs.copy(f"type=local,src={recorded / local}", tmp_path / "keyed")
    copied = (tmp_path / "keyed" / "manifests" / tag).read_bytes()
    assert copied == (recorded / "s3" / manifest).read_bytes()


@pytest.mark.parametrize("cache", ["min", "max", "multi"])
def test_keyed_to_oci_and_back_is_identical(recorded: Path, tmp_path: Path, cache: str) -> None:
    original = recorded / "s3" / cache
    cachefs.copy(original, f"type=local,dest={tmp_path / 'oci'}")
    assert_valid_oci_layout(tmp_path / "oci")
    cachefs.copy(f"type=local,src={tmp_path / 'oci'}", tmp_path / "back")
    assert files(tmp_path / "back") == files(original)


@pytest.mark.parametrize("local", ["local-min", "local-max", "local-zstd"])
def test_an_oci_directory_copied_to_another_is_identical(
    recorded: Path, tmp_path: Path, local: str
) -> None:
    cachefs.copy(recorded / local, f"type=local,dest={tmp_path / 'oci'}")
    copied = files(tmp_path / "oci")
    copied.pop("index.json.lock")
    assert copied == files(recorded / local)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("image-manifest=false", "local-index"),
        ("oci-mediatypes=false", "local-docker-mediatypes"),
    ],
)
@pytest.mark.parametrize("source", ["local-index", "local-docker-mediatypes"])
def test_the_other_forms_are_written_as_the_builder_writes_them(
    recorded: Path, tmp_path: Path, source: str, options: str, expected: str
) -> None:
    target = tmp_path / "oci"
    cachefs.copy(recorded / source, f"type=local,dest={target},{options}")
    copied = files(target)
    copied.pop("index.json.lock")
    assert copied == files(recorded / expected)


@pytest.mark.parametrize("local", LOCALS)
def test_every_layer_of_every_form_is_read_and_verified(recorded: Path, local: str) -> None:
    cache = cachefs.open(recorded / local)
    for name in cache.names():
        graph = cache.load(name.name)
        assert graph.records
        for digest, size in graph.blobs().items():
            blob = cache.read_blob(digest, size)
            assert isinstance(blob, bytes)
            assert len(blob) == size
        kinds = set()
        for layer in graph.layers:
            assert layer.annotations is not None
            assert layer.annotations.media_type.startswith("application/vnd.oci.image.layer.v1.tar")
            assert layer.annotations.diff_id.startswith("sha256:")
            kinds.add(layer.annotations.media_type.rpartition("+")[2])
        # The index forms were exported after the zstd one, whose last layer they took over.
        mixed = local in {"local-index", "local-docker-mediatypes"}
        assert ("zstd" in kinds) == (local == "local-zstd" or mixed)
        assert ("gzip" in kinds) == (local != "local-zstd")
    assert not cache.misses


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
@pytest.mark.parametrize("cache", ["max", "team/ci"])
def test_to_a_real_s3_server_and_back(
    recorded: Path, tmp_path: Path, seaweed_s3: S3Server, engine: str, cache: str
) -> None:
    prefixes = {"blobs_prefix": "objects/", "manifests_prefix": "refs/"} if "team" in cache else {}
    original = cachefs.open(recorded / "s3" / cache, **prefixes)
    bucket = seaweed_s3.bucket()
    there = seaweed_s3.attributes(bucket, engine=engine, prefix=f"{cache}/", **prefixes)
    report = cachefs.copy(original, there)
    assert report.uploaded.blobs == len(list((recorded / "s3" / cache).rglob("sha256:*")))
    assert seaweed_s3.keys(bucket) == sorted(
        f"{cache}/{name}" for name in files(recorded / "s3" / cache)
    )
    again = cachefs.copy(original, there)
    assert (again.uploaded.blobs, again.touched.blobs) == (0, 0)
    assert again.kept.blobs == report.uploaded.blobs
    back = cachefs.open(tmp_path / "back", **prefixes)
    cachefs.copy(there, back)
    assert files(tmp_path / "back") == files(recorded / "s3" / cache)


def test_names_are_kept_or_renamed_as_the_target_says(recorded: Path, tmp_path: Path) -> None:
    source = f"type=fsspec,url=file://{recorded}/s3/max/"
    cachefs.copy(f"{source},name=app", f"type=fsspec,url=file://{tmp_path}/a/,name=one;two")
    manifests = files(tmp_path / "a" / "manifests")
    assert sorted(manifests) == ["one", "two"]
    assert len(set(manifests.values())) == 1
    cachefs.copy(f"{source},name=app-v2", f"type=local,dest={tmp_path}/b,tag=v2")
    assert [name.name for name in cachefs.open(tmp_path / "b").names()] == ["v2"]
    with pytest.raises(cachefs.UsageError, match="2 names"):
        cachefs.copy(source, f"type=fsspec,url=file://{tmp_path}/c/,name=one")
    with pytest.raises(cachefs.NoCacheError, match="there is nothing here"):
        cachefs.copy(tmp_path / "empty", tmp_path / "c")
    with pytest.raises(cachefs.LocationError, match="mode=min"):
        cachefs.copy(source, f"type=fsspec,url=file://{tmp_path}/c/,mode=min")


def test_a_name_whose_blobs_are_not_all_there_is_not_published(
    recorded: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(recorded / "s3" / "max", source)
    only_app_v2 = "sha256:b0853d97b7e628d20dd05e162b7ad28caea98a9cd91eb55810bc3c98eccb709d"
    (source / "blobs" / only_app_v2).unlink()
    with pytest.raises(cachefs.CopyError, match=r"not copied.*app-v2") as raised:
        cachefs.copy(source, tmp_path / "target")
    assert raised.value.report.names == ["app"]
    ignoring = cachefs.open(tmp_path / "target", ignore_error=True)
    report = cachefs.copy(source, ignoring)
    assert report.names == ["app"]
    assert "app-v2" in (report.error or "")
    assert sorted(files(tmp_path / "target" / "manifests")) == ["app"]


def test_a_damaged_blob_is_not_copied(recorded: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(recorded / "s3" / "min", source)
    blob = next((source / "blobs").iterdir())
    damaged = bytearray(blob.read_bytes())
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    with pytest.raises(cachefs.CopyError, match="damaged"):
        cachefs.copy(source, tmp_path / "target")
    assert blob.name not in {path.name for path in (tmp_path / "target").rglob("*")}
    assert not list((tmp_path / "target").rglob(".cachefs-*"))


def test_min_of_the_max_cache_keeps_what_the_builders_own_min_keeps(recorded: Path) -> None:
    of_max = cachefs.open(recorded / "s3" / "max").load("app").select("min")
    of_min = cachefs.open(recorded / "s3" / "min").load("app")
    assert with_result(of_max) == with_result(of_min)
    assert len(of_max.layers) == len(of_min.layers)
    assert len(of_max.records) == len(of_min.records)


def with_result(graph: cachefs.RecordGraph) -> set[str]:
    return {record.digest for record in graph.records if record.layers}


def assert_valid_oci_layout(folder: Path) -> None:
    """By the OCI image layout specification: every descriptor leads to its bytes."""
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    waiting = list(index["manifests"])
    assert waiting
    while waiting:
        descriptor = waiting.pop()
        algorithm, digits = descriptor["digest"].split(":")
        raw = (folder / "blobs" / algorithm / digits).read_bytes()
        assert len(raw) == descriptor["size"]
        assert hashlib.new(algorithm, raw).hexdigest() == digits
        if descriptor["mediaType"].endswith("manifest.v1+json"):
            manifest = json.loads(raw)
            waiting += [manifest["config"], *manifest["layers"]]
