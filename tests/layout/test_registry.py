"""Caches in registries: what is written is read, and what a registry cannot do is said."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.layers.compression import Compression
from cachefs.testing import random_graph
from cachefs.testing.checks import noise
from tests.inside.layered import archive, write
from tests.servers.answering import Answer, answering
from tests.servers.proxy import RecordingProxy
from tests.servers.registry import PROGRAM, TokenServer, guarded_registry
from tests.servers.s3 import S3Server

VARIANTS = ("local-max", "local-min", "local-index", "local-docker-mediatypes", "local-zstd")


@pytest.fixture
def repository(registry: str) -> str:
    """A repository that nobody has used yet."""
    return f"type=registry,ref={registry}/ci/{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def guarded(
    _nobodys_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TokenServer]]:
    """A registry that wants tokens, and what grants them."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with guarded_registry(tmp_path_factory.mktemp("guarded")) as found:
        yield found


def docker_login(home: Path, host: str, entry: dict[str, str], **others: Any) -> None:
    """Write what ``docker login`` does."""
    (home / ".docker").mkdir(exist_ok=True)
    config = {"auths": {host: entry}, **others}
    (home / ".docker" / "config.json").write_text(json.dumps(config))


def password(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"me:{text}".encode()).decode()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back_is_what_the_builder_wrote(
    variant: str, recorded: Path, repository: str, tmp_path: Path
) -> None:
    how = ""
    if variant == "local-index":
        how = ",image-manifest=false"
    if variant == "local-docker-mediatypes":
        how = ",oci-mediatypes=false"
    source = cachefs.open(f"type=local,src={recorded / variant}", tag="latest")
    cachefs.copy(source, f"{repository}:x{how}")
    cachefs.copy(f"{repository}:x", f"type=local,dest={tmp_path},tag=latest{how}")
    written = json.loads((recorded / variant / "index.json").read_text())
    wanted = {one["digest"] for one in written["manifests"]}
    found = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert {one["digest"] for one in found} <= wanted
    report = cachefs.open(f"{repository}:x").verify(["x"], read_data=1.0)
    assert not report.faults
    assert report.read.blobs == report.blobs.blobs > 0


def test_export_and_load(repository: str, tmp_path: Path) -> None:
    generated = random_graph(1)
    cache = cachefs.open(f"{repository}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    assert [one.name for one in cache.names()] == ["main"]
    loaded = cache.load()
    assert loaded.blobs() == generated.graph.blobs()
    for digest, data in generated.blobs.items():
        assert cache.read_blob(digest) == data
    again = cache.export(generated.graph, generated.blobs, mode="max")
    assert again.uploaded.blobs == 0


@pytest.mark.parametrize("blob_size", [3 * 1024 * 1024, 40 * 1024 * 1024])
def test_a_large_blob_is_sent_without_holding_up_the_loop(repository: str, blob_size: int) -> None:
    generated = random_graph(2, records=1, blob_size=blob_size)
    cache = cachefs.open(f"{repository}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    assert not cache.verify(read_data=1.0).faults


def test_what_is_not_listed(repository: str, tmp_path: Path) -> None:
    generated = random_graph(3)
    cache = cachefs.open(f"{repository}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    usage = cache.usage()
    assert not usage.listed
    assert usage.missing.blobs == 0
    assert usage.stored.blobs == usage.referenced.blobs
    with pytest.raises(cachefs.UsageError, match="neither lists nor deletes blobs"):
        cache.plan_prune(cachefs.PrunePolicy())
    assert [one.name for one in cache.names()] == ["main"]


def test_images_are_no_caches(registry: str, repository: str) -> None:
    """Also those next to a cache: they are no damaged names."""
    put_image(repository, "an-image", cache=None)
    with pytest.raises(cachefs.NoCacheError, match=r"has images, but no caches .*an-image"):
        cachefs.open(repository).require_exists()
    generated = random_graph(4)
    cache = cachefs.open(f"{repository}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    assert [one.name for one in cachefs.open(repository).names()] == ["main"]
    assert not cachefs.open(repository).verify().faults
    with pytest.raises(cachefs.ManifestError, match="image without an inline cache"):
        cachefs.open(repository).manifest("an-image")


def test_an_inline_cache_is_read(repository: str, tmp_path: Path) -> None:
    """Its layers are the image's, and its records hit."""
    records = [
        {
            "digest": digest_of(b"base"),
            "layers": [{"layer": 0, "createdAt": "2026-01-02T03:04:05Z"}],
        },
        {
            "digest": digest_of(b"run"),
            "inputs": [[{"link": 0}]],
            "layers": [{"layer": 1, "createdAt": "2026-01-02T03:04:06Z"}],
        },
    ]
    layers = put_image(repository, "app", cache=json.dumps(records).encode())
    cache = cachefs.open(f"{repository}:app")
    graph = cache.load()
    found = graph.find(digest_of(b"run"), [graph.find(digest_of(b"base"))])
    assert len(found) == 1
    assert [graph.layers[i].blob for i in graph.results(found)[0].layers] == layers
    assert graph.layers[0].annotations.created_at == "2026-01-01T00:00:00Z"
    cachefs.copy(cache, tmp_path / "copy")
    assert not cachefs.open(tmp_path / "copy").verify(read_data=1.0).faults


def test_a_tag_that_cannot_be_one_is_refused(repository: str) -> None:
    generated = random_graph(5, records=1)
    cache = cachefs.open(repository)
    with pytest.raises(cachefs.CacheNameError, match="is no tag"):
        cache.export(generated.graph, generated.blobs, "feature/x", mode="max")
    assert cache.names() == []


def test_a_lost_connection_is_taken_up_where_it_broke(
    registry: str, recording: Callable[[S3Server], RecordingProxy]
) -> None:
    proxy = recording(S3Server(f"http://{registry}", "", ""))
    host = proxy.server.endpoint_url.removeprefix("http://")
    generated = random_graph(6, records=1, blob_size=8 * 1024 * 1024)
    cache = cachefs.open(f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    proxy.clear()
    proxy.inject(
        times=2,
        when=lambda request: request.method == "GET" and "/blobs/" in request.path,
        cut_after=3 * 1024 * 1024,
    )
    digest, data = max(generated.blobs.items(), key=lambda item: len(item[1]))
    assert cache.read_blob(digest) == data
    ranges = [request.headers.get("range") for request in proxy.requests]
    assert ranges[0] is None
    assert all(text and int(text[len("bytes=") : -1]) > 0 for text in ranges[1:])


def test_anonymous_tokens_are_enough_to_read(
    guarded: tuple[str, TokenServer], nobodys_home: Path
) -> None:
    host, tokens = guarded
    name = f"ci/{secrets.token_hex(8)}"
    generated = random_graph(7, records=2)
    docker_login(nobodys_home, host, password("my-password"))
    cachefs.open(f"type=registry,ref={host}/{name}:main").export(
        generated.graph, generated.blobs, mode="max"
    )
    docker_login(nobodys_home, "elsewhere", {})
    tokens.granted.clear()
    reading = cachefs.open(f"type=registry,ref={host}/{name}:main")
    assert reading.load().blobs() == generated.graph.blobs()
    assert tokens.granted == [(f"repository:{name}:pull", "")], "one token for all requests"
    with pytest.raises(cachefs.AccessError, match=f"run docker login {host}"):
        reading.export(random_graph(8).graph, random_graph(8).blobs, mode="max")


def test_credentials_of_a_log_in(guarded: tuple[str, TokenServer], nobodys_home: Path) -> None:
    host, tokens = guarded
    generated = random_graph(9, records=1)

    def export() -> None:
        tokens.granted.clear()
        location = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
        cachefs.open(location).export(generated.graph, generated.blobs, mode="max")

    docker_login(nobodys_home, host, {"identitytoken": "a-refresh-token"})
    export()
    assert {user for _, user in tokens.granted} == {"refreshed"}
    helper = nobodys_home / "docker-credential-mine"
    helper.write_text(
        '#!/bin/sh\nread host\necho \'{"Username": "me", "Secret": "my-password"}\'\n'
    )
    helper.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(nobodys_home), prepend=":")
        docker_login(nobodys_home, "elsewhere", {}, credHelpers={host: "mine"})
        export()
    assert {user for _, user in tokens.granted} == {"me"}
    docker_login(nobodys_home, host, password("wrong"))
    with pytest.raises(cachefs.AccessError, match="its credentials are refused") as refused:
        export()
    assert "wrong" not in str(refused.value)


def test_a_redirect_does_not_get_the_token() -> None:
    """Blobs are often on other hosts, whose URLs are signed: they want no token."""
    data = b"a blob"
    digest = digest_of(data)
    seen: list[str | None] = []

    def store(headers: Any) -> Answer:
        seen.append(headers.get("Authorization"))
        return Answer(200, data)

    with answering(store) as elsewhere:

        def registry(headers: Any) -> Answer:
            if headers["x-asked"].startswith("/token"):
                return Answer(200, b'{"token": "the-token"}')
            if headers.get("Authorization") != "Bearer the-token":
                realm = f'Bearer realm="{base}/token",service="s",scope="x"'
                return Answer(401, b"{}", {"WWW-Authenticate": realm})
            return Answer(307, b"", {"Location": f"{elsewhere.endpoint_url}/blob?signed=1"})

        with answering(registry) as server:
            base = server.endpoint_url
            cache = cachefs.open(f"type=registry,ref={base.removeprefix('http://')}/a/b:main")
            assert cache.read_blob(digest) == data
    assert seen == [None]


def test_a_registry_that_limits_requests_is_asked_again() -> None:
    answers = [Answer(429, b"{}", {"Retry-After": "0"}), Answer(503, b"{}"), Answer(200, b"a blob")]

    def registry(headers: Any) -> Answer:
        return answers.pop(0)

    with answering(registry) as server:
        host = server.endpoint_url.removeprefix("http://")
        cache = cachefs.open(f"type=registry,ref={host}/a/b:main")
        assert cache.read_blob(digest_of(b"a blob")) == b"a blob"


def test_what_a_registry_refuses_is_said() -> None:
    refusal = {"errors": [{"code": "SIZE_INVALID", "message": "manifest too large"}]}

    def registry(headers: Any) -> Answer:
        if headers["x-method"] == "PUT":
            return Answer(413, json.dumps(refusal).encode())
        if headers["x-method"] == "POST":
            return Answer(202, b"", {"Location": "/v2/upload"})
        return Answer(404, b"{}")

    generated = random_graph(10, records=1)
    with answering(registry) as server:
        host = server.endpoint_url.removeprefix("http://")
        cache = cachefs.open(f"type=registry,ref={host}/a/b:main")
        with pytest.raises(cachefs.StoreError, match="HTTP 413 SIZE_INVALID: manifest too large"):
            cache.export(generated.graph, generated.blobs, mode="max")


def test_a_manifest_that_is_not_what_the_registry_says_is_refused() -> None:
    def registry(headers: Any) -> Answer:
        return Answer(200, b"{}", {"Docker-Content-Digest": digest_of(b"something else")})

    with answering(registry) as server:
        host = server.endpoint_url.removeprefix("http://")
        with pytest.raises(cachefs.IntegrityError):
            cachefs.open(f"type=registry,ref={host}/a/b:main").manifest("main")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_image(repository: str, tag: str, cache: bytes | None) -> list[str]:
    """Push an image of two layers, as a builder does, and return their digests."""
    from cachefs.concurrency import run
    from cachefs.layout.opening import open_layout
    from cachefs.location.parsing import parse

    store = open_layout(parse(repository)).store
    layers = [b"a layer", b"another layer"]
    image: dict[str, Any] = {
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [
            {"created": "2026-01-01T00:00:00Z"},
            {"created": "2026-01-01T00:00:01Z", "empty_layer": True},
            {"created": "2026-01-01T00:00:02Z"},
        ],
    }
    if cache is not None:
        image["moby.buildkit.cache.v0"] = base64.b64encode(cache).decode()
    config = json.dumps(image).encode()
    for blob in (*layers, config):
        run(store.put(f"blobs/{digest_of(blob)}", blob))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", one) for one in layers],
    }
    run(store.put(f"manifests/{tag}", json.dumps(manifest).encode()))
    return [digest_of(layer) for layer in layers]


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


@pytest.mark.parametrize("compression", ["gzip", "uncompressed"])
def test_files_of_results_are_read(repository: str, compression: Compression) -> None:
    data = noise(900_000)
    write(
        f"{repository}:main", [[archive({"large": data, "small": b"1"})]], compression=compression
    )
    contents = cachefs.look_inside(f"{repository}:main")
    assert contents.read("small") == b"1"
    assert contents.read("large", 150_000, 250_000) == data[150_000:250_000]
