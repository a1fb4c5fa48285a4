"""Sources: what counts in a tree, the patterns, and the index that avoids reading it again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cachefs import UsageError
from cachefs.building import sources
from cachefs.building.sources import read_tree

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs.layers.beneath import Beneath, Parts

OLD = 1_600_000_000_123_456_789


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, text in {"a.c": "a", "b.h": "b", "sub/c.c": "c", "sub/deep/d.o": "d"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "empty").mkdir()
    (root / "link").symlink_to("a.c")
    return root


def test_names_content_modes_and_links_count_and_times_do_not(root: Path) -> None:
    digests = [read_tree(root).digest]
    os.utime(root / "a.c", ns=(OLD, OLD))
    (root / "b.h").chmod(0o600)
    assert read_tree(root).digest == digests[0]
    for change in (
        lambda: (root / "a.c").write_text("A"),
        lambda: (root / "a.c").chmod(0o755),
        (root / "empty").rmdir,
        lambda: ((root / "link").unlink(), (root / "link").symlink_to("b.h")),
        lambda: (root / "b.h").rename(root / "h.b"),
    ):
        change()
        digests.append(read_tree(root).digest)
    assert len(set(digests)) == len(digests)


def _read_files(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    read: list[str] = []
    real = sources._hash_file

    def counted(beneath: Beneath, path: Parts) -> tuple[os.stat_result, bytes]:
        read.append(os.fsdecode(b"/".join(path)))
        return real(beneath, path)

    with monkeypatch.context() as patch:
        patch.setattr(sources, "_hash_file", counted)
        read_tree(root)
    return sorted(read)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the index, ten seconds on: nothing was written just now."""
    monkeypatch.setattr(sources, "clock", lambda: __import__("time").time_ns() + 10_000_000_000)


@pytest.mark.usefixtures("later")
def test_an_unchanged_tree_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(_read_files(monkeypatch, root)) == 4
    assert _read_files(monkeypatch, root) == []
    (root / "a.c").write_text("b")
    assert _read_files(monkeypatch, root) == ["a.c"]


def test_a_file_written_just_now_is_not_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "clock", lambda: (root / "a.c").stat().st_mtime_ns)
    _read_files(monkeypatch, root)
    assert "a.c" in _read_files(monkeypatch, root)


@pytest.mark.usefixtures("later")
def test_a_damaged_index_is_as_good_as_none(
    root: Path, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = read_tree(root).digest
    (index,) = (nobodys_home / ".cache" / "cachefs" / "index").iterdir()
    raw = bytearray(index.read_bytes())
    raw[len(raw) // 2] ^= 1
    index.write_bytes(raw)
    assert len(_read_files(monkeypatch, root)) == 4
    assert read_tree(root).digest == digest


def test_what_cannot_be_in_a_layer_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(UsageError, match="pipe cannot be read, or is not a file"):
        read_tree(root / "pipe")
    with pytest.raises(UsageError, match="does not exist"):
        read_tree(root / "none")
