"""AWS credentials for obstore, found as every other AWS client finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefs.location import S3Options


def aws_credentials(s3: S3Options) -> Callable[[], dict[str, Any]]:
    """What obstore calls for credentials, and again when they are about to expire.

    The explicit ones, else botocore's chain: environment, shared files and AWS_PROFILE, role.
    """
    session = botocore.session.Session()
    if s3.access_key_id is not None and s3.secret_access_key is not None:
        session.set_credentials(
            s3.access_key_id.reveal(),
            s3.secret_access_key.reveal(),
            s3.session_token.reveal() if s3.session_token else None,
        )

    def provide() -> dict[str, Any]:
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": getattr(found, "_expiry_time", None),
        }

    return provide
