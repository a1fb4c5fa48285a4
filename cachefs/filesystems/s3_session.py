"""The session of s3fs: that of aiobotocore, without the features that make a cache slow."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from aiobotocore.session import AioSession
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp

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


def session() -> AioSession:
    """Make a session as s3fs does: with the environment, shared files and roles."""
    made = AioSession()
    # "Expect: 100-continue" would cost one more round trip for each upload.
    made.unregister("before-call.s3", add_expect_header)
    made.register("choose-signer.s3.PutObject", _choose_signer)
    # dateutil, which parses any format, would take two thirds of the time of a listing.
    made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return made


def _timestamp(value: str | float) -> datetime:
    """Parse ISO 8601, as in the bodies of S3, or any other format that botocore accepts."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        time = None
    return time if time and time.tzinfo else parse_timestamp(value)
