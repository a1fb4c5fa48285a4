"""Requests to one repository of a registry: authorized, redirected, and sent again if need be."""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import socket
import ssl
import weakref
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
from fsspec.implementations.http import HTTPFileSystem
from msgspec import Struct
from yarl import URL

from cachefs.errors import AccessError, StoreError, UnreachableError
from cachefs.filesystems.registry.auth import PULL, PUSH, Authorization
from cachefs.location.reference import DOCKER_HUB
from cachefs.masking import MASK, mask_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from aiohttp import ClientResponse

    from cachefs.filesystems.registry.auth import Access

ATTEMPTS: Final = 5
"""How often a request is sent at most."""

CONNECTIONS: Final = 32
"""Connections at a time: registries answer many more with 429."""

_REDIRECTS: Final = {301, 302, 303, 307, 308}
_TRY_AGAIN: Final = {429, 500, 502, 503, 504}
_MOST_REDIRECTS: Final = 5
_LONGEST_WAIT: Final = 30.0
"""Seconds: a registry that asks for a longer pause is not waited for."""

_API_HOSTS: Final = {DOCKER_HUB: "registry-1.docker.io"}

BROKEN: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)
"""Errors of a connection that was lost, or could not be made."""


_INVALID: Final = 'error="invalid_token"'
"""What a registry adds to its challenge if a token has ended."""

_SENT: Final = re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{8,}")
"""Credentials as they are sent, which some servers quote."""

_connected: Final[weakref.WeakSet[RegistryClient]] = weakref.WeakSet()


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
        self._at_end: weakref.finalize[..., RegistryClient] | None = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        expected: Collection[int],
        access: Access = PULL,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """Send a request and yield its response, whose status is one of those expected.

        A body that is an iterator is sent once only. Raises FileNotFoundError, AccessError,
        StoreError, and aiohttp's errors if there is no response.
        """
        attempts = 1 if body is not None and not isinstance(body, bytes) else ATTEMPTS
        response = await self._answered(method, url, access, attempts, dict(headers or {}), body)
        async with response:
            if response.status not in expected:
                raise await self._failure(response, access)
            yield response

    async def _answered(
        self,
        method: str,
        url: URL,
        access: Access,
        attempts: int,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> ClientResponse:
        """Send the request until it has an answer other than "later"."""
        asked = 0
        attempt = 1
        while True:
            header = self._authorization.header(access, once=attempts == 1)
            try:
                response = await self._followed(method, url, header, headers, body)
            except BROKEN as error:
                if attempt >= attempts or isinstance(error, aiohttp.ClientSSLError):
                    raise self._unreached(error) from error
                await asyncio.sleep(_pause(attempt))
                attempt += 1
                continue
            if response.status == HTTPStatus.UNAUTHORIZED and attempts > 1:
                stated = response.headers.getall("WWW-Authenticate", [])
                # A token may have ended while this request waited; it is not refused then.
                if asked == 0 or (asked < ATTEMPTS and any(_INVALID in one for one in stated)):
                    response.release()
                    await self._authorization.answer(header, stated, access)
                    asked += 1
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
            # aiohttp sends bytes at once, which holds up the loop, but a file in parts.
            data = io.BytesIO(body) if isinstance(body, bytes) else body
            response = await self._send(method, url, headers=headers | extra, data=data)
            target = response.headers.get("Location", "")
            if method not in {"GET", "HEAD"} or response.status not in _REDIRECTS or not target:
                return response
            response.release()
            url = target_of(response)
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
            self._at_end = weakref.finalize(self, HTTPFileSystem.close_session, loop, self._session)
            _connected.add(self)
        return await self._session.request(method, url, allow_redirects=False, **options)

    def leave_to_parent(self) -> None:
        """Close no connections at the end of this process, because they are its parent's."""
        if self._at_end is not None:
            self._at_end.detach()

    def _unreached(self, error: Exception) -> Exception:
        """The error for a registry to which there is no connection; others stay what they are."""
        if not isinstance(error, aiohttp.ClientConnectorError):
            return error
        match error.os_error:
            case ssl.SSLCertVerificationError():
                return error  # its reason is told elsewhere
            case socket.gaierror():
                why = "its host name cannot be resolved: check the host in ref"
            case ssl.SSLError():
                why = "TLS failed: set registry.insecure=true if the registry has no TLS"
            case ConnectionRefusedError():
                why = "nothing listens there: check the host and the port in ref"
            case _:
                why = "check the network, and the host in ref"
        where = f"{error.host}:{error.port}"
        return UnreachableError(f"no connection to {where} ({error.strerror}); {why}")

    async def _failure(self, response: ClientResponse, access: Access) -> Exception:
        """The error that a response is."""
        said = await _said(response)
        match response.status:
            case 401 | 403:
                return AccessError(
                    f"the registry denies {access.actions} ({said}): run docker login "
                    f"{self.host}, and check what the account may do"
                )
            case 404 if access.actions == PUSH.actions:
                return StoreError(f"the registry has no such repository ({said}): create it first")
            case 404:
                return FileNotFoundError(said)
            case 429:
                return StoreError(
                    f"the registry limits requests ({said}): try again later, or log in with "
                    f"docker login {self.host}"
                )
        return StoreError(f"the registry refused it ({said})")


def target_of(response: ClientResponse) -> URL:
    """The URL in a response's header ``Location``. Raises StoreError if it has no valid one."""
    text = response.headers.get("Location", "")
    try:
        url = response.url.join(URL(text, encoded=True))
        if text and url.host and url.scheme in {"http", "https"}:
            return url
    except ValueError:
        pass
    raise StoreError("the registry names no valid place to go on (its header Location)")


async def _said(response: ClientResponse) -> str:
    """The status and what the registry says of it, as one short line."""
    status = f"HTTP {response.status}"
    try:
        raw = await response.content.read(64 * 1024)
        errors = msgspec.json.decode(raw, type=_Errors).errors
    except (*BROKEN, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return status
    parts = [f"{one.code}: {one.message}".strip(": ") for one in errors[:3]]
    text = mask_text(" ".join([status, *filter(None, parts)]))
    return _SENT.sub(rf"\1 {MASK}", text)[:300]


def _pause(attempt: int, asked: str = "") -> float:
    """Seconds to wait before the next attempt: as long as the registry asks, else ever longer."""
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    return random.uniform(0.5, 1.0) * 0.25 * 2.0**attempt  # noqa: S311 - no secret


def _is_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name == "localhost" or name.startswith("127.") or name == "[::1]"


def _keep_connections() -> None:
    for client in [*_connected]:
        client.leave_to_parent()


os.register_at_fork(after_in_child=_keep_connections)
