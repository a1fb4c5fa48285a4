"""Sources: files, directories and bytes, addressed by content."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.building.index import DigestIndex, as_seen, clock
from cachefs.building.keys import Entry, tree_digest
from cachefs.building.selection import EVERYTHING, Selection, Walk
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cachefs.building.index import Seen
    from cachefs.digest import Digest

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BATCH: Final = 64


@dataclass(frozen=True)
class Content:
    """What a source contains: its digest, and its entries by name.

    A single file has the empty name. ``signatures`` show whether files on disk have changed.
    ``left_out`` is how many entries do not count, by the reason (see :class:`Walk`).
    """

    digest: Digest
    entries: Mapping[bytes, Entry]
    signatures: Mapping[bytes, Seen]
    left_out: Mapping[str, int] = field(default_factory=dict)

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
        root: what to read. If it is a link, it is followed; links below it are not.
        selection: what of a directory counts.
        remember: use the digest index, and update it.

    Raises UsageError if it does not exist, contains something that cannot be in a layer, or changes
    in the meantime.
    """
    root = Path(os.path.realpath(root))
    reader = _Reader(root, DigestIndex(root, selection.include) if remember else None)
    if not root.is_dir():
        reader.add(b"", str(root), _status(root))
        return reader.finish()
    walk = Walk(root, selection)
    for entry, name in walk:
        reader.add(os.fsencode(name), entry.path, entry.stat(follow_symlinks=False))
    reader.add_parents()
    reader.remove_empty(os.fsencode(name) for name in walk.emptied)
    return reader.finish(walk.left_out)


def bytes_content(data: bytes) -> Content:
    """The content of a file with these bytes."""
    entries = {b"": Entry("f", hashlib.sha256(data).digest())}
    return Content(tree_digest(entries), entries, {})


def _status(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} does not exist") from error


class _Reader:
    """Collects entries; files that are not in the index are hashed at the end, on all cores."""

    def __init__(self, root: Path, index: DigestIndex | None) -> None:
        self._root = root
        self._index = index
        self._entries: dict[bytes, Entry] = {}
        self._signatures: dict[bytes, Seen] = {}
        self._unknown: list[tuple[bytes, str]] = []

    def add(self, name: bytes, path: str, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISREG(mode):
            digest = self._index.get(name, status) if self._index else None
            if digest is None:
                self._unknown.append((name, path))
            else:
                self._add_file(name, status, digest)
        elif stat.S_ISDIR(mode):
            self._entries[name] = Entry("d", b"")
        elif stat.S_ISLNK(mode):
            self._entries[name] = Entry("l", os.fsencode(os.readlink(path)))  # noqa: PTH115 - as it is
        else:
            raise UsageError(f"{path} is not a file, directory or symbolic link; exclude it")

    def add_parents(self) -> None:
        for name in [*self._entries, *(name for name, _ in self._unknown)]:
            parent = name.rpartition(b"/")[0]
            while parent and parent not in self._entries:
                self._entries[parent] = Entry("d", b"")
                parent = parent.rpartition(b"/")[0]

    def remove_empty(self, names: Iterable[bytes]) -> None:
        """Remove directories with nothing below, and those above that have nothing else."""
        files = (name for name, _ in self._unknown)
        children = Counter(name.rpartition(b"/")[0] for name in [*self._entries, *files])
        for directory in sorted(names, reverse=True):
            name = directory
            while name and not children[name] and name in self._entries:
                del self._entries[name]
                name = name.rpartition(b"/")[0]
                children[name] -= 1

    def finish(self, left_out: Mapping[str, int] | None = None) -> Content:
        batches = [self._unknown[i : i + _BATCH] for i in range(0, len(self._unknown), _BATCH)]
        if len(self._unknown) == 1:
            self._hash(batches[0])
        elif batches:
            with ThreadPoolExecutor(os.cpu_count() or 1, "cachefs-hash") as pool:
                for _ in pool.map(self._hash, batches):
                    pass
        if self._index:
            self._index.save()
        digest = tree_digest(self._entries)
        return Content(digest, self._entries, self._signatures, left_out or {})

    def _hash(self, batch: list[tuple[bytes, str]]) -> None:
        for name, path in batch:
            read_at = clock()
            status, digest = _hash_file(path)
            self._add_file(name, status, digest)
            if self._index:
                self._index.remember(name, status, digest, read_at)

    def _add_file(self, name: bytes, status: os.stat_result, digest: bytes) -> None:
        kind = "x" if status.st_mode & stat.S_IXUSR else "f"
        self._entries[name] = Entry(kind, digest)
        self._signatures[name] = as_seen(status, digest)


def _hash_file(path: str) -> tuple[os.stat_result, bytes]:
    """A file's status and SHA-256. Raises UsageError if it changes in the meantime."""
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError as error:
        raise UsageError(f"{path} was removed while it was read") from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UsageError(
                f"{path} cannot be read: permission denied; exclude it, or change its mode"
            ) from error
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        digest = hashlib.file_digest(file, "sha256").digest()
        after = os.fstat(descriptor)
    if as_seen(before, digest) != as_seen(after, digest):
        raise UsageError(f"{path} changed while it was read; run the build again")
    return after, digest


def lay_out(root: Path, content: Content, top: str, target: Path) -> None:
    """Copy a source, or the part of it at ``top``, to a new path.

    Raises UsageError if a file has changed since its content became part of the key.
    """
    root = Path(os.path.realpath(root))
    part = content.part(top)
    base = os.fsencode(top.strip("/"))
    if b"" not in part.entries:
        target.mkdir()
    for name, entry in sorted(part.entries.items()):
        whole = b"/".join(filter(None, (base, name)))
        _lay_one(
            root / os.fsdecode(whole) if whole else root,
            entry,
            target / os.fsdecode(name) if name else target,
            content.signatures.get(whole),
        )


def _lay_one(origin: Path, entry: Entry, target: Path, signature: Seen | None) -> None:
    if entry.kind == "d":
        target.mkdir()
    elif entry.kind == "l":
        target.symlink_to(os.fsdecode(entry.value))
    else:
        with _changed_if_missing(origin):
            shutil.copyfile(origin, target)
            if signature is None or signature != as_seen(origin.stat(), entry.value):
                raise _changed(origin)
        target.chmod(0o755 if entry.kind == "x" else 0o644)


@contextmanager
def _changed_if_missing(origin: Path) -> Iterator[None]:
    """Treat a removed file as a changed one."""
    try:
        yield
    except FileNotFoundError as error:
        raise _changed(origin) from error


def _changed(origin: Path) -> UsageError:
    return UsageError(f"{origin} changed during the build; run it again")
