"""Promoting: what no trusted key signed, or what an extraction would refuse, never arrives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

import cachefs
from cachefs.layers import limits
from cachefs.layout.base import Layout
from cachefs.operations import promote as promoting
from tests.poisoning import archive
from tests.programs import run
from tests.servers.s3 import S3Server
from tests.signing import keys, public, reasons
from tests.trees import File, Link, Tree

SOUND: Tree = {"bin": {"tool": File(b"#!/bin/sh\n")}, "tool": Link("bin/tool")}


class Lanes:
    """A cache that many may write, one that few may, and the keys of both."""

    def __init__(self, folder: Path, many: str, few: str) -> None:
        self.ci, self.release, self.other = keys(folder, "ci", "release", "other")
        self.many, self.few = many, few

    def export(
        self, name: str, *archives: bytes, key: Path | None = None, diff_id: str = ""
    ) -> list[cachefs.Digest]:
        """Write a result of these layers to the cache of many. Returns their blobs."""
        cache = cachefs.open(self.many, signing_key=key or self.ci)
        graph, blobs, parent = cachefs.RecordGraph(), {}, cachefs.LayerIndex(-1)
        for raw in archives:
            blob = gzip.compress(raw, mtime=0)
            digest = cachefs.Digest.of(blob)
            blobs[digest] = blob
            parent = graph.add_layer(
                digest,
                parent=parent,
                size=len(blob),
                diff_id=diff_id or str(cachefs.Digest.of(raw)),
                media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            )
        step = graph.add(cachefs.output_key("sha256:" + "5" * 64, 0))
        graph.add_result(step, parent)
        cache.export(graph, blobs, name)
        return list(blobs)

    @property
    def source(self) -> cachefs.Cache:
        return cachefs.open(self.many, signed_by=[public(self.ci)])

    @property
    def target(self) -> cachefs.Cache:
        return cachefs.open(self.few, signing_key=self.release)

    @property
    def reader(self) -> cachefs.Cache:
        return cachefs.open(self.few, signed_by=[public(self.release)])

    def promote(self, **options: int) -> cachefs.PromoteReport:
        return cachefs.promote(self.source, self.target, **options)

    def names(self) -> list[str]:
        return [one.name for one in cachefs.open(self.few).names()]


@pytest.fixture(params=["local", "oci", "s3fs", "obstore"])
def lanes(request: pytest.FixtureRequest, tmp_path: Path) -> Lanes:
    if request.param == "local":
        return Lanes(tmp_path, str(tmp_path / "many"), str(tmp_path / "few"))
    if request.param == "oci":
        return Lanes(
            tmp_path, f"type=local,dest={tmp_path}/many", f"type=local,dest={tmp_path}/few"
        )
    server: S3Server = request.getfixturevalue("moto_s3")
    bucket = server.bucket()
    both = (
        f"{server.attributes(bucket, prefix=p)},engine={request.param}" for p in ("pr/", "main/")
    )
    return Lanes(tmp_path, *both)


@pytest.fixture
def local(tmp_path: Path) -> Lanes:
    return Lanes(tmp_path, str(tmp_path / "many"), str(tmp_path / "few"))


def test_signed_names_are_promoted_and_signed_anew(lanes: Lanes) -> None:
    lanes.export("main", archive(SOUND), archive({"more": File(b"x" * 300_000)}))
    report = lanes.promote()
    assert (report.names, report.refused) == (["main"], {})
    assert report.examined.blobs == report.uploaded.blobs == 2
    assert lanes.reader.load("main").records
    assert not lanes.reader.verify(read_data=1.0).faults
    again = lanes.promote()
    assert (again.names, again.unchanged) == (["main"], ["main"])
    assert (again.examined.blobs, again.uploaded.blobs) == (2, 0)


def test_what_no_trusted_key_signed_is_refused(lanes: Lanes) -> None:
    lanes.export("main", archive(SOUND))
    poison = lanes.export("evil", archive({"evil": File(b"evil")}), key=lanes.other)
    report = lanes.promote()
    assert report.names == lanes.names() == ["main"]
    assert "not trusted" in report.refused["evil"] or "not signed" in report.refused["evil"]
    assert poison[0] not in cachefs.open(lanes.few).load("main").blobs()


HOSTILE: dict[str, tuple[bytes, str]] = {}


def hostile(reason: str, *members: tuple[str, bytes, str]) -> bytes:
    """An archive with members of these names, types and targets of links."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    HOSTILE[reason] = target.getvalue(), reason
    return target.getvalue()


hostile("outside", ("../../etc/passwd", tarfile.REGTYPE, ""))
hostile("not a directory", ("a", tarfile.SYMTYPE, "/etc"), ("a/passwd", tarfile.REGTYPE, ""))
hostile("device", ("null", tarfile.CHRTYPE, ""))
hostile("pipe", ("pipe", tarfile.FIFOTYPE, ""))
hostile("hard link", ("passwd", tarfile.LNKTYPE, "/etc/passwd"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused_although_it_is_signed(local: Lanes, name: str) -> None:
    raw, _ = HOSTILE[name]
    local.export("main", archive(SOUND))
    (poison,) = local.export("evil", raw)
    report = local.promote()
    assert report.names == local.names() == ["main"]
    assert str(poison) in report.refused["evil"]
    assert not (Path(local.few) / "blobs" / str(poison)).exists()


def test_a_hostile_layer_that_is_there_already_is_refused_too(local: Lanes) -> None:
    raw, _ = HOSTILE["device"]
    (poison,) = local.export("evil", raw)
    blob = Path(local.few) / "blobs" / str(poison)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(gzip.compress(raw, mtime=0))
    report = local.promote()
    assert not report.names
    assert str(poison) in report.refused["evil"]
    assert not local.names()


def test_what_is_damaged_in_the_target_is_sent_again(local: Lanes) -> None:
    (blob,) = local.export("main", archive(SOUND))
    path = Path(local.few) / "blobs" / str(blob)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * len(gzip.compress(archive(SOUND), mtime=0)))
    report = local.promote()
    assert (report.names, report.uploaded.blobs) == (["main"], 1)
    assert not local.reader.verify(read_data=1.0).faults


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_name_whose_blobs_are_lost_is_refused(local: Lanes, how: str) -> None:
    local.export("main", archive(SOUND))
    (blob,) = local.export("lost", archive({"lost": File(b"lost")}))
    path = Path(local.many) / "blobs" / str(blob)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    report = local.promote()
    assert report.names == ["main"]
    assert str(blob) in report.refused["lost"]


def test_a_wrong_diff_id_is_refused(local: Lanes) -> None:
    local.export("main", archive(SOUND), diff_id="sha256:" + "0" * 64)
    assert "their digest is" in local.promote().refused["main"]


def test_names_that_call_one_layer_by_oci_s_and_docker_s_media_type(local: Lanes) -> None:
    local.export("main", archive(SOUND))
    local.export("dev", archive(SOUND))
    manifest = Path(local.many) / "manifests" / "dev"
    text = manifest.read_text().replace(
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
    manifest.write_text(text)
    cachefs.open(local.many, signing_key=local.ci).sign(["dev"])
    assert local.promote().names == ["dev", "main"]
    manifest.write_text(text.replace("diff.tar.gzip", "diff.tar.zstd"))
    cachefs.open(local.many, signing_key=local.ci).sign(["dev"])
    assert "different things of this layer" in local.promote().refused["dev"]


def test_limits(local: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    local.export("main", archive(SOUND), archive({"more": File(b"more")}))
    assert "more than the limit of 10" in local.promote(max_size=10).refused["main"]
    assert "2 layers" in local.promote(max_layers=1).refused["main"]
    monkeypatch.setattr(promoting, "DEFAULT_LIMITS", limits.Limits(max_entries=1))
    assert "more than 1 entries" in local.promote().refused["main"]
    assert not local.names()


def test_a_name_that_is_written_meanwhile_stays_as_it_is(local: Lanes) -> None:
    local.export("main", archive(SOUND))
    plan = cachefs.plan_promote(local.source, local.target)
    cachefs.copy(cachefs.open(local.many), local.few)  # by somebody else
    written = Path(local.few) / "manifests" / "main"
    written.write_bytes(json.dumps(json.loads(written.read_bytes()), indent=1).encode())
    before = written.read_bytes()
    report = plan.execute()
    assert "written by another" in report.refused["main"]
    assert written.read_bytes() == before


def test_the_manifest_that_was_checked_is_the_one_that_is_published(local: Lanes) -> None:
    local.export("main", archive(SOUND))
    plan = cachefs.plan_promote(local.source, local.target)
    local.export("main", archive({"other": File(b"other")}))  # also signed, but never examined
    (Path(local.many) / "manifests" / "main").unlink()
    assert plan.execute().names == ["main"]
    assert "tool" in [entry.path for entry in cachefs.look_inside(local.few, name="main").entries()]


def test_bytes_never_travel_from_store_to_store(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that copies would copy what nobody has examined."""

    async def copy(*_about: object, **_more: object) -> None:
        raise AssertionError("the store was asked to copy")

    monkeypatch.setattr("cachefs.store.Store.copy", copy)
    lanes.export("main", archive({"large": File(bytes(300_000))}), archive(SOUND))
    assert lanes.promote().names == ["main"]


@pytest.mark.parametrize("lacking", ["signed_by", "signing_key", "another place"])
def test_what_is_missing_is_said_before_anything_is_read(
    local: Lanes, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layout, "read", None)
    source = cachefs.open(local.many) if lacking == "signed_by" else local.source
    target = cachefs.open(local.few) if lacking == "signing_key" else local.target
    if lacking == "another place":
        target = cachefs.open(local.many, signing_key=local.release)
        lacking = "the same blobs"
    with pytest.raises(cachefs.UsageError, match=lacking):
        cachefs.promote(source, target)


def test_the_command(local: Lanes, tmp_path: Path) -> None:
    local.export("main", archive(SOUND))
    local.export("evil", HOSTILE["device"][0])
    words = ("promote", local.many, local.few)
    options = ("--signed-by", public(local.ci), "--key", str(local.release))
    planned = run(*words, *options, "--dry-run")
    assert (planned.status, planned.err) == (0, "")
    assert planned.out.startswith("promote 2 names: evil, main; examine 2 blobs")
    assert not (tmp_path / "few").exists()
    done = run(*words, *options)
    assert done.status == 1
    assert done.err.startswith("not promoted: evil: sha256:")
    assert done.out.startswith("promoted 1 name: main; examined 1 blob")
    report = json.loads(run(*words, *options, "--name", "main", "--json").out)["report"]
    assert (report["names"], report["unchanged"]) == (["main"], ["main"])
    assert "--signed-by" in run(*words, "--key", str(local.release)).err
    assert not reasons_of(local)


def reasons_of(lanes: Lanes) -> str:
    """Why main is a miss for who trusts the release's key; empty if it is a hit."""
    return "" if lanes.reader.load("main").records else reasons(lanes.reader)
