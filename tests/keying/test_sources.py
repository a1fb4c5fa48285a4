"""Sources: what counts in a tree, the patterns, and the index that avoids reading it again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import cachefs
from cachefs import UsageError
from cachefs.building.steps import Source
from cachefs.keying import sources
from cachefs.keying.selection import Selection
from cachefs.keying.sources import read_tree
from tests import trees
from tests.running.in_place import run
from tests.trees import File, Link

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


def test_links_count_as_links_or_as_what_they_lead_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = trees.write(tmp_path / "outside", {"f": File(b"1"), "sub": {"g": File(b"2")}})
    plain: trees.Tree = {"file": File(b"1"), "dir": {"f": File(b"1"), "sub": {"g": File(b"2")}}}
    source = trees.write(tmp_path / "in", {"file": Link("../outside/f"), "dir": Link("../outside")})
    copied = trees.write(tmp_path / "copied", plain)
    as_links = read_tree(source)
    following = Selection(ignore=False, follow=True)
    as_files = read_tree(source, following)
    assert as_files.digest == read_tree(copied).digest != as_links.digest
    assert (as_links.links, as_files.links) == (2, 0)
    (outside / "sub" / "g").write_bytes(b"changed")
    assert read_tree(source).digest == as_links.digest
    assert read_tree(source, following).digest != as_files.digest
    with cachefs.Build() as build:
        given = build.source(source, follow=True)
        step = build.step(["cp", "-r", "in", "out"], inputs={"in": given}, outputs=["out"])
        plain["dir"] = {"f": File(b"1"), "sub": {"g": File(b"changed")}}
        assert trees.read(step.files()["out"]) == plain
    (source / "gone").symlink_to("nowhere")
    (source / "self").symlink_to("self")
    (outside / "sub" / "loop").symlink_to("..")
    (outside / "sub" / "top").symlink_to("../../in")
    content = read_tree(source, following)
    assert content.links == 4
    assert sorted(content.loops) == [b"dir/sub/loop", b"dir/sub/top"]
    assert Source(source, following).content.digest == content.digest
    assert "links to directories above them, which count as links: 'dir/sub/" in caplog.text


def test_a_run_tells_that_links_count_as_links(tmp_path: Path) -> None:
    place = trees.write(tmp_path / "place", {"in": {"l": Link("../data")}, "data": File(b"1")})
    assert run(place, "cat in/l", inputs=("in",)).report.links == 1
    (place / "data").write_text("2")
    assert run(place, "cat in/l", inputs=("in",)).said == b"1"
    assert run(place, "cat in/l", inputs=("in",), follow=True).said == b"2"
    (place / "data").write_text("3")
    followed = run(place, "cat in/l", inputs=("in",), follow=True)
    assert (followed.said, followed.report.links) == (b"3", 0)
