"""The session behind s3fs: botocore's, without what costs a cache more than it gives."""

from __future__ import annotations

from datetime import datetime

from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp


def session() -> AioSession:
    """A session as s3fs would make one: environment, shared files, roles."""
    made = AioSession()
    # It asks the server's leave to send the body: one more round trip for each upload.
    made.unregister("before-call.s3", add_expect_header)
    # dateutil, which takes any format, would be two thirds of the time that a listing takes.
    made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return made


def _timestamp(value: str | float) -> datetime:
    """ISO 8601, as the bodies of S3's answers have it, or whatever else botocore takes."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        time = None
    return time if time and time.tzinfo else parse_timestamp(value)
