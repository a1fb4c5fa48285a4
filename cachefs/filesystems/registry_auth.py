"""Access to a registry: Docker's credentials, and the tokens that a registry asks for."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec
from msgspec import Struct

from cachefs.errors import AccessError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiohttp import ClientResponse

    Send = Callable[..., Awaitable[ClientResponse]]

Actions = str
"""What a token is for: ``pull`` or ``pull,push``."""

_LONGEST: Final = 1024 * 1024
"""Bytes of a token's response that are read; the largest tokens have some kilobytes."""


class Credentials(NamedTuple):
    """A user and a password, or the refresh token that a log-in left; nothing of it is shown."""

    user: str = ""
    password: str = ""
    refresh_token: str = ""

    def __repr__(self) -> str:
        return "Credentials(***)"


def docker_credentials(host: str) -> Credentials | None:
    """What Docker's configuration and its credential helpers have for a registry.

    Raises AccessError if they cannot be read.
    """
    from docker import auth  # noqa: PLC0415 - takes long to load
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        found = auth.load_config().resolve_authconfig(host)
    except (DockerException, OSError, ValueError) as error:
        raise AccessError(
            f"Docker's credentials for {host} cannot be read ({type(error).__name__}): check "
            "~/.docker/config.json and its credential helper"
        ) from None  # its text may quote them
    if not found:
        return None
    lower = {key.lower(): value or "" for key, value in found.items()}
    return Credentials(
        lower.get("username", ""), lower.get("password", ""), lower.get("identitytoken", "")
    )


class _Token(Struct):
    token: str = ""
    access_token: str = ""


class Challenge(NamedTuple):
    """What a registry asks for: the scheme and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read ``WWW-Authenticate`` headers; what is not valid is left out."""
    found = []
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        items = [item for item in parse_http_list(rest) if "=" in item]
        parameters = {key.lower(): value for key, value in parse_keqv_list(items).items()}
        found.append(Challenge(scheme.lower(), parameters))
    return found


class Authorization:
    """The header ``Authorization`` for each kind of action, as the registry asked for it.

    Args:
        host: the registry, as credentials name it.
        repository: the scope of tokens.
        secure: whether the registry is reached by TLS, so that credentials must not go without.
        send: sends a request without authorization and returns its response.
    """

    def __init__(self, host: str, repository: str, send: Send, *, secure: bool) -> None:
        self._host = host
        self._repository = repository
        self._secure = secure
        self._send = send
        self._headers: dict[Actions, str] = {}
        self._locks: dict[Actions, asyncio.Lock] = {}

    def header(self, actions: Actions) -> str | None:
        """The header to send, None if nothing was asked for yet."""
        return self._headers.get(actions)

    async def answer(self, refused: str | None, headers: Iterable[str], actions: Actions) -> None:
        """Get what a refused request lacked, once for all requests that were refused together.

        Args:
            refused: the header that the request had.
            headers: the response's headers ``WWW-Authenticate``.
            actions: what the request does.

        Raises AccessError and StoreError.
        """
        async with self._locks.setdefault(actions, asyncio.Lock()):
            if self._headers.get(actions) != refused:
                return
            found = {challenge.scheme: challenge.parameters for challenge in challenges(headers)}
            credentials = await asyncio.to_thread(docker_credentials, self._host)
            if "bearer" in found:
                token = await self._token(found["bearer"], credentials, actions)
                self._headers[actions] = f"Bearer {token}"
            elif "basic" in found and credentials is not None:
                self._headers[actions] = _basic(credentials)
            elif "basic" in found:
                raise AccessError(f"no credentials were found: run docker login {self._host}")
            else:
                raise AccessError("the registry denies access, and does not say how to get it")

    async def _token(
        self, asked: Mapping[str, str], credentials: Credentials | None, actions: Actions
    ) -> str:
        """A token for the repository from the server that the registry names."""
        realm = asked.get("realm", "")
        self._check(realm, with_secret=credentials is not None)
        scope = f"repository:{self._repository}:{actions}"
        fields = {"service": asked.get("service", ""), "scope": scope}
        fields = {name: value for name, value in fields.items() if value}
        if credentials is not None and credentials.refresh_token:
            fields |= {
                "grant_type": "refresh_token",
                "client_id": "cachefs",
                "refresh_token": credentials.refresh_token,
            }
            response = await self._send("POST", realm, data=fields)
        else:
            header = {"Authorization": _basic(credentials)} if credentials else {}
            response = await self._send("GET", realm, params=fields, headers=header)
        async with response:
            if response.status in {400, 401, 403}:
                known = "its credentials are refused" if credentials else "there are no credentials"
                raise AccessError(f"no token for {scope}: {known}; run docker login {self._host}")
            if not response.ok:
                raise StoreError(f"the token server of the registry failed: HTTP {response.status}")
            raw = await response.content.read(_LONGEST)
        return _decoded(raw)

    def _check(self, realm: str, *, with_secret: bool) -> None:
        """Refuse a token server that would get credentials without TLS from a registry with it."""
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise StoreError("the registry names no valid token server")
        if with_secret and self._secure and parts.scheme != "https":
            raise AccessError(
                "the registry asks to send credentials to a token server without TLS: refused"
            )


def _decoded(raw: bytes) -> str:
    try:
        found = msgspec.json.decode(raw, type=_Token)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise StoreError("the token server of the registry sent no valid token") from None
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise StoreError("the token server of the registry sent no valid token")
    return token


def _basic(credentials: Credentials) -> str:
    text = f"{credentials.user}:{credentials.password}"
    return f"Basic {base64.b64encode(text.encode()).decode()}"
