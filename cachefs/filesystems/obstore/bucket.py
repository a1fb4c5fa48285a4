"""Checks that a caller's obstore store for S3 uses the bucket that it was asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from cachefs.errors import LocationError

if TYPE_CHECKING:
    from obstore.store import S3Credential


def require_bucket(store: Any, bucket: str) -> None:
    """Raise LocationError if the bucket is neither in the host nor in the path of requests.

    obstore appends no bucket to an endpoint in the virtual-hosted style, takes both from the
    environment too, and prefers a configured bucket to that of the URL. No request is sent.
    """
    if not isinstance(store, S3Store) or str(store.config.get("s3_express")).lower() == "true":
        return  # a directory bucket would be asked for credentials
    # It reads the same environment, so it has the same URLs; and no credentials are looked for.
    config: Any = {**store.config, "skip_signature": False}
    same = S3Store(
        config=config, client_options=store.client_options, credential_provider=_credentials
    )
    url = urlsplit(obstore.sign(same, "GET", _KEY, timedelta(minutes=1)))
    in_host = f"{url.hostname}.".startswith(f"{bucket}.")
    if not in_host and not url.path.endswith(f"/{bucket}/{_KEY}"):
        raise LocationError(
            f"the obstore store would not use bucket {bucket}: check its bucket and its "
            "virtual_hosted_style_request, with which the bucket belongs into its endpoint, also "
            "in the environment (AWS_BUCKET, AWS_VIRTUAL_HOSTED_STYLE_REQUEST)"
        )


_KEY: Final = "key"


def _credentials() -> S3Credential:
    return {
        "access_key_id": "unused",
        "secret_access_key": "unused",
        "token": None,
        "expires_at": None,
    }
