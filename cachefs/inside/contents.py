"""What a result or a layer holds: its files by path, their bytes, and all of it on disk."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.digest import Digest
from cachefs.errors import NotFoundError, UsageError
from cachefs.inside.archives import LayerArchive
from cachefs.layers import sparse
from cachefs.layers.extracting import LayerSource, extract_chain
from cachefs.layers.tree import Kind, below, merged
from cachefs.wire import description

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cachefs.layers.beneath import Parts
    from cachefs.layers.tree import Node, Removal
    from cachefs.layout.base import Layout
    from cachefs.wire.cacheconfig import Layer

_MOST_LINKS: Final = 40
"""Symbolic links that are followed for one path, as by Linux."""

_ZEROS: Final = bytes(1 << 20)


class Entry(Struct, frozen=True, kw_only=True):
    """A file, directory or symbolic link.

    Attributes:
        path: without a slash at the beginning. Bytes that are not UTF-8 are escaped as by
            ``os.fsdecode``.
        kind: ``file``, ``directory`` or ``link``.
        mode: permission bits, as an extraction sets them.
        size: of a file in bytes.
        target: of a link.
        layer: the digest of the blob that it is from.
    """

    path: str
    kind: Kind
    mode: int
    size: int = 0
    target: str = ""
    layer: str


class Whiteout(Struct, frozen=True, kw_only=True):
    """What a layer removes of the layers below it.

    Attributes:
        path: what is removed.
        all_below: whether not the path itself but everything in that directory is removed.
    """

    path: str
    all_below: bool


class Contents:
    """The files of layers on top of each other, whiteouts applied; made by :func:`look_inside`.

    A layer is read when something of it is first needed; what was found out is kept on this
    machine. Names, links and sizes come from whoever wrote the cache: paths never lead outside of
    the result, and links are followed inside it only, as if its top were the root directory.

    Methods raise NotFoundError (also for a path that does not exist), IntegrityError, LayerError
    for what an extraction refuses, StoreError, and UsageError.

    Attributes:
        layers: from the bottom up, without a description of the result.
    """

    def __init__(self, layout: Layout, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layer for layer in layers if layer.media_type != description.MEDIA_TYPE)
        self._archives = [LayerArchive(layout, layer) for layer in self.layers]
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<Contents of {len(self.layers)} layers>"

    def entries(self, path: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """What is in a directory, sorted by name; ``deep``: also in those below it.

        A directory comes before what is in it. Of a file, only the file itself.
        """
        where, node = self._resolved(path)
        if node.kind != "directory":
            yield self._entry(where, node)
        elif deep:
            yield from (self._entry(*item) for item in below(node, where) if item[1] is not node)
        else:
            for name in sorted(node.children):
                yield self._entry((*where, name), node.children[name])

    def entry(self, path: str, *, follow: bool = True) -> Entry:
        """What is at a path. A link at its end is followed unless ``follow`` is False."""
        return self._entry(*self._resolved(path, follow=follow))

    @property
    def whiteouts(self) -> list[Whiteout]:
        """What the uppermost layer removes."""
        return [
            Whiteout(path=os.fsdecode(path), all_below=all_below)
            for path, all_below in self._merged[1]
        ]

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes of a file from ``start`` to before ``end``, fewer if it is shorter."""
        return b"".join(self.chunks(path, start, end))

    def chunks(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The same in chunks of at most 1 MiB."""
        where, node = self._resolved(path)
        if node.kind != "file":
            raise UsageError(
                f"{os.fsdecode(b'/'.join(where)) or '/'} is not a file but a {node.kind}"
            )
        stop = node.size if end is None else min(end, node.size)
        archive = self._archives[node.layer]
        offset, stored = node.stored
        if node.sparse:
            data = (memoryview(part) for part in archive.read(offset, offset + stored))
            return _filled(sparse.placed(data, stored, node.size), start, stop)
        return archive.read(offset + start, offset + stop)

    def extract(self, directory: str | os.PathLike[str]) -> None:
        """Extract everything to a new or empty directory: complete and verified, or not at all."""
        with _Sources(self._archives) as sources:
            extract_chain(sources, Path(directory))

    def close(self) -> None:
        """Close what is open. It is opened again if it is needed."""
        for archive in self._archives:
            archive.close()

    @cached_property
    def _merged(self) -> tuple[Node, list[Removal]]:
        return merged(archive.index for archive in self._archives)

    def _entry(self, path: Parts, node: Node) -> Entry:
        return Entry(
            path=os.fsdecode(b"/".join(path)),
            kind=node.kind,
            mode=node.mode,
            size=node.size,
            target=os.fsdecode(node.target),
            layer=self.layers[node.layer].blob if self.layers else "",
        )

    def _resolved(self, path: str, *, follow: bool = True) -> tuple[Parts, Node]:
        """What is at a path, and the path that leads there without links."""
        with self._lock:
            root = self._merged[0]
        found = [(b"", root)]
        left = _split(os.fsencode(path))
        links = 0
        while left:
            name = left.pop()
            above = found[-1][1]
            if name == b"..":
                found = found[: max(1, len(found) - 1)]
                continue
            node = above.children.get(name)
            if node is None:
                raise self._missing(path)
            if node.kind == "link" and (left or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise UsageError(f"{path} leads through more than {_MOST_LINKS} symbolic links")
                if node.target.startswith(b"/"):
                    del found[1:]
                left += _split(node.target)
                continue
            found.append((name, node))
        return tuple(name for name, _ in found[1:]), found[-1][1]

    def _missing(self, path: str) -> NotFoundError:
        return NotFoundError(f"there is no {path}", operation="read")


def _split(path: bytes) -> list[bytes]:
    """The components of a path, the last one first."""
    return [part for part in path.split(b"/") if part not in (b"", b".")][::-1]


def _filled(data: Iterator[tuple[int, memoryview]], start: int, stop: int) -> Iterator[bytes]:
    """A part of a sparse file, from its data with their offsets; holes are zeros."""
    at = start
    for offset, chunk in data:
        yield from _zeros(at, min(offset, stop))
        at = max(at, min(offset, stop))
        if part := bytes(chunk[max(0, at - offset) : max(0, stop - offset)]):
            yield part
            at += len(part)
    yield from _zeros(at, stop)


def _zeros(start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        part = _ZEROS[: stop - start]
        yield part
        start += len(part)


class _Sources:
    """Layers to extract, each opened when it is reached, with one open at a time."""

    def __init__(self, archives: Sequence[LayerArchive]) -> None:
        self._archives = archives
        self._stack = ExitStack()

    def __enter__(self) -> Iterator[LayerSource]:
        return self._opened()

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _opened(self) -> Iterator[LayerSource]:
        for archive in self._archives:
            self._stack.close()
            blob = self._stack.enter_context(archive.open_blob())
            yield LayerSource(blob, archive.layer.media_type, Digest(archive.layer.diff_id))
