"""Keeps tokens from other hosts, when an HTTP server redirects there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from aiohttp import TraceConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def with_headers_kept(storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options for fsspec's HTTP filesystem, which send the caller's headers to one host.

    aiohttp removes ``Authorization`` and ``Cookie`` when another host is next, and nothing else.
    """
    client = dict(storage_options.get("client_kwargs") or {})
    given = {*client.get("headers", ()), *(storage_options.get("headers") or ())}
    client["trace_configs"] = [*client.get("trace_configs", ()), _keeping(given)]
    return {**storage_options, "client_kwargs": client}


def _keeping(names: Iterable[str]) -> TraceConfig:
    async def remove(_session: Any, _context: Any, params: Any) -> None:
        here = str(params.url)
        there = urljoin(here, params.response.headers.get("Location", ""))
        if urlsplit(here)[:2] != urlsplit(there)[:2]:
            for name in names:
                params.headers.popall(name, None)

    trace = TraceConfig()
    trace.on_request_redirect.append(remove)
    return trace
