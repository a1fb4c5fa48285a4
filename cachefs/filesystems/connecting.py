"""From a location to a connected filesystem and the path of the location's root in it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

from cachefs.errors import LocationError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.credentials import aws_credentials
from cachefs.filesystems.obstore import ObstoreFilesystem

if TYPE_CHECKING:
    from cachefs.filesystems.base import Filesystem
    from cachefs.location import Location, S3Options

CONNECTIONS = 64
"""Connections that an S3 client may hold; each blob on its way uses one."""

_EXTRAS = {"s3": "s3", "s3a": "s3", "abfs": "azure", "az": "azure", "gs": "gcs", "gcs": "gcs"}
_EXTRAS |= {"sftp": "sftp", "ssh": "sftp"}


def connect(location: Location) -> tuple[Filesystem, str]:
    """The location's filesystem, and the path of its root: keys are appended to it as they are.

    Raises LocationError for a protocol that fsspec does not know or whose library is missing.
    """
    parallelism = location.export.upload_parallelism
    if location.s3 is not None and location.engine == "obstore":
        return _obstore(location, location.s3), _root(location.url)
    kind = _filesystem_class(location.protocol)
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    options |= kind._get_kwargs_from_urls(location.url)
    options |= _options(location)
    fs = kind(**options | location.storage_options)
    if location.s3 is not None:
        # s3fs repeats what botocore has repeated already: a 503 would take 25 requests.
        fs.retries = 1
    return adapt(fs, parallelism), f"{kind._strip_protocol(location.url).rstrip('/')}/"


def _filesystem_class(protocol: str) -> Any:
    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise LocationError(f"fsspec knows no filesystem for {protocol}://") from error
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        what = f"'cachefs[{extra}]'" if extra else f"what fsspec needs for it ({error})"
        raise LocationError(f"{protocol}:// needs a library; pip install {what}") from error


def _root(url: str) -> str:
    return url.partition("://")[2].rstrip("/") + "/"


def _options(location: Location) -> dict[str, Any]:
    if location.s3 is not None:
        return _s3fs_options(location.s3)
    if location.azure is not None:
        azure = location.azure
        key = azure.secret_access_key
        return {
            "account_name": azure.account_name,
            "account_host": urlsplit(azure.account_url).netloc,
            "account_key": key.reveal() if key else None,
            "anon": False,
        }
    return {}


def _s3fs_options(s3: S3Options) -> dict[str, Any]:
    options: dict[str, Any] = {
        "config_kwargs": {
            "s3": {
                "addressing_style": "path" if s3.use_path_style else "auto",
                # Digests are verified end to end; signing the body would hash it once more.
                "payload_signing_enabled": False,
            },
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"mode": s3.retry_mode, "total_max_attempts": s3.retry_max_attempts},
            "max_pool_connections": CONNECTIONS,
        },
    }
    if s3.region:
        options["client_kwargs"] = {"region_name": s3.region}
    if s3.endpoint_url:
        options["endpoint_url"] = s3.endpoint_url
    for name, secret in (
        ("key", s3.access_key_id),
        ("secret", s3.secret_access_key),
        ("token", s3.session_token),
    ):
        if secret is not None:
            options[name] = secret.reveal()
    return options


def _obstore(location: Location, s3: S3Options) -> Filesystem:
    try:
        from obstore.fsspec import FsspecStore  # an extra
    except ImportError as error:
        raise LocationError(
            "engine=obstore needs a library; pip install 'cachefs[obstore]'"
        ) from error
    kind = _filesystem_class("s3")
    toucher = adapt(
        kind(
            use_listings_cache=False,
            skip_instance_cache=True,
            **_s3fs_options(s3) | location.storage_options,
        ),
        location.export.upload_parallelism,
    )
    fs = FsspecStore(
        "s3",
        config=_obstore_config(location, s3),
        client_options={"allow_http": True, "pool_max_idle_per_host": CONNECTIONS},
        retry_config={"max_retries": s3.retry_max_attempts - 1},
        credential_provider=aws_credentials(s3),
        skip_instance_cache=True,
    )
    return ObstoreFilesystem(fs, location.export.upload_parallelism, toucher)


def _obstore_config(location: Location, s3: S3Options) -> dict[str, Any]:
    bucket = urlsplit(location.url).netloc
    config: dict[str, Any] = {
        "region": s3.region or "us-east-1",
        "virtual_hosted_style_request": not s3.use_path_style,
        "unsigned_payload": True,
    }
    if s3.endpoint_url:
        endpoint = urlsplit(s3.endpoint_url)
        virtual = not s3.use_path_style and not _is_address(endpoint.hostname or "")
        config["virtual_hosted_style_request"] = virtual
        # obstore wants the bucket in an endpoint that is asked in the virtual-hosted style.
        host = f"{bucket}.{endpoint.netloc}" if virtual else endpoint.netloc
        config["endpoint"] = f"{endpoint.scheme}://{host}{endpoint.path}"
    return config


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
