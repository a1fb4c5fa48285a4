"""References to registries, such as ``ghcr.io/org/app:cache``, as Docker reads them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cachefs.digest import Digest
from cachefs.errors import DigestError

DOCKER_HUB: Final = "docker.io"
"""The registry of a reference without a host."""

_LONGEST: Final = 255
"""Characters of a repository with its host."""

_HOST: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
)
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Reference(NamedTuple):
    """A repository of a registry, and a tag or the digest of a manifest in it, if given."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None


def parse_reference(text: str) -> Reference:
    """Read a reference. Its host is Docker Hub unless its first part looks like a host.

    Raises ValueError with the end of a sentence that begins with the reference.
    """
    if "://" in text:
        raise ValueError("has '://': write host/repository:tag alone")
    rest, at, digest = text.partition("@")
    if at:
        try:
            digest = Digest(digest)
        except DigestError:
            raise ValueError("has an '@' that no digest (sha256:...) follows") from None
    folder, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not TAG.fullmatch(tag):
        raise ValueError(
            "has no valid tag after its ':': a tag has up to 128 letters, digits, '_', '.' and '-'"
        )
    host, repository = _split(f"{folder}{slash}{last}")
    if not _HOST.fullmatch(host):
        raise ValueError("has no valid host before its first '/'")
    if not _REPOSITORY.fullmatch(repository) or len(host) + len(repository) >= _LONGEST:
        raise ValueError(
            "has no valid repository: write host/repository:tag, with a repository of lower-case "
            "letters, digits, '.', '_', '-' and '/'"
        )
    return Reference(host, repository, tag or None, digest or None)


def _split(path: str) -> tuple[str, str]:
    """The host and the repository."""
    first, slash, rest = path.partition("/")
    is_host = slash and (first == "localhost" or re.search(r"[.:A-Z\[]", first))
    host, repository = (first, rest) if is_host else (DOCKER_HUB, path)
    if host == f"index.{DOCKER_HUB}":
        host = DOCKER_HUB
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository
