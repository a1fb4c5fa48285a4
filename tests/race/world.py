"""A store in memory whose calls wait until they are scheduled, with a clock that the test moves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import NamedTuple

from fsspec.implementations.memory import MemoryFileSystem

from cachefs.digest import Digest
from cachefs.filesystems.base import Filesystem, Folder, Stat, is_hidden
from cachefs.filesystems.chunks import joined
from cachefs.filesystems.versions import Past, hides_what_was_seen
from cachefs.layout.keyed import KeyedLayout
from cachefs.store import Store
from cachefs.wire import codec

ROOT = "cache/"


class Object(NamedTuple):
    data: bytes
    modified: float
    version: int


class Hidden(NamedTuple):
    object: Object
    marker: str
    modified: float


class World:
    """What is in the store. ``now`` is its clock, in seconds."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.objects: dict[str, Object] = {}
        self.versioned = False
        self.hidden: dict[str, Hidden] = {}
        """In a world that keeps versions, what was deleted and not written again since."""

    def write(self, path: str, data: bytes, age: float = 0.0) -> None:
        before = self.objects.get(path)
        version = before.version + 1 if before else 0
        if path in self.hidden:
            version = self.hidden.pop(path).object.version + 1
        self.objects[path] = Object(data, self.now - age, version)

    def hide(self, path: str) -> str:
        """Put a marker on what is there. Returns its version; empty if nothing is there."""
        there = self.objects.pop(path, None)
        if there is None:
            return ""
        marker = f"marker {there.version}"
        self.hidden[path] = Hidden(there, marker, self.now)
        return marker

    def reveal(self, path: str, marker: str) -> None:
        """Remove the marker, if nothing has been written on top of it."""
        if path in self.hidden and self.hidden[path].marker == marker:
            self.objects[path] = self.hidden.pop(path).object

    def state(self) -> Hashable:
        """All that a later call could tell; random names are as good as each other."""
        seen = frozenset((_spelled(path), o) for path, o in self.objects.items())
        return self.now, seen, frozenset((_spelled(p), o) for p, o in self.hidden.items())

    def violation(self) -> str | None:
        """A name whose blobs are not all there and whole."""
        for path, manifest in self.objects.items():
            if path.startswith(f"{ROOT}manifests/") and not is_hidden(path, f"{ROOT}manifests/"):
                for layer in codec.decode(manifest.data).layers:
                    blob = self.objects.get(f"{ROOT}blobs/{layer.blob}")
                    if blob is None or Digest.of(blob.data) != layer.blob:
                        return f"{path} needs {layer.blob[:15]}, which is not there"
        return None


Turn = Callable[[str], Awaitable[None]]


class SteppedFilesystem(Filesystem):
    """The world as one actor sees it.

    Args:
        world: what is shared.
        turn: awaited before each call; the call itself then happens in one step.
        note: told what each call answered, from which all that the actor does next follows.
        conditional: whether a delete compares and deletes in one step.
        touches: whether a time can be renewed without sending the bytes.
        versioned: whether what is deleted is hidden by a marker, and kept; or the world says so.
        puts: what a conditional write does: ``compares``, ``ignores`` the condition although the
            store is believed to compare, or ``lies``: it ignores it as well, but is tried first.
    """

    compares = True

    responds = False  # a call that waits for its turn is no store that fails to respond

    def __init__(
        self,
        world: World,
        turn: Turn,
        note: Callable[[Hashable], None] = lambda _: None,
        *,
        conditional: bool = True,
        touches: bool = True,
        versioned: bool = False,
        puts: str = "compares",
    ) -> None:
        super().__init__(MemoryFileSystem())
        self.world = world
        self.turn = turn
        self.note = note
        self.conditional = conditional
        self.versioned = versioned or world.versioned
        self.puts = puts
        if puts == "lies":
            self.responds = True  # so it is tried
        self.touches = touches  # type: ignore[misc]  # a class has one answer, a test asks for both

    def layout(self) -> KeyedLayout:
        return KeyedLayout(Store(self, ROOT), "blobs/", "manifests/")

    def _look(self, path: str) -> Stat | None:
        found = self.world.objects.get(path)
        if found is None:
            return None
        version = str(found.version)
        generation = version if self.versioned else ""
        return Stat(path, len(found.data), found.modified, version, generation=generation)

    async def _stat(self, path: str) -> Stat | None:
        await self.turn(f"stat {path}")
        stat = self._look(path)
        self.note(stat and (_spelled(path), *stat[1:]))
        return stat

    async def list(self, prefix: str) -> list[Stat]:
        await self.turn(f"list {prefix}")
        paths = sorted(p for p in self.world.objects if p.startswith(prefix))
        found = [stat for p in paths if not is_hidden(p, prefix) and (stat := self._look(p))]
        self.note(tuple((_spelled(stat.path), *stat[1:]) for stat in found))
        return found

    async def folder(self, path: str) -> Folder:
        """Without a turn: a prune only uses it to refuse, and here nothing is beside the cache."""
        below = [found[len(path) :] for found in self.world.objects if found.startswith(path)]
        return Folder(
            sorted({f"{path}{one.partition('/')[0]}/" for one in below if "/" in one}), []
        )

    async def read(self, path: str, size: int | None = None) -> AsyncIterator[bytes]:  # noqa: ARG002
        await self.turn(f"read {path}")
        found = self.world.objects.get(path)
        self.note(found)
        if found is None:
            raise FileNotFoundError(path)
        yield found.data

    async def read_checked(self, path: str, limit: int) -> bytes:
        return await joined(self.read(path), limit)  # one call, as of an object store

    async def read_versioned(self, path: str, limit: int) -> tuple[bytes, str]:  # noqa: ARG002
        await self.turn(f"read {path}")
        found = self.world.objects.get(path)
        self.note(found)
        if found is None:
            raise FileNotFoundError(path)
        return found.data, f"{found.version}"

    async def put_if(self, path: str, data: bytes, version: str) -> bool:
        await self.turn(f"put {path}")
        found = self.world.objects.get(path)
        written = self.puts != "compares" or version == (
            "" if found is None else f"{found.version}"
        )
        if written:
            self.world.write(path, data)
        self.note(written)
        return written

    async def _put_whole(self, path: str, chunks: Sequence[bytes]) -> None:
        await self.turn(f"put {path}")
        self.world.write(path, b"".join(chunks))
        self.note("put")

    async def _touch(self, stat: Stat) -> None:
        await self.turn(f"touch {stat.path}")
        found = self.world.objects.get(stat.path)
        self.note(found is None)
        if found is None:
            raise FileNotFoundError(stat.path)
        self.world.write(stat.path, found.data)

    async def delete(self, path: str, unless_changed: Stat | None = None) -> bool:
        await self.turn(f"delete {path}")
        if self.versioned:
            return await self._hide(path, unless_changed)
        there = self._look(path)
        spared = (
            self.conditional and unless_changed is not None and there not in {None, unless_changed}
        )
        self.note(spared)
        if not spared:
            self.world.objects.pop(path, None)
        return not spared

    async def _hide(self, path: str, unless_changed: Stat | None) -> bool:
        """As in a bucket of S3 with versions: a marker, and then a look at what it hides."""
        marker = self.world.hide(path)
        self.note(marker)
        if unless_changed is None or not self.conditional:
            return True
        return await hides_what_was_seen(
            path, unless_changed.generation, marker, self.past, self.reveal
        )

    async def past(self, path: str) -> Past:
        await self.turn(f"versions {path}")
        there, hidden = self.world.objects.get(path), self.world.hidden.get(path)
        if there is not None:
            past = Past(path, version=str(there.version))
        elif hidden is not None:
            past = Past(path, hidden.marker, hidden.modified, str(hidden.object.version))
        else:
            past = Past(path)
        self.note((_spelled(path), *past[1:]))
        return past

    async def reveal(self, path: str, marker: str) -> None:
        await self.turn(f"reveal {path}")
        self.world.reveal(path, marker)
        self.note("revealed")

    async def read_past(self, path: str, version: str, limit: int) -> bytes:  # noqa: ARG002
        await self.turn(f"read {path}")
        hidden = self.world.hidden.get(path)
        found = self.world.objects.get(path) if hidden is None else hidden.object
        self.note(found)
        if found is None or str(found.version) != version:
            raise FileNotFoundError(path)
        return found.data

    async def keeps_versions(self, path: str) -> bool:  # noqa: ARG002
        return self.versioned


def _spelled(path: str) -> str:
    return re.sub(r"\.cachefs-(pruned-\d+-)?[0-9a-f]+", r".cachefs-\1", path)
