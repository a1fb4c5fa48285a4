"""The test servers do what the other tests rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from botocore.exceptions import ClientError, ResponseStreamingError

from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

Recording = Callable[[S3Server], RecordingProxy]


@pytest.fixture(params=["moto_s3", "seaweed_s3"])
def server(request: pytest.FixtureRequest) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    return server


def filesystem(server: S3Server) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(**server.storage_options, skip_instance_cache=True)


def test_what_boto3_puts_s3fs_gets(server: S3Server) -> None:
    bucket = server.bucket()
    server.client.put_object(Bucket=bucket, Key="a/b", Body=b"hello")
    assert filesystem(server).cat_file(f"{bucket}/a/b") == b"hello"


def test_what_s3fs_puts_boto3_gets(server: S3Server) -> None:
    bucket = server.bucket()
    filesystem(server).pipe_file(f"{bucket}/a/b", b"hello")
    assert server.client.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"hello"
    assert server.keys(bucket) == ["a/b"]


def test_buckets_are_fresh(server: S3Server) -> None:
    first, second = server.bucket(), server.bucket()
    assert first != second
    assert server.keys(second) == []


def test_a_missing_bucket_is_not_made(server: S3Server) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        server.client.put_object(Bucket="no-such-bucket", Key="k", Body=b"")


def test_seaweed_refuses_a_wrong_secret(seaweed_s3: S3Server) -> None:
    stranger = S3Server(seaweed_s3.endpoint_url, seaweed_s3.access_key_id, "wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.bucket()


def test_attributes_name_the_server(moto_s3: S3Server) -> None:
    text = moto_s3.attributes("b", name="app", use_path_style="false")
    assert text.startswith("type=s3,bucket=b,region=us-east-1,endpoint_url=http://127.0.0.1:")
    assert text.endswith(",name=app")
    assert text.count("use_path_style=") == 1


def test_the_proxy_records_and_signatures_hold(seaweed_s3: S3Server, recording: Recording) -> None:
    bucket = seaweed_s3.bucket()
    proxy = recording(seaweed_s3)
    through = filesystem(proxy.server)
    through.pipe_file(f"{bucket}/sha256:ab", b"x" * 200_000)
    assert through.cat_file(f"{bucket}/sha256:ab") == b"x" * 200_000
    assert proxy.count("PUT") == 1
    put = next(each for each in proxy.requests if each.method == "PUT")
    assert put.path == f"/{bucket}/sha256:ab"
    assert put.headers["authorization"].startswith("AWS4-HMAC-SHA256")
    through.find(bucket)
    assert proxy.requests[-1].parameters["list-type"] == "2"
    proxy.clear()
    assert proxy.requests == []


def test_the_proxy_forwards_files_and_deletes(
    server: S3Server, recording: Recording, tmp_path: Path
) -> None:
    bucket = server.bucket()
    through = recording(server).server
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    with source.open("rb") as body:
        through.client.put_object(Bucket=bucket, Key="k", Body=body)
    assert server.client.get_object(Bucket=bucket, Key="k")["Body"].read() == source.read_bytes()
    assert through.client.head_object(Bucket=bucket, Key="k")["ContentLength"] == 300_000
    through.client.delete_object(Bucket=bucket, Key="k")
    assert server.keys(bucket) == []


def test_the_proxy_injects_a_status(moto_s3: S3Server, recording: Recording) -> None:
    bucket = moto_s3.bucket()
    proxy = recording(moto_s3)
    proxy.inject(times=1, when=lambda r: r.method == "PUT", status=503, code="SlowDown")
    with pytest.raises(ClientError, match="SlowDown"):
        proxy.server.client.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert moto_s3.keys(bucket) == []
    proxy.server.client.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert proxy.count("PUT") == 2


def test_the_proxy_cuts_a_body(moto_s3: S3Server, recording: Recording) -> None:
    bucket = moto_s3.bucket()
    moto_s3.client.put_object(Bucket=bucket, Key="k", Body=b"x" * 100_000)
    proxy = recording(moto_s3)
    proxy.inject(when=lambda r: r.method == "GET", cut_after=70_000)
    body = proxy.server.client.get_object(Bucket=bucket, Key="k")["Body"]
    with pytest.raises(ResponseStreamingError):
        body.read()
    assert len(proxy.server.client.get_object(Bucket=bucket, Key="k")["Body"].read()) == 100_000


def test_the_proxy_delays_and_counts_what_is_under_way(
    moto_s3: S3Server, recording: Recording
) -> None:
    bucket = moto_s3.bucket()
    proxy = recording(moto_s3)
    proxy.inject(times=3, delay=0.2)
    client = proxy.server.client
    threads = [
        threading.Thread(target=client.put_object, kwargs={"Bucket": bucket, "Key": key})
        for key in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.most_at_once == 3


def test_the_environment_is_nobodys(nobodys_home: Path) -> None:
    assert Path.home() == nobodys_home
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    assert not {"http_proxy", "HTTP_PROXY"} & os.environ.keys()


def test_the_recorded_caches_are_here(recorded: Path) -> None:
    assert (recorded / "s3" / "min" / "manifests" / "app").is_file()
    assert (recorded / "local-min" / "index.json").is_file()


_USE_AND_BE_KILLED = """
import os, sys, signal
from pathlib import Path
from tests.servers.seaweed import shared_seaweed

with shared_seaweed(Path(sys.argv[1])) as server:
    server.bucket()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_seaweed_ends_when_its_users_are_killed(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", _USE_AND_BE_KILLED, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (tmp_path / "server.json").exists()
    deadline = time.monotonic() + 30
    while (tmp_path / "data").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "users").exists()
