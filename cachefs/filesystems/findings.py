"""What an examination of a store finds: a line for each check."""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

Verdict = Literal["good", "mind", "bad"]


class Finding(Struct, frozen=True):
    """What one check found.

    Attributes:
        check: what was looked at.
        verdict: ``good``; ``mind``: it works, with a drawback; ``bad``: it loses data or builds, or
            some commands fail.
        found: one line.
        advice: what to do, one line; empty if there is nothing to do.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def transport(url: str) -> Finding:
    """Whether others can read and change what is sent to this URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    where = f"{parts.scheme} to {host}"
    if parts.scheme == "https" or _is_loopback(host):
        return Finding("transport", "good", where)
    advice = "use https: give the endpoint with https://"
    if _is_near(host):
        return Finding(
            "transport",
            "mind",
            f"{where}, without TLS: whoever is on this network can read and change the cache",
            advice,
        )
    return Finding(
        "transport",
        "bad",
        f"{where}, without TLS: whoever is on the way can read and change the cache",
        advice,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_near(host: str) -> bool:
    """Whether the host is in a network of one's own: a private address, or a name without dots."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host
