"""The inputs of ``cachefs run``: sources from paths and glob patterns, and variables."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cachefs.building.history import changed_files
from cachefs.building.steps import Source
from cachefs.errors import UsageError
from cachefs.keying.patterns import is_pattern, split_pattern
from cachefs.keying.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


def as_sources(
    directory: Path,
    inputs: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    ignore: bool = True,
    whole: Collection[str] = (),
    without: Mapping[Path, str],
    outputs: Sequence[str] = (),
    follow: bool = False,
) -> dict[str, Source]:
    """A source for each input, by its name in the key: the path relative to the directory.

    Args:
        directory: the working directory.
        inputs: paths, or glob patterns if nothing has that name.
        exclude: as in :class:`Selection`, for the working directory.
        ignore: as in :class:`Selection`.
        whole: inputs of which everything counts, whatever ignore files say.
        without: as in :class:`Selection`; paths may lead through links.
        outputs: as in :class:`Selection`.
        follow: as in :class:`Selection`.

    Raises UsageError if an input does not exist and no file matches it.
    """
    real = {Path(os.path.realpath(path.parent), path.name): why for path, why in without.items()}
    sources = {}
    for text in inputs:
        name = os.path.relpath(directory / text, directory)
        root, include = root_and_pattern(directory, text)
        ignoring = ignore and text not in whole
        selection = Selection(
            (include,) if include else (), exclude, ignoring, real, directory, outputs, follow
        )
        source = Source(root, selection)
        if not os.path.lexists(root) or (include and not source.content.entries):
            raise UsageError(f"the input {text!r} does not exist, and no file matches it")
        sources[name] = source
    return sources


def root_and_pattern(directory: Path, text: str) -> tuple[Path, str]:
    """What an input reads: a path and, if it is a glob pattern, the pattern of what is below it.

    It is a pattern only if nothing has that name.
    """
    root = directory / text
    if os.path.lexists(root) or not is_pattern(text):
        return root, ""
    above, pattern = split_pattern(os.path.relpath(root, directory))
    return directory / above, pattern


def declared_variables(variables: Iterable[str]) -> dict[str, str | None]:
    """Variables with their values, from names, patterns of names, and ``NAME=VALUE``.

    The value of one that is not set is None. Raises UsageError for a name that none can have.
    """
    found: dict[str, str | None] = {}
    for text in variables:
        name, assigned, value = text.partition("=")
        if not name or "\0" in text:
            raise UsageError(f"--env {text!r} does not name a variable")
        if assigned:
            found[name] = value
        elif is_pattern(name):
            names = fnmatch.filter(os.environ, name)
            found |= {name: os.environ[name] for name in names if name not in found}
        else:
            found.setdefault(name, os.environ.get(name))
    return found


def changes(sources: Iterable[Source]) -> str:
    """What changed in sources since they were read; empty if nothing did."""
    found = []
    for source in sources:
        try:
            again = source.again()
        except UsageError as error:
            found.append(str(error))
        else:
            if again.digest != source.digest:
                found.append(changed_files(source.content.entries, again.entries))
    return ", ".join(found)


def left_out(sources: Iterable[Source]) -> dict[str, int]:
    """How many entries of the sources do not count, by the reason, most first."""
    total: Counter[str] = Counter()
    for source in sources:
        with suppress(UsageError):  # it changed while it was read, which was told
            total.update(source.content.left_out)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def links(sources: Iterable[Source]) -> int:
    """How many symbolic links below the sources count as links: what they lead to does not."""
    total = 0
    for source in sources:
        with suppress(UsageError):
            total += source.content.links
    return total
