"""Which commit is checked out, read from ``.git`` without running git."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.regular import read_regular

if TYPE_CHECKING:
    from pathlib import Path

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF: Final = re.compile(r"ref: (refs/[^\0]+)")
_READ: Final = 4 << 20


def commit_of(directory: Path) -> str:
    """The commit that is checked out in the repository around a directory; empty if none is.

    Whether files have been changed since is not said. See gitrepository-layout(5).
    """
    with suppress(OSError, ValueError):
        for place in (directory, *directory.parents):
            if (found := _git_directory(place / ".git")) is not None:
                return _checked_out(found)
    return ""


def _git_directory(path: Path) -> Path | None:
    """The directory itself; or the one that the file in a worktree or submodule names."""
    if path.is_dir():
        return path
    if not path.is_file():
        return None
    return path.parent / _text(path).removeprefix("gitdir:").strip()


def _checked_out(git: Path) -> str:
    head = _text(git / "HEAD")
    if (ref := _REF.fullmatch(head)) is None:
        return head if _COMMIT.fullmatch(head) else ""
    name = ref[1]
    common = git
    with suppress(FileNotFoundError):
        common = git / _text(git / "commondir")
    for base in (git, common):
        with suppress(FileNotFoundError, NotADirectoryError):
            return _only_commit(_text(base / name))
    with suppress(FileNotFoundError):
        for line in _text(common / "packed-refs").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name:
                return _only_commit(commit)
    return ""


def _only_commit(text: str) -> str:
    return text if _COMMIT.fullmatch(text) else ""


def _text(path: Path) -> str:
    return read_regular(path, _READ).decode().strip()
