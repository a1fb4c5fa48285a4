"""Connecting to a location: its filesystem, and the path of its root there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import fsspec

from cachefs.errors import LocationError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.http_credentials import with_credentials_apart
from cachefs.filesystems.s3 import S3Filesystem
from cachefs.filesystems.s3_options import s3fs_options

if TYPE_CHECKING:
    from cachefs.filesystems.base import Filesystem
    from cachefs.location.options import AzureOptions, Location, S3Options

_HTTP: Final = ("http", "https")
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
    """Make the location's filesystem. Returns it and the root path, to which keys are appended.

    Raises LocationError for a protocol that fsspec does not know or whose library is missing, and
    StoreError if the filesystem connects immediately and fails.
    """
    parallelism = location.export.upload_parallelism
    if location.s3 is not None and location.engine == "obstore":
        return _with_obstore(location, location.s3), _root(location.url)
    kind = _filesystem_class(location.protocol)
    options: dict[str, Any] = {"skip_instance_cache": True}
    url = location.url
    if location.protocol in _HTTP:
        kind, url = with_credentials_apart(kind, url)
    try:
        options |= kind._get_kwargs_from_urls(url)
        root = kind._strip_protocol(url)
    except ValueError:  # its text may quote a password
        raise LocationError(f"the {location.protocol}:// URL is not valid: check it") from None
    options |= _options(location)
    if location.s3 is not None:
        fs = _s3fs(kind, options | dict(location.storage_options))
    else:
        # Some connect immediately, and may fail.
        with mapped("connect", str(location)):
            fs = kind(**options | dict(location.storage_options))
    # Not as an option: the SFTP filesystem would pass it to the SSH connection, which refuses it.
    fs.dircache.use_listings_cache = False
    return adapt(fs, parallelism), f"{root.rstrip('/')}/"


def _s3fs(kind: Any, options: dict[str, Any]) -> Any:
    from cachefs.filesystems.s3_session import session  # noqa: PLC0415 - loads an extra

    fs = kind(**{"session": session()} | options)
    # botocore retries already. If s3fs did too, a 503 would take 25 requests.
    fs.retries = 1
    return fs


def _filesystem_class(protocol: str) -> Any:
    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise LocationError(
            f"fsspec knows no filesystem for {protocol}://: check the URL"
        ) from error
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
        # adlfs accepts an endpoint with a path or without TLS only in a connection string.
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
            "engine=obstore does not take storage_options: give attributes, or make an "
            "obstore.fsspec.FsspecStore and pass it as fs"
        )

    def by_s3fs() -> S3Filesystem:
        options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
        options |= s3fs_options(s3, location.export.upload_parallelism)
        return S3Filesystem(_s3fs(_filesystem_class("s3"), options))

    return connect_obstore(location, s3, by_s3fs)
