"""Maps errors of filesystems to StoreErrors, by type, ``errno`` and code, never by their text."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cachefs.concurrency import BatchError
from cachefs.errors import (
    AccessError,
    ArchivedError,
    CacheError,
    NotFoundError,
    StoreError,
    UnreachableError,
    causes,
)
from cachefs.filesystems.patience import NoProgressError
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

# Codes of S3 servers. The response to a HEAD has only its status.
_NEW_TOKEN: Final = "the session token has expired: get new credentials"  # noqa: S105 - a message
_S3_ACCESS: Final = {
    "InvalidAccessKeyId": "the store does not know this access key: check access_key_id or "
    "AWS_ACCESS_KEY_ID, and the endpoint",
    "SignatureDoesNotMatch": "the secret access key is wrong: check secret_access_key or "
    "AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": _NEW_TOKEN,
    "ExpiredTokenException": _NEW_TOKEN,
    "TokenRefreshRequired": _NEW_TOKEN,
    "InvalidToken": "the session token is not valid: check session_token or AWS_SESSION_TOKEN, or "
    "get new credentials",
    "RequestTimeTooSkewed": "the clock of this machine differs too much from the store's: set it",
}
_S3_REGION: Final = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
_S3_STORE: Final = {
    # s3_session makes this code of a redirect.
    "421": "the store redirects to another place, which is not followed: check the endpoint, and "
    "region or AWS_REGION",
    "NoSuchBucket": "there is no such bucket: create it, or check its name and the endpoint",
    "BadDigest": "the bytes were damaged on their way to the store, which refused them: try again, "
    "and use https or check the network",
    "XAmzContentSHA256Mismatch": "the bytes were damaged on their way to the store, which refused "
    "them: try again, and use https or check the network",
    "SlowDown": "the store throttles requests: wait, then try retry_mode=adaptive",
    "ServiceUnavailable": "the store is overloaded or down: try again later",
}
ARCHIVED: Final = {"InvalidObjectState", "ObjectNotInActiveTierError"}
"""Codes of a read and of a copy of an archived object."""

IS_ARCHIVED: Final = (
    "it is archived: restore it, or export again; and let no lifecycle rule archive a cache"
)

_S3_RIGHTS: Final = {
    "list": "s3:ListBucket",
    "look up": "s3:GetObject, and s3:ListBucket for what is absent",
    "read": "s3:GetObject, and s3:ListBucket for what is absent",
    "write": "s3:PutObject",
    "upload": "s3:PutObject",
    "touch": "s3:GetObject and s3:PutObject",
    "delete": "s3:DeleteObject",
    "abandon": "s3:AbortMultipartUpload",
}

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
    kind, reason = _by_code(error, operation) or _by_type(error, operation)
    failure = kind(reason, operation=operation, key=key, side=side)
    failure.__cause__ = error
    return failure


def is_vague(failure: StoreError) -> bool:
    """Whether another request may reveal more: a HEAD has no code, and obstore passes none on."""
    cause = failure.__cause__
    if cause is None or isinstance(failure, NotFoundError | UnreachableError):
        return False
    code = _s3_answer(cause).get("Error", {}).get("Code", "")
    no_reason = code.isdigit() and code not in _S3_STORE
    return no_reason or any(kind.startswith("obstore.") for kind in _kinds(cause))


def is_absent(error: FileNotFoundError) -> bool:
    """Whether the object is really not there.

    fsspec's HTTP filesystem says so too if the server cannot be reached or refuses the request.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, FileNotFoundError):
        return True
    status = _status(cause)
    return status in _GONE if status else not is_unreachable(cause)


def _by_code(error: Exception, operation: str) -> Finding | None:
    """Map the code of an S3 server's response; None if it has no known code."""
    answer = _s3_answer(error)
    code = answer.get("Error", {}).get("Code", "")
    if code in _S3_ACCESS:
        return AccessError, _S3_ACCESS[code]
    if code in _S3_STORE:
        return StoreError, _S3_STORE[code]
    if code in ARCHIVED:
        return ArchivedError, IS_ARCHIVED
    if code in _S3_REGION:
        return StoreError, elsewhere(_region(answer))
    if code in {"AccessDenied", "403"}:
        right = _S3_RIGHTS.get(operation, "more rights")
        return AccessError, f"access is denied: check the credentials; this needs {right}"
    if code == "400":
        return StoreError, "the store refused the request: check the region and the session token"
    return None


def is_archived(error: BaseException) -> bool:
    """Whether an S3 server refused a request because the object is archived."""
    return _s3_answer(error).get("Error", {}).get("Code") in ARCHIVED


def _s3_answer(error: BaseException) -> dict[str, Any]:
    """The response in botocore's error, from which s3fs raises its own."""
    for one in causes(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, dict):
            return answer
    return {}


def _region(answer: dict[str, Any]) -> str | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region: str | None = answer["Error"].get("Region") or headers.get("x-amz-bucket-region")
    return region


def elsewhere(region: str | None) -> str:
    """The message for a bucket in another region, None if that is unknown."""
    if region is None:
        return "the bucket is in another region: check region or AWS_REGION, and the endpoint"
    return f"the bucket is in region {region}: give region={region} or set AWS_REGION={region}"


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
        return AccessError, f"access is denied ({_first_line(error)}): check the credentials"
    if _status(error) is None and is_unreachable(error):
        if (refused := _refused_certificate(error)) is not None:
            return UnreachableError, refused
        reason, advice = _first_line(error), _advice(error)
        return UnreachableError, f"no response from the store ({reason}); {advice}"
    # s3fs gives the errors of servers the nearest numbers, which mean disks here.
    if isinstance(error, OSError) and not _s3_answer(error) and (said := system_reason(error)):
        return AccessError if error.errno == errno.EROFS else StoreError, said
    return StoreError, f"the store failed: {_first_line(error)}"


def _not_found(error: Exception, operation: str) -> Finding:
    if isinstance(error, FileNotFoundError) and not is_absent(error):
        return _by_type(error.__cause__, operation)  # type: ignore[arg-type]  # it has a cause
    if operation in _NOT_OF_AN_OBJECT:
        return StoreError, "there is no such bucket or folder: create it, or check its name"
    return NotFoundError, "there is no such object"


def _silent(error: NoProgressError) -> str:
    if error.again:
        return "it did not respond before, so nothing more is requested"
    return (
        f"no response from the store for {error.seconds:g} seconds; check the network and the "
        "endpoint, or give it more time with patience"
    )


def is_unreachable(error: BaseException) -> bool:
    """Whether the error says that there was no connection or no response."""
    names = _kinds(error)
    unanswered = isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
    # The one exception to "never by their text": obstore has no class for it.
    timed_out = "obstore.GenericError" in names and "kind: Timeout" in str(error)
    return unanswered or timed_out or bool(names & _UNREACHABLE)


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


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return mask_text(text.splitlines()[0])[:300]
