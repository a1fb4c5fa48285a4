"""Foreign errors become ours, once and here: by type, ``errno`` and status code, never by text."""

from __future__ import annotations

import asyncio
import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cachefs.errors import AccessError, CacheError, NotFoundError, StoreError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Libraries are not imported to name their classes: whoever raised one has loaded it. The names are
# looked for among all base classes, each as "top-level module.class".
_GIVE: Final = (
    "give access_key_id and secret_access_key, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
_ACCESS: Final = {
    "botocore.NoCredentialsError": f"no credentials were found; {_GIVE}",
    "botocore.PartialCredentialsError": "the credentials are incomplete: an access key needs its "
    "secret",
    "botocore.ProfileNotFound": "the profile that AWS_PROFILE names is not in the AWS config files",
    "botocore.CredentialRetrievalError": "the credentials could not be retrieved",
    "botocore.TokenRetrievalError": "the single sign-on session has expired; sign in again",
    "obstore.PermissionDeniedError": "access is denied: check the credentials and what they may do",
    # Also what comes out when there were none to ask with.
    "obstore.UnauthenticatedError": f"no credentials were found, or none that hold; {_GIVE}",
    "azure.ClientAuthenticationError": "access is denied: check the account's key or credentials",
    "paramiko.AuthenticationException": "access is denied: check user, password or key",
}
_UNREACHABLE: Final = {
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "aiohttp.ClientError",
    "azure.ServiceRequestError",
    "paramiko.SSHException",
}


@contextmanager
def mapped(operation: str, key: str, side: str | None = None) -> Iterator[None]:
    """Turn whatever a filesystem raises in the body into a StoreError with these attributes.

    Errors of ours pass, with what they do not know yet filled in.
    """
    try:
        yield
    except StoreError as error:
        error.operation = error.operation or operation
        error.key = error.key or key
        error.side = error.side or side
        raise
    except (CacheError, asyncio.CancelledError):
        raise
    except Exception as error:
        kind, reason = _classify(error)
        raise kind(reason, operation=operation, key=key, side=side) from error


def _classify(error: Exception) -> tuple[type[StoreError], str]:
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(error).__mro__}
    for name, advice in _ACCESS.items():
        if name in names:
            return AccessError, advice
    if isinstance(error, FileNotFoundError):
        return NotFoundError, "there is no such object"
    if isinstance(error, PermissionError) or _status(error) in {401, 403}:
        return AccessError, f"access is denied ({_first_line(error)})"
    if names & _UNREACHABLE or isinstance(error, ConnectionError | TimeoutError):
        return UnreachableError, (
            f"no answer from the store ({_first_line(error)}); check the network and the endpoint "
            "(many servers other than AWS need use_path_style=true)"
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError, "the store is full; make room and run it again"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return AccessError, "the filesystem is read-only"
    return StoreError, f"the store failed: {_first_line(error)}"


def _status(error: Exception) -> int | None:
    """The HTTP status, as azure's and google's clients keep it."""
    found = getattr(error, "status_code", None) or getattr(error, "code", None)
    return found if isinstance(found, int) else None


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
