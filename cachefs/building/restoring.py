"""Outputs take their places: each is whole, and what was there stays until it is."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ASIDE: Final = ".cachefs-"
"""How the names of directories begin in which outputs wait for their turn."""


@contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """A directory beside the outputs, on their disk, that goes in the end."""
    path = Path(tempfile.mkdtemp(prefix=ASIDE, dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def put_in_place(staged: Path, directory: Path, outputs: Iterable[str]) -> None:
    """Move outputs from a staged tree on the same disk to where they belong, one by one.

    A file replaces a file in one step. For directories two renames are needed: a reader in that
    moment finds none, but never half of one; after an error the old one is back. Outputs that the
    staged tree lacks are left alone. Raises UsageError and OSError.
    """
    for output in outputs:
        origin = staged / output
        if os.path.lexists(origin):
            target = directory / output
            _make_parents(directory, output)
            _swap(origin, target, staged)


def _make_parents(directory: Path, output: str) -> None:
    """Directories on the way, none of them through a link: that may lead anywhere."""
    path = directory
    for part in Path(output).parts[:-1]:
        path /= part
        with suppress(FileExistsError):
            path.mkdir()
        if path.is_symlink() or not path.is_dir():
            raise UsageError(f"{path} is no directory, but the output {output} is to go below it")


def _swap(origin: Path, target: Path, staged: Path) -> None:
    if not _is_directory(origin) and not _is_directory(target):
        origin.replace(target)
        return
    old = staged.parent / f"{staged.name}-{secrets.token_hex(4)}"
    try:
        target.rename(old)
    except FileNotFoundError:
        origin.rename(target)
        return
    try:
        origin.rename(target)
    except BaseException:
        old.rename(target)
        raise
    # What cannot be removed is left beside, not an error: the outputs are in place.
    _remove(old)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
