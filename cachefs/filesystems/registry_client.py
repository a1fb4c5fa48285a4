"""Requests to one repository of a registry: authorized, redirected, and sent again if need be."""

from __future__ import annotations

import asyncio
import random
import weakref
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
from fsspec.implementations.http import HTTPFileSystem
from msgspec import Struct
from yarl import URL

from cachefs.errors import AccessError, StoreError
from cachefs.filesystems.registry_auth import Authorization
from cachefs.location.reference import DOCKER_HUB
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from aiohttp import ClientResponse

ATTEMPTS: Final = 5
"""How often a request is sent at most."""

CONNECTIONS: Final = 32
"""Connections at a time: registries answer many more with 429."""

_REDIRECTS: Final = {301, 302, 303, 307, 308}
_TRY_AGAIN: Final = {429, 500, 502, 503, 504}
_MOST_REDIRECTS: Final = 5
_LONGEST_WAIT: Final = 30.0
"""Seconds: a registry that asks for a longer pause is not waited for."""

PULL: Final = "pull"
PUSH: Final = "pull,push"
"""The scopes of tokens, as registries name them."""

_API_HOSTS: Final = {DOCKER_HUB: "registry-1.docker.io"}

BROKEN: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)
"""Errors of a connection that was lost, or could not be made."""


class _Error(Struct):
    code: str = ""
    message: str = ""


class _Errors(Struct):
    errors: list[_Error] = []


class RegistryClient:
    """Sends requests below ``/v2/`` of a registry.

    Args:
        host: the registry, as in a reference.
        repository: the repository, as the scope of tokens.
        insecure: reach it by plain http, as localhost is anyway.
    """

    def __init__(self, host: str, repository: str, *, insecure: bool) -> None:
        plain = insecure or _is_this_machine(host)
        self.host = host
        self.base = URL(f"{'http' if plain else 'https'}://{_API_HOSTS.get(host, host)}/v2/")
        self._authorization = Authorization(host, repository, self._send, secure=not plain)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        expected: Collection[int],
        actions: str = PULL,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """Send a request and yield its response, whose status is one of those expected.

        A body that is an iterator is sent once only. Raises FileNotFoundError, AccessError,
        StoreError, and aiohttp's errors if there is no response.
        """
        attempts = 1 if body is not None and not isinstance(body, bytes) else ATTEMPTS
        response = await self._answered(method, url, actions, attempts, dict(headers or {}), body)
        async with response:
            if response.status not in expected:
                raise await self._failure(response, actions)
            yield response

    async def _answered(
        self,
        method: str,
        url: URL,
        actions: str,
        attempts: int,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> ClientResponse:
        """Send the request until it has an answer other than "later"."""
        asked = False
        attempt = 1
        while True:
            header = self._authorization.header(actions)
            try:
                response = await self._followed(method, url, header, headers, body)
            except BROKEN:
                if attempt >= attempts:
                    raise
                await asyncio.sleep(_pause(attempt))
                attempt += 1
                continue
            if response.status == HTTPStatus.UNAUTHORIZED and not asked and attempts > 1:
                async with response:
                    challenges = response.headers.getall("WWW-Authenticate", [])
                await self._authorization.answer(header, challenges, actions)
                asked = True
                continue
            pause = _pause(attempt, response.headers.get("Retry-After", ""))
            if response.status not in _TRY_AGAIN or attempt >= attempts or pause > _LONGEST_WAIT:
                return response
            response.release()
            await asyncio.sleep(pause)
            attempt += 1

    async def _followed(
        self,
        method: str,
        url: URL,
        authorization: str | None,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> ClientResponse:
        """Send the request; reading follows redirects, but the authorization stays here."""
        for _ in range(_MOST_REDIRECTS):
            own = url.origin() == self.base.origin()
            if url.scheme == "http" and self.base.scheme == "https":
                raise StoreError("the registry redirects to a server without TLS: refused")
            extra = {"Authorization": authorization} if authorization and own else {}
            response = await self._send(method, url, headers=headers | extra, data=body)
            target = response.headers.get("Location", "")
            if method not in {"GET", "HEAD"} or response.status not in _REDIRECTS or not target:
                return response
            response.release()
            url = response.url.join(URL(target, encoded=True))
        raise StoreError(f"the registry redirects more than {_MOST_REDIRECTS} times")

    async def _send(self, method: str, url: str | URL, **options: Any) -> ClientResponse:
        if self._session is None:
            # Bytes are compared with digests, so they are wanted as they are.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                headers={"Accept-Encoding": "identity", "User-Agent": "cachefs"},
                auto_decompress=False,
                trust_env=True,
            )
            loop = asyncio.get_running_loop()
            weakref.finalize(self, HTTPFileSystem.close_session, loop, self._session)
        return await self._session.request(method, url, allow_redirects=False, **options)

    async def _failure(self, response: ClientResponse, actions: str) -> Exception:
        """The error that a response is."""
        said = await _said(response)
        match response.status:
            case 401 | 403:
                return AccessError(
                    f"the registry denies {actions} ({said}): run docker login {self.host}, and "
                    "check what the account may do"
                )
            case 404 if actions == PUSH:
                return StoreError(f"the registry has no such repository ({said}): create it first")
            case 404:
                return FileNotFoundError(said)
            case 429:
                return StoreError(
                    f"the registry limits requests ({said}): try again later, or log in with "
                    f"docker login {self.host}"
                )
        return StoreError(f"the registry refused it ({said})")


async def _said(response: ClientResponse) -> str:
    """The status and what the registry says of it, as one short line."""
    status = f"HTTP {response.status}"
    try:
        raw = await response.content.read(64 * 1024)
        errors = msgspec.json.decode(raw, type=_Errors).errors
    except (*BROKEN, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return status
    parts = [f"{one.code}: {one.message}".strip(": ") for one in errors[:3]]
    return mask_text(" ".join([status, *filter(None, parts)]))[:300]


def _pause(attempt: int, asked: str = "") -> float:
    """Seconds to wait before the next attempt: as long as the registry asks, else ever longer."""
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    return random.uniform(0.5, 1.0) * 0.25 * 2.0**attempt  # noqa: S311 - no secret


def _is_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name == "localhost" or name.startswith("127.") or name == "[::1]"
