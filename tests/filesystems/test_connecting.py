"""What a location says reaches the client: seen on the wire, for both engines."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.filesystems.connecting import connect
from cachefs.location.parsing import parse
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


@pytest.fixture
def proxy(recording: Recording, moto_s3: S3Server) -> RecordingProxy:
    return recording(moto_s3)


@pytest.fixture
def bucket(moto_s3: S3Server) -> str:
    return moto_s3.bucket()


def without_credentials(proxy: RecordingProxy, bucket: str, **more: str) -> str:
    text = proxy.server.attributes(bucket, **more)
    return re.sub(r",(access_key_id|secret_access_key)=[^,]*", "", text)


def key_used(proxy: RecordingProxy) -> set[str]:
    return {
        found[1]
        for request in proxy.requests
        if (found := re.search(r"Credential=([^/]+)/", request.headers["authorization"]))
    }


@ENGINES
def test_explicit_credentials_sign_the_requests(
    engine: str, proxy: RecordingProxy, bucket: str
) -> None:
    location = proxy.server.attributes(bucket, engine=engine, session_token="tok-en")
    assert cachefs.open(location).names() == []
    assert key_used(proxy) == {"moto-key-id"}
    assert {r.headers.get("x-amz-security-token") for r in proxy.requests} == {"tok-en"}


@ENGINES
def test_the_environment_is_asked_for_credentials(
    engine: str, proxy: RecordingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    assert cachefs.open(without_credentials(proxy, bucket, engine=engine)).names() == []
    assert key_used(proxy) == {"from-environment"}
    assert {r.headers.get("x-amz-security-token") for r in proxy.requests} == {"session"}


@ENGINES
def test_a_profile_of_the_shared_files_is_used(
    engine: str,
    proxy: RecordingProxy,
    bucket: str,
    nobodys_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = nobodys_home / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[other]\naws_access_key_id = from-profile\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert cachefs.open(without_credentials(proxy, bucket, engine=engine)).names() == []
    assert key_used(proxy) == {"from-profile"}


@ENGINES
def test_no_credentials_is_an_access_error_that_says_what_to_do(
    engine: str, proxy: RecordingProxy, bucket: str
) -> None:
    with pytest.raises(cachefs.AccessError, match="credentials"):
        cachefs.open(without_credentials(proxy, bucket, engine=engine)).names()


@ENGINES
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_retry_max_attempts_is_how_often_a_request_is_tried(
    engine: str, attempts: int, proxy: RecordingProxy, bucket: str
) -> None:
    proxy.inject(times=50, status=503, code="SlowDown")
    location = proxy.server.attributes(bucket, engine=engine, retry_max_attempts=str(attempts))
    assert not cachefs.open(location).read_blob(cachefs.Digest.of(b""))
    assert len(proxy.requests) == attempts


@ENGINES
def test_a_503_is_outlived(engine: str, proxy: RecordingProxy, bucket: str) -> None:
    proxy.inject(times=2, status=503, code="SlowDown")
    assert cachefs.open(proxy.server.attributes(bucket, engine=engine)).names() == []
    assert len(proxy.requests) == 3


def test_retry_mode_is_botocores(moto_s3: S3Server, bucket: str) -> None:
    for mode in ("standard", "adaptive"):
        filesystem, _ = connect(parse(moto_s3.attributes(bucket, retry_mode=mode)))
        assert filesystem.fs.config_kwargs["retries"]["mode"] == mode


@ENGINES
def test_path_style_puts_the_bucket_into_the_path(
    engine: str, proxy: RecordingProxy, bucket: str
) -> None:
    cachefs.open(proxy.server.attributes(bucket, engine=engine, use_path_style="true")).names()
    assert {r.path.strip("/") for r in proxy.requests} == {bucket}


def test_virtual_hosted_style_puts_the_bucket_into_the_host(
    proxy: RecordingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = socket.getaddrinfo

    def to_loopback(host: str, *rest: Any, **more: Any) -> Any:
        return plain("127.0.0.1" if "bucket-host" in str(host) else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    endpoint = proxy.server.endpoint_url.replace("127.0.0.1", "bucket-host.test")
    location = proxy.server.attributes(bucket, use_path_style="false", endpoint_url=endpoint)
    with suppress(cachefs.StoreError):  # this server does not know the style
        cachefs.open(location).names()
    hosts = {request.headers["host"].partition(":")[0] for request in proxy.requests}
    assert hosts == {f"{bucket}.bucket-host.test"}


@ENGINES
@pytest.mark.parametrize("disabled", ["false", "true"])
def test_accept_encoding_is_never_signed(
    engine: str, disabled: str, proxy: RecordingProxy, bucket: str
) -> None:
    location = proxy.server.attributes(bucket, engine=engine, disable_accept_encoding=disabled)
    cachefs.open(location).names()
    for request in proxy.requests:
        signed = re.search(r"SignedHeaders=([^,]+)", request.headers["authorization"])
        assert signed is not None
        assert "accept-encoding" not in signed[1].split(";")


@ENGINES
def test_bodies_over_http_are_signed_with_their_digest(
    engine: str, proxy: RecordingProxy, bucket: str
) -> None:
    graph = cachefs.RecordGraph()
    blob = b"layer" * 1000
    digest = cachefs.Digest.of(blob)
    layer = graph.add_layer(digest, size=len(blob))
    graph.add_result(graph.add(digest), layer)
    cachefs.open(proxy.server.attributes(bucket, engine=engine)).export(graph, {digest: blob})
    puts = [request for request in proxy.requests if request.method == "PUT"]
    assert len(puts) == 2
    for request in puts:
        announced = base64.b64decode(request.headers["x-amz-checksum-sha256"])
        assert request.headers["x-amz-content-sha256"] == announced.hex()
    assert puts[0].headers["x-amz-content-sha256"] == digest.hex


def test_an_unknown_protocol_and_a_missing_library_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(cachefs.LocationError, match="fsspec knows no filesystem for nowhere://"):
        cachefs.open("nowhere://place/")
    import fsspec

    def missing(protocol: str) -> None:
        raise ImportError(f"install the library of {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(cachefs.LocationError, match=r"pip install 'buildcachefs\[gcs\]'"):
        cachefs.open("gs://bucket/")


def test_the_callers_filesystem_is_used_as_it_is() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    fs = MemoryFileSystem()
    cache = cachefs.open("memory://tests-connecting/own", fs=fs)
    assert cache.layout.store.filesystem.fs.sync_fs is fs


@pytest.mark.parametrize("inner", ["file", "memory"])
def test_a_folder_of_a_filesystem_is_driven_as_that_filesystem(
    inner: str, recorded: Path, tmp_path: Path
) -> None:
    import fsspec
    from fsspec.implementations.dirfs import DirFileSystem

    folder = tmp_path if inner == "file" else Path("/tests-connecting") / tmp_path.name
    fs = DirFileSystem(str(folder), fsspec.filesystem(inner))
    cache = cachefs.open("memory://cache", fs=fs, touch_refresh="0s")
    assert cachefs.copy(recorded / "s3" / "max", cache).uploaded.blobs == 11
    assert cachefs.copy(recorded / "s3" / "max", cache).touched.blobs == 11
    assert fs.fs.isfile(f"{folder}/cache/manifests/app-v2")
    if inner == "file":
        assert not list(tmp_path.rglob(".cachefs-*"))


@ENGINES
def test_storage_and_secrets_show_nowhere(engine: str, moto_s3: S3Server, bucket: str) -> None:
    cache = cachefs.open(moto_s3.attributes(bucket, engine=engine, session_token="to-ken"))
    graph = cachefs.RecordGraph()
    report = cache.export(graph, {})
    shown = [repr(cache), str(cache.location), repr(cache.location), repr(report)]
    assert not [text for text in shown if "moto-secret" in text or "to-ken" in text]


@pytest.mark.parametrize("url", ["abfs://x@y", "abfs://x/", "az://x/y"])
def test_azure_without_an_account_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adlfs")
    for name in ("ACCOUNT_NAME", "CONNECTION_STRING"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    with pytest.raises(cachefs.LocationError, match="without a storage account: set AZURE_"):
        cachefs.open(url)
