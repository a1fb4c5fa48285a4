"""Google Cloud Storage through gcsfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefs.filesystems.copies import Copied
from cachefs.filesystems.failures import is_unreachable
from cachefs.filesystems.memory import AtomicFilesystem

if TYPE_CHECKING:
    from cachefs.digest import Digest


class GCSFilesystem(AtomicFilesystem):
    """A ``gcsfs.GCSFileSystem``: writes are atomic, and a copy onto itself renews the time."""

    _prefetches = True

    async def account(self) -> str | None:
        """The endpoint: whether the credentials suffice for both buckets is seen when copying."""
        return str(self.fs.base)

    async def copy_trusted(self, source: str, path: str, size: int, digest: Digest) -> Copied:  # noqa: ARG002 - it knows no SHA-256
        """Rewrite the object, which is seen when it is complete."""
        try:
            await self.fs._cp_file(source, path)
        except FileNotFoundError:
            return Copied.NOT_THIS
        except Exception as error:
            if is_unreachable(error):
                raise
            return Copied.NEVER
        return Copied.TRUSTED
