"""Finds out how to reach a bucket, once, for both engines.

botocore reads the AWS configuration: environment, files, profile. The result is explicit, so that
neither engine has to look anywhere.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import botocore.loaders
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ProfileNotFound
from botocore.utils import get_environ_proxies

from cachefs.errors import LocationError
from cachefs.filesystems.s3.credentials import CredentialSource
from cachefs.filesystems.s3.endpoint import endpoint_of
from cachefs.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cachefs.filesystems.s3.options import S3Settings


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class S3Connection:
    """How to reach one bucket.

    Attributes:
        bucket: its name, or the ARN of an access point.
        bucket_url: where its objects are: the bucket is in the host or in the path.
        default_url: where botocore would look for them; it differs for very short names only.
        region: what requests are signed for.
        credentials: what they are signed with; None if they are not signed.
        proxy: the URL of the proxy, None for none.
        certificates: a file of authorities, True for the usual ones, False to accept any.
        client, config: arguments of botocore's client and ``Config``, all explicit.
        parameters: of requests, by the names of S3's API.
        profile: the profile that was given.
        endpoint_url: of the server, None for Amazon's.
    """

    bucket: str
    bucket_url: str
    default_url: str
    region: str
    credentials: CredentialSource | None
    proxy: str | None
    certificates: str | bool
    client: Mapping[str, Any]
    config: Mapping[str, Any]
    parameters: Mapping[str, Any]
    profile: str | None
    endpoint_url: str | None


def resolve(settings: S3Settings, bucket: str) -> S3Connection:
    """Ask botocore where the bucket is. No request is sent.

    Raises LocationError for a configuration that is not valid, and botocore's ProfileNotFound.
    """
    with _configuring():
        session = botocore.session.Session(profile=settings.profile)
        share_models(session)
        config = {**settings.config, "ignore_configured_endpoint_urls": True}
        for name in ("use_fips_endpoint", "use_dualstack_endpoint"):
            config.setdefault(name, session.get_config_variable(name))
        endpoint_url = endpoint_of(session, settings)
        client_arguments = dict(settings.client)
        if client_arguments.get("region_name") is None:
            client_arguments["region_name"] = session.get_config_variable("region")
        if client_arguments["region_name"] is None and settings.needs_region:
            raise LocationError(
                "type=s3 needs region: give region=..., or set AWS_REGION or the profile's region"
            )
        certificates = _certificates(session, client_arguments.pop("verify", None))
        client = session.create_client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(**config),
            aws_access_key_id="unused",
            aws_secret_access_key="unused",  # noqa: S106 - it signs a request that is not sent
            **client_arguments,
        )
        bucket_url, region = _first_request(client, bucket)
        default_url = bucket_url
        if endpoint_url is None and len(bucket) < _SHORTEST:
            longer, _ = _first_request(client, f"{bucket}{_FILL}")
            bucket_url = longer.replace(f"{bucket}{_FILL}", bucket)
        proxy = _proxy(config, client.meta.endpoint_url)
    config["s3"] = client.meta.config.s3
    config["proxies"] = {} if proxy is None else {urlsplit(bucket_url).scheme: proxy}
    client_arguments["region_name"] = client.meta.region_name
    credentials = CredentialSource(settings.profile, client.meta.region_name, settings.keys)
    return S3Connection(
        bucket=bucket,
        bucket_url=bucket_url,
        default_url=default_url,
        region=region or client.meta.region_name,
        credentials=None if settings.anonymous else credentials,
        proxy=proxy,
        certificates=certificates,
        client=client_arguments,
        config=config,
        parameters=settings.parameters,
        profile=settings.profile,
        endpoint_url=endpoint_url,
    )


def share_models(session: Any) -> None:
    """Let sessions share the descriptions of services, which take longest to load."""
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))


@cache
def _loader(data_path: str | None) -> Any:
    return botocore.loaders.create_loader(data_path)


@contextmanager
def _configuring() -> Iterator[None]:
    """Convert what botocore says about a configuration that is not valid."""
    try:
        yield
    except (ProfileNotFound, LocationError):
        raise
    except (BotoCoreError, TypeError, ValueError) as error:
        reason = mask_text(" ".join(str(error).split()) or type(error).__name__)
        raise LocationError(f"the configuration for S3 is not valid: {reason}") from error


def _certificates(session: Any, verify: str | bool | None) -> str | bool:
    """As botocore: an argument, AWS_CA_BUNDLE or the profile, then REQUESTS_CA_BUNDLE."""
    found = verify
    if found is None:
        found = session.get_config_variable("ca_bundle")
    if found is None:
        found = os.environ.get("REQUESTS_CA_BUNDLE") or True
    if isinstance(found, str) and not Path(found).is_file():
        raise LocationError(
            f"there is no file of certificates {found}: check AWS_CA_BUNDLE, and ca_bundle in the "
            "profile"
        )
    return found


class _NoBody:
    """The body of a response that no server sent."""

    def stream(self) -> Iterator[bytes]:
        return iter(())


_KEY: Final = "key"
_SHORTEST: Final = 3
"""Amazon has no shorter names. botocore would put them into the path, other clients do not."""
_FILL: Final = "-fill"


def _first_request(client: Any, bucket: str) -> tuple[str, str | None]:
    """Sign a request as any other, and keep it: the bucket's URL and the signed region."""
    caught = []

    def catch(request: Any, **_: Any) -> AWSResponse:
        caught.append(request)
        return AWSResponse(request.url, 200, {}, _NoBody())

    client.meta.events.register_first("before-send.s3", catch)
    client.head_object(Bucket=bucket, Key=_KEY)
    (request,) = caught
    signature = request.headers.get("Authorization", b"")
    text = signature.decode() if isinstance(signature, bytes) else signature
    scope = re.search(r"Credential=[^/]+/[0-9]+/([^/]+)/", text)
    return request.url.removesuffix(f"/{_KEY}"), scope and scope[1]


def _proxy(config: Mapping[str, Any], endpoint_url: str) -> str | None:
    """The proxy of the configuration, or that of the environment for this endpoint."""
    proxies = config.get("proxies")
    if proxies is None:
        proxies = get_environ_proxies(endpoint_url)
    found: str | None = proxies.get(urlsplit(endpoint_url).scheme) or None
    return f"http://{found}" if found and "://" not in found else found
