"""S3 through obstore, for ``engine=obstore``, with credentials found as s3fs finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import botocore.session
from botocore.exceptions import NoCredentialsError
from obstore.fsspec import FsspecStore

from cachefs.filesystems.connecting import CONNECTIONS, virtual_hosted
from cachefs.filesystems.obstore import ObstoreFilesystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachefs.filesystems.base import Filesystem
    from cachefs.location import Location, S3Options


def connect_obstore(location: Location, s3: S3Options, toucher: Filesystem) -> ObstoreFilesystem:
    """The location's bucket through obstore; ``toucher`` renews times on the same bucket."""
    make: Any = FsspecStore  # its overloads leave out fsspec's own options
    fs = make(
        "s3",
        config=_config(location, s3),
        client_options={"allow_http": True, "pool_max_idle_per_host": str(CONNECTIONS)},
        retry_config={"max_retries": s3.retry_max_attempts - 1},
        credential_provider=_aws_credentials(s3),
        skip_instance_cache=True,
    )
    return ObstoreFilesystem(fs, location.export.upload_parallelism, toucher)


def _config(location: Location, s3: S3Options) -> dict[str, Any]:
    bucket = urlsplit(location.url).netloc
    config: dict[str, Any] = {
        "region": s3.region or "us-east-1",
        "virtual_hosted_style_request": not s3.use_path_style,
        "unsigned_payload": True,
    }
    if s3.endpoint_url:
        endpoint = urlsplit(s3.endpoint_url)
        virtual = virtual_hosted(s3)
        config["virtual_hosted_style_request"] = virtual
        # obstore wants the bucket in an endpoint that is asked in the virtual-hosted style.
        host = f"{bucket}.{endpoint.netloc}" if virtual else endpoint.netloc
        config["endpoint"] = f"{endpoint.scheme}://{host}{endpoint.path}"
    return config


def _aws_credentials(s3: S3Options) -> Callable[[], dict[str, Any]]:
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
