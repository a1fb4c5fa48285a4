"""The contract on filesystems with one fault each, and on one without. Run by test_faulty.py."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cachefs.testing.contract import FilesystemContract
from tests.servers.plain import PlainFileSystem


class _Contract(FilesystemContract):
    kind: type[Any] = MemoryFileSystem

    @pytest.fixture
    def filesystem(self, tmp_path: Path) -> tuple[Any, str]:
        return self.kind(skip_instance_cache=True), f"{tmp_path}/cache"

    @pytest.fixture
    def clock_step(self) -> float:
        return 0.02


class _Plain(_Contract):
    has_times = False

    @pytest.fixture
    def filesystem(self) -> tuple[Any, str]:
        return self.kind(), "cache"


class TestSound(_Plain):
    kind = PlainFileSystem


class HalfWritten(MemoryFileSystem):
    """Shows the first half of a file before the second one comes."""

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        self._in_halves(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self._in_halves(path, value)

    def _in_halves(self, path: str, data: bytes) -> None:
        super().pipe_file(path, data[: len(data) // 2])
        time.sleep(0.1)
        super().pipe_file(path, data)


class TestHalfWritten(_Contract):
    kind = HalfWritten


class EmptyingTouch(MemoryFileSystem):
    """Copying onto itself renews the time, and loses the bytes."""

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        super().cp_file(path1, path2, **options)
        self.pipe_file(path2, b"")


class TestEmptyingTouch(_Contract):
    kind = EmptyingTouch


class IdleTouch(MemoryFileSystem):
    """Copying onto itself leaves the time as it was."""

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        self.info(path1 or path2)


class TestIdleTouch(_Contract):
    kind = IdleTouch


class ForgetfulListing(PlainFileSystem):
    """A listing misses every third file."""

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        found = super().find(path, *args, **options)
        return {name: info for n, (name, info) in enumerate(found.items(), 1) if n % 3}


class TestForgetfulListing(_Plain):
    kind = ForgetfulListing


class StaleListing(PlainFileSystem):
    """A listing is the first one for ever."""

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        known: dict[str, Any] = self.__dict__.setdefault("known", {})
        if path not in known:
            known[path] = super().find(path, *args, **options)
        return known[path]


class TestStaleListing(_Plain):
    kind = StaleListing


class RefusingMove(PlainFileSystem):
    """A file cannot be renamed to a name that is there."""

    def mv(self, path1: str, path2: str, *args: Any, **options: Any) -> None:
        if self.exists(path2):
            raise FileExistsError(path2)
        super().mv(path1, path2, *args, **options)


class TestRefusingMove(_Plain):
    kind = RefusingMove


class LostOffset(PlainFileSystem):
    """A range begins where the file does."""

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        data: bytes = super().cat_file(path, **options)
        return data[: (end or len(data)) - (start or 0)]


class TestLostOffset(_Plain):
    kind = LostOffset


class DecodingKeys(PlainFileSystem):
    """Takes ``%41`` in a key for ``A``."""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return unquote(super()._strip_protocol(path))


class TestDecodingKeys(_Plain):
    kind = DecodingKeys


class GreedyDelete(PlainFileSystem):
    """A deletion takes all files whose names begin alike."""

    def rm_file(self, path: str) -> None:
        self.info(path)
        for key in [key for key in self.objects if key[:-3] == self._strip_protocol(path)[:-3]]:
            del self.objects[key]


class TestGreedyDelete(_Plain):
    kind = GreedyDelete


class PrefixDelete(PlainFileSystem):
    """Deleting a file also deletes those whose paths begin with its path."""

    def rm_file(self, path: str) -> None:
        self.info(path)
        for key in [key for key in self.objects if key.startswith(self._strip_protocol(path))]:
            del self.objects[key]


class TestPrefixDelete(_Plain):
    kind = PrefixDelete


class SilentMiss(PlainFileSystem):
    """A missing file is an empty one."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb" and self._strip_protocol(path) not in self.objects:
            return io.BytesIO()
        return super()._open(path, mode, **options)


class TestSilentMiss(_Plain):
    kind = SilentMiss


class TestWithoutTimes(_Plain):
    kind = PlainFileSystem
    has_times = True


class TestNotOverridden(FilesystemContract):
    pass
