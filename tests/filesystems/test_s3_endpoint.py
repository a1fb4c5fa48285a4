"""An endpoint that is not a URL is refused before any request, with where it was set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec.config
import pytest

from cachefs.errors import LocationError
from cachefs.filesystems.connecting import connect
from cachefs.location.parsing import parse

TYPED = "127.0.0.1:5612"
LACKS = "lacks http:// or https:// before it"

ENVIRONMENT: list[Mapping[str, str]] = [
    {"AWS_ENDPOINT_URL": TYPED},
    {"AWS_ENDPOINT_URL_S3": TYPED},
    {"AWS_ENDPOINT_URL_S3": TYPED, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
]
FILES = [
    ("[default]\n", "default"),
    ("[profile dev]\n", "dev"),
    ("[profile dev]\nservices = here\n[services here]\ns3 =\n  ", "dev"),
]
ENGINES = pytest.mark.parametrize("engine", ["s3fs", "obstore"])


def refusal(text: str = "s3://builds/ci/", **options: Any) -> str:
    with pytest.raises(LocationError) as raised:
        connect(parse(text, **options))
    return str(raised.value)


@ENGINES
@pytest.mark.parametrize("variables", ENVIRONMENT)
def test_a_variable(
    variables: Mapping[str, str], engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert refusal(engine=engine).startswith(f'${next(iter(variables))}="{TYPED}" {LACKS}')


@ENGINES
@pytest.mark.parametrize(("section", "profile"), FILES)
def test_the_configuration_files(
    section: str, profile: str, engine: Any, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nobodys_home / ".aws").mkdir()
    (nobodys_home / ".aws" / "config").write_text(f"{section}endpoint_url = {TYPED}\n")
    monkeypatch.setenv("AWS_PROFILE", profile)
    said = refusal(engine=engine)
    assert said.startswith(f"endpoint_url of profile {profile} or its services section=")
    assert LACKS in said


@ENGINES
@pytest.mark.parametrize(
    "options", [{"endpoint_url": TYPED}, {"client_kwargs": {"endpoint_url": TYPED}}]
)
def test_options_of_fsspec(
    options: dict[str, Any], engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(engine=engine, storage_options=options)
    assert said.startswith("endpoint_url in storage_options or fsspec's configuration for S3=")
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    assert LACKS in refusal(engine=engine)


def test_an_attribute() -> None:
    said = refusal(f"type=s3,bucket=b,region=r,endpoint_url={TYPED}")
    assert said.startswith(f'endpoint_url="{TYPED}" {LACKS}')


@pytest.mark.parametrize("wrong", ["ftp://minio", "https://", "http://[::1", "http://a b"])
def test_what_has_a_scheme_and_is_no_url_all_the_same(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
    assert "$AWS_ENDPOINT_URL=" in refusal()
    assert "is not a URL of a server" in refusal()


def test_credentials_in_an_endpoint_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://me:hush@minio:9000")
    assert "hush" not in refusal()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "me:hush@minio:9000")
    assert "hush" not in refusal()
