"""Where things lie in a store: names, manifests and blobs, as keys."""

from __future__ import annotations

from cachefs.layout.base import Layout, Manifest, Name
from cachefs.layout.opening import open_layout

__all__ = ["Layout", "Manifest", "Name", "open_layout"]
