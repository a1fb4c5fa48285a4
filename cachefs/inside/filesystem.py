"""``cachefs://NAME/PATH`` for fsspec: the files in a cache, for whatever reads through fsspec."""

from __future__ import annotations

import asyncio
import errno
import os
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn, ParamSpec, TypeVar

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile

from cachefs.cache import open as open_cache
from cachefs.errors import NotFoundError
from cachefs.filesystems.threads import DaemonThreads
from cachefs.inside.results import look_inside
from cachefs.user_directory import CACHE_VARIABLE, own_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fsspec.callbacks import Callback

    from cachefs.inside.contents import Contents, Entry

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 8
"""Calls that read at a time."""


class _Place(NamedTuple):
    """A path: the name that it is in, if there is one, and the path in its result."""

    name: str
    path: str


class CacheFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The files of results in a cache, read-only, as directories named after the cache's names.

    >>> fsspec.open("cachefs://app/usr/bin/tool", target="s3://builds/ci/")

    Nothing is read before it is needed. The names, and the results that they have, stay those that
    were seen first until :meth:`invalidate_cache`. Symbolic links are followed inside a result: one
    to a file is a file; one to a directory, or to nothing, has the type ``link``, so that no walk
    is endless, but paths may lead through it. What is read is verified.

    Args:
        target: the location of the cache, as for ``cachefs.open``; by default ``$CACHEFS_CACHE``,
            or else the user's own cache.
        result: which result of a name, if it has several: as for :func:`cachefs.look_inside`.
        target_options: passed to the filesystem of the target, as ``storage_options``.
        options: fsspec's own.
    """

    protocol = "cachefs"
    cachable = True
    mirror_sync_methods = True
    root_marker: ClassVar[str] = ""

    def __init__(
        self,
        target: str | None = None,
        *,
        result: str = "",
        target_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        location = target or os.environ.get(CACHE_VARIABLE) or own_cache()
        self.target = open_cache(location, storage_options=target_options)
        self._result = result
        self._names: list[str] | None = None
        self._contents: dict[str, Contents] = {}
        self._lock = RLock()
        self._threads = DaemonThreads(_THREADS, "cachefs-inside")

    @property
    def fsid(self) -> str:
        """Identifies what is read, for caches of files."""
        return f"cachefs:{self.target.location}:{self._result}"

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look up names and results again when they are needed next."""
        del path
        with self._lock:
            self._names = None
            for contents in self._contents.values():
                contents.close()
            self._contents.clear()
        super().invalidate_cache()

    # --- what fsspec calls ------------------------------------------------------------------------

    async def _info(self, path: str, **_options: Any) -> dict[str, Any]:
        return await self._called(self._described, path)

    async def _ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        found = await self._called(self._listed, path)
        return found if detail else [one["name"] for one in found]

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: Any
    ) -> bytes:
        return await self._called(self._read, path, start, end)

    async def _get_file(
        self, rpath: str, lpath: str, callback: Callback = DEFAULT_CALLBACK, **_options: Any
    ) -> None:
        await self._called(self._fetch, rpath, lpath, callback)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        if mode != "rb":
            _refuse()
        return _File(self, path, mode, size=self._file(path)["size"], **options)

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> _StreamedFile:
        """Open a file for asynchronous reading."""
        if mode != "rb":
            _refuse()
        path = self._strip_protocol(path)
        info = await self._called(self._file, path)
        return _StreamedFile(self, path, mode, size=info["size"], **options)

    def ukey(self, path: str) -> str:
        """Changes if the file may have: the layer's digest, and the path."""
        info = self.info(path)
        return f"{info.get('layer', '')}:{path}"

    def read_part(self, path: str, start: int, end: int) -> bytes:
        """A part of a file."""
        return self._read(path, start, end)

    # --- what cannot be done ----------------------------------------------------------------------

    async def _refused(self, *_arguments: Any, **_options: Any) -> NoReturn:
        _refuse()

    _mkdir = _makedirs = _rm_file = _rm = _cp_file = _pipe_file = _put_file = _refused

    def rmdir(self, path: str) -> NoReturn:
        """Refused: nothing can be written."""
        del path
        _refuse()

    def touch(self, path: str, truncate: bool = True, **_options: Any) -> NoReturn:
        """Refused: nothing can be written."""
        del path, truncate
        _refuse()

    # --- the work, in threads ---------------------------------------------------------------------

    async def _called(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what blocks outside of the event loop, which it needs."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _described(self, path: str) -> dict[str, Any]:
        path = self._strip_protocol(path)
        place = self._place(path)
        if not place.name:
            return _directory(path)
        contents = self._inside(place.name)
        return self._as_info(contents, path, contents.entry(place.path, follow=False))

    def _listed(self, path: str) -> list[dict[str, Any]]:
        path = self._strip_protocol(path)
        place = self._place(path)
        if not place.name:
            return [_directory(each) for each in self._names_below(path)]
        contents = self._inside(place.name)
        entry = contents.entry(place.path)
        if entry.kind != "directory":
            return [self._as_info(contents, path, entry)]
        return [
            self._as_info(contents, f"{path}/{each.path.rpartition('/')[2]}", each)
            for each in contents.entries(place.path, deep=False)
        ]

    def _read(self, path: str, start: int | None, end: int | None) -> bytes:
        path = self._strip_protocol(path)
        size = self._file(path)["size"]
        first, last, _ = slice(start, end).indices(size)
        place = self._place(path)
        return self._inside(place.name).read(place.path, first, last)

    def _fetch(self, path: str, local: str, callback: Callback) -> None:
        path = self._strip_protocol(path)
        if self._described(path)["type"] == "directory":
            Path(local).mkdir(parents=True, exist_ok=True)
            return
        callback.set_size(self._file(path)["size"])
        place = self._place(path)
        with Path(local).open("wb") as file:
            for chunk in self._inside(place.name).chunks(place.path):
                file.write(chunk)
                callback.relative_update(len(chunk))

    def _file(self, path: str) -> dict[str, Any]:
        """The info of a file. Raises IsADirectoryError if it is none."""
        info = self._described(path)
        if info["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return info

    def _inside(self, name: str) -> Contents:
        with self._lock:
            if name not in self._contents:
                self._contents[name] = look_inside(self.target, name, result=self._result)
            return self._contents[name]

    def _place(self, path: str) -> _Place:
        """Where a path is: names may have slashes, and the longest that fits is meant."""
        names = set(self._known_names())
        parts = path.split("/")
        for count in range(len(parts), 0, -1):
            name = "/".join(parts[:count])
            if name in names:
                return _Place(name, "/".join(parts[count:]))
        if path and not any(name.startswith(f"{path}/") for name in names):
            raise NotFoundError(f"there is no name in the cache that {path} begins with")
        return _Place("", path)

    def _names_below(self, path: str) -> list[str]:
        """The names, or the first parts of them, below a path that no name has."""
        before = f"{path}/" if path else ""
        rest = [
            name.removeprefix(before) for name in self._known_names() if name.startswith(before)
        ]
        return [before + part for part in sorted({each.partition("/")[0] for each in rest})]

    def _known_names(self) -> list[str]:
        with self._lock:
            if self._names is None:
                self._names = list(self.target.location.names or self.target)
            return self._names

    def _as_info(self, contents: Contents, path: str, entry: Entry) -> dict[str, Any]:
        """The entry in fsspec's terms. A link to a file is that file."""
        info: dict[str, Any] = {
            "name": path,
            "size": entry.size,
            "type": entry.kind,
            "mode": entry.mode,
            "layer": entry.layer,
            "islink": entry.kind == "link",
        }
        if entry.kind == "link":
            info["destination"] = entry.target
            target = _followed(contents, entry.path)
            if target is not None and target.kind == "file":
                info |= {
                    "type": "file",
                    "size": target.size,
                    "mode": target.mode,
                    "layer": target.layer,
                }
        return info


def _followed(contents: Contents, path: str) -> Entry | None:
    """What a link leads to; None for nothing."""
    try:
        return contents.entry(path)
    except (NotFoundError, ValueError):
        return None


def _directory(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _refuse() -> NoReturn:
    raise OSError(errno.EROFS, "results in a cache are not changed through cachefs://")


class _File(AbstractBufferedFile):  # type: ignore[misc]  # as above
    """A file that is read in parts."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.read_part(self.path, start, end)
        return data


class _StreamedFile(AbstractAsyncStreamedFile):  # type: ignore[misc]  # as above
    """The same for asynchronous callers."""

    async def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = await self.fs._cat_file(self.path, start, end)  # noqa: SLF001 - fsspec's name for it
        return data
