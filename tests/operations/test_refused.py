"""Manifests that builders write, or that cachefs wrote, and that builders refuse to import."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

import cachefs
from cachefs.testing import random_graph
from cachefs.wire import codec
from tests.programs import run

BUILDERS = Path(__file__).parents[1] / "data" / "builders"
REASON = "record 16 has an input without alternatives; left out: 10 of 44 records"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A cache with the manifest that a builder wrote, over blobs of random bytes."""
    manifest = json.loads((BUILDERS / "null-input/manifests/app").read_bytes())
    (tmp_path / "blobs").mkdir()
    (tmp_path / "manifests").mkdir()
    contents = {}
    for index, layer in enumerate(manifest["layers"]):
        data = contents.setdefault(layer["blob"], gzip.compress(b"layer %d" % index, mtime=0))
        layer["blob"] = digest_of(data)
        layer["annotations"]["size"] = len(data)
        (tmp_path / "blobs" / layer["blob"]).write_bytes(data)
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    assert b"null" in raw
    (tmp_path / "manifests/app").write_bytes(raw)
    return tmp_path


def archive(text: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(text))
    return file.getvalue()


def graph_without_diff_ids(*blobs: bytes) -> cachefs.RecordGraph:
    graph = cachefs.RecordGraph()
    for number, blob in enumerate(blobs):
        layer = graph.add_layer(digest_of(blob), size=len(blob))
        graph.add_result(graph.add(cachefs.output_key(digest_of(blob), number)), layer)
    return graph


def write_without_diff_ids(folder: Path, *blobs: bytes, name: str = "app") -> None:
    """As an older version of cachefs exported it."""
    for blob in blobs:
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "blobs" / digest_of(blob)).write_bytes(blob)
    (folder / "manifests").mkdir(exist_ok=True)
    raw = codec.encode(graph_without_diff_ids(*blobs).to_config())
    (folder / "manifests" / name).write_bytes(raw)


# --- an input that nothing satisfies -------------------------------------------------------------


def test_verify_tells_what_builders_refuse_from_what_is_damaged(place: Path) -> None:
    (fault,) = cachefs.open(place).verify(read_data=1).faults
    assert (fault.kind, fault.names) == ("refused", ["app"])
    assert fault.key.endswith("/manifests/app")
    assert fault.reason == f"builders refuse it: {REASON}"
    text = run("verify", str(place))
    assert (text.status, "refused" in text.out) == (1, True)
    told = json.loads(run("verify", "--json", str(place)).out)
    assert [fault["kind"] for fault in told["faults"]] == ["refused"]


def test_repair_leaves_out_what_builders_refuse(place: Path) -> None:
    cache = cachefs.open(place)
    plan = cache.plan_repair()
    assert [(p.name, p.left_out) for p in plan.publish] == [("app", REASON)]
    assert plan.leave == []
    assert plan.execute().rewritten == ["app"]
    raw = (place / "manifests/app").read_bytes()
    assert len(codec.decode(raw).records) == 34
    assert cache.verify(read_data=1).faults == []
    assert cache.plan_repair().is_empty


def test_prune_takes_its_blobs_for_needed(place: Path) -> None:
    orphan = b"nobody needs this"
    (place / "blobs" / digest_of(orphan)).write_bytes(orphan)
    before = (place / "manifests/app").read_bytes()
    report = cachefs.open(place).prune(grace=0)
    assert (report.deleted.blobs, report.removed) == (1, [])
    assert (place / "manifests/app").read_bytes() == before
    assert {fault.kind for fault in cachefs.open(place).verify(read_data=1).faults} == {"refused"}


@pytest.mark.parametrize("target", ["keyed", "oci"])
def test_a_copy_mends_in_flight(place: Path, tmp_path: Path, target: str) -> None:
    location = f"type=local,dest={tmp_path / 'to'}" if target == "oci" else tmp_path / "to"
    plan = cachefs.plan_copy(place, location, repair=True)
    assert plan.refused == {"app": REASON}
    plan.execute()
    copied = cachefs.open(location)
    assert copied.verify(read_data=1).faults == []
    assert len(copied.load("app").records) == 34
    assert copied.load("app").blobs().keys() < cachefs.open(place).load("app").blobs().keys()


def test_a_copy_that_does_not_mend_says_so(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cachefs"):
        cachefs.copy(place, tmp_path / "to")
    assert "copy with --repair" in caplog.text
    raw = (place / "manifests/app").read_bytes()
    assert (tmp_path / "to/manifests/app").read_bytes() == raw
    done = run("copy", "--repair", str(place), str(tmp_path / "mended"))
    assert (done.status, cachefs.open(tmp_path / "mended").verify().faults) == (0, [])


def test_what_links_a_record_of_one_build_only_is_told_and_mended(tmp_path: Path) -> None:
    """BuildKit's importer ignores such a record, and then refuses the manifest for the link."""
    graph = cachefs.RecordGraph()
    of_one_build, source = graph.add("random:1"), graph.add(digest_of(b"source"))
    graph.add(digest_of(b"either"), [[cachefs.Key(of_one_build), cachefs.Key(source)]])
    graph.add(digest_of(b"only"), [[cachefs.Key(of_one_build)]])
    (tmp_path / "manifests").mkdir()
    path = tmp_path / "manifests/app"
    path.write_bytes(codec.encode(graph.to_config()))
    cache = cachefs.open(tmp_path)
    (fault,) = cache.verify().faults
    assert (fault.kind, fault.names) == ("refused", ["app"])
    assert fault.reason.endswith(
        "links a record that is good for one build only; left out: 2 of 4 records"
    )
    assert cachefs.plan_copy(tmp_path, tmp_path / "to").refused.keys() == {"app"}
    assert cache.repair().rewritten == ["app"]
    digests = {record.digest for record in codec.decode(path.read_bytes()).records}
    assert digests == {digest_of(b"source"), digest_of(b"either")}
    assert cache.verify().faults == []


def test_a_record_of_one_build_only_that_nothing_links_is_let_be(tmp_path: Path) -> None:
    """Builders ignore it, too."""
    graph = cachefs.RecordGraph()
    graph.add("random:1")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/app").write_bytes(codec.encode(graph.to_config()))
    assert cachefs.open(tmp_path).verify().faults == []
    assert len(cachefs.open(tmp_path).load("app").records) == 1


def test_whatever_else_reads_it_goes_on(place: Path, tmp_path: Path) -> None:
    cache = cachefs.open(place)
    (summary,) = cache.summaries()
    assert (summary.fault, summary.refusal, summary.records) == (None, REASON, 34)
    assert cache.describe("app").refusal == REASON
    assert cache.usage().names[0].fault is None
    assert cache.usage().missing.blobs == 0
    assert cache.draw("app")
    assert cache.diff(place).records.gained == []
    graph = cache.load("app")
    assert all(graph.find(record.digest) for record in graph.records if not record.inputs)
    other = random_graph(1, records=3)
    cachefs.open(tmp_path / "other").export(other.graph, other.blobs, "main")
    cachefs.merge([place, tmp_path / "other"], tmp_path / "union", ["all"])
    assert cachefs.open(tmp_path / "union").verify(read_data=1).faults == []
    for command in ("ls", "show", "du"):
        done = run(command, str(place))
        assert done.status == 0, done.err
    assert REASON in run("show", str(place)).out


@pytest.mark.parametrize("inputs", ["[[]]", '[[{"link":0}],[]]', "[null,[]]", "[[null]]", "null"])
def test_what_no_builder_writes_is_invalid(inputs: str) -> None:
    raw = b'{"records":[{"digest":"a"},{"digest":"b","inputs":%s}]}' % inputs.encode()
    with pytest.raises(cachefs.ManifestError):
        codec.decode_written(raw)


def test_a_manifest_with_null_that_is_invalid_otherwise_is_refused() -> None:
    raw = b'{"records":[{"digest":"a","inputs":[null,[{"link":7}]]}]}'
    with pytest.raises(cachefs.ManifestError, match="record 0 links 7"):
        codec.decode_written(raw)


# --- layers without a diffID ---------------------------------------------------------------------

ARCHIVES = [archive(name) for name in ("plain", "gzipped", "zstd")]
BLOBS = [
    ARCHIVES[0],
    gzip.compress(ARCHIVES[1], mtime=0),
    zstandard.compress(ARCHIVES[2] * 40_000),
]
DIFF_IDS = {
    digest_of(BLOBS[0]): digest_of(ARCHIVES[0]),
    digest_of(BLOBS[1]): digest_of(ARCHIVES[1]),
    digest_of(BLOBS[2]): digest_of(ARCHIVES[2] * 40_000),
}


def diff_ids(location: Any, name: str = "app") -> dict[str, str]:
    return {
        layer.blob: layer.diff_id for layer in cachefs.open(location).manifest(name).config.layers
    }


def test_an_export_works_out_diff_ids(tmp_path: Path) -> None:
    """Of blobs that are sent, alone or in batches, and of those that the cache has already."""
    graph = graph_without_diff_ids(*BLOBS)
    large = gzip.compress(random.Random(1).randbytes(1000), mtime=0)  # noqa: S311 - no secret
    for source in ({digest_of(b): b for b in BLOBS}, {}):
        cachefs.open(tmp_path).export(graph, source, "app", mode="max")
        assert diff_ids(tmp_path) == DIFF_IDS
    file = tmp_path / "layer"
    file.write_bytes(large * 500)
    graph = cachefs.RecordGraph()
    blob = digest_of(large * 500)
    graph.add_result(graph.add("a"), graph.add_layer(blob, size=file.stat().st_size))
    assert file.stat().st_size > 128 * 1024
    cachefs.open(tmp_path).export(graph, {blob: file}, "large")
    assert diff_ids(tmp_path, "large") == {blob: digest_of(gzip.decompress(large * 500))}


def test_a_blob_that_cannot_be_decompressed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blob = b"\x1f\x8b damaged before it was stored"
    with caplog.at_level(logging.WARNING, "cachefs"):
        cachefs.open(tmp_path).export(graph_without_diff_ids(blob), {digest_of(blob): blob}, "app")
    assert "builders will refuse to import app: 1 layer without a diffID" in caplog.text
    (fault,) = cachefs.open(tmp_path).verify().faults
    assert (fault.kind, "layer 0 has no diffID" in fault.reason) == ("refused", True)
    plan = cachefs.open(tmp_path).plan_repair()
    assert (plan.is_empty, [fault.kind for fault in plan.leave]) == (True, ["refused"])


def test_repair_copy_and_merge_work_out_diff_ids(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_without_diff_ids(source, *BLOBS)
    assert [fault.kind for fault in cachefs.open(source).verify().faults] == ["refused"]
    cachefs.copy(source, tmp_path / "as it is")
    assert set(diff_ids(tmp_path / "as it is").values()) == {""}
    for _ in range(2):
        cachefs.copy(source, tmp_path / "mended", repair=True)
        assert diff_ids(tmp_path / "mended") == DIFF_IDS
    cachefs.merge([source], tmp_path / "union", ["all"])
    assert diff_ids(tmp_path / "union", "all") == DIFF_IDS
    cachefs.merge([cachefs.open(source).with_names("app")], source, ["all"])
    assert diff_ids(source, "all") == DIFF_IDS
    report = cachefs.open(source).repair()
    assert (report.rewritten, report.left) == (["app"], {})
    assert diff_ids(source) == DIFF_IDS
    assert cachefs.open(source).verify(read_data=1).faults == []


def test_a_diff_id_that_one_of_the_merged_knows_is_kept() -> None:
    known, unknown = cachefs.RecordGraph(), cachefs.RecordGraph()
    for graph, diff_id, when in ((known, digest_of(b"x"), "2025"), (unknown, "", "2026")):
        blob = digest_of(b"blob")
        graph.add_layer(blob, diff_id=diff_id, created_at=f"{when}-01-01T00:00:00Z")
    for order in ([known, unknown], [unknown, known]):
        (layer,) = cachefs.RecordGraph.union(order).layers
        assert layer.diff_id == digest_of(b"x")
