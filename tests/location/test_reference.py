"""References to registries, read as Docker reads them."""

from __future__ import annotations

import pytest

import cachefs
from cachefs.location.parsing import parse
from cachefs.location.reference import Reference, parse_reference

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alpine", Reference("docker.io", "library/alpine")),
        ("me/app:v1", Reference("docker.io", "me/app", "v1")),
        ("docker.io/app", Reference("docker.io", "library/app")),
        ("index.docker.io/me/app", Reference("docker.io", "me/app")),
        ("ghcr.io/org/app:cache", Reference("ghcr.io", "org/app", "cache")),
        ("localhost/app", Reference("localhost", "app")),
        ("localhost:5000/a/b:t", Reference("localhost:5000", "a/b", "t")),
        ("registry:5000/app", Reference("registry:5000", "app")),
        ("[::1]:5000/app", Reference("[::1]:5000", "app")),
        (f"ghcr.io/org/app@{DIGEST}", Reference("ghcr.io", "org/app", None, DIGEST)),
        (f"ghcr.io/org/app:t@{DIGEST}", Reference("ghcr.io", "org/app", "t", DIGEST)),
    ],
)
def test_what_a_reference_means(text: str, found: Reference) -> None:
    assert parse_reference(text) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://ghcr.io/app", "has '://'"),
        ("ghcr.io/org/App:x", "no valid repository"),
        ("ghcr.io/org/../app", "no valid repository"),
        ("ghcr.io//app", "no valid repository"),
        ("ghcr.io/app:", "no valid tag"),
        ("ghcr.io/app:a b", "no valid tag"),
        (f"ghcr.io/app:{'t' * 129}", "no valid tag"),
        ("ghcr.io/app@sha256:ab", "no digest"),
        ("me:secret@ghcr.io/app", "no digest"),
        ("gh_cr.io/app", "no valid host"),
        ("ghcr.io:x/app", "no valid host"),
        (f"ghcr.io/{'a' * 255}", "no valid repository"),
    ],
)
def test_what_is_no_reference(text: str, reason: str) -> None:
    with pytest.raises(cachefs.LocationError, match=reason):
        parse(f"type=registry,ref={text}")


def test_a_digest_is_not_written() -> None:
    location = f"type=registry,ref=ghcr.io/org/app@{DIGEST}"
    assert parse(location, role="import").digest == DIGEST
    with pytest.raises(cachefs.LocationError, match="give a tag"):
        parse(location, role="export")
