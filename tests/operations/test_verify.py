"""Verify finds exactly what was damaged, on every kind of store, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.operations.verify import rotation, sampled
from tests.damaging import MakePlace, Place, damage_some, delete, flip, lengthen, truncate
from tests.programs import run as run_program
from tests.servers.s3 import S3Server

KINDS = ["keyed", "oci", "s3"]
EXPECTED = {"delete": "missing", "truncate": "damaged", "lengthen": "damaged", "flip": "damaged"}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, make_place: MakePlace) -> Place:
    return make_place(request.param)


def found(report: cachefs.VerifyReport) -> set[tuple[str, tuple[str, ...], str | None]]:
    return {(fault.kind, tuple(fault.names), fault.digest) for fault in report.faults}


def test_a_whole_cache_has_no_faults(place: Place) -> None:
    before = dict(place.objects)
    needs = place.needs()
    report = place.cache.verify(read_data=1.0)
    assert report.faults == []
    assert report.names == sorted(needs)
    sizes = {digest: size for blobs in needs.values() for digest, size in blobs.items()}
    assert (report.blobs.blobs, report.blobs.bytes) == (len(sizes), sum(sizes.values()))
    assert report.read.blobs == sum("sha256" in key for key in before)
    assert dict(place.objects) == before


@pytest.mark.parametrize("seed", range(2))
def test_all_faults_are_found_and_nothing_else(place: Place, seed: int) -> None:
    needs = place.needs()
    done = damage_some(place, seed)
    before = dict(place.objects)
    expected = {
        (EXPECTED[damage], tuple(sorted(n for n in needs if digest in needs[n])), digest)
        for digest, damage in done.items()
    }
    assert found(place.cache.verify(read_data=1.0)) == expected
    # Only the flipped bit does not change a size.
    seen = {fault for fault in expected if done[str(fault[2])] != "flip"}
    assert found(place.cache.verify()) == seen
    only = {(kind, ("app",), digest) for kind, names, digest in seen if "app" in names}
    assert found(place.cache.verify("app")) == only
    assert dict(place.objects) == before


def test_a_fault_says_what_where_and_how_much(place: Place) -> None:
    digest, size = next(iter(place.needs()["app"].items()))
    truncate(place.objects, place.blob_key(digest))
    (fault,) = place.cache.verify().faults
    assert fault.key.endswith(place.blob_key(digest))
    assert (fault.stated, fault.stored) == (size, size - 1)
    assert fault.reason == f"it has {size - 1} bytes, but the manifest of app states {size}"
    assert json.loads(json.dumps(fault.reason))


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b'{"layers":[{"blob":"sha256:0","parent":0}]}', b"\xff\x00"]
)
def test_a_broken_manifest_is_one_fault_among_the_others(place: Place, garbage: bytes) -> None:
    needs = place.needs()
    place.objects[place.manifest_key("app-v2")] = garbage
    lost = next(iter(needs["app"]))
    delete(place.objects, place.blob_key(lost))
    broken, missing = place.cache.verify(read_data=1.0).faults
    assert (broken.kind, broken.names) == ("manifest", ["app-v2"])
    assert broken.key.endswith(place.manifest_key("app-v2"))
    assert (missing.kind, missing.names, missing.digest) == ("missing", ["app"], lost)


def test_a_name_that_is_not_there_is_a_fault(place: Place) -> None:
    (fault,) = place.cache.verify("nobody").faults
    assert (fault.kind, fault.names) == ("manifest", ["nobody"])


def test_an_unreadable_index_is_a_fault(make_place: MakePlace) -> None:
    place = make_place("oci")
    place.objects["index.json"] = b"{"
    report = place.cache.verify(read_data=1.0)
    (fault,) = report.faults
    assert (fault.kind, fault.names) == ("manifest", [])
    assert report.read.blobs


def test_a_size_that_only_the_manifest_has_wrong_is_told_apart(make_place: MakePlace) -> None:
    place = make_place("keyed")
    key = place.manifest_key("app")
    digest, size = next(iter(place.needs()["app"].items()))
    config = json.loads(place.objects[key])
    for layer in config["layers"]:
        if layer["blob"] == digest:
            layer["annotations"]["size"] = size + 1
    place.objects[key] = json.dumps(config).encode()
    (fault,) = place.cache.verify().faults
    assert (fault.kind, fault.names, fault.digest) == ("size", ["app"], digest)
    assert (fault.stated, fault.stored) == (size + 1, size)


def test_blobs_that_no_name_needs_are_read_too(make_place: MakePlace) -> None:
    place = make_place("keyed")
    orphan = str(cachefs.Digest.of(b"orphan"))
    place.objects[place.blob_key(orphan)] = b"0rphan"
    assert place.cache.verify().faults == []
    assert found(place.cache.verify(read_data=1.0)) == {("damaged", (), orphan)}
    assert place.cache.verify(["app", "app-v2"], read_data=1.0).faults == []


def test_a_store_that_cannot_be_asked_is_an_error(moto_s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(cachefs.StoreError):
        cachefs.open(moto_s3.attributes("no-such-bucket")).verify()
    with pytest.raises(cachefs.NoCacheError):
        cachefs.open(tmp_path / "nothing").verify(read_data=1.0)
    (tmp_path / "blobs").mkdir()
    assert cachefs.open(tmp_path).verify(read_data=1.0).names == []


def test_samples_add_up_to_everything(make_place: MakePlace) -> None:
    place = make_place("keyed")
    for number in range(200):
        data = f"blob {number}".encode()
        place.objects[place.blob_key(cachefs.Digest.of(data))] = data
    digests = sorted(digest for digest in place.objects if "sha256" in digest)
    reads = [place.cache.verify(read_data=0.1, start=part / 10).read.blobs for part in range(10)]
    assert sum(reads) == len(digests)
    assert max(reads) < 2 * len(digests) / 10
    around = place.cache.verify(read_data=0.5, start=0.75).read.blobs
    middle = place.cache.verify(read_data=0.5, start=0.25).read.blobs
    assert around + middle == len(digests)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**256 - 1))
def test_a_blob_is_in_the_sample_or_in_the_rest(share: float, start: float, number: int) -> None:
    digest = cachefs.Digest.from_hex(f"{number:064x}")
    position = number / 2**256
    held = [part.holds(digest) for part in sampled(share, start)]
    assert sum(held) <= 1
    inside = (position - start) % 1.0
    if 1e-6 < inside < share - 1e-6:
        assert any(held)
    if share + 1e-6 < inside < 1 - 1e-6:
        assert not any(held)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 1 / 7, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("every", [1, 2, 5, 7, 30])
def test_regular_runs_come_everywhere(share: float, every: int) -> None:
    """By a run a day the last gap closes when it should; by rarer ones, at last."""
    unread = [(position + 0.5) / 1000 for position in range(1000)]
    runs = 0
    while unread:
        start = rotation(share, 1_800_000_000 + runs * every * 86_400.0)
        unread = [position for position in unread if (position - start) % 1.0 >= share]
        runs += 1
        assert runs <= (1.2 / share + 2 if every == 1 else 8 / share + 100)


def test_shares_out_of_range_are_refused(tmp_path: Path) -> None:
    for share, start in ((-0.1, None), (1.1, None), (0.5, -0.1), (0.5, 2.0), (float("nan"), None)):
        with pytest.raises(cachefs.UsageError):
            cachefs.open(tmp_path).verify(read_data=share, start=start)


def test_the_command(make_place: MakePlace) -> None:
    place = make_place("keyed")
    clean = run_program("verify", place.location, "--read-data")
    assert (clean.status, clean.err) == (0, "")
    assert clean.out.endswith("0 faults\n")
    digest = next(iter(place.needs()["app"]))
    flip(place.objects, place.blob_key(digest))
    assert run_program("verify", place.location).status == 0
    faulty = run_program("verify", place.location, "--read-data")
    assert faulty.status == 1
    assert digest in faulty.out
    document = run_program("verify", place.location, "--read-data=100%", "--json")
    assert document.status == 1
    assert [fault["digest"] for fault in json.loads(document.out)["faults"]] == [digest]
    lengthen(place.objects, place.blob_key(digest))
    assert run_program("verify", place.location, "--name", "app").status == 1
    wrong = run_program("verify", "--read-data", place.location)
    assert wrong.status == 2
    assert "--read-data last" in wrong.err


@pytest.mark.parametrize("prefix", ["", "app/", "app"])
def test_another_blobs_prefix_is_suggested(
    recorded: Path, moto_s3: S3Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    location = moto_s3.attributes(moto_s3.bucket(), **({"prefix": prefix} if prefix else {}))
    cachefs.copy(recorded / "s3" / "max", location)
    report = cachefs.open(f"{location},blobs_prefix=blob/").verify()
    assert {fault.kind for fault in report.faults} == {"missing"}
    assert "give blobs_prefix=blobs/" in caplog.text
    caplog.clear()
    cachefs.open(location).verify()
    assert "blobs_prefix" not in caplog.text
