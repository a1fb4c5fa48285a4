"""Applying the members of a layer to a tree, on disk or in memory, by the rules of whiteouts."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

from cachefs.errors import LayerError
from cachefs.layers import tarformat
from cachefs.layers.listing import DIRECTORY, HARD_LINK, SYMLINK, kept_mode
from cachefs.layers.packing import WHITEOUT
from cachefs.layers.placing import parts

if TYPE_CHECKING:
    from collections.abc import Container

    from cachefs.layers.beneath import Parts
    from cachefs.layers.limits import Budget
    from cachefs.layers.tarformat import Member

_OPAQUE: Final = b".wh..wh..opq"
_WHITEOUT_META: Final = b".wh..wh."


class Root(Protocol):
    """The tree that members are applied to: :class:`cachefs.layers.placing.Root`, or one alike."""

    @property
    def parents_made(self) -> int:
        """Directories that were made because they were missing above others."""

    def directory(self, path: Parts, mode: int) -> None:
        """Make a directory, or change the mode of an existing one."""

    def symlink(self, path: Parts, link: bytes) -> None:
        """Make a symbolic link."""

    def hard_link(self, path: Parts, target: Parts) -> None:
        """Give a regular file a second name."""

    def remove(self, path: Parts) -> None:
        """Remove what is at the path, if there is something."""

    def empty_except(self, path: Parts, kept: Container[Parts]) -> None:
        """Empty the directory, except for what is in ``kept``, which has all parents too."""


class Names:
    """A set of paths that takes about 100 bytes for each, however long they are."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def __contains__(self, path: object) -> bool:
        return isinstance(path, tuple) and _short(path) in self._digests

    def add(self, path: Parts) -> None:
        """Add a path."""
        self._digests.add(_short(path))


def _short(path: Parts) -> bytes:
    return hashlib.blake2b(b"/".join(path), digest_size=16).digest()


class Applier(ABC):
    """Applies the members of one layer to the tree of the layers below it.

    Args:
        root: the tree.
        budget: counts the members.
        upper: whether there is a layer below.
    """

    def __init__(self, root: Root, budget: Budget, *, upper: bool) -> None:
        self._root = root
        self._budget = budget
        self._upper = upper
        self._parents = root.parents_made
        self._made = Names()
        self._made.add(())
        self._emptied = Names()

    @abstractmethod
    def place_file(self, path: Parts, member: Member) -> None:
        """Make a file with the data of the member."""

    @abstractmethod
    def placed(self, path: Parts, kind: str, *, mode: int, value: bytes) -> None:
        """Note that a directory or link was made."""

    @abstractmethod
    def removing(self, path: Parts, *, all_below: bool) -> None:
        """Note a whiteout of the path, or of all that lower layers have below it."""

    def apply(self, member: Member) -> None:
        """Apply one member. Raises LayerError if it is not valid or exceeds a limit."""
        path = parts(member.name)
        self._budget.member(member.name, member.link)
        if any(part.startswith(WHITEOUT) for part in path):
            self._white_out(path)
        elif path:
            self._remember(path)
            self._place(path, member)
            self._count_parents()
        elif member.kind != tarformat.DIRECTORY:
            raise LayerError("the root of the layer is not a directory in its archive")

    def _place(self, path: Parts, member: Member) -> None:
        if member.kind == tarformat.FILE:
            self.place_file(path, member)
            return
        kind, mode, value = SYMLINK, 0, member.link
        if member.kind == tarformat.DIRECTORY:
            kind, mode, value = DIRECTORY, kept_mode(member.mode, DIRECTORY), b""
            self._root.directory(path, mode)
        elif member.kind == tarformat.SYMLINK:
            self._root.symlink(path, member.link)
        else:
            target = parts(member.link)
            kind, value = HARD_LINK, b"/".join(target)
            self._root.hard_link(path, target)
        self.placed(path, kind, mode=mode, value=value)

    def _count_parents(self) -> None:
        """A name of 128 directories makes as many, and must not count as one."""
        made = self._root.parents_made
        self._budget.entries(made - self._parents)
        self._parents = made

    def _remember(self, path: Parts) -> None:
        """Note the path: whiteouts remove neither what this layer adds nor its parents."""
        while self._upper and path not in self._made:
            self._made.add(path)
            path = path[:-1]

    def _white_out(self, path: Parts) -> None:
        directory, name = path[:-1], path[-1]
        if any(part.startswith(WHITEOUT) for part in directory):
            raise LayerError(f"{tarformat.shown(b'/'.join(path))} is below a whiteout")
        hidden = name.removeprefix(WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise LayerError(f"{tarformat.shown(b'/'.join(path))} is a whiteout without a name")
        if name == _OPAQUE or not name.startswith(_WHITEOUT_META):
            removed = directory if name == _OPAQUE else (*directory, hidden)
            self.removing(removed, all_below=name == _OPAQUE)
        if not self._upper:
            return  # nothing is below
        if name == _OPAQUE:
            self._empty(directory)
        elif not name.startswith(_WHITEOUT_META):
            path = (*directory, hidden)
            if path in self._made:
                self._empty(path)
            else:
                self._root.remove(path)

    def _empty(self, directory: Parts) -> None:
        """Remove all of lower layers that is below a directory, once: a scan may take long."""
        above = (directory[:depth] for depth in range(len(directory) + 1))
        if not any(path in self._emptied for path in above):
            self._emptied.add(directory)
            self._root.empty_except(directory, self._made)
