"""A pytest suite that shows whether caches work on an fsspec filesystem. Needs pytest.

from cachefs.testing.contract import FilesystemContract


class TestMyFilesystem(FilesystemContract):
    @pytest.fixture
    def filesystem(self, tmp_path):
        return MyFileSystem(), f"{tmp_path}/cache"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import pytest
except ImportError as error:
    raise ImportError("cachefs.testing.contract needs pytest: pip install pytest") from error

from cachefs.cache import open as open_cache
from cachefs.errors import UsageError
from cachefs.filesystems.adapting import adapt, unwrapped
from cachefs.store import Store
from cachefs.testing.caches import write_random_cache
from cachefs.testing.checks import expect
from cachefs.testing.conditions import ConditionsContract
from cachefs.testing.deletes import DeletesContract
from cachefs.testing.listing import ListingContract
from cachefs.testing.writing import WritingContract

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class FilesystemContract(WritingContract, ListingContract, ConditionsContract, DeletesContract):
    """What caches need from a filesystem: derive a test class and override :meth:`filesystem`.

    The promises:

    - What is written is read: from no bytes to 40 MiB, also by many tasks at a time.
    - An object is seen whole or not at all. A reader sees nothing before a write has ended, and
      the old or the new bytes when an object is replaced.
    - A write that fails or is cancelled leaves nothing, or leaves what was there.
    - A listing has every object whose key starts with the prefix, and no others, immediately after
      a write or a deletion; sizes and times are those of a look-up.
    - Keys are kept as they are, with spaces, ``%``, ``#``, ``?``, ``*``, quotes and any Unicode.
    - A missing object is a ``FileNotFoundError``; a folder is not an object.
    - A deletion deletes one object, and only that one. A deletion of what was looked up before
      leaves what has changed, if it can compare, and never says so falsely.
    - If a time can be renewed at all, the renewal keeps the bytes.
    - If a write can have the condition that nothing has changed, one of many writers succeeds.
    - A cache written there is read and verified without faults.

    cachefs writes to temporary files and renames them, unless it knows that the filesystem's writes
    are atomic: a subclass of a filesystem that it knows is assumed to keep the same promises.

    Attributes:
        has_times: False for a filesystem without modification times. Caches work there, but
            nothing can be pruned by its age.
    """

    has_times = True

    @pytest.fixture
    def filesystem(self) -> tuple[AbstractFileSystem, str]:
        """The filesystem and the path of an empty or missing folder in it. Override this."""
        raise UsageError(
            "override the fixture 'filesystem' of FilesystemContract: return your fsspec "
            "filesystem and the path of an empty folder"
        )

    @pytest.fixture
    def clock_step(self) -> float:
        """Seconds after which a new time differs from an old one. Override it to be faster."""
        return 1.1

    @pytest.fixture
    def store(self, filesystem: tuple[AbstractFileSystem, str]) -> Store:
        """The folder as a store, which the tests work on."""
        fs, root = unwrapped(*filesystem)
        return Store(adapt(fs), f"{root.rstrip('/')}/")

    def test_a_cache_is_written_and_read(self, filesystem: tuple[AbstractFileSystem, str]) -> None:
        fs, root = filesystem
        cache = open_cache(f"contract://{root}", fs=fs)
        written = write_random_cache(cache, names=("main", "pr-1"), records=12)
        names = [name.name for name in cache.names()]
        expect(names, ["main", "pr-1"], "the names of a cache are listed")
        for name, generated in written.items():
            expect(cache.load(name).blobs(), generated.graph.blobs(), "a manifest is read back")
            for digest, data in generated.blobs.items():
                expect(cache.read_blob(digest), data, "a blob is read back")
        expect(cache.verify(read_data=1).faults, [], "a cache has no faults after it was written")
        again = cache.export(
            written["main"].graph, written["main"].blobs, names=["main"], mode="max"
        )
        expect(again.uploaded.blobs, 0, "blobs that are there are found, and not sent again")
