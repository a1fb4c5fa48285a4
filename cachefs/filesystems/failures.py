"""Maps errors of filesystems to StoreErrors, by type, ``errno`` and code, never by their text."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cachefs.concurrency import BatchError
from cachefs.errors import (
    AccessError,
    CacheError,
    NotFoundError,
    StoreError,
    UnreachableError,
    causes,
)
from cachefs.filesystems.patience import NoProgressError
from cachefs.filesystems.s3_failures import by_code, code_of, is_explained, message_of
from cachefs.filesystems.system import system_reason
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Finding = tuple[type[StoreError], str]

# Classes are found by name, as "top-level module.class" of any base class, so that no library is
# imported only to compare with its classes.
_GIVE: Final = (
    "give access_key_id and secret_access_key, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY; for a public bucket, anonymous=true"
)
_ACCESS: Final = {
    "botocore.NoCredentialsError": f"no credentials were found; {_GIVE}",
    "botocore.PartialCredentialsError": "the credentials are incomplete: give both the access key "
    "and its secret",
    "botocore.ProfileNotFound": "the profile is not in the AWS config files: correct profile or "
    "AWS_PROFILE",
    "botocore.CredentialRetrievalError": "the credentials could not be retrieved: check the role "
    "or the profile",
    "botocore.TokenRetrievalError": "the single sign-on session has expired; sign in again",
    "obstore.PermissionDeniedError": "access is denied: check the credentials and what they permit",
    # obstore raises it also if there were no credentials.
    "obstore.UnauthenticatedError": f"no credentials were found, or they are not valid; {_GIVE}",
    "azure.ClientAuthenticationError": "access is denied: check the account's key or credentials",
    "paramiko.AuthenticationException": "access is denied: check user, password or key",
}
_UNREACHABLE: Final = {
    "botocore.ConnectionError",
    "botocore.HTTPClientError",
    "aiohttp.ClientError",
    "azure.ServiceRequestError",
    "paramiko.NoValidConnectionsError",
    "paramiko.SSHException",
}

_TIMED_OUT: Final = {"botocore.ConnectTimeoutError", "botocore.ReadTimeoutError"}
_IF_SILENT: Final = "check the network and the endpoint, or give it more time with patience"

_GONE: Final = {404, 410}

_NOT_OF_AN_OBJECT: Final = {"list", "write", "upload"}
"""Operations that do not need the object: if something is missing, it is the bucket."""


@contextmanager
def mapped(operation: str, key: str, side: str | None = None) -> Iterator[None]:
    """Convert the errors that a filesystem raises in the body to StoreErrors.

    Errors of cachefs pass; a StoreError gets the attributes that it lacks.
    """
    try:
        yield
    except StoreError as error:
        failed(error, operation, key, side)
        raise
    except (CacheError, asyncio.CancelledError):
        raise
    except Exception as error:
        raise failed(error, operation, key, side) from error


@contextmanager
def mapped_batch(operation: str, keys: Sequence[str], side: str | None = None) -> Iterator[None]:
    """The same for a batch: the error states the key of the object that failed."""
    try:
        yield
    except BatchError as failure:
        raise failed(failure.error, operation, keys[failure.index], side) from failure.error
    except NoProgressError as error:
        raise failed(error, operation, keys[0], side) from error


def failed(error: Exception, operation: str, key: str, side: str | None = None) -> StoreError:
    """Make the StoreError for a filesystem's error. A StoreError gets the attributes it lacks."""
    if isinstance(error, StoreError):
        error.operation = error.operation or operation
        error.key = error.key or key
        error.side = error.side or side
        return error
    kind, reason = by_code(error, operation) or _by_type(error, operation)
    failure = kind(reason, operation=operation, key=key, side=side)
    failure.__cause__ = error
    return failure


def is_vague(failure: StoreError) -> bool:
    """Whether another request may reveal more, because the response to a HEAD has no code."""
    cause = failure.__cause__
    if cause is None or isinstance(failure, NotFoundError | UnreachableError):
        return False
    of_s3 = code_of(cause) or any(kind.startswith("obstore.") for kind in _kinds(cause))
    return bool(of_s3) and not is_explained(cause)


def is_absent(error: FileNotFoundError) -> bool:
    """Whether the object is really not there.

    fsspec's HTTP filesystem says so too if the server cannot be reached or refuses the request.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return True
    status = _status(cause)
    return status in _GONE if status else not is_unreachable(cause)


def _by_type(error: Exception, operation: str) -> Finding:
    names = _kinds(error)
    if isinstance(error, NoProgressError):
        return UnreachableError, _silent(error)
    for name, advice in _ACCESS.items():
        if name in names:
            return AccessError, advice
    if isinstance(error, FileNotFoundError) or _status(error) in _GONE:
        return _not_found(error, operation)
    if isinstance(error, PermissionError) and error.filename:
        return AccessError, "access is denied: check the owner and the mode of the directory"
    if isinstance(error, PermissionError) or _status(error) in {401, 403}:
        return AccessError, f"access is denied ({_said(error)}): check the credentials"
    if _status(error) is None and is_unreachable(error):
        return UnreachableError, _unanswered(error)
    # s3fs gives the errors of servers the nearest numbers, which mean disks here.
    if isinstance(error, OSError) and not code_of(error) and (said := system_reason(error)):
        return AccessError if error.errno == errno.EROFS else StoreError, said
    return StoreError, f"the store failed: {_said(error)}"


def _not_found(error: Exception, operation: str) -> Finding:
    if isinstance(error, FileNotFoundError) and not is_absent(error):
        return _by_type(error.__cause__, operation)  # type: ignore[arg-type]  # it has a cause
    if operation in _NOT_OF_AN_OBJECT:
        return StoreError, "there is no such bucket or folder: create it, or check its name"
    return NotFoundError, "there is no such object"


def _unanswered(error: Exception) -> str:
    """Why there was no response, and what to do."""
    if (refused := _refused_certificate(error)) is not None:
        return refused
    if is_silence(error):
        return f"no response from the store in time; {_IF_SILENT}"
    return f"no response from the store ({_first_line(error)}); {_advice(error)}"


def _silent(error: NoProgressError) -> str:
    if error.again:
        return "it did not respond before, so nothing more is requested"
    return f"no response from the store for {error.seconds:g} seconds; {_IF_SILENT}"


def is_unreachable(error: BaseException) -> bool:
    """Whether the error says that there was no connection or no response."""
    names = _kinds(error)
    unanswered = isinstance(error, ConnectionError | socket.gaierror)
    return unanswered or _timed_out(error) or bool(names & _UNREACHABLE)


def is_silence(error: BaseException) -> bool:
    """Whether the store was given up because it did not respond in time.

    Whoever goes on after an error of one object does not go on after this one: the next request
    would take that time again.
    """
    return any(_timed_out(one) for one in causes(error))


def _timed_out(error: BaseException) -> bool:
    names = _kinds(error)
    # The one exception to "never by their text": obstore has no class for it.
    of_obstore = "obstore.GenericError" in names and "kind: Timeout" in str(error)
    return isinstance(error, TimeoutError) or of_obstore or bool(names & _TIMED_OUT)


def _kinds(error: BaseException) -> set[str]:
    return {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(error).__mro__}


def _refused_certificate(error: Exception) -> str | None:
    """Why the certificate of the server is refused, and what to do; None if it is not."""
    for one in causes(error):
        reason = getattr(one, "verify_message", "")  # aiohttp's own error has none, but its cause
        if isinstance(one, ssl.SSLCertVerificationError) and reason:
            return (
                f"the server's certificate is refused ({reason}): if the server is "
                "right, name the file of its authority in AWS_CA_BUNDLE for S3, else in "
                "SSL_CERT_FILE"
            )
    return None


def _advice(error: Exception) -> str:
    """What to check if there was no response."""
    for one in causes(error):
        match one:
            case socket.gaierror():
                return (
                    "its host name cannot be resolved: check the endpoint (many servers other "
                    "than AWS need use_path_style=true)"
                )
            case ssl.SSLError():
                return "TLS failed: write http:// if the server has no TLS"
            case ConnectionRefusedError():
                return "nothing listens there: check the endpoint"
    return "check the network and the endpoint"


def _status(error: BaseException) -> int | None:
    """The HTTP status, where the clients of Azure, of Google and of HTTP keep it."""
    kind = "status" if "aiohttp.ClientResponseError" in _kinds(error) else "code"
    found = getattr(error, "status_code", None) or getattr(error, kind, None)
    return found if isinstance(found, int) and found else None


def _said(error: Exception) -> str:
    """What the server said, or else the library."""
    return mask_text(message_of(error))[:300] or _first_line(error)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return mask_text(text.splitlines()[0])[:300]
