"""What requests to S3 carry, for both engines: credentials, parameters, and nothing elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec.config
import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.filesystems.base import Stat
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.s3.options import conf
from cachefs.location.parsing import parse
from cachefs.store import Store
from cachefs.testing.checks import MIB, chunks_of, noise
from tests.servers.observing import Observer, observing
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    with observing(tmp_path) as observer:
        yield observer


def opened(observer: Observer, engine: str, **more: Any) -> Store:
    """A store in the bucket ``builds`` of the observer."""
    text = f"type=s3,bucket=builds,region=r,endpoint_url={observer.url},use_path_style=true"
    filesystem, root = connect(parse(f"{text},retry_max_attempts=1,engine={engine}", **more))
    return Store(filesystem, f"{root}ci/")


# --- parameters ----------------------------------------------------------------------------------

KEY = "arn:aws:kms:eu-west-3:123456789012:key/k"
OWNER = "bucket-owner-full-control"
EXPECTED = {
    "x-amz-acl": OWNER,
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": KEY,
    "x-amz-storage-class": "STANDARD_IA",
}
IN_S3FS_WORDS: dict[str, Any] = {
    "s3_additional_kwargs": {
        "ACL": OWNER,
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": KEY,
        "StorageClass": "STANDARD_IA",
    },
    "requester_pays": True,
}
AS_ATTRIBUTES = (
    f"acl={OWNER},server_side_encryption=aws:kms,sse_kms_key_id={KEY},"
    "storage_class=STANDARD_IA,requester_pays=true"
)


def written(request: Any) -> bool:
    """Whether the request begins an object: a PUT that is no part, or the begin of an upload."""
    return (request.method == "PUT" and "uploadId" not in request.query) or (
        request.method == "POST" and request.query in ("uploads", "uploads=")
    )


@ENGINES
@pytest.mark.parametrize("said", ["attributes", "keywords", "storage_options", "fsspec"])
def test_parameters_go_with_the_requests_that_have_them(
    said: str,
    engine: str,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = recording(moto_s3)
    text = proxy.server.attributes(moto_s3.bucket(), engine=engine)
    keywords: dict[str, Any] = {}
    if said == "attributes":
        text += f",{AS_ATTRIBUTES}"
    elif said == "keywords":
        keywords = dict(pair.split("=", 1) for pair in AS_ATTRIBUTES.split(","))
        keywords["requester_pays"] = True
    elif said == "storage_options":
        keywords = {"storage_options": IN_S3FS_WORDS}
    else:
        # As fsspec reads them from an INI file: all is text.
        additional = json.dumps(IN_S3FS_WORDS["s3_additional_kwargs"])
        own = {"s3_additional_kwargs": additional, "requester_pays": "true"}
        monkeypatch.setitem(conf, "s3", own)
    filesystem, root = connect(parse(text, **keywords))
    store = Store(filesystem, root)
    data = noise(17 * MIB)
    run(store.upload("large", chunks_of(data), len(data)))
    run(store.put("small", b"1"))
    run(store.put_batch([("batch", b"1")]))
    run(store.touch_batch([Stat("small", 1, 0.0)]))
    assert run(store.read("small", 1)) == b"1"
    run(store.list(""))
    beginning = [request for request in proxy.requests if written(request)]
    assert len(beginning) == 4
    for request in beginning:
        assert EXPECTED.items() <= request.headers.items(), request
    for request in proxy.requests:
        assert request.headers.get("x-amz-request-payer") == "requester", request
        if request not in beginning:
            assert not EXPECTED.keys() & request.headers.keys(), request
            assert "x-amz-copy-source" not in request.headers


SSE = "x-amz-server-side-encryption"


@ENGINES
@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        ({"ServerSideEncryption": "AES256"}, {SSE: "AES256"}),
        ({"ServerSideEncryption": "aws:kms:dsse"}, {SSE: "aws:kms:dsse"}),
        (
            {"ServerSideEncryption": "aws:kms", "BucketKeyEnabled": True},
            {SSE: "aws:kms", f"{SSE}-bucket-key-enabled": "true"},
        ),
    ],
)
def test_each_kind_of_encryption(
    engine: str, parameters: dict[str, Any], headers: dict[str, str], observer: Observer
) -> None:
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    store = opened(observer, engine, **keys, storage_options={"s3_additional_kwargs": parameters})
    run(store.put("x", b"1"))
    (request,) = observer.requests
    sent = {name: text for name, text in request.headers.items() if name.startswith(SSE)}
    # Older releases of botocore write True; S3 accepts both.
    assert {name: text.replace("True", "true") for name, text in sent.items()} == headers


@ENGINES
def test_nothing_is_added_if_nothing_was_said(engine: str, observer: Observer) -> None:
    store = opened(observer, engine, access_key_id="a", secret_access_key="b")
    run(store.put("small", b"1"))
    (request,) = observer.requests
    sent = {name for name in request.headers if name.startswith("x-amz-")}
    assert sent <= {"x-amz-date", "x-amz-content-sha256", "x-amz-checksum-sha256"}


def test_what_obstore_cannot_send_is_refused_before_any_request(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"s3_additional_kwargs": {"Tagging": "a=b"}}
    with pytest.raises(cachefs.LocationError, match="engine=obstore cannot send Tagging"):
        opened(observer, "obstore", storage_options=more)
    with pytest.raises(cachefs.LocationError, match="does not have the option version_aware"):
        opened(observer, "obstore", storage_options={"version_aware": True})
    monkeypatch.setenv("AWS_SSE_KMS_KEY_ID", "key")
    with pytest.raises(cachefs.LocationError, match="obstore reads AWS_SSE_KMS_KEY_ID"):
        opened(observer, "obstore")
    assert observer.requests == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key": "hush"}, "key and secret for S3 belong together"),
        ({"client_kwargs": "hush"}, "client_kwargs for S3 is not a mapping"),
        ({"anon": "hush"}, "anon for S3 is not a boolean"),
        ({"config_kwargs": {"hush_hush": 1}}, "the configuration for S3 is not valid"),
    ],
)
@ENGINES
def test_options_that_are_not_valid(
    engine: str, options: dict[str, Any], reason: str, observer: Observer
) -> None:
    with pytest.raises(cachefs.LocationError, match=reason):
        opened(observer, engine, storage_options=options)


# --- credentials ---------------------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("said", ["attribute", "storage_options", "unsigned", "fsspec"])
def test_anonymous_requests_are_not_signed(
    engine: str, said: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore import UNSIGNED

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    more: dict[str, Any] = {
        "attribute": {"anonymous": True},
        "storage_options": {"storage_options": {"anon": True}},
        "unsigned": {"storage_options": {"config_kwargs": {"signature_version": UNSIGNED}}},
        "fsspec": {},
    }[said]
    if said == "fsspec":
        monkeypatch.setitem(conf, "s3", {"anon": "true"})
    store = opened(observer, engine, **more)
    assert run(store.list("")) == []
    run(store.stat("x"))
    assert len(observer.requests) == 2
    assert {request.access_key for request in observer.requests} == {None}
    assert not [r for r in observer.requests if "x-amz-security-token" in r.headers]


@ENGINES
def test_credentials_of_fsspec_and_of_storage_options(
    engine: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(conf, "s3", {"key": "of-fsspec", "secret": "s", "token": "t"})
    run(opened(observer, engine).list(""))
    own = {"username": "own", "password": "s"}
    run(opened(observer, engine, storage_options=own).list(""))
    assert [request.access_key for request in observer.requests] == ["of-fsspec", "own"]
    tokens = [request.headers.get("x-amz-security-token") for request in observer.requests]
    assert tokens == ["t", None]  # a token belongs to its key


def test_a_session_of_the_callers_own(observer: Observer) -> None:
    from aiobotocore.session import AioSession

    session = AioSession()
    session.set_credentials("own", "secret")
    run(opened(observer, "s3fs", storage_options={"session": session}).list(""))
    assert [request.access_key for request in observer.requests] == ["own"]
    with pytest.raises(cachefs.LocationError, match="does not have the option session"):
        opened(observer, "obstore", storage_options={"session": session})


def test_fsspec_is_configured_in_one_place() -> None:
    assert conf is fsspec.config.conf


@ENGINES
def test_a_file_of_credentials_that_is_written_again_is_read_again(
    engine: str, observer: Observer, nobodys_home: Path
) -> None:
    file = nobodys_home / ".aws" / "credentials"
    file.parent.mkdir()

    def write(key: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")
        new.replace(file)

    write("first")
    store = opened(observer, engine)
    run(store.list(""))
    write("second")
    _until_asked_again()
    run(store.list(""))
    file.write_text("")  # a program is about to write it
    _until_asked_again()
    run(store.list(""))
    assert [r.access_key for r in observer.requests] == ["first", "second", "second"]


def _until_asked_again() -> None:
    """obstore asks for credentials at most ten times a second."""
    threading.Event().wait(0.2)


@ENGINES
def test_credentials_of_a_process_are_renewed_before_they_expire(
    engine: str, observer: Observer, nobodys_home: Path
) -> None:
    script = nobodys_home / "credentials.sh"
    counted = nobodys_home / "count"
    # They expire soon enough to be renewed at each request.
    script.write_text(
        f"#!/bin/sh\necho x >> {counted}\nn=$(wc -l < {counted} | tr -d ' ')\n"
        'printf \'{"Version":1,"AccessKeyId":"key-%s","SecretAccessKey":"s","SessionToken":"t",'
        '"Expiration":"%s"}\' "$n" "$(date -u -d "+5 minutes" +%Y-%m-%dT%H:%M:%SZ)"\n'
    )
    script.chmod(0o755)
    config = nobodys_home / ".aws" / "config"
    config.parent.mkdir()
    config.write_text(f"[default]\ncredential_process = {script}\n")
    store = opened(observer, engine)
    run(store.list(""))
    _until_asked_again()
    run(store.list(""))
    first, second = (int((r.access_key or "").removeprefix("key-")) for r in observer.requests)
    assert second > first
    assert {r.headers["x-amz-security-token"] for r in observer.requests} == {"t"}


@ENGINES
@pytest.mark.parametrize("kind", ["assumed role", "web identity"])
def test_credentials_of_a_role(
    engine: str,
    kind: str,
    moto_s3: S3Server,
    observer: Observer,
    nobodys_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_s3.endpoint_url)
    role = "arn:aws:iam::123456789012:role/ci"
    if kind == "web identity":
        token = nobodys_home / "token"
        token.write_text("a.web.token")
        monkeypatch.setenv("AWS_ROLE_ARN", role)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    else:
        config = nobodys_home / ".aws" / "config"
        config.parent.mkdir()
        config.write_text(
            f"[profile ci]\nrole_arn = {role}\nsource_profile = base\n"
            "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "ci")
    run(opened(observer, engine).list(""))
    (request,) = observer.requests
    assert (request.access_key or "").startswith("ASIA")  # as those of the token service begin
    assert request.headers["x-amz-security-token"]


@ENGINES
def test_a_profile_that_is_not_there(
    engine: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(cachefs.AccessError, match="correct profile or AWS_PROFILE"):
        opened(observer, engine)


@ENGINES
def test_a_region_is_needed_where_builders_need_one(engine: str) -> None:
    with pytest.raises(cachefs.LocationError, match="type=s3 needs region: give region="):
        cachefs.open(f"type=s3,bucket=builds,engine={engine}")
