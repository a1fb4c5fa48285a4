"""What directories of this machine are like, as the place of a cache."""

from __future__ import annotations

import os
import shutil
import stat as modes
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachefs.filesystems.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

_LITTLE: Final = 1024**3
"""Bytes: builds easily store more than this at once."""

_MIB: Final = 1024 * 1024


def is_writable(path: str) -> bool:
    """Whether this user may make a file at the path, and the directories that it lacks."""
    effective = os.access in os.supports_effective_ids
    return os.access(_existing(path), os.W_OK | os.X_OK, effective_ids=effective)


def directory_findings(*prefixes: str) -> Iterator[Finding]:
    """Free space, and who else may write, where keys with these prefixes are."""
    places = sorted({_existing(prefix) for prefix in prefixes})
    free = min(shutil.disk_usage(place).free for place in places)
    words = f"{free // _MIB:,} MiB free"
    if free < _LITTLE:
        yield Finding("space", "mind", words, "free some, or run 'cachefs prune --max-size'")
    else:
        yield Finding("space", "good", words)
    for place in places:
        if place.stat().st_mode & modes.S_IWOTH:
            yield Finding(
                "others",
                "mind",
                f"every user of this machine may write to {place}",
                f"chmod o-w {place}: whoever writes to a cache decides what builds get",
            )
    temporary = Path(tempfile.gettempdir()).resolve()
    if any(place.resolve().is_relative_to(temporary) for place in places):
        yield Finding(
            "lifecycle",
            "mind",
            f"it is in {temporary}, where the system deletes files that are old, or all at a start",
            "keep the cache in another directory",
        )


def _existing(path: str) -> Path:
    """The nearest directory above the path that exists."""
    return next(one for one in Path(path).parents if one.is_dir())
