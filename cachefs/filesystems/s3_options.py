"""Options that both engines for S3 share: addressing, endpoint, credentials, connections."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cachefs import __version__
from cachefs.concurrency import max_concurrent_calls

if TYPE_CHECKING:
    from cachefs.location.options import S3Options

ANSWERED_IN: Final = 600
"""Seconds that a server may take to respond, once the request was handed to the kernel.

On a slow line the kernel still has to send it. How long a server may be silent is the location's
patience.
"""


def s3fs_options(s3: S3Options, parallelism: int) -> dict[str, Any]:
    """The options of s3fs: credentials, endpoint, retries, connections."""
    options: dict[str, Any] = {
        "config_kwargs": {
            "s3": {
                "addressing_style": _addressing(s3),
                # Digests are verified end to end. Signing the body would hash it once more.
                "payload_signing_enabled": False,
            },
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"mode": s3.retry_mode, "total_max_attempts": s3.retry_max_attempts},
            "max_pool_connections": max_concurrent_calls(parallelism),
            "read_timeout": ANSWERED_IN,
            # Our parameters are valid. botocore would build its user agent for each request.
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
    """Whether the bucket is part of the host name. Addresses and localhost have no subdomains."""
    host = urlsplit(s3.endpoint_url or "").hostname or ""
    return not s3.use_path_style and not _is_address(host)


def _addressing(s3: S3Options) -> str:
    if not virtual_hosted(s3):
        return "path"
    # For AWS, "auto" is virtual-hosted, except for bucket names that cannot be part of a host.
    return "virtual" if s3.endpoint_url else "auto"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
