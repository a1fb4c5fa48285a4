"""Registries that fail, lie or attack, and log-ins that are broken."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import pickle
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.filesystems.registry import client as registry_client
from cachefs.filesystems.registry import credentials as registry_credentials
from cachefs.filesystems.registry import filesystem as registry_filesystem
from cachefs.testing import random_graph
from tests.layout.test_registry import digest_of, docker_login, password
from tests.servers.answering import Answer, answering
from tests.servers.proxy import RecordingProxy
from tests.servers.registry import PROGRAM, TokenServer, guarded_registry, running_registry
from tests.servers.s3 import S3Server

SECRET = "hunter2-secret"


@pytest.fixture
def repository(registry: str) -> str:
    """A repository that nobody has used yet."""
    return f"type=registry,ref={registry}/ci/{secrets.token_hex(8)}"


@contextlib.contextmanager
def fake(answer: Callable[[Any], Answer]) -> Iterator[str]:
    """A registry that answers as a test says. Yields a location without a tag."""
    with answering(answer) as server:
        yield f"type=registry,ref={server.endpoint_url.removeprefix('http://')}/a/b"


def asking_for(header: str, then: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """Answers 401 with this challenge until there is an authorization."""

    def answer(headers: Any) -> Answer:
        if headers["x-asked"].startswith("/v2/") and "Authorization" not in headers:
            return Answer(401, b"{}", {"WWW-Authenticate": header})
        return then(headers)

    return answer


def command(*arguments: str) -> str:
    """What the command prints on standard error."""
    return subprocess.run(
        [sys.executable, "-m", "cachefs", *arguments], check=False, capture_output=True, text=True
    ).stderr


def read_tags(location: str) -> list[str]:
    return [one.name for one in cachefs.open(location).names()]


# --- what a registry lists -----------------------------------------------------------------------


def test_one_broken_tag_does_not_hide_the_others(tmp_path: Path, nobodys_home: Path) -> None:
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    generated = random_graph(1, records=2)
    with running_registry(tmp_path) as host:
        location = f"type=registry,ref={host}/a/b"
        for tag in ("broken", "good"):
            cachefs.open(f"{location}:{tag}").export(generated.graph, generated.blobs, mode="max")
        (link,) = tmp_path.rglob("tags/broken/current/link")
        link.unlink()
        assert read_tags(location) == ["broken", "good"]
        faults = cachefs.open(location).verify().faults
        shown = command("show", f"{location}:broken")
        by_digest = command("show", f"{location}@{digest_of(b'nothing')}")
    assert [(fault.kind, fault.names) for fault in faults] == [("manifest", ["broken"])]
    assert "/manifests/broken: there is no such object" in shown
    assert f"/manifests/{digest_of(b'nothing')}: there is no such object" in by_digest


def test_a_manifest_that_is_none_is_named_by_its_tag() -> None:
    with (
        fake(lambda _: Answer(200, b"<html>")) as location,
        pytest.raises(cachefs.ManifestError) as broken,
    ):
        cachefs.open(f"{location}:x").manifest("x")
    assert str(broken.value.key).endswith("/manifests/x")


def test_a_tag_that_cannot_be_one_is_left_out() -> None:
    """It could be a path to another repository, or write to the terminal."""
    asked: list[str] = []

    def answer(headers: Any) -> Answer:
        asked.append(headers["x-asked"])
        if "/tags/list" in headers["x-asked"]:
            tags = ["../../other/manifests/x", "a\x1b[2J", "a" * 200, "", "a?b"]
            return Answer(200, json.dumps({"tags": tags}).encode())
        return Answer(404, b"{}")

    with fake(answer) as location:
        assert read_tags(location) == []
    assert [path for path in asked if "/manifests/" in path] == []


@pytest.mark.parametrize("link", ["", "</v2/a/b/tags/list?n=1000>; rel=next", "<>; rel=next"])
def test_a_listing_that_leads_nowhere_ends(link: str) -> None:
    def answer(headers: Any) -> Answer:
        if "/tags/list" in headers["x-asked"]:
            return Answer(200, b'{"tags": ["x"]}', {"Link": link})
        return Answer(200, b'{"config": {"mediaType": "an image"}}')

    with fake(answer) as location:
        assert read_tags(location) == []


def test_a_listing_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_filesystem, "_MOST_TAGS", 5)
    count = 0

    def answer(headers: Any) -> Answer:
        nonlocal count
        count += 1
        return Answer(
            200, b'{"tags": ["x%d"]}' % count, {"Link": f"</v2/a/b/tags/list?x={count}>; rel=next"}
        )

    with fake(answer) as location, pytest.raises(cachefs.StoreError, match="more than 5 tags"):
        read_tags(location)
    assert count == 6


@pytest.mark.parametrize("link", ["<http://[>; rel=next", "<http://a:99999999/>; rel=next"])
def test_a_next_page_that_is_no_url_is_said(link: str) -> None:
    with (
        fake(lambda _: Answer(200, b'{"tags": ["x"]}', {"Link": link})) as location,
        pytest.raises(cachefs.StoreError, match="no valid next page"),
    ):
        read_tags(location)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"[" * 100_000, b'{"tags": [1]}', b"\xff"])
def test_a_listing_that_is_none_is_said(body: bytes) -> None:
    with (
        fake(lambda _: Answer(200, body)) as location,
        pytest.raises(cachefs.StoreError, match="no valid list of tags"),
    ):
        read_tags(location)


# --- what a registry answers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["", "http://[", "ftp://elsewhere/x", "http://:80/x", "//[/", "http://a:99999999/"]
)
def test_an_upload_to_nowhere_is_said(place: str) -> None:
    def answer(headers: Any) -> Answer:
        if headers["x-method"] == "POST":
            return Answer(202, b"", {"Location": place} if place else {})
        return Answer(404, b"{}")

    generated = random_graph(1, records=1)
    with fake(answer) as location, pytest.raises(cachefs.StoreError, match="Location"):
        cachefs.open(f"{location}:x").export(generated.graph, generated.blobs, mode="max")


@pytest.mark.parametrize(
    "place", ["{base}/u/1?state=a%2Fb", "/u/1?state=a%2Fb", "../../../../../u/1"]
)
def test_an_upload_goes_where_the_registry_says(place: str) -> None:
    sent: list[str] = []

    def answer(headers: Any) -> Answer:
        match headers["x-method"]:
            case "POST":
                base = f"http://{headers['Host']}"
                return Answer(202, b"", {"Location": place.format(base=base)})
            case "PUT":
                sent.append(headers["x-asked"])
                return Answer(201, b"")
        return Answer(404, b"{}")

    generated = random_graph(1, records=1)
    with fake(answer) as location:
        cachefs.open(f"{location}:x").export(generated.graph, generated.blobs, mode="max")
    wanted = place.format(base="").replace("../../../../..", "")
    mark = "&" if "?" in wanted else "?"
    blobs = [path for path in sent if "/manifests/" not in path]
    digest = next(iter(generated.blobs)).replace(":", "%3A")
    assert f"{wanted}{mark}digest={digest}" in blobs


def test_a_size_that_is_not_stated_is_found_out() -> None:
    """Else all blobs were sent again each time."""
    data = b"x" * 1000
    digest = digest_of(data)

    asked: list[tuple[str, str | None]] = []

    def answer(headers: Any) -> Answer:
        asked.append((headers["x-method"], headers.get("Range")))
        if headers["x-method"] == "HEAD":
            return Answer(200, data, {"Transfer-Encoding": "chunked"})
        return Answer(206, data[:1], {"Content-Range": "bytes 0-0/1000"})

    from cachefs.concurrency import run

    with fake(answer) as location:
        stat = run(cachefs.open(location).layout.store.stat(f"blobs/{digest}"))
    assert stat is not None
    assert stat.size == len(data)
    assert asked == [("HEAD", None), ("GET", "bytes=0-0")]


def test_a_registry_that_lies_about_a_blob_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    generated = random_graph(2, records=1)
    with fake(lambda _: Answer(200, b"other bytes")) as location, caplog.at_level("WARNING"):
        assert not cachefs.open(location).read_blob(next(iter(generated.blobs)))
    assert "its bytes have the digest" in caplog.text


def test_what_a_registry_says_cannot_write_to_the_terminal() -> None:
    refusal = {"errors": [{"code": "DENIED\x1b[31m", "message": "no\r\n\x1b]0;title\x07 way"}]}
    with fake(lambda _: Answer(403, json.dumps(refusal).encode())) as location:
        done = subprocess.run(
            [sys.executable, "-m", "cachefs", "ls", location],
            check=False,
            capture_output=True,
            text=True,
        )
    assert "DENIED" in done.stderr
    assert not {"\x1b", "\r", "\x07"} & {*done.stderr}


# --- access --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        "Bearer realm",
        "Bearer realm=",
        'Bearer realm="',
        'Bearer realm="http://["',
        'Bearer realm="http://a:99999999/"',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm="//elsewhere/token"',
        'Bearer realm="http:///token"',
        "Negotiate",
        'Bearer realm="' + "x" * 5000 + '"',
        "=,=,=",
    ],
)
def test_a_challenge_that_cannot_be_met_is_said(challenge: str) -> None:
    def never(headers: Any) -> Answer:
        raise AssertionError("nothing was granted")

    with (
        fake(asking_for(challenge, never)) as location,
        pytest.raises(cachefs.StoreError, match=r"no valid token server|does not say how") as found,
    ):
        read_tags(location)
    assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\xc3\xa4"}',
        b'{"token": 1}',
        b"[" * 100_000,
        b"x" * 2_000_000,
    ],
)
def test_a_token_that_is_none_is_said(token: bytes) -> None:
    def answer(headers: Any) -> Answer:
        if headers["x-asked"].startswith("/token"):
            return Answer(200, token)
        realm = f'Bearer realm="http://{headers["Host"]}/token"'
        return Answer(401, b"{}", {"WWW-Authenticate": realm})

    with fake(answer) as location, pytest.raises(cachefs.StoreError, match="no valid token"):
        read_tags(location)


@pytest.fixture(scope="module")
def guarded(
    _nobodys_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TokenServer]]:
    """A registry that wants tokens, and what grants them."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with guarded_registry(tmp_path_factory.mktemp("guarded")) as found:
        yield found


def test_tokens_that_end_meanwhile_are_renewed(nobodys_home: Path) -> None:
    left: dict[str | None, int] = {}

    def answer(headers: Any) -> Answer:
        if headers["x-asked"].startswith("/token"):
            token = secrets.token_hex(8)
            left[f"Bearer {token}"] = 60
            return Answer(200, json.dumps({"token": token, "expires_in": 3600}).encode())
        if not left.get(headers.get("Authorization")):
            realm = f'Bearer realm="http://{headers["Host"]}/token",error="invalid_token"'
            return Answer(401, b"{}", {"WWW-Authenticate": realm})
        left[headers["Authorization"]] -= 1
        if headers["x-method"] == "POST":
            return Answer(202, b"", {"Location": "/v2/upload"})
        if headers["x-method"] == "PUT":
            return Answer(201, b"")
        return Answer(404, b"{}")

    generated = random_graph(3, records=80)
    with fake(answer) as location:
        report = cachefs.open(f"{location}:x").export(generated.graph, generated.blobs, mode="max")
    assert len(left) > 3
    assert report.uploaded.blobs == len(generated.graph.blobs())


def test_a_token_that_ends_soon_is_renewed_before_bytes_are_streamed(
    guarded: tuple[str, TokenServer], nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, tokens = guarded
    docker_login(nobodys_home, host, password("my-password"))
    tokens.granted.clear()
    monkeypatch.setattr(tokens, "seconds", 2)
    generated = random_graph(4, records=4, blob_size=20 * 1024 * 1024)
    cache = cachefs.open(f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    assert not cache.verify(read_data=1.0).faults


def test_credentials_are_shown_nowhere(
    nobodys_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(headers: Any) -> Answer:
        text = f"you are {headers.get('Authorization')}"
        said = json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode()
        if "Authorization" not in headers:
            return Answer(401, said, {"WWW-Authenticate": 'Basic realm="x"'})
        return Answer(403, said)

    with fake(answer) as location, caplog.at_level(logging.DEBUG):
        host = location.partition("ref=")[2].partition("/")[0]
        entry = password(SECRET)
        docker_login(nobodys_home, host, entry)
        with pytest.raises(cachefs.AccessError) as refused:
            read_tags(location)
        done = subprocess.run(
            [sys.executable, "-m", "cachefs", "ls", "-v", location],
            check=False,
            capture_output=True,
            text=True,
        )
    for text in (str(refused.value), repr(refused.value), caplog.text, done.stderr, done.stdout):
        assert SECRET not in text
        assert entry["auth"] not in text
    assert "DENIED" in done.stderr


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '"x"',
        '{"auths": {"HOST": 1}}',
        '{"auths": {"HOST": {"auth": "***"}}}',
        '{"auths": {"HOST": {"auth": "aGk="}}}',
        '{"auths": {"HOST": {"auth": 1}}}',
        '{"credHelpers": {"HOST": "absent"}}',
        '{"credsStore": "fails"}',
        '{"credsStore": "odd"}',
    ],
)
@pytest.mark.filterwarnings("ignore:docker-credential-absent not installed")
def test_a_log_in_that_cannot_be_read_is_said(
    config: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does in (("fails", f"echo {SECRET}; exit 1"), ("odd", f"echo '[\"{SECRET}\"]'")):
        helper = nobodys_home / f"docker-credential-{name}"
        helper.write_text(f"#!/bin/sh\n{does}\n")
        helper.chmod(0o700)
    monkeypatch.setenv("PATH", str(nobodys_home), prepend=":")
    with fake(asking_for('Basic realm="x"', lambda _: Answer(200, b"{}"))) as location:
        host = location.partition("ref=")[2].partition("/")[0]
        docker_login(nobodys_home, host, {})
        path = nobodys_home / ".docker" / "config.json"
        path.write_text(config.replace("HOST", host))
        with pytest.raises(cachefs.AccessError, match="cannot be read from") as refused:
            read_tags(location)
    assert str(path) in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_helper_that_hangs_is_given_up(
    nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_credentials, "HELPER_SECONDS", 0.2)
    helper = nobodys_home / "docker-credential-hangs"
    pids = nobodys_home / "pid"
    helper.write_text(f"#!/bin/sh\necho $$ > {pids}\nexec sleep 30\n")
    helper.chmod(0o700)
    monkeypatch.setenv("PATH", str(nobodys_home), prepend=":")
    docker_login(nobodys_home, "elsewhere", {}, credsStore="hangs")
    try:
        with (
            fake(asking_for('Basic realm="x"', lambda _: Answer(200, b"{}"))) as location,
            pytest.raises(cachefs.AccessError, match=r"did not answer for 0\.2 seconds"),
        ):
            read_tags(location)
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("place", ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "repository"])
def test_a_log_in_with_podman_is_found(
    place: str, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def answer(headers: Any) -> Answer:
        seen.append(headers["Authorization"])
        return Answer(200, b"{}")

    with fake(asking_for('Basic realm="x"', answer)) as location:
        host = location.partition("ref=")[2].partition("/")[0]
        docker_login(nobodys_home, "elsewhere", password("other"))
        file = nobodys_home / "containers" / "auth.json"
        file.parent.mkdir()
        auths = {host: password(SECRET)}
        if place == "repository":
            auths = {
                f"{host}/a/other": password("1"),
                f"{host}/a": password(SECRET),
                host: password("2"),
            }
        file.write_text(json.dumps({"auths": auths}))
        if place == "REGISTRY_AUTH_FILE":
            docker_login(nobodys_home, host, password("Docker's"))
            monkeypatch.setenv(place, str(file))
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(nobodys_home))
        read_tags(location)
    assert seen == [f"Basic {password(SECRET)['auth']}"]


# --- connections ---------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts."""
    monkeypatch.setattr(registry_client, "_pause", lambda *_: 0.0)


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_reached_is_said(unused_port: int) -> None:
    for host, advice in (
        (f"127.0.0.1:{unused_port}", "check the host and the port in ref"),
        ("nowhere.invalid", "check the host in ref"),
    ):
        with pytest.raises(cachefs.UnreachableError, match=advice):
            read_tags(f"type=registry,ref={host}/a/b")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.usefixtures("quick")
def test_a_registry_without_tls_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_client, "_is_this_machine", lambda _: False)
    with fake(lambda _: Answer(200, b'{"tags": []}')) as location:
        with pytest.raises(cachefs.UnreachableError, match=r"registry\.insecure=true"):
            read_tags(location)
        assert read_tags(f"{location},registry.insecure=true") == []


def test_a_forked_and_a_spawned_process_use_the_cache(repository: str) -> None:
    generated = random_graph(5, records=2)
    cache = cachefs.open(f"{repository}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    kept = len(generated.graph.blobs())
    for kind in ("fork", "spawn"):
        with multiprocessing.get_context(kind).Pool(1) as pool:
            assert pool.apply(count_blobs, (cache,)) == kept
    assert len(pickle.loads(pickle.dumps(cache)).load().blobs()) == kept  # noqa: S301 - of this test
    assert len(cache.load().blobs()) == kept


def test_a_forked_process_leaves_connections_to_its_parent(registry: str) -> None:
    """It would close what both share, and wait for a loop that does not run in it."""
    script = f"""
import os, cachefs
from cachefs.filesystems.registry import client as registry_client
cache = cachefs.open("type=registry,ref={registry}/nothing/here")
assert cache.names() == []
if (pid := os.fork()) == 0:
    import weakref
    (client,) = registry_client._connected
    print([one for one in weakref.finalize._registry if one.peek() and one.peek()[0] is client])
    raise SystemExit
os.waitpid(pid, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def count_blobs(cache: cachefs.BuildCache) -> int:
    return len(cache.load().blobs())


# --- requests ------------------------------------------------------------------------------------


@pytest.fixture
def watched(
    registry: str, recording: Callable[[S3Server], RecordingProxy]
) -> tuple[RecordingProxy, str]:
    """A proxy before the registry, and its host."""
    proxy = recording(S3Server(f"http://{registry}", "", ""))
    return proxy, proxy.server.endpoint_url.removeprefix("http://")


def methods(proxy: RecordingProxy) -> dict[str, int]:
    """How many requests of each kind there were."""
    found: dict[str, int] = {}
    for request in proxy.requests:
        kind = next(
            (kind for kind in ("uploads", "blobs", "manifests") if f"/{kind}/" in request.path),
            "others",
        )
        key = f"{request.method} {kind}"
        found[key] = found.get(key, 0) + 1
    return found


def test_requests_of_a_copy_and_of_one_that_changes_nothing(
    watched: tuple[RecordingProxy, str], tmp_path: Path
) -> None:
    proxy, host = watched
    generated = random_graph(6, records=5)
    cachefs.open(tmp_path / "a").export(generated.graph, generated.blobs, "main", mode="max")
    count = len(generated.graph.blobs())
    target = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
    proxy.clear()
    cachefs.copy(tmp_path / "a", target)
    found = methods(proxy)
    assert found["POST uploads"] == found["PUT uploads"] == count + 1, "the config as well"
    assert found["PUT manifests"] == 1
    assert "GET blobs" not in found
    proxy.clear()
    report = cachefs.copy(tmp_path / "a", target)
    assert report.uploaded.blobs == 0
    assert report.unchanged == ["main"]
    again = methods(proxy)
    assert not {key for key in again if key.startswith(("POST", "PUT", "GET blobs"))}
    assert again["HEAD blobs"] == count


def test_requests_of_a_load_and_of_a_blob(watched: tuple[RecordingProxy, str]) -> None:
    proxy, host = watched
    generated = random_graph(7, records=5)
    cache = cachefs.open(f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main")
    cache.export(generated.graph, generated.blobs, mode="max")
    proxy.clear()
    cache.load()
    assert methods(proxy) == {"GET manifests": 1, "GET blobs": 1}
    proxy.clear()
    cache.read_blob(next(iter(generated.graph.blobs())))
    assert methods(proxy)["GET blobs"] == 1


def test_blobs_of_another_repository_are_mounted(watched: tuple[RecordingProxy, str]) -> None:
    """Nothing of them is read or sent, whether they are small or large."""
    proxy, host = watched
    generated = random_graph(8, records=6, blob_size=300_000)
    source = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
    target = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
    cachefs.open(source).export(generated.graph, generated.blobs, mode="max")
    count = len(generated.graph.blobs())
    proxy.clear()
    report = cachefs.copy(source, target)
    assert report.copied.blobs == report.uploaded.blobs == count
    found = methods(proxy)
    assert found["POST uploads"] == count + 1, "the config is sent"
    assert found["GET blobs"] == found["PUT uploads"] == 1
    assert not cachefs.open(target).verify(read_data=1.0).faults


def test_a_mount_asks_for_both_repositories(
    guarded: tuple[str, TokenServer], nobodys_home: Path
) -> None:
    host, tokens = guarded
    docker_login(nobodys_home, host, password("my-password"))
    one, other = secrets.token_hex(8), secrets.token_hex(8)
    generated = random_graph(9, records=3)
    source = cachefs.open(f"type=registry,ref={host}/ci/{one}:main")
    source.export(generated.graph, generated.blobs, mode="max")
    tokens.granted.clear()
    report = cachefs.copy(source, f"type=registry,ref={host}/ci/{other}:main")
    assert report.copied.blobs == len(generated.graph.blobs())
    wanted = f"repository:ci/{other}:pull,push repository:ci/{one}:pull"
    assert [scope for scope, _ in tokens.granted].count(wanted) == 1


def test_a_registry_that_does_not_mount_gets_the_bytes() -> None:
    generated = random_graph(10, records=3)
    blobs = dict(generated.blobs)
    calls: list[tuple[str, str]] = []

    def answer(headers: Any) -> Answer:
        path = headers["x-asked"]
        calls.append((headers["x-method"], path))
        digest = path.rpartition("/")[2]
        if headers["x-method"] == "POST":
            return Answer(202, b"", {"Location": "/v2/upload?x=1"})
        if headers["x-method"] == "DELETE":
            return Answer(204, b"")
        if headers["x-method"] == "PUT":
            return Answer(201, b"")
        if "/a/b/" in path and digest in blobs:
            return Answer(200, blobs[digest])
        return Answer(404, b"{}")

    from cachefs.concurrency import run
    from cachefs.digest import Digest
    from cachefs.transfer.exporter import Transfer
    from cachefs.transfer.sources import LayoutSource

    with fake(answer) as location:
        target = cachefs.open(location.replace("/a/b", "/a/c")).layout
        transfer = Transfer(target, LayoutSource(cachefs.open(location).layout))
        sizes = {Digest(digest): len(data) for digest, data in blobs.items()}
        run(transfer.bring(sizes, 0.0))
    assert len([path for method, path in calls if "mount=" in path]) == 1, "it is asked once"
    assert [method for method, _ in calls].count("DELETE") == 1, "what was begun is ended"
    assert [method for method, _ in calls].count("PUT") == len(blobs)


# --- commands ------------------------------------------------------------------------------------


def test_doctor_leaves_nothing(watched: tuple[RecordingProxy, str]) -> None:
    proxy, host = watched
    location = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
    generated = random_graph(11, records=2)
    cachefs.open(location).export(generated.graph, generated.blobs, mode="max")
    proxy.clear()
    found = {one.check: one.verdict for one in cachefs.open(location).examine().findings}
    assert found == {
        "list": "good",
        "transport": "good",
        "delete": "mind",
        "conditions": "mind",
        "get": "good",
        "put": "good",
    }
    assert methods(proxy)["POST uploads"] == methods(proxy)["DELETE uploads"] == 1
    assert "PUT uploads" not in methods(proxy)


def test_doctor_sees_who_may_only_read(
    guarded: tuple[str, TokenServer], nobodys_home: Path
) -> None:
    host, _ = guarded
    docker_login(nobodys_home, host, password("my-password"))
    location = f"type=registry,ref={host}/ci/{secrets.token_hex(8)}:main"
    generated = random_graph(12, records=1)
    cachefs.open(location).export(generated.graph, generated.blobs, mode="max")
    docker_login(nobodys_home, "elsewhere", {})
    findings = cachefs.open(location).examine().findings
    assert [one.verdict for one in findings if one.check == "put"] == ["bad"]
