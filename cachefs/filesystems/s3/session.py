"""What s3fs is given: all that was resolved, and a session without what makes a cache slow."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp

from cachefs.filesystems.level import pause_after, refused
from cachefs.filesystems.s3.connection import share_models
from cachefs.filesystems.s3_failures import REFUSED_STATUS

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from cachefs.filesystems.s3.connection import S3Connection
    from cachefs.filesystems.s3.credentials import CredentialSource


_SIGNING: Final = "cachefs-s3v4"


class _KnownBodies(S3SigV4Auth):  # type: ignore[misc]  # botocore ships no types
    """Signs the SHA-256 of a body that is known, which costs nothing, and no other bodies."""

    def payload(self, request: Any) -> Any:
        """The hash that is signed; a server compares it with what it receives."""
        return getattr(request.data, "sha256", None) or super().payload(request)


# botocore has no other way to say the hash of a body.
AUTH_TYPE_MAPS[_SIGNING] = _KnownBodies


def _choose_signer(signature_version: Any, **_: object) -> str | None:
    # Other versions are for other kinds of buckets and credentials.
    return _SIGNING if signature_version in {"v4", "s3v4"} else None


def s3fs_options(connection: S3Connection, own: Any = None, refusals: int = 0) -> dict[str, Any]:
    """The options of s3fs for this connection. All that fsspec could configure is among them.

    ``own`` is the caller's session; then the credentials are the session's. ``refusals`` says how
    often a request is repeated that the server refuses because it has too much to do.
    """
    return {
        "session": own or _connected(connection, refusals),
        "anon": connection.credentials is None,
        "key": None,
        "secret": None,
        "token": None,
        "username": None,
        "password": None,
        "profile": connection.profile,
        "use_ssl": True,
        # Named twice: older releases of s3fs send this one with some of their requests only.
        "requester_pays": "RequestPayer" in connection.parameters,
        "endpoint_url": connection.endpoint_url,
        "s3_additional_kwargs": dict(connection.parameters),
        "client_kwargs": {**connection.client, "verify": connection.certificates},
        "config_kwargs": {**connection.config, "http_session_cls": _AsBotocores},
    }


def _connected(connection: S3Connection, refusals: int) -> AioSession:
    """A session that signs with the connection's credentials."""
    made = session(connection.profile)
    made.register("needs-retry.s3", _Refusals(refusals))
    if connection.credentials is not None:
        made.register_component("credential_provider", _Provider(connection.credentials))

    def to_the_bucket(request: Any, **_: Any) -> None:
        if request.url.startswith(connection.default_url):
            rest = request.url.removeprefix(connection.default_url)
            request.url = f"{connection.bucket_url}{rest}"

    if connection.default_url != connection.bucket_url:
        made.register("before-sign.s3", to_the_bucket)
    return made


def session(profile: str | None = None) -> AioSession:
    """Make a session for a profile, without what makes a cache slow."""
    made = AioSession(profile=profile)
    share_models(made)
    # "Expect: 100-continue" would cost one more round trip for each upload.
    made.unregister("before-call.s3", add_expect_header)
    made.register("choose-signer.s3.PutObject", _choose_signer)
    # dateutil, which parses any format, would take two thirds of the time of a listing.
    made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return made


class _Refusals:
    """Decides whether to repeat a request that the server has refused for now.

    botocore repeats it too, but waits for up to a second already before the first time, and sends
    it three times in all. A request is refused before anything is done.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, response: Any, attempts: int, operation: Any, **_: object) -> float | None:
        """Seconds to wait, or None to leave the decision to botocore."""
        if response is None or response[0].status_code not in REFUSED_STATUS:
            return None
        pause = pause_after(attempts)
        refused(pause)
        return None if attempts > self._most or operation.name in _SENT_ONCE else pause


_SENT_ONCE: Final = {"DeleteObject"}

_REDIRECTS: Final = (301, 302, 303, 307, 308)
MISDIRECTED: Final = 421
"""The HTTP status for a request that reached the wrong server."""


class _AsBotocores(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """A client that follows no redirect and trusts no proxy, as that of botocore.

    aiohttp would, with the session token among the headers, whatever the host.
    """

    async def send(self, request: Any) -> Any:
        """Send a request. A redirect that states no region becomes an error of the client.

        botocore takes each redirect for a bucket in another region, and would ask for that region
        with a request that is redirected too, without end.
        """
        response = await super().send(request)
        if response.status_code in _REDIRECTS and "x-amz-bucket-region" not in response.headers:
            response.status_code = MISDIRECTED
        return response

    # Before 3.9, aiobotocore did not compare the host with its certificate, and checked no
    # certificate at all through a proxy.

    def _get_ssl_context(self) -> Any:
        context = super()._get_ssl_context()
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()

    async def _get_session(self, proxy_url: str | None) -> _Unredirected:
        return _Unredirected(await super()._get_session(proxy_url))


class _Unredirected:
    """Sends the requests of a client of aiohttp."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def request(self, method: str, **arguments: Any) -> Any:
        return await self._client.request(method, allow_redirects=False, **arguments)


class _Provider:
    """Gives a session its credentials."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    async def load_credentials(self) -> AioCredentials:
        return _Current(self._source)


class _Current(AioCredentials):  # type: ignore[misc]  # aiobotocore has no types
    """Credentials that are looked up for each request."""

    def __init__(self, source: CredentialSource) -> None:
        super().__init__("", "")
        self._source = source

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return self._source.at_hand() or await asyncio.to_thread(self._source.current)


def _timestamp(value: str | float) -> datetime:
    """Parse ISO 8601, as in the bodies of S3, or any other format that botocore accepts."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        time = None
    return time if time and time.tzinfo else parse_timestamp(value)
