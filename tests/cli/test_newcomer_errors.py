"""Errors of a first setup: one line, which says what to do about it."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

import pytest

import cachefs
from cachefs.cli.exits import Exit
from tests.programs import Ended, run
from tests.servers.answering import EMPTY_LISTING, Answer, answering, refusal
from tests.servers.s3 import S3Server
from tests.servers.seaweed import with_rights
from tests.servers.sftp import USER, sftp

ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])

# The response of a server, the error that it becomes, and the line that is printed.
ANSWERS = {
    "unknown key": (
        refusal(403, "InvalidAccessKeyId"),
        cachefs.AccessError,
        "does not know this access key: check access_key_id or AWS_ACCESS_KEY_ID",
    ),
    "wrong secret": (
        refusal(403, "SignatureDoesNotMatch"),
        cachefs.AccessError,
        "check secret_access_key or AWS_SECRET_ACCESS_KEY",
    ),
    "expired token": (
        refusal(400, "ExpiredToken"),
        cachefs.AccessError,
        "the session token has expired: get new credentials",
    ),
    "wrong token": (
        refusal(400, "InvalidToken"),
        cachefs.AccessError,
        "check session_token or AWS_SESSION_TOKEN",
    ),
    "clock": (
        refusal(403, "RequestTimeTooSkewed"),
        cachefs.AccessError,
        "the clock of this machine differs too much from the store's: set it",
    ),
    "denied": (
        refusal(403, "AccessDenied"),
        cachefs.AccessError,
        "access is denied: check the credentials; this needs s3:",
    ),
    "moved": (
        refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-central-1"),
        cachefs.StoreError,
        "give region=eu-central-1 or set AWS_REGION=eu-central-1",
    ),
    "signed for elsewhere": (
        refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"),
        cachefs.StoreError,
        "give region=eu-central-1 or set AWS_REGION=eu-central-1",
    ),
    "somewhere else": (
        refusal(400, "IllegalLocationConstraintException"),
        cachefs.StoreError,
        "the bucket is in another region: check region or AWS_REGION",
    ),
    "no bucket": (
        refusal(404, "NoSuchBucket"),
        cachefs.StoreError,
        "there is no such bucket: create it, or check its name and the endpoint",
    ),
    "too busy": (
        refusal(503, "SlowDown"),
        cachefs.StoreError,
        "the store throttles requests",
    ),
}


def one_error(ended: Ended, status: Exit) -> str:
    """The one line that the program printed on standard error."""
    assert ended.status == status, ended.err
    assert ended.out == ""
    found = re.fullmatch(r"cachefs: error: ([^\n]+)\n", ended.err)
    assert found, ended.err
    assert "a-real-secret" not in ended.err
    return found[1]


@pytest.fixture
def cache(recorded: Path, tmp_path: Path) -> Path:
    """A local cache that may be damaged."""
    return Path(shutil.copytree(recorded / "s3" / "max", tmp_path / "cache"))


# --- responses of S3 servers ----------------------------------------------------------------------


ASKED = [
    (engine, case, operation)
    for engine in ("s3fs", "obstore")
    for case in ANSWERS
    for operation in ("list", "read", "look up")
    # A HEAD cannot distinguish a missing bucket from a missing object.
    if case != "no bucket" or operation != "look up"
]


@pytest.mark.parametrize(("engine", "case", "operation"), ASKED)
def test_what_a_server_answers_is_one_error_whatever_was_asked(
    engine: str, case: str, operation: str, recorded: Path
) -> None:
    answer, kind, words = ANSWERS[case]
    with answering(lambda _: answer) as server:
        cache = cachefs.open(server.attributes("b", engine=engine, retry_max_attempts="1"))
        ask: dict[str, Callable[[], object]] = {
            "list": cache.names,
            "read": lambda: cache.manifest("app"),
            "look up": lambda: cachefs.copy(recorded / "s3" / "max", cache),
        }
        with pytest.raises(cachefs.StoreError) as raised:
            ask[operation]()
    error = raised.value
    assert type(error) is kind
    assert words in str(error)
    assert error.operation == operation
    side = "target" if operation == "look up" else None
    assert error.side == side
    assert str(error).startswith(f"{operation} {side} b/" if side else f"{operation} b/")
    assert "\n" not in str(error)
    assert "a-real-secret" not in str(error)


@pytest.mark.parametrize(
    ("engine", "case"),
    [("s3fs", "expired token"), ("s3fs", "moved"), ("s3fs", "no bucket"), ("obstore", "clock")],
)
def test_the_program_says_it_in_one_line(engine: str, case: str) -> None:
    answer, _, words = ANSWERS[case]
    with answering(lambda _: answer) as server:
        place = server.attributes("b", engine=engine, retry_max_attempts="1")
        line = one_error(run("ls", place), Exit.STORE)
    assert line.startswith("list b/manifests/: ")
    assert words in line


@ENGINES
def test_a_bucket_in_another_region_is_found_or_its_region_is_told(engine: str) -> None:
    moved = refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-central-1")

    def only_there(headers: Message) -> Answer:
        return EMPTY_LISTING if "/eu-central-1/s3/" in headers["Authorization"] else moved

    with answering(only_there) as server:
        right = dataclasses.replace(server, region="eu-central-1").attributes("b", engine=engine)
        assert cachefs.open(right).names() == []
        wrong = cachefs.open(server.attributes("b", engine=engine))
        if engine == "s3fs":  # botocore follows the redirect
            assert wrong.names() == []
        else:
            with pytest.raises(cachefs.StoreError, match="give region=eu-central-1"):
                wrong.names()


@ENGINES
def test_a_missing_bucket_is_never_a_missing_name(moto_s3: S3Server, engine: str) -> None:
    place = moto_s3.attributes("no-such-bucket", engine=engine)
    for arguments in (["show", place], ["show", place, "--name", "app"], ["graph", place]):
        assert "there is no such bucket" in one_error(run(*arguments), Exit.STORE)


def test_a_missing_bucket_is_said_while_copying(moto_s3: S3Server, cache: Path) -> None:
    place = moto_s3.attributes("no-such-bucket")
    line = one_error(run("copy", str(cache), place), Exit.STORE)
    assert line.startswith("upload target no-such-bucket/blobs/sha256:")
    assert "there is no such bucket" in line
    assert "there is no such bucket" in one_error(run("copy", place, str(cache)), Exit.STORE)


# --- credentials and rights -----------------------------------------------------------------------


@ENGINES
def test_no_credentials(moto_s3: S3Server, engine: str) -> None:
    text = re.sub(r",(access_key_id|secret_access_key)=[^,]*", "", moto_s3.attributes("b"))
    line = one_error(run("ls", f"{text},engine={engine}"), Exit.STORE)
    assert "no credentials were found; give access_key_id and secret_access_key, or set" in line


@ENGINES
def test_a_wrong_secret_on_a_server_that_checks(seaweed_s3: S3Server, engine: str) -> None:
    server = dataclasses.replace(seaweed_s3, secret_access_key="a-real-secret")
    place = server.attributes(seaweed_s3.bucket(), engine=engine)
    assert "check secret_access_key" in one_error(run("ls", place), Exit.STORE)
    server = dataclasses.replace(seaweed_s3, access_key_id="nobody")
    place = server.attributes(seaweed_s3.bucket(), engine=engine)
    assert "check access_key_id" in one_error(run("show", place, "--name", "x"), Exit.STORE)


@ENGINES
def test_who_may_read_only(seaweed_s3: S3Server, engine: str, cache: Path) -> None:
    bucket = seaweed_s3.bucket()
    place = with_rights(seaweed_s3, "reading").attributes(bucket, engine=engine)
    assert cachefs.open(place).names() == []
    with pytest.raises(cachefs.AccessError) as raised:
        cachefs.copy(cache, place)
    assert (raised.value.operation, raised.value.side) == ("upload", "target")
    assert "this needs s3:PutObject" in str(raised.value)
    cachefs.copy(cache, seaweed_s3.attributes(bucket))
    assert len(cachefs.open(place).summaries()) == 2


@ENGINES
def test_who_may_list_only(seaweed_s3: S3Server, engine: str, cache: Path) -> None:
    bucket = seaweed_s3.bucket()
    cachefs.copy(cache, seaweed_s3.attributes(bucket))
    place = cachefs.open(with_rights(seaweed_s3, "listing").attributes(bucket, engine=engine))
    assert len(place.names()) == 2
    with pytest.raises(cachefs.AccessError, match=r"^read .*access is denied"):
        place.manifest("app")


@ENGINES
def test_who_may_not_list(seaweed_s3: S3Server, engine: str, cache: Path) -> None:
    bucket = seaweed_s3.bucket()
    cachefs.copy(cache, seaweed_s3.attributes(bucket))
    place = cachefs.open(with_rights(seaweed_s3, "writing").attributes(bucket, engine=engine))
    assert place.manifest("app").name == "app"
    with pytest.raises(cachefs.AccessError, match=r"^list .*s3:ListBucket"):
        place.names()


# --- servers that do not exist --------------------------------------------------------------------


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def unreachable(endpoint: str, engine: str) -> str:
    server = S3Server(endpoint, "a-key-id", "a-real-secret")
    line = one_error(
        run("ls", server.attributes("b", engine=engine, retry_max_attempts="1")), Exit.STORE
    )
    assert line.startswith("list b/manifests/: no response from the store (")
    assert "prefix=" not in line, "queries are masked: they may hold signatures"
    return line


@ENGINES
def test_a_port_where_nobody_listens(engine: str, unused_port: int) -> None:
    line = unreachable(f"http://127.0.0.1:{unused_port}", engine)
    assert line.endswith("; nothing listens there: check the endpoint")


@ENGINES
def test_a_host_that_nobody_knows(engine: str) -> None:
    line = unreachable("http://no-such-host.invalid", engine)
    assert "; its host name cannot be resolved: check the endpoint" in line
    assert "use_path_style=true" in line


@ENGINES
def test_tls_where_there_is_none(engine: str, moto_s3: S3Server) -> None:
    line = unreachable(moto_s3.endpoint_url.replace("http:", "https:"), engine)
    assert "; TLS failed: write http:// if the server has no TLS" in line


# --- directories ----------------------------------------------------------------------------------


def test_an_sftp_server_that_does_not_let_one_in(tmp_path: Path) -> None:
    with sftp(tmp_path) as port:
        ended = run("ls", f"sftp://{USER}:hunter2@127.0.0.1:{port}/cache")
    assert ended.status == Exit.STORE
    assert "access is denied: check user, password or key" in ended.err
    assert "hunter2" not in ended.err
    assert ended.err.count("\n") == 1


def test_an_sftp_server_that_is_not_there(unused_port: int) -> None:
    for server, words in {
        f"127.0.0.1:{unused_port}": "no response from the store",
        "nowhere.invalid": "its host name cannot be resolved",
    }.items():
        ended = run("ls", f"sftp://{server}/cache")
        assert ended.status == Exit.STORE
        assert words in ended.err
        assert ended.err.count("\n") == 1


def test_a_file_where_a_directory_is_meant(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for arguments in (["ls", str(file)], ["copy", str(cache), str(file)]):
        assert one_error(run(*arguments), Exit.USAGE) == f"{file} is a file, not a directory"
    line = one_error(run("copy", str(cache), str(file / "below")), Exit.STORE)
    assert line.endswith("a file is in the way of a directory: give another path")


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    for command in ("ls", "show", "du", "verify"):
        line = one_error(run(command, str(tmp_path / "nowhere")), Exit.NO_CACHE)
        assert line.startswith(f"{tmp_path}/nowhere/: there is nothing here")


def test_a_directory_that_is_read_only(cache: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed"
    fixed.mkdir(mode=0o555)
    without_privileges: list[str] = []
    if os.geteuid() == 0:  # root ignores modes unless it loses that capability
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere")
        without_privileges = ["setpriv", "--bounding-set", "-dac_override"]
    command = [*without_privileges, sys.executable, "-m", "cachefs", "copy", str(cache), str(fixed)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    line = one_error(Ended(ended.returncode, ended.stdout, ended.stderr), Exit.STORE)
    assert line.startswith(f"upload target {fixed}/blobs/")
    assert line.endswith("access is denied: check the owner and the mode of the directory")
    assert list(fixed.iterdir()) == []


# --- names and manifests --------------------------------------------------------------------------


def test_a_name_that_is_not_there_is_told_with_those_that_are(cache: Path, tmp_path: Path) -> None:
    for command in ("show", "graph"):
        line = one_error(run(command, str(cache), "--name", "ap"), Exit.FAULTS)
        assert line == f"read {cache}/manifests/ap: there is no name ap: did you mean app?"
        line = one_error(run(command, str(cache), "--name", "else"), Exit.FAULTS)
        assert line.endswith("there is no name else; there are: app, app-v2")
        line = one_error(run(command, str(tmp_path / "none"), "--name", "x"), Exit.NO_CACHE)
        assert "there is nothing here" in line


def test_many_names_are_not_listed_in_an_error(cache: Path) -> None:
    for number in range(9):
        shutil.copy(cache / "manifests" / "app", cache / "manifests" / f"branch-{number}")
    line = one_error(run("show", str(cache), "--name", "zzz"), Exit.FAULTS)
    assert line.endswith("there is no name zzz; 'cachefs ls' lists those that are there")


def test_a_manifest_that_is_no_json(cache: Path) -> None:
    (cache / "manifests" / "app").write_text("hello")
    line = one_error(run("show", str(cache), "--name", "app"), Exit.DAMAGED)
    assert line.startswith(f"read {cache}/manifests/app: the manifest is not a cache config: JSON")


# --- usage errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lss"], "Did you mean 'ls'?"),
        (["ls", "type=s3,bukket=x"], "unknown attribute 'bukket': did you mean bucket?"),
        (
            ["ls", "c", "--engin", "s3fs"],
            "--engine",
        ),  # in words that depend on the release of click
        (["ls", "c", "--engine", "boto"], "'boto' is not one of 's3fs', 'obstore'"),
        (["run", "--ouput", "x", "--", "true"], "--output"),
    ],
)
def test_what_was_meant_is_guessed(arguments: list[str], words: str) -> None:
    assert words in one_error(run(*arguments), Exit.USAGE)


# --- libraries that are not installed -------------------------------------------------------------

WITHOUT = """
import sys
for library in sys.argv.pop(1).split(","):
    sys.modules[library] = None
from cachefs.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "place", "extra"),
    [
        ("s3fs", "type=s3,bucket=b,region=r", "s3"),
        ("obstore,obstore.fsspec", "type=s3,bucket=b,region=r,engine=obstore", "obstore"),
        ("adlfs", "type=azblob,account_url=https://a.example", "azure"),
        ("gcsfs", "gs://bucket/ci", "gcs"),
        ("paramiko", "sftp://host/ci", "sftp"),
    ],
)
def test_a_missing_library_names_the_extra(missing: str, place: str, extra: str) -> None:
    command = [sys.executable, "-c", WITHOUT, missing, "ls", place]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    line = one_error(Ended(ended.returncode, ended.stdout, ended.stderr), Exit.USAGE)
    assert line.endswith(f"needs a library; pip install 'buildcachefs[{extra}]'")


def test_obstore_without_s3fs_still_tells_what_it_knows() -> None:
    with answering(lambda _: refusal(403, "AccessDenied")) as server:
        place = server.attributes("b", engine="obstore", retry_max_attempts="1")
        command = [sys.executable, "-c", WITHOUT, "s3fs", "show", place, "--name", "x"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    line = one_error(Ended(ended.returncode, ended.stdout, ended.stderr), Exit.STORE)
    assert "access is denied" in line
