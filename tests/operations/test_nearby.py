"""Where there is no cache, the error says which one is near, after few requests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachefs
from cachefs.errors import NoCacheError
from tests.programs import run
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]


@pytest.fixture
def builds(recorded: Path, tmp_path: Path) -> Path:
    """Keyed caches below ``team/``, an OCI directory, and one whose prefix ends without a slash."""
    folder = tmp_path / "builds"
    shutil.copytree(recorded / "s3" / "max", folder / "team" / "demo")
    shutil.copytree(recorded / "s3" / "min", folder / "team" / "web")
    shutil.copytree(recorded / "local-max", folder / "oci")
    for part in ("blobs", "manifests"):
        shutil.copytree(recorded / "s3" / "min" / part, folder / "flat" / f"ci-{part}")
    return folder


HINTS = [
    ("{}", "but below: {}/oci/"),
    ("{}/team", "but below: {}/team/demo/, {}/team/web/"),
    ("{}/team/dmeo", "did you mean {}/team/demo/?"),
    ("{}/team/demo/manifests", "the cache is one folder up, at {}/team/demo/"),
    ("{}/team/demo/manifests/app", "there is nothing here"),
    ("type=fsspec,url={}/team,prefix=demo", "prefix=demo has no slash at its end"),
    ("type=fsspec,url={}/flat,prefix=ci-/", "give prefix=ci-"),
    ("type=local,src={}/team/demo", "this is a keyed cache, not an OCI image layout"),
    ("type=fsspec,url={}/team/demo,manifests_prefix=manifest/", "give manifests_prefix=manifests/"),
    ("{}/team/demo/blobs/sha256", "the cache is two folders up"),
    ("{}/none", "there is nothing here: check the location and its prefixes"),
]


@pytest.mark.parametrize(("location", "hint"), HINTS)
def test_what_is_near_is_named(builds: Path, location: str, hint: str) -> None:
    if location.endswith("/app"):
        (builds / "team/demo/manifests/app").unlink()
    cache = cachefs.open(location.replace("{}", str(builds)))
    with pytest.raises(NoCacheError) as caught:
        cache.require_exists()
    assert hint.replace("{}", str(builds)) in str(caught.value)
    assert list(cache) == cache.summaries() == []
    assert len(cache.load("main").records) == 0
    for work in (cache.verify, cache.usage, cache.plan_prune, cache.plan_repair):
        with pytest.raises(NoCacheError):
            work()
    for one, other in ((cache, builds / "team/demo"), (cachefs.open(builds / "team/demo"), cache)):
        with pytest.raises(NoCacheError):
            one.diff(other)
    with pytest.raises(NoCacheError):
        cachefs.copy(cache, builds / "target")
    with pytest.raises(NoCacheError):
        cachefs.merge(cache, builds / "target", "all")
    assert not (builds / "target").exists()


VERBS = [["ls"], ["du"], ["verify"], ["verify", "--name", "app"], ["repair"], ["show"], ["graph"],
         ["prune", "--dry-run"], ["ls", "--json"], ["show", "--name", "app", "--json"]]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_ends_with_its_status(builds: Path, verb: list[str]) -> None:
    ended = run(verb[0], str(builds / "team"), *verb[1:])
    assert ended.status == 5
    assert ended.err == (
        f"cachefs: error: {builds}/team/: there is no cache here, but below: "
        f"{builds}/team/demo/, {builds}/team/web/\n"
    )


def test_a_cache_whose_names_were_removed_is_one(builds: Path) -> None:
    demo = cachefs.open(builds / "team/demo")
    demo.prune(cachefs.PrunePolicy(keep_last={"*": 0}), grace=0.0)
    oci = cachefs.open(builds / "oci")
    oci.prune(cachefs.PrunePolicy(keep_last={"*": 0}), grace=0.0)
    for cache in (demo, oci):
        cache.require_exists()
        assert cache.verify().faults == []
        assert cache.usage().stored.blobs == 0
        ended = run("verify", str(cache.location))
        assert (ended.status, "the cache is empty" in ended.err) == (0, True)


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_bucket_is_looked_at_with_few_requests(
    engine: str, moto_s3: S3Server, recording: Recording, builds: Path
) -> None:
    bucket = moto_s3.bucket()
    for name in ("demo", "web"):
        target = moto_s3.attributes(bucket, prefix=f"team/{name}/")
        cachefs.copy(builds / "team" / name, target)
    proxy = recording(moto_s3)
    for prefix, hint, requests in (
        ("", f"but below: s3://{bucket}/team/demo/, s3://{bucket}/team/web/", 5),
        ("team/", f"but below: s3://{bucket}/team/demo/, s3://{bucket}/team/web/", 5),
        ("team/demo", "give prefix=team/demo/", 3),
        ("team/dmeo/", f"did you mean s3://{bucket}/team/demo/?", 5),
        ("team/demo/manifests/", f"the cache is one folder up, at s3://{bucket}/team/demo/", 4),
    ):
        proxy.clear()
        cache = cachefs.open(proxy.server.attributes(bucket, prefix=prefix, engine=engine))
        with pytest.raises(NoCacheError) as caught:
            cache.require_exists()
        assert hint in str(caught.value)
        assert len(proxy.requests) <= requests
        assert {request.method for request in proxy.requests} == {"GET"}
    cache = cachefs.open(proxy.server.attributes(bucket, prefix="team/demo/", engine=engine))
    proxy.clear()
    assert cache.verify().faults == []
    assert not [r for r in proxy.requests if "delimiter" in r.query]


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_a_url_of_a_prefix_without_a_slash(
    engine: Any, moto_s3: S3Server, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = moto_s3.bucket()
    cachefs.copy(recorded / "s3" / "max", moto_s3.attributes(bucket, prefix="ci/demo"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_s3.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_access_key)
    for url in (f"s3://{bucket}/ci/demo", f"s3://{bucket}/ci/demo/"):
        cache = cachefs.open(url, engine=engine)
        with pytest.raises(cachefs.NoCacheError, match="give attributes with prefix=ci/demo, as"):
            cache.require_exists()
