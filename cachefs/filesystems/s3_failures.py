"""What an S3 server says is wrong, as a StoreError: the same for both engines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachefs.errors import AccessError, ArchivedError, StoreError, causes

if TYPE_CHECKING:
    Finding = tuple[type[StoreError], str]

# Codes of S3 servers. The response to a HEAD has only its status.
_NEW_TOKEN: Final = "the session token has expired: get new credentials"  # noqa: S105 - a message
_ACCESS: Final = {
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
_REGION: Final = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}
_UNSUPPORTED: Final = (
    "the server does not support this request: check that the endpoint is that of an S3 server"
)
_FULL: Final = "the store has no space left, or its quota is used up: prune the cache, or get more"
_STORE: Final = {
    # s3.session makes this code of a redirect.
    "421": "the store redirects to another place, which is not followed: check the endpoint, and "
    "region or AWS_REGION",
    "NoSuchBucket": "there is no such bucket: create it, or check its name and the endpoint",
    "BadDigest": "the bytes were damaged on their way to the store, which refused them: try again, "
    "and use https or check the network",
    "XAmzContentSHA256Mismatch": "the bytes were damaged on their way to the store, which refused "
    "them: try again, and use https or check the network",
    "SlowDown": "the store throttles requests: wait, then try retry_mode=adaptive",
    "ServiceUnavailable": "the store is overloaded or down: try again later",
    "InternalError": "the store had a fault of its own: try again later",
    "MethodNotAllowed": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "EntityTooLarge": "the store accepts no object as large as this one",
}
ARCHIVED: Final = {"InvalidObjectState", "ObjectNotInActiveTierError"}
"""Codes of a read and of a copy of an archived object."""

IS_ARCHIVED: Final = (
    "it is archived: restore it, or export again; and let no lifecycle rule archive a cache"
)

REFUSED_STATUS: Final = (429, 503)
"""The HTTP statuses of a server that has too much to do for now."""

_REFUSED: Final = {
    *map(str, REFUSED_STATUS),
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "ThrottlingException",
    "TooManyRequests",
}
_STATUS: Final = re.compile(r"non-2xx status code: (\d{3})\b")

_RIGHTS: Final = {
    "list": "s3:ListBucket",
    "look up": "s3:GetObject, and s3:ListBucket for what is absent",
    "read": "s3:GetObject, and s3:ListBucket for what is absent",
    "write": "s3:PutObject",
    "upload": "s3:PutObject",
    "touch": "s3:GetObject and s3:PutObject",
    "copy": "s3:GetObject of the source, and s3:PutObject",
    "delete": "s3:DeleteObject",
    "abandon": "s3:AbortMultipartUpload",
}


class _Answer(NamedTuple):
    """What a server's response says."""

    code: str = ""
    message: str = ""
    region: str | None = None
    has_headers: bool = True


def by_code(error: BaseException, operation: str) -> Finding | None:
    """Map the code of an S3 server's response; None if it has no known code."""
    code, _, region, _ = _answer(error)
    if code in _ACCESS:
        return AccessError, _ACCESS[code]
    if code in _STORE:
        return StoreError, _STORE[code]
    if code in ARCHIVED:
        return ArchivedError, IS_ARCHIVED
    if code in _REGION:
        return StoreError, elsewhere(region)
    if code in {"AccessDenied", "403"}:
        right = _RIGHTS.get(operation, "more rights")
        return AccessError, f"access is denied: check the credentials; this needs {right}"
    if code == "400":
        return StoreError, "the store refused the request: check the region and the session token"
    return None


def is_archived(error: BaseException) -> bool:
    """Whether an S3 server refused a request because the object is archived."""
    return code_of(error) in ARCHIVED


def is_refused(error: BaseException) -> bool:
    """Whether an S3 server refused a request because it has too much to do for now."""
    if code_of(error) in _REFUSED:
        return True
    return status_in_text(error) in REFUSED_STATUS


def status_in_text(error: BaseException) -> int | None:
    """The HTTP status that obstore states in the text of its errors, as it has no attribute."""
    if not type(error).__module__.startswith("obstore"):
        return None
    found = _STATUS.search(str(error).partition("\n\nDebug source:")[0])
    return int(found[1]) if found else None


def is_explained(error: BaseException) -> bool:
    """Whether the response says what is wrong. That to a HEAD has only a status."""
    code, _, region, has_headers = _answer(error)
    if code in _REGION and not has_headers:
        return region is not None
    return bool(code) and (code in _STORE or not code.isdigit())


def code_of(error: BaseException) -> str:
    """The code in the server's response; the status if it has none; empty without a response."""
    return _answer(error).code


def message_of(error: BaseException) -> str:
    """What the server's response says for people, after its code; empty without a response."""
    code, message, *_ = _answer(error)
    text = " ".join(message.split())
    return f"{code}: {text}" if code and text and not code.isdigit() else ""


def _answer(error: BaseException) -> _Answer:
    """The response in botocore's error, from which s3fs raises its own, or in one of obstore."""
    for one in causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return _of_botocore(response)
        if isinstance(one, FileNotFoundError) or type(one).__module__.startswith("obstore"):
            found = _of_obstore(str(one))
            if found.code:
                return found
    return _Answer()


def _of_botocore(response: dict[str, Any]) -> _Answer:
    said = response.get("Error", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = said.get("Region") or headers.get("x-amz-bucket-region")
    return _Answer(str(said.get("Code", "")), str(said.get("Message", "")), region)


def _of_obstore(text: str) -> _Answer:
    """Obstore has no attributes for the response, but quotes its XML in the message."""
    fields = dict(_FIELD.findall(text.partition("\n\nDebug source:")[0]))
    return _Answer(fields.get("Code", ""), fields.get("Message", ""), fields.get("Region"), False)


_FIELD: Final = re.compile(r"<(Code|Message|Region)>([^<]*)</")


def elsewhere(region: str | None) -> str:
    """The message for a bucket in another region, None if that is unknown."""
    if region is None:
        return "the bucket is in another region: check region or AWS_REGION, and the endpoint"
    return f"the bucket is in region {region}: give region={region} or set AWS_REGION={region}"
