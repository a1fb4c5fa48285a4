"""The user and password of an HTTP URL, sent with requests but absent from paths.

fsspec's paths of HTTP are whole URLs. They are in errors, reports and plans, so they must not
contain a password.
"""

from __future__ import annotations

from typing import Any


def with_credentials_apart(kind: Any, url: str) -> tuple[Any, str]:
    """The filesystem class for the URL, and the URL without its user and password.

    Requests to the URL's own host are sent with them; requests to other hosts are not.
    """
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    credentials, at, host = host.rpartition("@")
    origin = f"{scheme}://{host}/"
    if not at:
        return kind, url

    class WithCredentials(kind):  # type: ignore[misc]  # a class of fsspec, which has no types
        def encode_url(self, url: str) -> Any:
            if url.startswith(origin):
                url = f"{scheme}://{credentials}@{url.partition('://')[2]}"
            return super().encode_url(url)

    return WithCredentials, f"{origin}{path}"
