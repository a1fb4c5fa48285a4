"""The user's cache directory, for files that are kept on this machine only.

It is private, and refused if it belongs to another user, who could put results into it.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import xxhash

from cachefs.errors import UsageError
from cachefs.filesystems.regular import read_regular

if TYPE_CHECKING:
    from cachefs.location.options import Location

UNUSED_FOR: Final = 90 * 86_400
"""Seconds after which :func:`sweep` removes a file that was not read."""

CACHE_VARIABLE: Final = "CACHEFS_CACHE"
"""The environment variable that says where results are kept if no cache is given."""

DAY: Final = 86_400.0

_RESULTS: Final = "run"


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/cachefs``, by default ``~/.cache/cachefs``, with mode 0700.

    A user with no home directory, or one that is not writable, has the directory among the
    system's temporary files. It is made if it is missing. Raises UsageError if that fails, or if
    it belongs to another user.
    """
    fallback = Path(tempfile.gettempdir(), f"cachefs-{os.geteuid()}")
    for path in filter(None, (_below_home(), fallback)):
        with suppress(OSError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _private(path)
    raise UsageError(f"{fallback} cannot be made for cached files; set XDG_CACHE_HOME")


def own_cache() -> Path:
    """Where results are kept if no cache is given. Raises UsageError as :func:`user_cache`."""
    return user_cache() / _RESULTS


def is_own_cache(location: Location) -> bool:
    """Whether this is the user's own cache."""
    if location.protocol == "file":
        with suppress(UsageError):
            return os.path.realpath(location.url) == os.path.realpath(own_cache())
    return False


def _below_home() -> Path | None:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "cachefs"
    try:
        return Path.home() / ".cache" / "cachefs"
    except RuntimeError:  # the user has no name, and HOME is not set
        return None


def _private(path: Path) -> Path:
    for status in (path.lstat(), path.stat()):  # a link's owner decides where it leads
        if status.st_uid != os.geteuid():
            raise UsageError(
                f"{path} belongs to user {status.st_uid}, not to you, so nothing is read from it "
                "or written there; set XDG_CACHE_HOME to a directory of yours"
            )
    if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        path.chmod(0o700)
    return path


_LARGEST: Final = 1 << 30
"""Bytes of a file beyond which it is not ours: an index of a million files has a tenth."""


def read_checked(*name: str) -> bytes | None:
    """Read what :func:`write_checked` wrote; None if it is missing or damaged."""
    try:
        path = user_cache().joinpath(*name)
        raw = read_regular(path, _LARGEST)
        if path.stat().st_mtime < time.time() - DAY:
            os.utime(path)  # in use
    except (OSError, UsageError):
        return None
    check, data = raw[:8], raw[8:]
    return data if xxhash.xxh3_64_digest(data) == check else None


def write_checked(data: bytes, *name: str) -> None:
    """Write bytes that are not essential: errors, such as a full disk, are ignored.

    Args:
        data: the bytes.
        name: the names of directories and of the file in the user's cache directory.
    """
    with suppress(OSError, UsageError):
        path = user_cache().joinpath(*name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(xxhash.xxh3_64_digest(data) + data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def sweep(folder: str) -> None:
    """Remove files of a folder that were not read for :data:`UNUSED_FOR`, at most once a day."""
    with suppress(OSError, UsageError):
        directory = user_cache() / folder
        done = directory / ".swept"
        now = time.time()
        if done.exists() and done.stat().st_mtime > now - DAY:
            return
        for entry in os.scandir(directory):
            if entry.stat(follow_symlinks=False).st_mtime < now - UNUSED_FOR:
                Path(entry.path).unlink(missing_ok=True)
        done.touch(mode=0o600)


def mark_now(folder: str, name: str) -> None:
    """Note on this machine that something was done now. Errors are ignored."""
    with suppress(OSError, UsageError):
        directory = user_cache() / folder
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / name).touch(mode=0o600)
    sweep(folder)


def marked_at(folder: str, name: str) -> float:
    """When something was last done, in seconds since 1970; 0 if that is unknown."""
    with suppress(OSError, UsageError):
        return (user_cache() / folder / name).stat().st_mtime
    return 0.0
