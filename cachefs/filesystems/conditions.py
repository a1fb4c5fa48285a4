"""Writes on the condition that an object is unchanged: whether a store keeps it, and versions.

Support is tried, not believed: there are servers that answer a conditional write with success and
take no notice of the condition, and others that refuse it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachefs.digest import Digest
from cachefs.errors import StoreError
from cachefs.filesystems.failures import failed
from cachefs.filesystems.patience import attempted

if TYPE_CHECKING:
    from cachefs.filesystems.base import Filesystem

UNLIKE: Final = '"00000000000000000000000000000000"'
"""A version that no object has, in the form of an ETag."""


def version_of(data: bytes | None) -> str:
    """The version of an object whose bytes are its version: two that are equal are one."""
    return "" if data is None else str(Digest.of(data))


async def keeps_conditions(filesystem: Filesystem, path: str) -> bool:
    """Whether writes with a condition keep it, tried once for each bucket with an object at a path.

    The object is deleted again. Raises the filesystem's errors if it cannot be written at all.
    """
    if not (filesystem.compares and filesystem.responds):
        return filesystem.compares
    bucket = path.partition("/")[0]
    if bucket not in filesystem.tried:
        try:
            filesystem.tried[bucket] = await _tried(filesystem, path)
        finally:
            await attempted(filesystem.delete(path))
    return filesystem.tried[bucket]


async def _tried(filesystem: Filesystem, path: str) -> bool:
    try:
        # A client that repeats this because the response was lost is told that it is there.
        created = await filesystem.put_if(path, b"", "")
        created = created or await filesystem.stat_batch([path]) != [None]
        again = await filesystem.put_if(path, b"again", "")
        unlike = await filesystem.put_if(path, b"unlike", UNLIKE)
    except Exception as error:
        if type(failed(error, "write", path)) is not StoreError:
            raise  # no access, or no response
        await filesystem.put_checked(path, b"")
        return False
    return created and not again and not unlike
