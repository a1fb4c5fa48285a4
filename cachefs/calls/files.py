"""The files that a call's result consists of, read and written.

The main file is the result itself, or for :class:`Files` the path of what else is there.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, BinaryIO, Final

from cachefs.building.restoring import Move, put_in_place, staging
from cachefs.building.steps import checked_path
from cachefs.errors import IntegrityError
from cachefs.keying.patterns import literal
from cachefs.layers.beneath import Beneath, NotRegularError, split
from cachefs.layers.extracting import extract
from cachefs.layers.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from cachefs.calls.serializers import Files
    from cachefs.calls.store import Call, CallStore
    from cachefs.digest import Digest

_RESULT: Final = "result"
_TREE: Final = "files"
_LONGEST: Final = 4096

OUTPUTS: Final = (_RESULT,)
OUTPUTS_WITH_FILES: Final = (_RESULT, _TREE)


def read_bytes(store: CallStore, call: Call) -> bytes | None:
    """The bytes of a call's result; None if the cache has none that can be used."""

    def read(blob: BinaryIO, media_type: str, diff_id: Digest) -> bytes:
        return read_file(blob, _RESULT, media_type=media_type, diff_id=diff_id)

    return store.read(call, read)


def put_back(store: CallStore, call: Call, files: Files) -> Path | None:
    """Extract a result next to where it belongs, and move it there. None as above."""

    def put(blob: BinaryIO, media_type: str, diff_id: Digest) -> Path:
        with staging(files.directory) as place:
            tree = place / "tree"
            extract(blob, tree, media_type=media_type, diff_id=diff_id)
            with Beneath.at(tree) as beneath:
                relative = _relative(beneath)
                if not beneath.exists(split(f"{_TREE}/{relative}")):
                    raise IntegrityError(f"the result has no {relative!r}")
            put_in_place([Move(tree / _TREE, files.directory, [literal(relative)])])
        return files.directory / relative

    files.directory.mkdir(parents=True, exist_ok=True)
    return store.read(call, put)


def _relative(beneath: Beneath) -> str:
    """Where the files of a result belong, according to its main file; no link is followed."""
    try:
        with os.fdopen(beneath.open_file(split(_RESULT)), "rb") as file:
            return checked_path(file.read(_LONGEST).decode())
    except (FileNotFoundError, NotRegularError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the result has no valid file {_RESULT!r}") from error


def save_bytes(data: bytes, directory: Path) -> None:
    """Write the files of a result that is bytes."""
    (directory / _RESULT).write_bytes(data)


def save_files(value: Path, relative: str, directory: Path) -> None:
    """Write the files of a result that is a path."""
    (directory / _RESULT).write_text(relative)
    copy = directory / _TREE / relative
    copy.parent.mkdir(parents=True)
    if value.is_dir() and not value.is_symlink():
        shutil.copytree(value, copy, symlinks=True)
    else:
        shutil.copy2(value, copy, follow_symlinks=False)
