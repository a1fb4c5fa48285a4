"""From a location to an fsspec filesystem, and what that filesystem does differently."""

from __future__ import annotations

from cachefs.filesystems.adapting import adapt, unwrapped
from cachefs.filesystems.base import PIECE, Filesystem, Page, Stat
from cachefs.filesystems.connecting import connect

__all__ = ["PIECE", "Filesystem", "Page", "Stat", "adapt", "connect", "unwrapped"]
