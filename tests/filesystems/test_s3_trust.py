"""Whom both engines trust on the way to S3: proxies, certificates, redirects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.concurrency import run
from cachefs.filesystems.connecting import connect
from cachefs.filesystems.s3.options import conf
from cachefs.location.parsing import parse
from cachefs.store import Store
from tests.servers.answering import Answer
from tests.servers.observing import Observed, Observer, empty_bucket, observing
from tests.servers.s3 import S3Server

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    with observing(tmp_path) as observer:
        yield observer


@ENGINES
def test_a_proxy_is_used_or_not_as_the_environment_says(
    engine: str, observer: Observer, moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = moto_s3.attributes(moto_s3.bucket(), engine=engine)
    monkeypatch.setenv("HTTP_PROXY", observer.url)
    assert cachefs.open(text).names() == []
    assert len(observer.requests) == 1
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert cachefs.open(text).names() == []
    assert len(observer.requests) == 1
    own = {"config_kwargs": {"proxies": {"http": observer.url}}}
    assert cachefs.open(text, storage_options=own).names() == []
    assert len(observer.requests) == 2


@ENGINES
@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile", "option"])
def test_certificates_of_an_own_authority(
    engine: str,
    variable: str,
    observer: Observer,
    nobodys_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", observer.url)
    text = f"type=s3,bucket=builds,region=eu-west-3,retry_max_attempts=1,engine={engine}"
    keys = {"access_key_id": "a", "secret_access_key": "b"}
    with pytest.raises(cachefs.UnreachableError) as raised:
        cachefs.open(text, **keys).names()
    line = str(raised.value)
    assert "\n" not in line
    assert "the server's certificate is refused (" in line
    assert "issuer" in line
    assert "AWS_CA_BUNDLE" in line
    options: dict[str, Any] = {}
    if variable == "profile":
        (nobodys_home / ".aws").mkdir()
        config = nobodys_home / ".aws" / "config"
        config.write_text(f"[default]\nca_bundle = {observer.authority}\n")
    elif variable == "option":
        options = {"client_kwargs": {"verify": str(observer.authority)}}
    else:
        monkeypatch.setenv(variable, str(observer.authority))
    assert cachefs.open(text, **keys, storage_options=options).names() == []


@ENGINES
def test_a_certificate_of_another_host_is_refused(
    engine: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", observer.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(observer.authority))
    observer.certified = "another.test"
    text = f"type=s3,bucket=builds,region=eu-west-3,retry_max_attempts=1,engine={engine}"
    cache = cachefs.open(text, access_key_id="a", secret_access_key="b")
    with pytest.raises(cachefs.UnreachableError, match="the server's certificate is refused"):
        cache.names()
    assert observer.requests == []


@ENGINES
def test_a_file_of_certificates_that_is_not_there(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(cachefs.LocationError, match=r"no file of certificates /nowhere\.pem"):
        cachefs.open("s3://builds/", engine=engine)


def elsewhere(observer: Observer) -> Callable[[Observed], Answer]:
    """Redirects all requests to the same server by another name."""
    other = observer.url.replace("127.0.0.1", "localhost")

    def answer(request: Observed) -> Answer:
        if request.url.startswith(other):
            return empty_bucket(request)
        return Answer(307, b"", {"Location": f"{other}/elsewhere"})

    return answer


@ENGINES
def test_a_redirect_to_another_host_is_an_error_and_gets_no_token(
    engine: str, observer: Observer
) -> None:
    observer.answer = elsewhere(observer)
    keys = {"access_key_id": "a", "secret_access_key": "b", "session_token": "to-ken"}
    text = f"type=s3,bucket=builds,region=r,endpoint_url={observer.url},use_path_style=true"
    filesystem, root = connect(parse(f"{text},retry_max_attempts=1,engine={engine}", **keys))
    store = Store(filesystem, root)
    with pytest.raises(cachefs.StoreError, match="the store redirects to another place"):
        run(store.list(""))
    with pytest.raises(cachefs.StoreError):
        run(store.read("x", 1))
    with pytest.raises(cachefs.StoreError):
        run(store.put("x", b"1"))
    assert [r.url for r in observer.requests if "elsewhere" in r.url] == []
    assert len(observer.requests) >= 3


@pytest.mark.parametrize("where", ["headers", "client_kwargs", "fsspec"])
def test_a_redirect_of_http_is_followed_without_the_callers_headers(
    where: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer.answer = elsewhere(observer)
    headers = {"Authorization": "Bearer hush", "Private-Token": "hush", "Cookie": "a=hush"}
    options: dict[str, Any] = {"headers": headers}
    if where == "client_kwargs":
        options = {"client_kwargs": options}
    if where == "fsspec":
        monkeypatch.setitem(conf, "http", {"client_kwargs": options})
        options = {}
    cachefs.open(f"{observer.url}/ci/", storage_options=options).read_blob(cachefs.Digest.of(b""))
    there = [request for request in observer.requests if "elsewhere" in request.url]
    here = [request for request in observer.requests if "elsewhere" not in request.url]
    assert there
    assert not [r for r in there if "hush" in str(r.headers)]
    assert not [r for r in here if r.headers.get("private-token") != "hush"]
