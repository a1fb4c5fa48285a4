"""Caches that are used before and after a fork, by every library, in real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.azurite import KEY, azurite, azurite_program
from tests.servers.s3 import S3Server
from tests.servers.sftp import PASSWORD, USER, sftp

# The child's exit status is 0 only if it read and wrote; the parent works before and afterwards.
_FORKED = """
import os, signal, sys, threading
import cachefs
from tests.filesystems.test_forking import filesystem

cache = cachefs.open(sys.argv[1], **filesystem(sys.argv[2]))
cachefs.copy(sys.argv[3], cache)
names = list(cache)
children = []
for how in ("at once", "by sys.exit"):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 1
        try:
            assert list(cache) == names
            cachefs.copy(sys.argv[3], cache)
            assert not cache.verify(read_data=1.0).faults
            status = 0
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        if how == "at once":
            os._exit(status)
        sys.exit(status)
    children.append(os.waitpid(child, 0)[1])
assert list(cache) == names
assert not cache.verify(read_data=1.0).faults
print(len(names), children, flush=True)
"""


def filesystem(what: str) -> dict[str, object]:
    """What a caller passes to ``cachefs.open``, in the child program."""
    if what == "own":
        return {}
    endpoint = what.partition("=")[2]
    if what.startswith("s3fs="):
        import s3fs

        made = s3fs.S3FileSystem(
            key="k", secret="s", endpoint_url=endpoint, use_listings_cache=False,
            client_kwargs={"region_name": "us-east-1"},
            config_kwargs={"s3": {"addressing_style": "path"}},
        )  # fmt: skip
        return {"fs": made}
    from obstore.fsspec import FsspecStore

    config = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "k",
        "secret_access_key": "s",
    }
    return {"fs": FsspecStore("s3", config=config, client_options={"allow_http": True})}  # type: ignore[call-overload]


def forked(location: str, recorded: Path, fs: str = "own") -> list[str]:
    """Run the program, and return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", _FORKED, location, fs, str(recorded / "s3" / "max")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return ended.stdout.splitlines()


@pytest.mark.parametrize("engine", ["s3fs", "obstore"])
def test_s3(engine: str, moto_s3: S3Server, recorded: Path) -> None:
    location = moto_s3.attributes(moto_s3.bucket(), engine=engine)
    assert forked(location, recorded) == ["2 [0, 0]"]


def test_a_filesystem_of_the_caller_is_made_again(moto_s3: S3Server, recorded: Path) -> None:
    location = f"s3://{moto_s3.bucket()}/ci/"
    assert forked(location, recorded, f"s3fs={moto_s3.endpoint_url}") == ["2 [0, 0]"]


def test_one_that_cannot_be_made_again_says_so(moto_s3: S3Server, recorded: Path) -> None:
    location = f"s3://{moto_s3.bucket()}/ci/"
    *said, end = forked(location, recorded, f"obstore={moto_s3.endpoint_url}")
    assert end == "2 [256, 256]"
    assert all(line.startswith("UsageError obstore was used before") for line in said)


def test_sftp(recorded: Path, tmp_path: Path) -> None:
    with sftp(tmp_path) as port:
        location = f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/cache"
        assert forked(location, recorded) == ["2 [0, 0]"]


def test_a_directory(recorded: Path, tmp_path: Path) -> None:
    assert forked(str(tmp_path / "cache"), recorded) == ["2 [0, 0]"]


@pytest.mark.skipif(azurite_program() is None, reason="Azurite is not installed")
def test_azure(recorded: Path, tmp_path: Path) -> None:
    with azurite(str(azurite_program()), tmp_path) as url:
        location = f"type=azblob,account_url={url},secret_access_key={KEY},account_name="
        location += "devstoreaccount1,container=forked"
        assert forked(location, recorded) == ["2 [0, 0]"]
