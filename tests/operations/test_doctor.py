"""The doctor: what it says of stores with real faults, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.filesystems.findings import transport
from cachefs.operations.doctor import Speed, examine, speed_finding
from tests import signing
from tests.programs import run as run_program
from tests.programs import start
from tests.servers.plain import PlainFileSystem
from tests.servers.proxy import Predicate, RecordingProxy, Request
from tests.servers.s3 import S3Server
from tests.servers.seaweed import with_rights
from tests.servers.sftp import PASSWORD, USER, sftp

Recording = Callable[[S3Server], RecordingProxy]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])

MOTO = {
    "list": "good",
    "addressing": "good",
    "transport": "good",
    "lifecycle": "good",
    "unfinished uploads": "mind",
    "versions": "good",
    "put": "good",
    "clock": "good",
    "get": "good",
    "touch": "good",
    "delete": "good",
    "conditions": "good",
    "multipart": "good",
    "checksums": "mind",
    "stored checksums": "mind",
    "speed": "good",
}
"""What is said of moto, which stores whatever it gets."""

SEAWEED = MOTO | {"checksums": "good", "stored checksums": "good"}
QUICK = {name: verdict for name, verdict in MOTO.items() if name != "speed"}


def verdicts(found: cachefs.Examination) -> dict[str, str]:
    """The verdict of each check but the speed, which depends on the machine."""
    return {one.check: one.verdict for one in found.findings if one.check != "speed"}


def quick(expected: dict[str, str]) -> dict[str, str]:
    return {check: verdict for check, verdict in expected.items() if check != "speed"}


def text_of(found: cachefs.Examination, check: str) -> str:
    (one,) = [one for one in found.findings if one.check == check]
    return f"{one.found}; {one.advice}"


@pytest.fixture
def proxy(recording: Recording, moto_s3: S3Server) -> RecordingProxy:
    return recording(moto_s3)


@pytest.fixture
def bucket(moto_s3: S3Server) -> str:
    return moto_s3.bucket()


def everything_in(server: S3Server, bucket: str) -> list[str]:
    """Objects, earlier versions, marks of deletion and unfinished uploads."""
    versions = server.client.list_object_versions(Bucket=bucket)
    uploads = server.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    kinds = [*versions.get("Versions", ()), *versions.get("DeleteMarkers", ()), *uploads]
    return [item["Key"] for item in kinds]


# --- stores without a fault -----------------------------------------------------------------------


@ENGINES
def test_seaweed_is_fit_and_left_as_it_was(seaweed_s3: S3Server, engine: str) -> None:
    bucket = seaweed_s3.bucket()
    found = cachefs.open(seaweed_s3.attributes(bucket, engine=engine)).examine()
    assert verdicts(found) == quick(SEAWEED)
    assert found.speed is not None
    assert (found.left, everything_in(seaweed_s3, bucket)) == ([], [])


@ENGINES
def test_moto_is_fit_but_compares_nothing(moto_s3: S3Server, bucket: str, engine: str) -> None:
    found = cachefs.open(moto_s3.attributes(bucket, engine=engine)).examine()
    assert verdicts(found) == QUICK
    assert everything_in(moto_s3, bucket) == []


@ENGINES
def test_a_bucket_with_versions_is_left_as_it_was(
    moto_s3: S3Server, bucket: str, engine: str
) -> None:
    enabled = {"Status": "Enabled"}
    moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=enabled)
    found = cachefs.open(moto_s3.attributes(bucket, engine=engine)).examine()
    assert verdicts(found) == QUICK | {"versions": "mind"}
    assert everything_in(moto_s3, bucket) == []
    noncurrent = {"NoncurrentVersionExpiration": {"NoncurrentDays": 3}}
    set_rules(moto_s3, bucket, {"Filter": {"Prefix": ""}, **noncurrent})
    found = cachefs.open(moto_s3.attributes(bucket, engine=engine)).examine(read_only=True)
    assert verdicts(found)["versions"] == "good"
    assert verdicts(found)["delete"] == "mind"  # to try it would leave a mark
    assert everything_in(moto_s3, bucket) == []


@pytest.mark.parametrize("kind", ["keyed", "oci"])
def test_a_directory_that_does_not_exist_yet(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    place = tmp_path / "new" / "cache"
    location = f"type=local,dest={place}" if kind == "oci" else str(place)
    found = cachefs.open(location).examine()
    expected = {"list", "space", "put", "clock", "get", "touch", "delete", "conditions"}
    assert verdicts(found) == dict.fromkeys(expected, "good")
    assert not (tmp_path / "new").exists()
    with pytest.raises(cachefs.NoCacheError):
        cachefs.open(location).require_exists()


def test_a_cache_stays_as_it_is(recorded: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    cachefs.copy(recorded / "s3" / "max", place)
    before = sorted(place.rglob("*"))
    found = cachefs.open(place).examine()
    assert text_of(found, "list") == "2 names; "
    assert sorted(place.rglob("*")) == before


def test_memory_and_a_filesystem_that_cachefs_does_not_know() -> None:
    plain = cachefs.open("plain/cache", fs=PlainFileSystem()).examine()
    expected = {"list": "good", "put": "good", "get": "good", "delete": "good"}
    # It has no times, and can neither renew nor compare.
    assert verdicts(plain) == expected | {"clock": "bad", "touch": "mind", "conditions": "mind"}
    memory = cachefs.open("memory://doctor/cache/").examine()
    checks = {"list", "put", "clock", "get", "touch", "delete", "conditions"}
    assert verdicts(memory) == dict.fromkeys(checks, "good")


def test_what_is_read_over_http(recorded: Path, tmp_path: Path) -> None:
    cachefs.copy(recorded / "s3" / "max", tmp_path)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split(" port ")[1].split()[0]
            found = cachefs.open(f"http://127.0.0.1:{port}/").examine()
        finally:
            server.kill()
    assert verdicts(found) == {"list": "good", "transport": "good", "get": "good", "put": "mind"}


def test_sftp_accepts_any_key_of_the_server(tmp_path: Path) -> None:
    pytest.importorskip("paramiko", reason="pip install 'buildcachefs[sftp]'")
    with sftp(tmp_path) as port:
        cache = cachefs.open(f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/new/cache/")
        found = cache.examine()
        asked = cache.examine(read_only=True)
    checks = {"list", "put", "clock", "get", "touch", "delete"}
    expected = dict.fromkeys(checks, "good") | {"transport": "mind", "conditions": "mind"}
    assert verdicts(found) == expected
    assert list(tmp_path.iterdir()) == []
    assert (verdicts(asked)["put"], verdicts(asked)["delete"]) == ("mind", "mind")


# --- rights ---------------------------------------------------------------------------------------


def is_list(request: Request) -> bool:
    return request.method == "GET" and "list-type" in request.parameters


def is_get(request: Request) -> bool:
    return request.method == "GET" and not request.query.startswith(_OF_BUCKETS)


_OF_BUCKETS = ("list-type", "versioning", "lifecycle", "uploads", "versions", "prefix")


def is_delete(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" not in request.parameters


def is_put(request: Request) -> bool:
    return request.method == "PUT" or (request.method == "POST" and "uploads" in request.parameters)


def deny(proxy: RecordingProxy, when: Predicate) -> None:
    proxy.inject(status=403, code="AccessDenied", when=when, times=10_000)


DENIED: dict[str, tuple[Predicate, dict[str, str], int]] = {
    "list": (is_list, {"list": "bad"}, 0),
    "get": (is_get, {"get": "bad"}, 0),
    "delete": (is_delete, {"delete": "bad", "conditions": "mind", "left behind": "bad"}, 1),
    "touch": (lambda r: "x-amz-copy-source" in r.headers, {"touch": "bad"}, 0),
    "parts": (lambda r: r.method == "POST" and "uploads" in r.parameters, {"multipart": "bad"}, 0),
    "abort": (
        lambda r: r.method == "DELETE" and "uploadId" in r.parameters,
        {"multipart": "bad"},
        1,
    ),
    "uploads": (lambda r: r.query.startswith("uploads&prefix"), {"multipart": "mind"}, 0),
    "rules": (lambda r: r.query == "lifecycle", {"lifecycle": "mind"}, 0),
    "versioning": (lambda r: r.query == "versioning", {"versions": "mind"}, 0),
}


@ENGINES
@pytest.mark.parametrize("right", list(DENIED))
def test_a_right_that_is_missing(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, right: str, engine: str
) -> None:
    when, changed, left = DENIED[right]
    deny(proxy, when)
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine()
    seen = verdicts(found)
    expected = QUICK | changed
    for check in expected.keys() - seen.keys():
        # What cannot be tried after that is left out.
        assert (right, check) in {
            ("parts", "checksums"),
            ("parts", "stored checksums"),
            ("rules", "unfinished uploads"),
        }
    assert seen == {check: expected[check] for check in seen}
    assert found.worst == ("bad" if "bad" in changed.values() else "mind")
    there = everything_in(moto_s3, bucket)
    assert len(there) == left
    for key in there:
        said = " ".join(one.found for one in found.findings)
        assert key in said


@ENGINES
def test_without_the_right_to_list_amazon_denies_look_ups_of_what_is_absent(
    recording: Recording, seaweed_s3: S3Server, engine: str
) -> None:
    proxy = recording(seaweed_s3)
    bucket = seaweed_s3.bucket()

    def absent(request: Request) -> bool:
        key = request.path.removeprefix(f"/{bucket}/")
        return request.method == "HEAD" and key not in seaweed_s3.keys(bucket)

    deny(proxy, lambda r: is_list(r) or absent(r))
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine()
    assert verdicts(found) == quick(SEAWEED) | {"list": "bad"}
    assert (found.left, everything_in(seaweed_s3, bucket)) == ([], [])


@ENGINES
def test_nothing_is_tried_without_the_right_to_write(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, engine: str
) -> None:
    deny(proxy, is_put)
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine()
    assert verdicts(found)["put"] == "bad"
    assert "s3:PutObject" in text_of(found, "put")
    assert not {"delete", "touch", "conditions", "speed"} & verdicts(found).keys()
    assert (found.left, everything_in(moto_s3, bucket)) == ([], [])


def test_versions_that_may_not_be_deleted(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str
) -> None:
    enabled = {"Status": "Enabled"}
    moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=enabled)
    deny(proxy, lambda r: "versions" in r.parameters or "versionId" in r.parameters)
    found = cachefs.open(proxy.server.attributes(bucket)).examine()
    assert verdicts(found)["delete"] == "good"
    assert verdicts(found)["left behind"] == "mind"
    assert "s3:DeleteObjectVersion" in text_of(found, "left behind")
    assert {f"{bucket}/{key}" for key in everything_in(moto_s3, bucket)} == set(found.left)
    assert len(found.left) == 1
    assert moto_s3.keys(bucket) == []


RIGHTS = {
    "everything": {"list": "good", "put": "good", "delete": "good"},
    "reading": {"list": "good", "put": "bad", "delete": "bad"},
    "writing": {"list": "bad", "put": "good", "delete": "good"},
    # It may not see whether there are versions, so nothing is deleted to find out.
    "listing": {"list": "good", "put": "bad", "delete": "mind"},
}


@ENGINES
@pytest.mark.parametrize("rights", list(RIGHTS))
def test_rights_are_told_without_a_change(
    recording: Recording, seaweed_s3: S3Server, rights: str, engine: str
) -> None:
    bucket = seaweed_s3.bucket()
    seaweed_s3.client.put_object(Bucket=bucket, Key="manifests/app", Body=b"{}")
    proxy = recording(with_rights(seaweed_s3, rights))
    location = proxy.server.attributes(bucket, engine=engine)
    found = verdicts(cachefs.open(location).examine(read_only=True))
    assert {right: found[right] for right in ("list", "put", "delete")} == RIGHTS[rights]
    assert everything_in(seaweed_s3, bucket) == ["manifests/app"]
    assert "conditions" not in found
    for request in proxy.requests:
        if request.method in ("PUT", "POST"):
            assert request.parameters.keys() >= {"uploadId", "partNumber"}


@ENGINES
def test_credentials_that_are_wrong_are_one_finding(seaweed_s3: S3Server, engine: str) -> None:
    location = seaweed_s3.attributes(seaweed_s3.bucket(), engine=engine, secret_access_key="hush")
    found = cachefs.open(location).examine()
    assert verdicts(found) == {"list": "bad"}
    assert "the secret access key is wrong" in text_of(found, "list")


@ENGINES
def test_no_credentials_are_one_finding(seaweed_s3: S3Server, engine: str) -> None:
    location = seaweed_s3.attributes(seaweed_s3.bucket(), engine=engine)
    keys = f",access_key_id={seaweed_s3.access_key_id},secret_access_key="
    found = cachefs.open(location.partition(keys)[0] + f",engine={engine}").examine()
    assert verdicts(found) == {"list": "bad"}
    assert "no credentials were found" in text_of(found, "list")


@ENGINES
def test_nobody_in_particular_may_do_nothing(seaweed_s3: S3Server, engine: str) -> None:
    location = seaweed_s3.attributes(seaweed_s3.bucket(), engine=engine)
    keys = f",access_key_id={seaweed_s3.access_key_id},secret_access_key="
    cache = cachefs.open(f"{location.partition(keys)[0]},engine={engine},anonymous=true")
    for read_only in (False, True):
        assert verdicts(cache.examine(read_only=read_only)) == {"list": "bad"}


@ENGINES
def test_look_ups_that_are_denied_later(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, engine: str
) -> None:
    deny(proxy, lambda r: r.method == "HEAD")
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine()
    seen = verdicts(found)
    assert (seen["put"], seen["clock"], seen["delete"]) == ("good", "bad", "good")
    assert {f"{bucket}/{key}" for key in everything_in(moto_s3, bucket)} == set(found.left)


def test_a_store_that_is_not_there_is_one_finding(moto_s3: S3Server) -> None:
    found = cachefs.open(moto_s3.attributes("no-such-bucket")).examine()
    assert verdicts(found) == {"list": "bad"}
    assert "there is no such bucket" in text_of(found, "list")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A directory that may be read only."""
    place = tmp_path / "locked"
    place.mkdir()
    place.chmod(0o555)
    yield place
    place.chmod(0o755)


@pytest.mark.parametrize("options", [[], ["--read-only"]])
def test_a_directory_without_rights(locked: Path, options: list[str]) -> None:
    program = [sys.executable, "-m", "cachefs", "doctor", str(locked), "--json", *options]
    if os.access(locked, os.W_OK):
        if (setpriv := shutil.which("setpriv")) is None:
            pytest.skip("this user may write everywhere")
        program = [setpriv, "--bounding-set=-all", "--inh-caps=-all", *program]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    found = {one["check"]: one["verdict"] for one in json.loads(ended.stdout)["findings"]}
    assert found["put"] == "bad"
    assert found["list"] == "good"


# --- faults of the store --------------------------------------------------------------------------


@ENGINES
def test_a_server_that_ignores_conditions(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, engine: str
) -> None:
    proxy.drops = frozenset({"if-match", "if-none-match"})
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine()
    assert verdicts(found) == QUICK | {"conditions": "mind"}
    assert everything_in(moto_s3, bucket) == []


@pytest.mark.parametrize(
    ("behind", "verdict"), [(0, "good"), (30, "good"), (200, "mind"), (1000, "bad"), (-1000, "bad")]
)
def test_a_clock_that_is_wrong(tmp_path: Path, behind: float, verdict: str) -> None:
    layout = cachefs.open(tmp_path).layout
    found = run(examine(layout, clock=lambda: time.time() - behind))
    assert verdicts(found)["clock"] == verdict


@ENGINES
def test_a_bucket_that_anyone_may_write(
    recording: Recording, seaweed_s3: S3Server, engine: str
) -> None:
    proxy = recording(seaweed_s3)
    unsigned: Predicate = lambda r: "authorization" not in r.headers  # noqa: E731 - it reads well
    proxy.inject(status=404, code="NoSuchUpload", when=unsigned, times=99)
    bucket = seaweed_s3.bucket()
    found = cachefs.open(proxy.server.attributes(bucket, engine=engine)).examine(read_only=True)
    assert verdicts(found)["others"] == "bad"
    assert proxy.count(when=unsigned) == 1


def set_rules(server: S3Server, bucket: str, *rules: dict[str, Any]) -> None:
    numbered = [{"ID": f"r{i}", "Status": "Enabled", **rule} for i, rule in enumerate(rules)]
    configuration = {"Rules": numbered}
    server.client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration=configuration
    )


@ENGINES
@pytest.mark.parametrize("kind", ["moto_s3", "seaweed_s3"])
def test_rules_of_the_bucket_that_break_a_cache(
    request: pytest.FixtureRequest, kind: str, engine: str
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    bucket = server.bucket()
    abort = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    blobs = {"Filter": {"Prefix": "ci/blobs/"}, "Expiration": {"Days": 7}}
    set_rules(server, bucket, {"Filter": {"Prefix": "ci/"}, **abort}, blobs)
    cache = cachefs.open(server.attributes(bucket, engine=engine, prefix="ci/"))
    found = cache.examine(read_only=True)
    assert verdicts(found)["lifecycle"] == "bad"
    assert verdicts(found)["unfinished uploads"] == "good"
    assert "rule r1 deletes blobs after 7 days" in text_of(found, "lifecycle")
    other = cachefs.open(server.attributes(bucket, engine=engine, prefix="other/"))
    assert verdicts(other.examine(read_only=True))["lifecycle"] == "good"


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://s3.eu-west-3.amazonaws.com", "good"),
        ("http://127.0.0.1:9000", "good"),
        ("http://[::1]:9000", "good"),
        ("http://localhost:9000", "good"),
        ("http://minio:9000", "mind"),
        ("http://192.168.1.7", "mind"),
        ("http://minio.example.org", "bad"),
        ("http://8.8.8.8", "bad"),
    ],
)
def test_transport_without_tls(url: str, verdict: str) -> None:
    assert transport(url).verdict == verdict


@pytest.mark.parametrize(
    ("trip", "up", "verdict"), [(0.01, 9e7, "good"), (0.3, 9e7, "mind"), (0.01, 9e4, "mind")]
)
def test_what_a_speed_means(trip: float, up: float, verdict: str) -> None:
    assert speed_finding(Speed(round_trip=trip, up=up, down=9e7)).verdict == verdict


def test_a_directory_that_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    found = cachefs.open(tmp_path / "cache").examine(read_only=True)
    assert verdicts(found)["others"] == "mind"
    assert str(tmp_path) in text_of(found, "others")


# --- the program ----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    ended = run_program("doctor", str(tmp_path / "cache"))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("verdict  check")
    assert ended.out.splitlines()[-1].endswith(" 0 bad")
    document = json.loads(run_program("doctor", str(tmp_path / "cache"), "--json").out)
    assert document.keys() == {"findings", "left", "speed", "seconds"}
    assert document["speed"].keys() == {"round_trip", "up", "down"}
    assert document["findings"][0].keys() == {"check", "verdict", "found", "advice"}


def test_the_command_fails_if_something_is_bad(moto_s3: S3Server) -> None:
    ended = run_program("doctor", moto_s3.attributes("no-such-bucket"))
    assert ended.status == 1
    assert "bad      list" in ended.out


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("s3fs", signal.SIGINT),
        ("obstore", signal.SIGINT),
        ("s3fs", signal.SIGTERM),
        ("obstore", signal.SIGHUP),
    ],
)
def test_an_interrupted_examination_leaves_nothing(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, number: int, engine: str
) -> None:
    for nth in (3, 8):
        programs: list[subprocess.Popen[str]] = []
        changes = 0

        def changing(request: Request) -> bool:
            nonlocal changes
            changes += request.method in ("PUT", "POST") and "uploadId" not in request.query
            return changes == nth  # noqa: B023 - it is called in this turn

        proxy.inject(
            when=changing,
            act=lambda: programs[0].send_signal(number),  # noqa: B023 - as above
            delay=0.3,
        )
        programs.append(start("doctor", proxy.server.attributes(bucket, engine=engine)))
        with programs[0] as program:
            _, err = program.communicate(timeout=60)
        assert (program.returncode, err) == (130, "cachefs: interrupted\n")
        assert everything_in(moto_s3, bucket) == []


def test_what_a_killed_examination_leaves_is_pruned(
    proxy: RecordingProxy, moto_s3: S3Server, bucket: str, recorded: Path
) -> None:
    location = proxy.server.attributes(bucket)
    cachefs.copy(recorded / "s3" / "max", location)
    before = moto_s3.keys(bucket)
    programs: list[subprocess.Popen[str]] = []
    proxy.inject(
        when=lambda r: "x-amz-copy-source" in r.headers,
        act=lambda: programs[0].send_signal(signal.SIGKILL),
        delay=0.3,
    )
    programs.append(start("doctor", location))
    with programs[0] as program:
        program.communicate(timeout=60)
    left = set(moto_s3.keys(bucket)) - set(before)
    assert len(left) == 1
    cache = cachefs.open(location)
    assert cache.verify().faults == []
    assert cache.prune(grace=0).leftovers == 1
    assert moto_s3.keys(bucket) == before


def test_who_reads_unsigned_what_others_may_write_is_told(tmp_path: Path) -> None:
    (key,) = signing.keys(tmp_path, "ci")
    place = tmp_path / "cache"
    signing.export(cachefs.open(place), "main")
    assert "signatures" not in verdicts(cachefs.open(place).examine(read_only=True))
    (place / "blobs").chmod(0o777)
    found = cachefs.open(place).examine(read_only=True)
    assert text_of(found, "signatures").startswith("others may write here, but")
    (place / "blobs").chmod(0o755)
    cachefs.open(place, signing_key=key).sign()
    found = cachefs.open(place).examine(read_only=True)
    assert text_of(found, "signatures").startswith("names here are signed, but")
    trusting = cachefs.open(place, signed_by=[signing.public(key)]).examine(read_only=True)
    assert verdicts(trusting)["signatures"] == "good"
