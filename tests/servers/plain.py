"""A filesystem that cachefs does not know, with only what fsspec requires of every filesystem."""

from __future__ import annotations

import io
from typing import Any

from fsspec import AbstractFileSystem


class PlainFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Objects in a dictionary, without modification times."""

    protocol = "plain"
    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.objects: dict[str, bytes] = {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        inside = [key for key in self.objects if key.startswith(f"{path}/")]
        names = {
            f"{path}/{key[len(path) + 1 :].partition('/')[0]}".removeprefix("/") for key in inside
        }
        if path in self.objects:
            names = {path}
        if not names:
            raise FileNotFoundError(path)
        infos = [self._described(name) for name in sorted(names)]
        return infos if detail else [info["name"] for info in infos]

    def _described(self, name: str) -> dict[str, Any]:
        if name in self.objects:
            return {"name": name, "size": len(self.objects[name]), "type": "file"}
        return {"name": name, "size": 0, "type": "directory"}

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        path = self._strip_protocol(path)
        if mode == "rb":
            if path not in self.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(self.objects[path])
        return _Writing(self, path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if source not in self.objects:
            raise FileNotFoundError(source)
        self.objects[target] = self.objects[source]

    def _rm(self, path: str) -> None:
        path = self._strip_protocol(path)
        if path not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[path]

    def rm_file(self, path: str) -> None:
        self._rm(path)


class _Writing(io.BytesIO):
    """Each chunk is visible as soon as it is written, as on many servers."""

    def __init__(self, fs: PlainFileSystem, path: str) -> None:
        super().__init__()
        self._fs, self._path = fs, path
        fs.objects[path] = b""

    def write(self, data: Any) -> int:
        count = super().write(data)
        self._fs.objects[self._path] = self.getvalue()
        return count
