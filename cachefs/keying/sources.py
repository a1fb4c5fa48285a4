"""Sources: files, directories and bytes, addressed by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import UsageError
from cachefs.keying.keys import Entry, tree_digest
from cachefs.keying.selection import EVERYTHING, Selection, Walk
from cachefs.layers.beneath import Beneath, Following, NotRegularError, followed, split
from cachefs.user_cache.index import DigestIndex, as_seen, clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cachefs.digest import Digest
    from cachefs.layers.beneath import Parts
    from cachefs.user_cache.index import Seen

_BATCH: Final = 64
_COPY_SIZE: Final = 1 << 20


class SourceChangedError(UsageError):
    """A source changed while it was read, or after its content became part of a key."""


@dataclass(frozen=True)
class Content:
    """What a source contains: its digest, and its entries by name.

    A single file has the empty name. ``signatures`` show whether files on disk have changed.
    ``left_out`` is how many entries do not count, by the reason (see :class:`Walk`). ``skipped``
    names what is there but is no part of the content, because no layer can hold it or it cannot be
    read. ``followed`` says whether links count as what they lead to; ``loops`` are those that lead
    to a directory above them, and so count as links.
    """

    digest: Digest
    entries: Mapping[bytes, Entry]
    signatures: Mapping[bytes, Seen]
    left_out: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[bytes, ...] = ()
    followed: bool = False
    loops: tuple[bytes, ...] = ()

    @property
    def links(self) -> int:
        """How many symbolic links count as such: what they lead to does not."""
        return sum(entry.kind == "l" for entry in self.entries.values())

    def part(self, path: str) -> Content:
        """The content below a path, or of the file there. Raises UsageError."""
        top = os.fsencode(path.strip("/"))
        if not top:
            return self
        entries = {
            name[len(top) + 1 :]: entry
            for name, entry in self.entries.items()
            if name == top or name.startswith(top + b"/")
        }
        if not entries:
            raise UsageError(f"the source has no {path!r}")
        if entries.get(b"", Entry("d", b"")).kind == "d":
            entries.pop(b"", None)
        return Content(tree_digest(entries), entries, {})


def read_tree(root: Path, selection: Selection = EVERYTHING, *, remember: bool = True) -> Content:
    """The content of a directory or file.

    Its digest covers what layers keep: names, contents of files, whether their owner may execute
    them, targets of links, and directories, including empty ones. A directory does not count if
    it would be empty only because of what the selection leaves out.

    Args:
        root: what to read. If it is a link, it is followed; links below it are not, unless the
            selection says so.
        selection: what of a directory counts.
        remember: use the digest index, and update it.

    Sockets, pipes, devices and what cannot be read are skipped. Raises UsageError if it does not
    exist or is such a thing itself, and SourceChangedError if it changes in the meantime.
    """
    root = Path(os.path.realpath(root))
    label = (*selection.include, "\0followed") if selection.follow else selection.include
    index = DigestIndex(root, label) if remember else None
    top = () if root.is_dir() else split(root.name)
    try:
        kind = Following if selection.follow else Beneath
        with kind.at(root.parent if top else root) as beneath:
            reader = _Reader(beneath, top, index)
            reader.add_all(root, selection)
            return reader.finish(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{root} does not exist") from error
    except PermissionError as error:
        raise UsageError(f"{root} cannot be read: permission denied") from error


def read_part(root: Path, path: str) -> Content:
    """The content of what a tree that others made has at a path, which may be a link.

    Raises UsageError as :func:`read_tree` does, also if the path leads through a link.
    """
    with Beneath.at(root) as beneath:
        try:
            reader = _Reader(beneath, split(path), None)
            reader.add_all(root / path, EVERYTHING)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UsageError(f"there is no {path!r}") from error
        return reader.finish(root / path)


def bytes_content(data: bytes) -> Content:
    """The content of a file with these bytes."""
    entries = {b"": Entry("f", hashlib.sha256(data).digest())}
    return Content(tree_digest(entries), entries, {})


class _Reader:
    """Collects entries; files that are not in the index are hashed at the end, on all cores.

    Args:
        beneath: the directory that everything is below.
        top: what is read, below that directory.
        index: known digests.
    """

    def __init__(self, beneath: Beneath, top: Parts, index: DigestIndex | None) -> None:
        self._beneath = beneath
        self._top = top
        self._index = index
        self._entries: dict[bytes, Entry] = {}
        self._signatures: dict[bytes, Seen] = {}
        self._unknown: list[bytes] = []
        self._skipped: list[bytes] = []
        self._follows = isinstance(beneath, Following)
        self._directories: dict[str, tuple[int, int]] = {}
        self._loops: list[bytes] = []
        self._left_out: Mapping[str, int] = {}

    def add_all(self, root: Path, selection: Selection) -> None:
        """Add everything that counts; ``root`` is the path of what is read. Raises OSError."""
        status = self._beneath.status(self._top)
        if not stat.S_ISDIR(status.st_mode):
            self._add(b"", status)
            return
        walk = Walk(root, selection, self._scan)
        for name, status in walk:
            self._add(os.fsencode(name), status)
        self._left_out = walk.left_out
        self._add_parents()
        self._remove_empty(map(os.fsencode, walk.emptied))

    def _scan(self, above: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            entries = self._beneath.entries(self._path(os.fsencode(above)))
        except PermissionError:
            self._skipped.append(os.fsencode(above))
            return
        except (FileNotFoundError, NotADirectoryError):
            if not above:
                raise
            return  # what is removed at this moment is as good as removed before
        for entry in entries:
            try:
                yield entry.name, self._status(above, entry)
            except PermissionError:
                self._skipped.append(os.fsencode(f"{above}/{entry.name}".lstrip("/")))
            except FileNotFoundError:
                continue

    def _status(self, above: str, entry: os.DirEntry[str]) -> os.stat_result:
        """The status of an entry, or of what it leads to, unless that is above it."""
        status = entry.stat(follow_symlinks=False)
        if not self._follows:
            return status
        name = f"{above}/{entry.name}" if above else entry.name
        if stat.S_ISLNK(status.st_mode):
            target = followed(entry.name, self._beneath.directory(self._path(os.fsencode(above))))
            if self._leads_above(above, target):
                self._loops.append(os.fsencode(name))
                return status
            status = target
        if stat.S_ISDIR(status.st_mode):
            self._directories[name] = (status.st_dev, status.st_ino)
        return status

    def _leads_above(self, above: str, target: os.stat_result) -> bool:
        parents = above.split("/")
        names = ("/".join(parents[:depth]) for depth in range(1, len(parents) + 1))
        known = {self._directories.get(name) for name in names}
        root = self._beneath.status(self._top)
        return (target.st_dev, target.st_ino) in {*known, (root.st_dev, root.st_ino)}

    def _add(self, name: bytes, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISREG(mode):
            digest = self._index.get(name, status) if self._index else None
            if digest is None:
                self._unknown.append(name)
            else:
                self._add_file(name, status, digest)
        elif stat.S_ISDIR(mode):
            self._entries[name] = Entry("d", b"")
        elif stat.S_ISLNK(mode):
            with suppress(OSError):  # no longer there, or no longer a link
                self._entries[name] = Entry("l", self._beneath.link(self._path(name)))
        else:
            self._skipped.append(name)

    def _path(self, name: bytes) -> Parts:
        return self._top + split(name)

    def _add_parents(self) -> None:
        for name in [*self._entries, *self._unknown]:
            parent = name.rpartition(b"/")[0]
            while parent and parent not in self._entries:
                self._entries[parent] = Entry("d", b"")
                parent = parent.rpartition(b"/")[0]

    def _remove_empty(self, names: Iterable[bytes]) -> None:
        """Remove directories with nothing below, and those above that have nothing else."""
        children = Counter(name.rpartition(b"/")[0] for name in [*self._entries, *self._unknown])
        for directory in sorted(names, reverse=True):
            name = directory
            while name and not children[name] and name in self._entries:
                del self._entries[name]
                name = name.rpartition(b"/")[0]
                children[name] -= 1

    def finish(self, root: Path) -> Content:
        """The content of what was added; ``root`` is for messages."""
        batches = [self._unknown[i : i + _BATCH] for i in range(0, len(self._unknown), _BATCH)]
        hash_batch = partial(self._hash, root)
        if len(self._unknown) == 1:
            hash_batch(batches[0])
        elif batches:
            with ThreadPoolExecutor(os.cpu_count() or 1, "cachefs-hash") as pool:
                for _ in pool.map(hash_batch, batches):
                    pass
        if self._index:
            self._index.save()
        if b"" in self._skipped:
            raise UsageError(f"{root} cannot be read, or is not a file, directory or symbolic link")
        skipped = tuple(sorted(self._skipped))
        digest = tree_digest(self._entries)
        return Content(
            digest,
            self._entries,
            self._signatures,
            self._left_out,
            skipped,
            self._follows,
            tuple(self._loops),
        )

    def _hash(self, root: Path, batch: list[bytes]) -> None:
        with type(self._beneath)(self._beneath.descriptor) as beneath:
            for name in batch:
                read_at = clock()
                try:
                    status, digest = _hash_file(beneath, self._path(name))
                except PermissionError:
                    self._skipped.append(name)
                except _UNSTABLE as error:
                    path = root / os.fsdecode(name)
                    raise SourceChangedError(f"{path} changed while it was read") from error
                else:
                    self._add_file(name, status, digest)
                    if self._index:
                        self._index.remember(name, status, digest, read_at)

    def _add_file(self, name: bytes, status: os.stat_result, digest: bytes) -> None:
        kind = "x" if status.st_mode & stat.S_IXUSR else "f"
        self._entries[name] = Entry(kind, digest)
        self._signatures[name] = as_seen(status, digest)


class _ChangingError(Exception):
    """A file was written while it was read."""


_UNSTABLE: Final = (FileNotFoundError, NotADirectoryError, NotRegularError, _ChangingError)


def _hash_file(beneath: Beneath, path: Parts) -> tuple[os.stat_result, bytes]:
    """A file's status and SHA-256."""
    with os.fdopen(beneath.open_file(path), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").digest()
        after = os.fstat(file.fileno())
    if as_seen(before, digest) != as_seen(after, digest):
        raise _ChangingError
    return after, digest


def lay_out(root: Path, content: Content, top: str, target: Path) -> None:
    """Copy a source, or the part of it at ``top``, to a new path.

    Raises SourceChangedError if a file has changed since its content became part of the key.
    """
    root = Path(os.path.realpath(root))
    part = content.part(top)
    base = split(top)
    inside = root.is_dir()
    if b"" not in part.entries:
        target.mkdir()
    kind = Following if content.followed else Beneath
    with kind.at(root if inside else root.parent) as beneath:
        for name, entry in sorted(part.entries.items()):
            whole = (*base, *split(name))
            copy = target / os.fsdecode(name) if name else target
            if entry.kind == "d":
                copy.mkdir()
            elif entry.kind == "l":
                copy.symlink_to(os.fsdecode(entry.value))
            else:
                seen = content.signatures.get(b"/".join(whole))
                try:
                    _copy(beneath, whole if inside else split(root.name), copy, entry, seen)
                except _UNSTABLE as error:
                    raise _changed(root.joinpath(*map(os.fsdecode, whole))) from error


def _copy(beneath: Beneath, path: Parts, copy: Path, entry: Entry, seen: Seen | None) -> None:
    with os.fdopen(beneath.open_file(path), "rb", buffering=0) as file, copy.open("xb") as made:
        shutil.copyfileobj(file, made, _COPY_SIZE)
        if seen is None or seen != as_seen(os.fstat(file.fileno()), entry.value):
            raise _ChangingError
    copy.chmod(0o755 if entry.kind == "x" else 0o644)


def _changed(origin: Path) -> SourceChangedError:
    return SourceChangedError(f"{origin} changed during the build; run it again")
