"""No secret is shown where a location is mistyped, or where HTTP carries it."""

from __future__ import annotations

import traceback
from email.message import Message
from pathlib import Path

import pytest

import cachefs
from cachefs.errors import CacheError, LocationError, NotFoundError
from cachefs.location.attributes import ATTRIBUTES
from cachefs.location.parsing import parse
from cachefs.masking import mask_text
from tests.programs import run
from tests.servers.answering import Answer, answering

SECRET = "hunter2secret"
SECRET_NAMES = [row.name for row in ATTRIBUTES if row.secret]
VALUES = {
    "mode": "max", "touch_refresh": "1h", "use_path_style": "true", "engine": "s3fs",
    "upload_parallelism": "4", "name": "a//b", "endpoint_url": "host", "prefix": "x",
    "retry_mode": "standard",
}  # fmt: skip


def shown(text: str) -> str:
    """All that a user could see of the location, or of the error."""
    try:
        location = parse(text)
    except CacheError as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    return f"{location} {location!r}"


@pytest.mark.parametrize("separator", [";", " ", "; ", "&", "|", "\t"])
@pytest.mark.parametrize("name", [*VALUES, "bucket", "type"])
def test_a_separator_that_is_no_comma(separator: str, name: str) -> None:
    fields = {"type": "s3", "bucket": "b", "region": "r", name: VALUES.get(name, "s3")}
    for secret in (*SECRET_NAMES, "secret_key", "aws-session-token"):
        text = ",".join(
            f"{key}={value}{separator}{secret}={SECRET}" if key == name else f"{key}={value}"
            for key, value in fields.items()
        )
        assert SECRET not in shown(text)
    text = f"type=s3,bucket=b,region=r,mode=max{separator}secret_access_key:{SECRET}"
    assert SECRET not in shown(text)


def test_the_error_says_which_attribute_is_inside() -> None:
    with pytest.raises(LocationError, match="the value of bucket contains mode=: separate"):
        parse("type=s3,bucket=b;mode=max,region=r")
    assert parse("type=s3,bucket=b,region=r,name=a;b").names == ("a", "b")
    assert parse("type=local,dest=/a b mode=max/c").url == "/a b mode=max/c/"


@pytest.mark.parametrize(
    "text",
    [
        f"typ=s3;secret_access_key={SECRET}",
        f"s3://b/x;secret_access_key={SECRET}",
        f"./cache session_token={SECRET}",
        f"typ=s3;secret_key={SECRET}",
        f"file:///x;password={SECRET}",
    ],
)
def test_a_secret_in_a_path(text: str) -> None:
    assert SECRET not in shown(text)
    ended = run("ls", text)
    assert SECRET not in ended.out + ended.err


def test_a_space_in_the_shell_makes_another_argument() -> None:
    ended = run("ls", "type=s3,bucket=b,region=r", f"secret_access_key={SECRET}", "--json")
    assert ended.status == 2
    assert SECRET not in ended.out + ended.err
    assert "secret_access_key=***" in ended.err


@pytest.mark.parametrize(
    "url",
    [
        f"sftp://user:{SECRET}",
        f"sftp://user:{SECRET}/folder",
        f"ssh://user:{SECRET}@",
        f"ftp://user:{SECRET}/",
        f"sftp://user:x/{SECRET}@host/folder",
        f"sftp://user:x#{SECRET}@host/folder",
        f"sftp://user:x?{SECRET}@host/folder",
        f"sftp://user:[{SECRET}@host/folder",
        f"https://user:{SECRET}",
        f"https://host/ci?X-Amz-Signature={SECRET}",
        f"http://host/ci/?token={SECRET}&x=1",
    ],
)
def test_a_url_that_cannot_be_a_folder_is_a_typed_error(url: str) -> None:
    with pytest.raises(LocationError) as caught:
        parse(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    ended = run("ls", url)
    assert ended.status == 2
    assert SECRET not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "text",
    [
        "s3:/bucket/ci/",
        "s3:bucket/ci/",
        "s3//bucket/ci",
        "HTTPS:/host/ci",
        "user@host:/ci",
        f"sftp:/user:{SECRET}@host/ci",
        f"sftp:user:{SECRET}@host/ci",
        f"http//user:{SECRET}@host/ci",
        f"user:{SECRET}@host/ci",
        f"type=fsspec,url=sftp:/user:{SECRET}@host/ci",
        "type=local,dest=s3://bucket/ci",
        f"type=local,src=https://user:{SECRET}@host/ci",
    ],
)
def test_a_mistyped_url_never_becomes_a_folder(text: str) -> None:
    """A copy to it would succeed, on this machine's disk, in a folder named after the URL."""
    with pytest.raises(LocationError, match="begins as a URL or the address of a host") as caught:
        parse(text)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_path_of_a_url_has_lost_a_slash() -> None:
    with pytest.raises(LocationError, match="begins as a URL"):
        parse(Path("s3://bucket/ci"))


@pytest.mark.parametrize("path", ["./s3:/ci", "/var/user@host:x", "C:/ci", "a@b/ci", "s3/ci"])
def test_a_path_with_such_characters_is_a_path(path: str) -> None:
    assert parse(path).protocol == "file"


def test_a_message_hides_what_is_named_as_a_secret() -> None:
    for text in (
        f"GET https://h/k?X-Amz-Signature={SECRET}&a=b failed",
        f"GET /k?a=b&sig={SECRET} failed",
        f"Authorization={SECRET}",
        f"get https://{SECRET}@host/x",
    ):
        assert SECRET not in mask_text(text)
        assert SECRET not in str(NotFoundError(text, key=text))
    assert mask_text("give secret_access_key=... or key=value") == (
        "give secret_access_key=... or key=value"
    )
    assert mask_text("it contains secret_access_key=: use commas") == (
        "it contains secret_access_key=: use commas"
    )
    assert mask_text("did you mean s3://b/demo/?") == "did you mean s3://b/demo/?"


def test_credentials_of_an_http_url_are_sent_and_never_shown() -> None:
    sent: list[str] = []

    def answer(headers: Message) -> Answer:
        sent.append(headers.get("Authorization", ""))
        return Answer(404 if len(sent) % 2 else 500, b"")

    with answering(answer) as server:
        url = server.endpoint_url.replace("://", f"://me:{SECRET}@") + "/ci"
        cache = cachefs.open(url)
        with pytest.raises(CacheError) as caught:
            cache.manifest("main")
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(cache) + repr(cache.location) + cache.layout.store.root
        for command in (["verify", url, "--name", "main", "--json"], ["show", url], ["ls", url]):
            ended = run(*command)
            assert SECRET not in ended.out + ended.err
    assert set(sent) == {"Basic bWU6aHVudGVyMnNlY3JldA=="}


@pytest.mark.parametrize(
    "typed",
    [
        "memory://me:hush@/x",
        "memory://me:hush@host/x",
        "memory://hush@host/x",
        "memory://hush@x",
        "//me:hush@host/x",
        "///me:hush@host/x",
        "//hush@host:x",
    ],
)
def test_a_password_never_becomes_a_folder(typed: str) -> None:
    with pytest.raises(cachefs.LocationError) as raised:
        cachefs.open(typed).names()
    assert "hush" not in str(raised.value)
