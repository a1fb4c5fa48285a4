"""Connecting to a location: its filesystem, and the path of its root there."""

from __future__ import annotations

import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cachefs.errors import LocationError
from cachefs.filesystems.adapting import adapt
from cachefs.filesystems.failures import mapped
from cachefs.filesystems.http_credentials import with_credentials_apart
from cachefs.filesystems.level import REFUSALS
from cachefs.filesystems.local import LocalFilesystem
from cachefs.filesystems.patience import PATIENCE
from cachefs.io_loop import loaded_fsspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefs.filesystems.base import Filesystem
    from cachefs.filesystems.s3.connection import S3Connection
    from cachefs.filesystems.s3.filesystem import S3Filesystem
    from cachefs.filesystems.s3.options import S3Settings
    from cachefs.location.options import AzureOptions, Location, RegistryOptions, S3Options

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


_SSH: Final = {"sftp", "ssh"}
_AZURE: Final = {"abfs", "az"}


def connect(location: Location) -> tuple[Filesystem, str]:
    """Make the location's filesystem. Returns it and the root path, to which keys are appended.

    Raises LocationError for a protocol that fsspec does not know or whose library is missing, and
    StoreError if the filesystem connects immediately and fails.
    """
    if location.protocol == "file":
        root = f"{location.url.rstrip('/')}/"
        return LocalFilesystem(None, location.upload_bound, _patience(location)), root
    loaded_fsspec()
    if location.registry is not None:
        return _registry(location, location.registry)
    if location.s3 is not None:
        return _s3(location, location.s3), _root(location.url)
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
    user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    if at and f"{user}@" in root:  # every message would show it, as a part of a key
        raise LocationError(
            f"{location.protocol}:// takes the user, password or token in the URL for a folder: "
            "remove it and the @"
        )
    if location.azure is not None:
        options |= _adlfs_options(location.azure)
    if location.protocol in _SSH:
        # It connects immediately. paramiko would wait for ever in some of these steps.
        limits = ("timeout", "banner_timeout", "auth_timeout")
        options |= dict.fromkeys(limits, _patience(location))
    options |= location.storage_options
    if location.protocol in _HTTP:
        from fsspec.config import apply_config  # noqa: PLC0415 - slow to load

        from cachefs.filesystems.http_redirects import with_headers_kept  # noqa: PLC0415 - aiohttp

        options = with_headers_kept(apply_config(kind, options))
    _require_azure_account(kind, options, location.protocol)
    # Some connect immediately, and may fail.
    with mapped("connect", str(location)):
        fs = kind(**options)
    # Not as an option: the SFTP filesystem would pass it to the SSH connection, which refuses it.
    fs.dircache.use_listings_cache = False
    adapted = adapt(fs, location.upload_bound, _patience(location))
    return adapted, f"{root.rstrip('/')}/"


def _registry(location: Location, registry: RegistryOptions) -> tuple[Filesystem, str]:
    if location.storage_options:
        raise LocationError("type=registry has no storage_options: leave them out")
    try:
        from cachefs.filesystems.registry.client import RegistryClient  # noqa: PLC0415
        from cachefs.filesystems.registry.filesystem import RegistryFilesystem  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise LocationError(
            "type=registry needs a library; pip install 'buildcachefs[registry]'"
        ) from error
    root = _root(location.url)
    host, _, repository = root.removesuffix("/").partition("/")
    client = RegistryClient(host, repository, insecure=registry.registry_insecure)
    return RegistryFilesystem(client, location.upload_bound, _patience(location)), root


def _s3(location: Location, s3: S3Options) -> Filesystem:
    # All of this is needed for S3 alone.
    from cachefs.filesystems.obstore.filesystem import used_before_fork  # noqa: PLC0415
    from cachefs.filesystems.s3.filesystem import S3Filesystem  # noqa: PLC0415
    from cachefs.filesystems.s3.options import s3_settings  # noqa: PLC0415

    settings = s3_settings(location, s3)
    bound, patience = location.upload_bound, _patience(location)
    # A number that the user gives is the number of attempts, whatever the server says.
    refusals = 0 if "retry_max_attempts" in location.given else REFUSALS
    # The threads of obstore do not survive a fork, and it cannot start others. It also drops the
    # slash that keys begin with.
    engine = "s3fs" if used_before_fork() or location.has_slash_first else location.engine
    try:
        # They load an extra.
        from cachefs.filesystems.s3.connection import resolve  # noqa: PLC0415

        if engine == "obstore":
            from cachefs.filesystems.obstore.s3 import connect_obstore  # noqa: PLC0415
    except ImportError as error:
        extra = "obstore" if engine == "obstore" else "s3"
        place = "engine=obstore" if extra == "obstore" else f"{location.protocol}://"
        raise LocationError(
            f"{place} needs a library; pip install 'buildcachefs[{extra}]'"
        ) from error
    bucket = urlsplit(location.url).netloc
    resolved = cache(partial(resolve, settings))
    with mapped("connect", str(location)):
        connection = resolved(bucket)

    def by_s3fs() -> S3Filesystem:
        return S3Filesystem(_s3fs(settings, connection, refusals), bound, patience)

    if engine == "s3fs":
        return by_s3fs()
    _require_nothing_of_s3fs(settings, location.storage_options)
    return connect_obstore(resolved, bucket, by_s3fs, bound, patience, refusals)


def _s3fs(settings: S3Settings, connection: S3Connection, refusals: int) -> Any:
    kind = _filesystem_class("s3")
    from cachefs.filesystems.s3.session import s3fs_options  # noqa: PLC0415 - loads an extra

    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    options |= settings.others
    fs = kind(**options | s3fs_options(connection, settings.session, refusals))
    # botocore retries already. If s3fs did too, a 503 would take 25 requests.
    fs.retries = 1
    return fs


def _require_nothing_of_s3fs(settings: S3Settings, storage_options: Mapping[str, Any]) -> None:
    """Raise LocationError if the caller gave options that only s3fs has."""
    of_s3fs = sorted(settings.others.keys() & storage_options.keys())
    if settings.session is not None:
        of_s3fs.append("session")
    of_s3fs += sorted({"client_cert", "proxies_config"} & settings.config.keys())
    if of_s3fs:
        raise LocationError(
            f"engine=obstore does not have the option {of_s3fs[0]}: use engine=s3fs, or make an "
            "obstore.fsspec.FsspecStore and pass it as fs"
        )


def _filesystem_class(protocol: str) -> Any:
    try:
        return loaded_fsspec().get_filesystem_class(protocol)
    except ValueError as error:
        raise LocationError(
            f"fsspec knows no filesystem for {protocol}://: check the URL"
        ) from error
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        what = f"'buildcachefs[{extra}]'" if extra else f"what fsspec needs for it ({error})"
        raise LocationError(f"{protocol}:// needs a library; pip install {what}") from error


def _patience(location: Location) -> float:
    return location.patience or PATIENCE


def _root(url: str) -> str:
    return url.partition("://")[2].rstrip("/") + "/"


def _require_azure_account(kind: Any, options: Mapping[str, Any], protocol: str) -> None:
    """Raise LocationError without an account: adlfs says the same of every mistake."""
    if protocol in _AZURE and not _has_azure_account(kind, options):
        raise LocationError(
            f"{protocol}:// without a storage account: set AZURE_STORAGE_ACCOUNT_NAME, or give "
            "type=azblob,account_url=..."
        )


def _has_azure_account(kind: Any, options: Mapping[str, Any]) -> bool:
    """Whether an account is given, here, in fsspec's configuration or in the environment."""
    from fsspec.config import apply_config  # noqa: PLC0415 - slow to load

    given = apply_config(kind, dict(options))
    return any(
        given.get(option) or os.environ.get(f"AZURE_STORAGE_{option.upper()}")
        for option in ("account_name", "account_host", "connection_string")
    )


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
