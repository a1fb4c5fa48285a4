"""Where both engines send requests, for each way to say it: seen on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import fsspec.config
import pytest
from obstore.fsspec import FsspecStore

import cachefs
from cachefs.concurrency import run
from cachefs.filesystems.base import Stat
from cachefs.filesystems.connecting import connect
from cachefs.location.parsing import parse
from cachefs.store import Store
from tests.servers.answering import Answer
from tests.servers.observing import Observer, observing

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


@pytest.fixture(scope="module")
def _observer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observer]:
    with observing(tmp_path_factory.mktemp("observer")) as observer:
        yield observer


@pytest.fixture
def observer(_observer: Observer, monkeypatch: pytest.MonkeyPatch) -> Observer:
    """A proxy for all hosts, in the environment, as are credentials."""
    _observer.requests.clear()
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", _observer.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(_observer.authority))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(fsspec.config, "conf", {})
    monkeypatch.setattr("cachefs.filesystems.s3.options.conf", fsspec.config.conf)
    return _observer


class Way(NamedTuple):
    """A way to say where a bucket is, and where requests then go."""

    about: str
    url: str
    region: str
    env: Mapping[str, str] = {}
    config: str = ""
    """The AWS config file."""
    location: str = "s3://builds/ci/"
    options: Mapping[str, Any] = {}
    """Attributes and ``storage_options``, from Python."""
    fsspec: Mapping[str, Any] = {}
    """fsspec's configuration for S3."""


DEV = "[profile dev]\n"
PARIS = "https://builds.s3.eu-west-3.amazonaws.com"
MINIO = "http://minio.test:9000"

WAYS = [
    # region
    Way("nothing", "https://builds.s3.amazonaws.com", "us-east-1"),
    Way("AWS_REGION", PARIS, "eu-west-3", {"AWS_REGION": "eu-west-3"}),
    Way("AWS_DEFAULT_REGION", PARIS, "eu-west-3", {"AWS_DEFAULT_REGION": "eu-west-3"}),
    Way(
        "AWS_REGION before AWS_DEFAULT_REGION",
        PARIS,
        "eu-west-3",
        {"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-1"},
    ),
    Way(
        "region of the profile",
        PARIS,
        "eu-west-3",
        {"AWS_PROFILE": "dev"},
        f"{DEV}region = eu-west-3",
    ),
    Way("region of the default profile", PARIS, "eu-west-3", {}, "[default]\nregion = eu-west-3"),
    Way(
        "region of the attribute profile",
        PARIS,
        "eu-west-3",
        {},
        f"{DEV}region = eu-west-3\naws_access_key_id = key-id\naws_secret_access_key = s",
        options={"profile": "dev"},
    ),
    Way("region attribute", PARIS, "eu-west-3", location="type=s3,bucket=builds,region=eu-west-3"),
    Way(
        "type=s3 with AWS_DEFAULT_REGION",
        PARIS,
        "eu-west-3",
        {"AWS_DEFAULT_REGION": "eu-west-3"},
        location="type=s3,bucket=builds",
    ),
    Way(
        "type=s3 with a profile's region",
        PARIS,
        "eu-west-3",
        {"AWS_PROFILE": "dev"},
        f"{DEV}region = eu-west-3",
        "type=s3,bucket=builds",
    ),
    Way(
        "attribute before environment",
        PARIS,
        "eu-west-3",
        {"AWS_REGION": "eu-west-1"},
        options={"region": "eu-west-3"},
    ),
    Way(
        "storage_options before attribute",
        PARIS,
        "eu-west-3",
        {"AWS_REGION": "eu-west-1"},
        options={
            "region": "eu-west-2",
            "storage_options": {"client_kwargs": {"region_name": "eu-west-3"}},
        },
    ),
    Way(
        "fsspec's configuration before the environment",
        PARIS,
        "eu-west-3",
        {"AWS_REGION": "eu-west-1"},
        fsspec={"client_kwargs": '{"region_name": "eu-west-3"}'},
    ),
    # partitions and variants
    Way(
        "China",
        "https://builds.s3.cn-north-1.amazonaws.com.cn",
        "cn-north-1",
        {"AWS_REGION": "cn-north-1"},
    ),
    Way(
        "GovCloud with FIPS",
        "https://builds.s3-fips.us-gov-west-1.amazonaws.com",
        "us-gov-west-1",
        {"AWS_REGION": "us-gov-west-1", "AWS_USE_FIPS_ENDPOINT": "true"},
    ),
    Way(
        "dualstack of the environment",
        "https://builds.s3.dualstack.eu-west-3.amazonaws.com",
        "eu-west-3",
        {"AWS_REGION": "eu-west-3", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    ),
    Way(
        "dualstack of the profile",
        "https://builds.s3.dualstack.eu-west-3.amazonaws.com",
        "eu-west-3",
        {},
        "[default]\nregion = eu-west-3\nuse_dualstack_endpoint = true",
    ),
    Way(
        "acceleration of the profile",
        "https://builds.s3-accelerate.amazonaws.com",
        "eu-west-3",
        {},
        "[default]\nregion = eu-west-3\ns3 =\n  use_accelerate_endpoint = true",
    ),
    # buckets and addressing
    Way(
        "dots in the bucket's name",
        "https://s3.eu-west-3.amazonaws.com/my.builds",
        "eu-west-3",
        {"AWS_REGION": "eu-west-3"},
        location="s3://my.builds/ci/",
    ),
    Way(
        "a very short name",
        "https://b.s3.eu-west-3.amazonaws.com",
        "eu-west-3",
        {"AWS_REGION": "eu-west-3"},
        location="s3://b/ci/",
    ),
    Way(
        "an access point",
        "https://ci-123456789012.s3-accesspoint.eu-west-3.amazonaws.com",
        "eu-west-3",
        {"AWS_REGION": "eu-west-3"},
        location="s3://arn:aws:s3:eu-west-3:123456789012:accesspoint:ci/ci/",
    ),
    Way(
        "use_path_style",
        "https://s3.eu-west-3.amazonaws.com/builds",
        "eu-west-3",
        {"AWS_REGION": "eu-west-3"},
        options={"use_path_style": True},
    ),
    Way(
        "path style of the profile",
        "https://s3.eu-west-3.amazonaws.com/builds",
        "eu-west-3",
        {},
        "[default]\nregion = eu-west-3\ns3 =\n  addressing_style = path",
    ),
    Way(
        "virtual style of the profile at another server",
        "http://builds.minio.test:9000",
        "us-east-1",
        {"AWS_ENDPOINT_URL": MINIO},
        "[default]\ns3 =\n  addressing_style = virtual",
    ),
    # endpoints
    Way("AWS_ENDPOINT_URL", f"{MINIO}/builds", "us-east-1", {"AWS_ENDPOINT_URL": MINIO}),
    Way(
        "AWS_ENDPOINT_URL on loopback",
        "http://127.0.0.1:9000/builds",
        "us-east-1",
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"},
    ),
    Way(
        "AWS_ENDPOINT_URL_S3 before AWS_ENDPOINT_URL",
        f"{MINIO}/builds",
        "us-east-1",
        {"AWS_ENDPOINT_URL_S3": MINIO, "AWS_ENDPOINT_URL": "http://other.test"},
    ),
    Way(
        "an endpoint with TLS and a path",
        "https://minio.test/s3/builds",
        "us-east-1",
        {"AWS_ENDPOINT_URL": "https://minio.test/s3/"},
    ),
    Way(
        "endpoint of the profile",
        f"{MINIO}/builds",
        "eu-west-3",
        {"AWS_PROFILE": "dev"},
        f"{DEV}region = eu-west-3\nendpoint_url = {MINIO}",
    ),
    Way(
        "endpoint of a services section",
        f"{MINIO}/builds",
        "us-east-1",
        {"AWS_PROFILE": "dev"},
        f"{DEV}services = local\n[services local]\ns3 =\n  endpoint_url = {MINIO}",
    ),
    Way(
        "endpoints of the configuration are ignored",
        "https://builds.s3.amazonaws.com",
        "us-east-1",
        {"AWS_ENDPOINT_URL": MINIO, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ),
    Way(
        "endpoint_url attribute, as builders take it",
        "http://builds.minio.test:9000",
        "eu-west-3",
        {"AWS_ENDPOINT_URL": "http://other.test"},
        location=f"type=s3,bucket=builds,region=eu-west-3,endpoint_url={MINIO}",
    ),
    Way(
        "endpoint_url attribute with use_path_style",
        f"{MINIO}/builds",
        "eu-west-3",
        location=f"type=s3,bucket=builds,region=eu-west-3,endpoint_url={MINIO},use_path_style=true",
    ),
    Way(
        "endpoint_url of storage_options",
        f"{MINIO}/builds",
        "us-east-1",
        options={"storage_options": {"endpoint_url": MINIO}},
    ),
    Way(
        "endpoint_url in client_kwargs",
        f"{MINIO}/builds",
        "us-east-1",
        options={"storage_options": {"client_kwargs": {"endpoint_url": MINIO}}},
    ),
    Way(
        "endpoint_url of fsspec's configuration",
        f"{MINIO}/builds",
        "us-east-1",
        {"AWS_ENDPOINT_URL": "http://other.test"},
        fsspec={"endpoint_url": MINIO},
    ),
    # what only obstore would read
    Way(
        "variables of obstore alone",
        f"{MINIO}/builds",
        "us-east-1",
        {
            "AWS_ENDPOINT_URL": MINIO,
            "AWS_ENDPOINT": "http://other.test",
            "AWS_BUCKET": "other",
            "AWS_BUCKET_NAME": "other",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_S3_EXPRESS": "true",
            "AWS_ALLOW_HTTP": "false",
            "AWS_REQUEST_PAYER": "true",
            "AWS_UNSIGNED_PAYLOAD": "false",
            "AWS_DISABLE_BULK_DELETE": "true",
            "AWS_PROXY_URL": "http://127.0.0.1:1",
            "ALL_PROXY": "http://127.0.0.1:1",
        },
    ),
]


@ENGINES
@pytest.mark.parametrize("way", WAYS, ids=[way.about for way in WAYS])
def test_each_way_to_say_where_a_bucket_is(
    engine: Any, way: Way, observer: Observer, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in way.env.items():
        monkeypatch.setenv(name, value)
    (nobodys_home / ".aws").mkdir()
    (nobodys_home / ".aws" / "config").write_text(way.config)
    if way.fsspec:
        monkeypatch.setitem(fsspec.config.conf, "s3", dict(way.fsspec))
    cache = cachefs.open(way.location, engine=engine, **way.options)
    for name in (*way.env, "http_proxy", "https_proxy"):  # all of it was found out already
        monkeypatch.delenv(name, raising=False)
    assert cache.names() == []
    assert not cache.read_blob(cachefs.Digest.of(b""))
    prefix = "ci/" if way.location.endswith("/ci/") else ""
    assert {request.region for request in observer.requests} == {way.region}
    assert {request.access_key for request in observer.requests} == {"key-id"}
    listings = {r.url.rstrip("/") for r in observer.requests if "list-type" in r.query}
    assert listings == {way.url}
    objects = {r.url for r in observer.requests if "list-type" not in r.query}
    digest = str(cachefs.Digest.of(b""))
    assert {url.replace("%3A", ":") for url in objects} == {f"{way.url}/{prefix}blobs/{digest}"}


@ENGINES
@pytest.mark.parametrize(
    ("bucket", "source"),
    [
        ("builds", "builds/ci/x"),
        (
            "arn:aws:s3:eu-west-3:123456789012:accesspoint:ci",
            "arn:aws:s3:eu-west-3:123456789012:accesspoint:ci/object/ci/x",
        ),
    ],
)
def test_what_is_copied_to_renew_a_time(
    engine: str, bucket: str, source: str, observer: Observer
) -> None:
    observer.answer = lambda _: Answer(
        200,
        b"<CopyObjectResult><ETag>1</ETag>"
        b"<LastModified>2026-01-01T00:00:00Z</LastModified></CopyObjectResult>",
    )
    text = f"s3://{bucket}/"
    filesystem, root = connect(parse(text, region="eu-west-3", environ={"CACHEFS_ENGINE": engine}))
    run(Store(filesystem, root).touch_batch([Stat("ci/x", 1, 0.0)]))
    (request,) = observer.requests
    assert unquote(request.headers["x-amz-copy-source"]).lstrip("/") == source
    assert request.headers["x-amz-metadata-directive"] == "REPLACE"


@pytest.mark.parametrize(
    ("env", "config", "sent_to"),
    [
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, {}, None),
        ({}, {"virtual_hosted_style_request": True}, None),
        ({}, {"bucket": "other"}, None),
        ({"AWS_BUCKET": "other"}, {}, f"{MINIO}/builds"),
        ({}, {}, f"{MINIO}/builds"),
        ({"AWS_ENDPOINT_URL": f"{MINIO}/s3"}, {}, f"{MINIO}/s3/builds"),
        (
            {"AWS_ENDPOINT_URL": "http://builds.minio.test"},
            {"virtual_hosted_style_request": True},
            "http://builds.minio.test",
        ),
    ],
)
def test_a_callers_store_uses_the_bucket_or_is_refused(
    env: dict[str, str],
    config: Any,
    sent_to: str | None,
    observer: Observer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ({"AWS_ENDPOINT_URL": MINIO} | env).items():
        monkeypatch.setenv(name, value)
    fs: Any = FsspecStore  # its overloads lack the options of fsspec
    fs = fs("s3", config=config, client_options={"allow_http": True}, skip_instance_cache=True)
    cache = cachefs.open("s3://builds/ci/", fs=fs)
    if sent_to is None:
        with pytest.raises(cachefs.LocationError, match="would not use bucket builds"):
            cache.names()
        assert observer.requests == []
        return
    assert cache.names() == []
    assert [request.url.rstrip("/") for request in observer.requests] == [sent_to]
