"""Google Cloud Storage through gcsfs."""

from __future__ import annotations

from cachefs.filesystems.memory import AtomicFilesystem


class GCSFilesystem(AtomicFilesystem):
    """A ``gcsfs.GCSFileSystem``: writes are atomic, and a copy onto itself renews the time."""

    _prefetches = True
