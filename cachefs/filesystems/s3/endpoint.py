"""The endpoint of an S3 server: where it comes from, and whether it is a URL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from botocore.configprovider import ConfiguredEndpointProvider

from cachefs.errors import LocationError
from cachefs.location.kinds import HTTP, quoted

if TYPE_CHECKING:
    from cachefs.filesystems.s3.options import S3Settings

_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def endpoint_of(session: Any, settings: S3Settings) -> str | None:
    """The endpoint of the settings, or else of the AWS configuration; None for Amazon's.

    Raises LocationError, which says where it was set, for one that is not a URL.
    """
    found = settings.endpoint_url
    origin = "endpoint_url in storage_options or fsspec's configuration for S3"
    if found is None and not _is_ignored(session, settings):
        # The environment, the profile's services section, and then the profile.
        found = ConfiguredEndpointProvider(
            full_config=session.full_config,
            scoped_config=session.get_scoped_config(),
            client_name="s3",
        ).provide()
        files = f"endpoint_url of profile {session.profile or 'default'} or its services section"
        origin = next((f"${name}" for name in _VARIABLES if os.environ.get(name)), files)
    if not found:
        return None
    try:
        HTTP.read(found)
    except ValueError as error:
        raise LocationError(f"{origin}={quoted(found)} {error}") from None
    return str(found)


def _is_ignored(session: Any, settings: S3Settings) -> bool:
    ignored = settings.config.get("ignore_configured_endpoint_urls")
    if ignored is None:
        ignored = session.get_config_variable("ignore_configured_endpoint_urls")
    return bool(ignored)
