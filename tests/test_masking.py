"""Words of commands that look like secrets are masked before anything about a command is stored."""

from __future__ import annotations

import pytest

from cachefs.masking import mask_url, mask_words


@pytest.mark.parametrize(
    "words",
    [
        ["deploy", "--token", "hunter2"],
        ["deploy", "--api-key=hunter2"],
        ["deploy", "--db-password", "hunter2", "--now"],
        ["env", "AWS_SECRET_ACCESS_KEY=hunter2", "make"],
        ["sh", "-c", "PASSWORD=hunter2 make && echo done"],
        ["sh", "-c", "deploy --token hunter2 --now"],
        ["curl", "-H", "Authorization: Bearer hunter2"],
        ["curl", "-HAuthorization: Basic hunter2"],
        ["curl", "-H", "X-Api-Key: hunter2"],
        ["git", "clone", "https://me:hunter2@example.com/x.git"],
        ["get", "https://example.com/x?sig=hunter2"],
        ["deploy", "ghp_hunter2hunter2"],
        ["deploy", "glpat-hunter2hunter2"],
        ["deploy", "eyJhunter2hunter2.hunter2.hunter2"],
        ["deploy", "sk-hunter2hunter2"],
        ["deploy", "aVeryLongHunter2WordThatHasDigits9hunter2"],
    ],
)
def test_what_looks_like_a_secret_is_masked(words: list[str]) -> None:
    masked = mask_words(words)
    assert "hunter2" not in " ".join(masked)
    assert masked[0] == words[0]
    assert len(masked) == len(words)


@pytest.mark.parametrize(
    "words",
    [
        ["make", "-C", "src", "CC=gcc", "-j8"],
        ["cc", "-O2", "-o", "build/token_parser.o", "src/token_parser.c"],
        ["lint", "--tokens", "--max-tokens=8"],
        ["sh", "-c", "cat src/* > out; echo 'key: value'"],
        ["sort", "--key", "2", "authors.txt"],
        ["fetch", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        ["test", "tests/unit/TestSomethingVeryLong2WithManyWords/AndAnotherOne3.java"],
    ],
)
def test_other_words_stay(words: list[str]) -> None:
    assert [word for word in mask_words(words) if "***" in word] in ([], ["--max-tokens=***"])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("127.0.0.1:5000/app@sha256:abc", "127.0.0.1:5000/app@sha256:abc"),
        ("host:5000/team/app:tag@sha256:0123", "host:5000/team/app:tag@sha256:0123"),
        ("me:hunter2@host/app@sha256:abc", "me:***@host/app@sha256:abc"),
        ("me:hunter2@sha256:abc/x", "me:***@sha256:abc/x"),
        ("sftp://me:hunt@r2@host/", "sftp://me:***@host/"),
    ],
)
def test_a_reference_s_digest_follows_no_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown
