"""The session of s3fs: that of aiobotocore, without the features that make a cache slow."""

from __future__ import annotations

from datetime import datetime

from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp


def session() -> AioSession:
    """Make a session as s3fs does: with the environment, shared files and roles."""
    made = AioSession()
    # "Expect: 100-continue" would cost one more round trip for each upload.
    made.unregister("before-call.s3", add_expect_header)
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
