"""What a user asks of S3: attributes, ``storage_options`` and fsspec's configuration, merged.

All three are brought into the words of s3fs, which ``storage_options`` and fsspec's configuration
have anyway. Nothing is found in the AWS configuration here: see :mod:`.connection`.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fsspec.config import conf

from cachefs import __version__
from cachefs.errors import LocationError
from cachefs.filesystems.level import PARALLELISM, max_concurrent_calls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefs.location.options import Location, S3Options

ANSWERED_IN: Final = 600
"""Seconds that a server may take to respond, once the request was handed to the kernel.

On a slow line the kernel still has to send it. How long a server may be silent is the location's
patience.
"""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class S3Settings:
    """What is asked of S3; None where the AWS configuration decides.

    Attributes:
        keys: access key, its secret, and a session token or None.
        client: arguments of botocore's client: region, TLS and certificates.
        config: arguments of botocore's ``Config``.
        parameters: of requests, by the names of S3's API; each goes with those that have it.
        session: the caller's own session of aiobotocore, which then finds the credentials.
        others: what only s3fs knows.
        needs_region: whether it is an error if no region is found anywhere.
    """

    needs_region: bool
    profile: str | None
    endpoint_url: str | None
    anonymous: bool
    keys: tuple[str, str, str | None] | None
    client: Mapping[str, Any]
    config: Mapping[str, Any]
    parameters: Mapping[str, Any]
    session: Any = None
    others: Mapping[str, Any] = field(default_factory=dict)


def s3_settings(location: Location, s3: S3Options) -> S3Settings:
    """Merge what the user said about S3, the strongest last. Raises LocationError."""
    layers = (
        _defaults(location, s3),
        conf.get("s3", {}) | conf.get("s3a", {}),
        _attributes(s3, location.given),
        location.storage_options,
    )
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, _in_one_spelling(layer))
    return _settings(merged, needs_region=location.type == "s3")


def _defaults(location: Location, s3: S3Options) -> dict[str, Any]:
    options: dict[str, Any] = {
        "config_kwargs": {
            # Digests are verified end to end. Signing the body would hash it once more.
            "s3": {"payload_signing_enabled": False},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "retries": {"mode": s3.retry_mode, "total_max_attempts": s3.retry_max_attempts},
            "max_pool_connections": max_concurrent_calls(location.upload_bound or PARALLELISM),
            "read_timeout": ANSWERED_IN,
            # Our parameters are valid. botocore would build its user agent for each request.
            "parameter_validation": False,
            "user_agent": f"cachefs/{__version__}",
        },
    }
    if s3.region:  # from the environment; one that the user gave comes later
        options["client_kwargs"] = {"region_name": s3.region}
    return options


def _attributes(s3: S3Options, given: frozenset[str]) -> dict[str, Any]:
    """The attributes that the user gave, in the words of s3fs."""
    found: dict[str, Any] = {
        "profile": s3.profile,
        "endpoint_url": s3.endpoint_url,
        "anon": s3.anonymous or None,
        "requester_pays": s3.requester_pays or None,
        "key": s3.access_key_id and s3.access_key_id.reveal(),
        "secret": s3.secret_access_key and s3.secret_access_key.reveal(),
        "token": s3.session_token and s3.session_token.reveal(),
        "s3_additional_kwargs": {
            "ACL": s3.acl,
            "ServerSideEncryption": s3.server_side_encryption,
            "SSEKMSKeyId": s3.sse_kms_key_id,
            "StorageClass": s3.storage_class,
        },
        "client_kwargs": {"region_name": s3.region if "region" in given else None},
        "config_kwargs": {"s3": {"addressing_style": _addressing(s3, given)}},
    }
    return _without_none(found)


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _without_none(v) if isinstance(v, dict) else v for k, v in options.items()}
    return {name: value for name, value in inner.items() if value not in (None, {})}


def _addressing(s3: S3Options, given: frozenset[str]) -> str | None:
    """As builders address a bucket; None if nothing is said, so that the AWS client decides."""
    if s3.endpoint_url is None and not s3.use_path_style and "use_path_style" not in given:
        return None
    host = urlsplit(s3.endpoint_url or "").hostname or ""
    return "path" if s3.use_path_style or _is_address(host) else "virtual"


def _is_address(host: str) -> bool:
    """Whether the host can have no subdomains."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


_SPELLINGS: Final = {"username": "key", "password": "secret"}
_IN_CLIENT: Final = {
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "endpoint_url": "endpoint_url",
    "use_ssl": "use_ssl",
}
_NESTED: Final = ("client_kwargs", "config_kwargs", "s3_additional_kwargs")
_FLAGS: Final = ("anon", "requester_pays", "use_ssl")
_CREDENTIALS: Final = frozenset({"anon", "key", "secret", "token"})


def _in_one_spelling(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give each option the one name and type that s3fs has for it. Raises LocationError."""
    found = {_SPELLINGS.get(name, name): value for name, value in options.items()}
    for name in _NESTED:
        if name in found:
            found[name] = dict(_mapping(name, found[name]))
    for name in _FLAGS:
        if name in found:
            found[name] = _flag(name, found[name])
    client = found.get("client_kwargs", {})
    for name in _IN_CLIENT.keys() & client.keys():
        found.setdefault(_IN_CLIENT[name], client.pop(name))
    if (region := found.get("config_kwargs", {}).pop("region_name", None)) is not None:
        found["client_kwargs"] = {"region_name": region} | client
    return {name: value for name, value in found.items() if value is not None}


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    """A mapping; fsspec's INI files have only text, so there it is JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if value is None or not hasattr(value, "keys"):
        raise LocationError(f"{name} for S3 is not a mapping: in text, write a JSON object")
    return value  # type: ignore[no-any-return]


def _flag(name: str, value: Any) -> bool:
    """A boolean, also from the text of fsspec's INI files."""
    flags = {"true": True, "1": True, "false": False, "0": False}
    found = flags.get(str(value).lower(), None if isinstance(value, str) else bool(value))
    if found is None:
        raise LocationError(f"{name} for S3 is not a boolean: write true or false")
    return found


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge mappings, also those inside. Credentials are replaced together."""
    if above.keys() & {*_CREDENTIALS, "profile"}:
        below = {name: value for name, value in below.items() if name not in _CREDENTIALS}
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _settings(merged: dict[str, Any], *, needs_region: bool) -> S3Settings:
    parameters = merged.pop("s3_additional_kwargs", {})
    if merged.pop("requester_pays", False):
        parameters["RequestPayer"] = "requester"
    client = merged.pop("client_kwargs", {})
    if "use_ssl" in merged:
        client["use_ssl"] = merged.pop("use_ssl")
    key, secret, token = (merged.pop(name, None) for name in ("key", "secret", "token"))
    if (key is None) != (secret is None):
        raise LocationError("key and secret for S3 belong together: give both")
    anonymous = merged.pop("anon", False) or _unsigned(merged["config_kwargs"])
    return S3Settings(
        needs_region=needs_region,
        profile=merged.pop("profile", None),
        endpoint_url=merged.pop("endpoint_url", None),
        anonymous=anonymous,
        keys=None if key is None else (str(key), str(secret), token and str(token)),
        client=client,
        config=merged.pop("config_kwargs"),
        parameters=parameters,
        session=merged.pop("session", None),
        others=merged,
    )


def _unsigned(config: dict[str, Any]) -> bool:
    """Whether the configuration asks for no signature, with botocore's own mark for that."""
    version = config.get("signature_version")
    if version is None or isinstance(version, str):
        return False
    del config["signature_version"]
    return True
