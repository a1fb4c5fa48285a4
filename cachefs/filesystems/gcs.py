"""Google Cloud Storage through gcsfs."""

from __future__ import annotations

from cachefs.filesystems.memory import MemoryFilesystem


class GCSFilesystem(MemoryFilesystem):
    """A ``gcsfs.GCSFileSystem``: like memory, a put is whole and a self-copy renews the time."""

    reads_ahead = True
