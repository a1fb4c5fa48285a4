"""The results that were used last, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

MEMORY: Final = 32 * 1024 * 1024
"""Bytes of results that each function keeps."""


class Recent:
    """The bytes of the results that were used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, key: str) -> bytes | None:
        """A result that is still here."""
        with self._lock:
            data = self._results.get(key)
            if data is not None:
                self._results.move_to_end(key)
            return data

    def add(self, key: str, data: bytes) -> None:
        """Keep a result, and forget those that were not used for longest."""
        with self._lock:
            self._size += len(data) - len(self._results.pop(key, b""))
            self._results[key] = data
            while self._size > MEMORY:
                _, oldest = self._results.popitem(last=False)
                self._size -= len(oldest)
