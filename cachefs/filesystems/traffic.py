"""What the connections of this process move, as the kernel counts it.

No library tells how much of a request has left the machine: some MiB wait in the kernel, and of a
part, obstore shows nothing at all. Linux counts for each connection the bytes that were received
and those that the other side has acknowledged.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from typing import Final, NamedTuple

_COUNTERS: Final = struct.Struct("@120xQQ")
"""Two counters in ``struct tcp_info`` of linux/tcp.h, which Linux has since version 4.1."""

HEADERS: Final = 16 * 1024
"""Fewer acknowledged bytes than this are no progress: the headers of a request are acknowledged by
the kernel of a server that never responds, and sent again with every retry."""


class _Moved(NamedTuple):
    acknowledged: int
    received: int


class Traffic:
    """Looks at the connections of this process from time to time.

    A connection counts from the second look on: to open one is no progress.
    """

    def __init__(self) -> None:
        self._looked = -float("inf")
        self._moved = -float("inf")
        self._before: dict[str, _Moved] = {}

    def last_moved(self, interval: float) -> float:
        """When bytes were last seen to move, as ``time.monotonic()`` counts.

        Looks again if the last look is longer ago than the interval, in seconds.
        """
        now = time.monotonic()
        if now - self._looked < interval:
            return self._moved
        self._looked = now
        found = _connections()
        for name, counts in found.items():
            before = self._before.get(name, counts)
            if (
                counts.received > before.received
                or counts.acknowledged - before.acknowledged >= HEADERS
            ):
                self._moved = now
            else:
                found[name] = before
        self._before = found
        return self._moved


def _connections() -> dict[str, _Moved]:
    """The counters of each TCP connection; none where the system does not have them."""
    found: dict[str, _Moved] = {}
    if sys.platform != "linux":
        return found
    try:
        numbers = os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
    except OSError:
        return found
    for number in numbers:
        try:
            name = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - no file, but a name
            if name.startswith("socket:"):
                found[name] = _counters(int(number))
        except OSError:
            continue  # closed meanwhile, or not TCP
    return found


def _counters(number: int) -> _Moved:
    with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTERS.size)
    if len(info) < _COUNTERS.size:
        raise OSError("this kernel does not count bytes")
    return _Moved(*_COUNTERS.unpack(info))
