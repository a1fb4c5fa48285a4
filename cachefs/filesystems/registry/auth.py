"""Access to a registry: the tokens that it asks for, and how credentials are sent."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec
from msgspec import Struct
from yarl import URL

from cachefs.errors import AccessError, StoreError
from cachefs.filesystems.registry.credentials import credentials_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiohttp import ClientResponse

    from cachefs.filesystems.registry.credentials import Credentials

    Send = Callable[..., Awaitable[ClientResponse]]


class Access(NamedTuple):
    """What a token is for: actions on the repository, and another repository to pull from."""

    actions: str
    source: str = ""


PULL: Final = Access("pull")
PUSH: Final = Access("pull,push")

_LIFE: Final = 60.0
"""Seconds that a token is valid if its server does not say how long."""

_RESERVE: Final = 10.0
"""Seconds before its end from which on a token is not used for another request."""

_LONGEST: Final = 1024 * 1024
"""Bytes of a token's response that are read; the largest tokens have some kilobytes."""


class _Token(Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class Challenge(NamedTuple):
    """What a registry asks for: the scheme and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read ``WWW-Authenticate`` headers; what is not valid is left out."""
    found = []
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        items = [item for item in parse_http_list(rest) if item.partition("=")[2]]
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
        self._headers: dict[Access, str] = {}
        self._ends: dict[Access, float] = {}
        self._locks: dict[Access, asyncio.Lock] = {}

    def header(self, access: Access, *, once: bool = False) -> str | None:
        """The header to send, None if nothing was asked for yet, or if the token ends soon.

        A request that can be sent ``once`` only gets what there is: one that began it was just
        accepted with a token that did not end soon.
        """
        return None if self._ends_soon(access) and not once else self._headers.get(access)

    async def answer(self, refused: str | None, headers: Iterable[str], access: Access) -> None:
        """Get what a refused request lacked, once for all requests that were refused together.

        Args:
            refused: the header that the request had.
            headers: the response's headers ``WWW-Authenticate``.
            access: what the request needs.

        Raises AccessError and StoreError.
        """
        async with self._locks.setdefault(access, asyncio.Lock()):
            if self._headers.get(access) != refused and not self._ends_soon(access):
                return
            found = {challenge.scheme: challenge.parameters for challenge in challenges(headers)}
            credentials = await credentials_for(self._host, self._repository)
            if "bearer" in found:
                began = time.monotonic()
                token, life = await self._token(found["bearer"], credentials, access)
                self._headers[access] = f"Bearer {token}"
                self._ends[access] = began + life - min(_RESERVE, life / 2)
            elif "basic" in found and credentials is not None:
                self._headers[access] = _basic(credentials)
                self._ends.pop(access, None)
            elif "basic" in found:
                raise AccessError(f"no credentials were found: run docker login {self._host}")
            else:
                raise AccessError("the registry denies access, and does not say how to get it")

    def _ends_soon(self, access: Access) -> bool:
        return time.monotonic() >= self._ends.get(access, float("inf"))

    async def _token(
        self, asked: Mapping[str, str], credentials: Credentials | None, access: Access
    ) -> tuple[str, float]:
        """A token from the server that the registry names, and for how many seconds it is valid."""
        realm = asked.get("realm", "")
        self._check(realm, with_secret=credentials is not None)
        scopes = [f"repository:{self._repository}:{access.actions}"]
        if access.source:
            scopes.append(f"repository:{access.source}:{PULL.actions}")
        scope = " ".join(scopes)
        service = asked.get("service", "")
        if credentials is not None and credentials.refresh_token:
            form = {
                "service": service,
                "scope": scope,
                "grant_type": "refresh_token",
                "client_id": "cachefs",
                "refresh_token": credentials.refresh_token,
            }
            response = await self._send("POST", realm, data=form)
        else:
            header = {"Authorization": _basic(credentials)} if credentials else {}
            query = [*([("service", service)] if service else []), *(("scope", s) for s in scopes)]
            response = await self._send("GET", realm, params=query, headers=header)
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
        try:
            parts = urlsplit(realm)
            valid = parts.scheme in {"http", "https"} and bool(URL(realm).host)
        except ValueError:
            valid = False
        if not valid:
            raise StoreError("the registry names no valid token server")
        if with_secret and self._secure and parts.scheme != "https":
            raise AccessError(
                "the registry asks to send credentials to a token server without TLS: refused"
            )


def _decoded(raw: bytes) -> tuple[str, float]:
    try:
        found = msgspec.json.decode(raw, type=_Token)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise StoreError("the token server of the registry sent no valid token") from None
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise StoreError("the token server of the registry sent no valid token")
    stated = found.expires_in
    return token, stated if stated is not None and stated > 0 else _LIFE


def _basic(credentials: Credentials) -> str:
    text = f"{credentials.user}:{credentials.password}"
    return f"Basic {base64.b64encode(text.encode()).decode()}"
