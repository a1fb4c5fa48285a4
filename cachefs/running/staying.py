"""Paths that are no content of inputs, and outputs that are not moved aside."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cachefs.building.outputs import matches
from cachefs.errors import UsageError
from cachefs.keying.patterns import is_pattern
from cachefs.layers.beneath import Beneath
from cachefs.user_directory import user_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachefs.location.options import Location


def own_paths(
    directory: Path,
    outputs: Iterable[str],
    locations: Iterable[Location],
    report_file: Path | None,
) -> dict[Path, str]:
    """Paths that are not content of inputs, even below one, each with what it is."""
    return (
        dict.fromkeys(_local(locations), "a cache")
        | dict.fromkeys(_user_cache(), "files of cachefs")
        | ({} if report_file is None else {directory / report_file: "the report"})
        | {directory / output: "an output" for output in outputs}
    )


def _local(locations: Iterable[Location]) -> list[Path]:
    return [Path(location.url) for location in locations if location.protocol == "file"]


def _user_cache() -> list[Path]:
    try:
        return [user_cache()]
    except UsageError:
        return []


def staying(
    directory: Path,
    outputs: Sequence[str],
    inputs: Iterable[str],
    locations: Iterable[Location],
) -> Sequence[str]:
    """The outputs that are left in place.

    They have something in them that the command or this program needs while it runs: inputs,
    caches, temporary files, this program itself.
    """
    needed = [*_user_cache(), Path(tempfile.gettempdir()), Path(sys.prefix), directory]
    needed += [*_local(locations), *(directory / name for name in inputs)]
    real = {Path(os.path.realpath(path)) for path in needed} | set(map(_located, needed))
    return [output for output in outputs if any(_holds(directory, output, path) for path in real)]


def _holds(directory: Path, output: str, path: Path) -> bool:
    """Whether a path is at or below an output. What an output links to is not below it."""
    if not is_pattern(output):
        return path.is_relative_to(_located(directory / output))
    if not path.is_relative_to(os.path.realpath(directory)):
        return False
    with Beneath.at(directory) as tree:
        return any(
            path.is_relative_to(_located(directory.joinpath(*map(os.fsdecode, match))))
            for match in matches(tree, output)
        )


def _located(path: Path) -> Path:
    """Where a path is, whether or not a link is there."""
    return Path(os.path.realpath(path.parent), path.name)
