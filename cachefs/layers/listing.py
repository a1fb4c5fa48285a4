"""What a layer has, name by name, so that files on disk can be compared with it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachefs.layers.overlap import CallQueue

FILE: Final = "f"
DIRECTORY: Final = "d"
SYMLINK: Final = "l"
HARD_LINK: Final = "h"

_SMALL: Final = 64 * 1024
"""Hashing a smaller file in place is quicker than handing it to a thread."""


class Listed(Struct, array_like=True, frozen=True, gc=False):
    """A member of a layer.

    Attributes:
        kind: ``f`` (file), ``d`` (directory), ``l`` (symbolic link), or ``h`` (another name of a
            file that was listed before).
        mode: permission bits, as an extraction sets them; 0 for links.
        size: of a file in bytes.
        value: the SHA-256 of the file's bytes in the archive (:mod:`cachefs.layers.sparse`), the
            target of the link, or the first name of the file.
    """

    kind: str
    mode: int = 0
    size: int = 0
    value: bytes = b""


def kept_mode(mode: int, kind: str) -> int:
    """The bits of a mode that are kept.

    Set-user-ID, set-group-ID and sticky bits are not, and owners may always read their files, and
    read, change and enter their directories: what they could not, they could not remove either.
    """
    return (mode & 0o777) | (0o700 if kind == DIRECTORY else 0o400)


class Listing:
    """The members of a layer by name.

    Attributes:
        members: the members; complete after :meth:`finish`.
        whole: whether they describe the tree that the layer becomes. They do not if one replaces
            or removes another, which none does in a layer that is packed here.
    """

    def __init__(self) -> None:
        self.members: dict[bytes, Listed] = {}
        self.whole = True
        self._unfinished: dict[bytes, hashlib._Hash] = {}

    def add(self, name: bytes, member: Listed) -> None:
        """Add a member."""
        if name in self.members:
            self.whole = False
        self.members[name] = member

    def file(
        self, name: bytes, mode: int, size: int, data: Iterable[memoryview], queue: CallQueue
    ) -> Iterator[memoryview]:
        """The same data of a file; it is hashed while it passes, and the file is added."""
        hashed = hashlib.sha256()
        small = size < _SMALL
        for chunk in data:
            if small:
                hashed.update(chunk)
            else:
                queue.call(hashed.update, chunk)
            yield chunk
        self.add(name, Listed(FILE, mode, size, hashed.digest() if small else b""))
        if not small:
            self._unfinished[name] = hashed

    def finish(self) -> None:
        """Complete the members, when all calls of the queue have ended."""
        for name, hashed in self._unfinished.items():
            self.members[name] = Listed(
                FILE, self.members[name].mode, self.members[name].size, hashed.digest()
            )
        self._unfinished.clear()
