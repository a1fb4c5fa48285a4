"""From a location to a connected filesystem and the path of the location's root in it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import fsspec

from cachefs import __version__
from cachefs.concurrency import calls
from cachefs.errors import LocationError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.s3 import S3Filesystem

if TYPE_CHECKING:
    from cachefs.filesystems.base import Filesystem
    from cachefs.location.options import AzureOptions, Location, S3Options

ANSWERED_IN: Final = 120
"""Seconds that a server may take for its answer, when it has been sent all of the request.

s3fs would wait for 15: too few for a copy of 5 GiB, or for what a slow line has still to send.
"""

_EXTRAS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "abfs": "azure",
    "az": "azure",
    "gs": "gcs",
    "gcs": "gcs",
    "sftp": "sftp",
    "ssh": "sftp",
}


def connect(location: Location) -> tuple[Filesystem, str]:
    """The location's filesystem, and the path of its root: keys are appended to it as they are.

    Raises LocationError for a protocol that fsspec does not know or whose library is missing, and
    StoreError where the filesystem connects at once and cannot.
    """
    parallelism = location.export.upload_parallelism
    if location.s3 is not None and location.engine == "obstore":
        return _with_obstore(location, location.s3), _root(location.url)
    kind = _filesystem_class(location.protocol)
    options: dict[str, Any] = {"skip_instance_cache": True}
    options |= kind._get_kwargs_from_urls(location.url)
    options |= _options(location)
    if location.s3 is not None:
        fs = _s3fs(kind, options | dict(location.storage_options))
    else:
        # Some connect at once.
        with mapped("connect", str(location)):
            fs = kind(**options | dict(location.storage_options))
    # Not as an option: SFTP's would hand it to the SSH connection, which refuses it.
    fs.dircache.use_listings_cache = False
    return adapt(fs, parallelism), f"{kind._strip_protocol(location.url).rstrip('/')}/"


def _s3fs(kind: Any, options: dict[str, Any]) -> Any:
    from cachefs.filesystems.s3_session import session  # noqa: PLC0415 - loads an extra

    fs = kind(**{"session": session()} | options)
    # s3fs repeats what botocore has repeated already: a 503 would take 25 requests.
    fs.retries = 1
    return fs


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
        return s3fs_options(location.s3, location.export.upload_parallelism)
    if location.azure is not None:
        return _adlfs_options(location.azure)
    return {}


def _adlfs_options(azure: AzureOptions) -> dict[str, Any]:
    options: dict[str, Any] = {"account_name": azure.account_name}
    endpoint = urlsplit(azure.account_url)
    if azure.secret_access_key is not None:
        # adlfs takes an endpoint with a path, or without TLS, only in a connection string.
        options["connection_string"] = (
            f"DefaultEndpointsProtocol={endpoint.scheme};AccountName={azure.account_name};"
            f"AccountKey={azure.secret_access_key.reveal()};"
            f"BlobEndpoint={endpoint.scheme}://{endpoint.netloc}{endpoint.path}"
        )
        return options
    return options | {
        "account_host": endpoint.netloc,
        "sas_token": endpoint.query or None,
        "anon": False,
    }


def s3fs_options(s3: S3Options, parallelism: int) -> dict[str, Any]:
    """What s3fs is made with: credentials, endpoint, retries, connections."""
    options: dict[str, Any] = {
        "config_kwargs": {
            "s3": {
                "addressing_style": _addressing(s3),
                # Digests are verified end to end; signing the body would hash it once more.
                "payload_signing_enabled": False,
            },
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"mode": s3.retry_mode, "total_max_attempts": s3.retry_max_attempts},
            "max_pool_connections": calls(parallelism),
            "read_timeout": ANSWERED_IN,
            # Ours are known to be valid, and botocore builds its own name anew for each request.
            "parameter_validation": False,
            "user_agent": f"cachefs/{__version__}",
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


def virtual_hosted(s3: S3Options) -> bool:
    """Whether the bucket goes into the host: as asked, but for hosts that can have no subdomain."""
    host = urlsplit(s3.endpoint_url or "").hostname or ""
    return not s3.use_path_style and not _is_address(host)


def _addressing(s3: S3Options) -> str:
    if not virtual_hosted(s3):
        return "path"
    # For AWS itself, "auto" is virtual-hosted but for bucket names that cannot be part of a host.
    return "virtual" if s3.endpoint_url else "auto"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _with_obstore(location: Location, s3: S3Options) -> Filesystem:
    try:
        from cachefs.filesystems.obstore_s3 import (  # noqa: PLC0415 - loads an extra, and botocore
            connect_obstore,
        )
    except ImportError as error:
        raise LocationError(
            "engine=obstore needs a library; pip install 'cachefs[obstore]'"
        ) from error
    if location.storage_options:
        raise LocationError(
            "storage_options are s3fs's; with engine=obstore give attributes, or open an "
            "obstore.fsspec.FsspecStore yourself and pass it as fs"
        )

    def by_s3fs() -> S3Filesystem:
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        options |= s3fs_options(s3, location.export.upload_parallelism)
        return S3Filesystem(_s3fs(_filesystem_class("s3"), options))

    return connect_obstore(location, s3, by_s3fs)
