"""The tree that layers on top of each other become, in memory: what an extraction would make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from cachefs.errors import LayerError
from cachefs.layers.applying import Applier
from cachefs.layers.limits import DEFAULT_LIMITS, Budget, Limits
from cachefs.layers.listing import FILE, kept_mode
from cachefs.layers.tarformat import shown

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from cachefs.layers.beneath import Parts
    from cachefs.layers.indexing import LayerIndex
    from cachefs.layers.tarformat import Member

Kind = Literal["file", "directory", "link"]

PARENT_MODE: Final = 0o755
"""The mode of a directory that is only part of a name."""


class Removal(NamedTuple):
    """A whiteout: the path, or all that lower layers have below it, is removed."""

    path: bytes
    all_below: bool


class Node:
    """A file, directory or symbolic link. A file with several names is one node.

    Attributes:
        kind: which of these.
        mode: permission bits, as an extraction sets them; of a link 0o777.
        size: of a file in bytes, with its holes.
        target: of a link.
        layer: the number of the layer that it is from, from 0; of a directory, the last.
        stored: of a file, where its data begins in that layer's archive, and how long it is.
        sparse: whether the data begins with a map of the file's holes.
        children: of a directory.
    """

    __slots__ = ("children", "kind", "layer", "mode", "size", "sparse", "stored", "target")

    def __init__(self, kind: Kind, mode: int, layer: int) -> None:
        self.kind = kind
        self.mode = mode
        self.layer = layer
        self.size = 0
        self.target = b""
        self.stored = (0, 0)
        self.sparse = False
        self.children: dict[bytes, Node] = {}


def merged(
    indexes: Iterable[LayerIndex], limits: Limits = DEFAULT_LIMITS
) -> tuple[Node, list[Removal]]:
    """The root of the tree that layers become, the lowest first, and the last layer's whiteouts.

    Raises LayerError for what an extraction would refuse.
    """
    tree = _Tree()
    budget = Budget(limits, "read")
    removals: list[Removal] = []
    for number, index in enumerate(indexes):
        budget.layer()
        tree.layer = number
        applier = _Planting(tree, budget, upper=number > 0)
        for member, offset in index.members:
            applier.offset = offset
            applier.apply(member)
        removals = applier.removals
    return tree.root, removals


def below(node: Node, path: Parts = ()) -> Iterator[tuple[Parts, Node]]:
    """All that is below a directory, sorted by name, a directory before what it holds."""
    waiting = [(path, node)]
    while waiting:
        path, node = waiting.pop()
        if path:
            yield path, node
        waiting += [((*path, name), node.children[name]) for name in sorted(node.children)[::-1]]


class _Tree:
    """A root that an applier changes, by the rules of :class:`cachefs.layers.placing.Root`."""

    def __init__(self) -> None:
        self.layer = 0
        self.root = Node("directory", PARENT_MODE, 0)
        self._made = 0

    @property
    def parents_made(self) -> int:
        return self._made

    def directory(self, path: Parts, mode: int) -> None:
        parent = self._parent(path)
        node = parent.children.get(path[-1])
        if node is None or node.kind != "directory":
            node = parent.children[path[-1]] = Node("directory", mode, self.layer)
        node.mode, node.layer = mode, self.layer

    def add(self, path: Parts, node: Node) -> None:
        self._parent(path).children[path[-1]] = node

    def symlink(self, path: Parts, link: bytes) -> None:
        if not link:
            raise LayerError(f"{shown(b'/'.join(path))} is a link to nothing")
        node = Node("link", 0o777, self.layer)
        node.target = link
        self.add(path, node)

    def hard_link(self, path: Parts, target: Parts) -> None:
        if not target or path == target:
            raise LayerError(f"{shown(b'/'.join(path))} is a hard link to itself or to a directory")
        found = self._find(target)
        if found is None or found.kind != "file":
            raise LayerError(
                f"{shown(b'/'.join(path))} is a hard link to something that is not a file"
            )
        if target[: len(path)] == path:
            raise LayerError(f"{shown(b'/'.join(path))} is a hard link to what it replaces")
        self.add(path, found)

    def remove(self, path: Parts) -> None:
        parent = self._find(path[:-1])
        if parent is not None:
            parent.children.pop(path[-1], None)

    def empty_except(self, path: Parts, kept: Container[Parts]) -> None:
        start = self._find(path)
        waiting = [] if start is None else [(path, start)]
        while waiting:
            above, node = waiting.pop()
            for name in list(node.children):
                if (*above, name) in kept:
                    waiting.append(((*above, name), node.children[name]))
                else:
                    del node.children[name]

    def _find(self, path: Parts) -> Node | None:
        node: Node | None = self.root
        for name in path:
            node = node.children.get(name) if node is not None else None
        return node

    def _parent(self, path: Parts) -> Node:
        node = self.root
        for name in path[:-1]:
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = Node("directory", PARENT_MODE, self.layer)
                self._made += 1
            elif child.kind != "directory":
                raise LayerError(
                    f"{shown(b'/'.join(path))} cannot be written: {shown(name)} is not a directory"
                )
            node = child
        return node


class _Planting(Applier):
    """Applies the members of an index; :attr:`offset` is that of the next one."""

    def __init__(self, tree: _Tree, budget: Budget, *, upper: bool) -> None:
        super().__init__(tree, budget, upper=upper)
        self._tree = tree
        self._count = budget
        self.offset = 0
        self.removals: list[Removal] = []

    def place_file(self, path: Parts, member: Member) -> None:
        node = Node("file", kept_mode(member.mode, FILE), self._tree.layer)
        node.size = member.size if member.real_size is None else member.real_size
        node.sparse = member.real_size is not None
        node.stored = self.offset, member.size
        if node.sparse:
            self._count.apparent(node.size)
        self._tree.add(path, node)

    def placed(self, path: Parts, kind: str, *, mode: int, value: bytes) -> None:
        pass

    def removing(self, path: Parts, *, all_below: bool) -> None:
        self.removals.append(Removal(b"/".join(path), all_below))
