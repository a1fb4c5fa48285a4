"""Describing a result, so that people and later runs know what it is."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cachefs.building.commit import commit_of
from cachefs.building.steps import Source, Step
from cachefs.digest import Digest
from cachefs.masking import mask_words
from cachefs.wire.description import Description

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cachefs.keying.keys import Entry

MOST_FILES: Final = 400
"""How many digests of files a description has; for more, those of whole directories."""

_SHORT: Final = 16
"""Hexadecimal digits of the digests of files."""

_CHECK: Final = 3
"""Hexadecimal digits of what tells values of variables apart: too few to find out a value."""


def describe(step: Step, results: Mapping[str, str]) -> Description:
    """What is known about a step before it runs.

    Args:
        step: the step.
        results: the digests of those inputs that other steps make, by their names.
    """
    action = step.action
    files = {name: entries for name, (_, entries) in _sources(step).items()}
    most = MOST_FILES // max(1, len(files))
    return Description(
        command=[_text(word) for word in mask_words(action.argv or (action.label,))],
        definition=str(step.vertex),
        inputs={_text(name): digest for name, (digest, _) in _sources(step).items()}
        | {_text(name): digest for name, digest in results.items()},
        files={_text(name): grouped(entries, most) for name, entries in files.items()},
        outputs=sorted(map(_text, step.outputs)),
        variables={
            _text(name): None if value is None else _check(name, value)
            for name, value in step.definition.environment.items()
        },
        platform=step.definition.platform,
        host=platform.node(),
        commit=commit_of(action.working_directory or Path.cwd()),
    )


def entries_of(step: Step) -> dict[str, Mapping[bytes, Entry]]:
    """The entries of each input that is a source, by its name in a description."""
    return {_text(name): entries for name, (_, entries) in _sources(step).items()}


def grouped(entries: Mapping[bytes, Entry], most: int) -> dict[str, str]:
    """Digests of files; of directories as deep as possible, if there are more than ``most``."""
    files = _files(entries)
    groups = {name: name for name in files}
    depth = max((name.count("/") + 1 for name in files), default=0)
    while len(set(groups.values())) > most and depth:
        depth -= 1
        groups = {name: _cut(name, depth) for name in files}
    return _digests(files, groups)


def grouped_like(entries: Mapping[bytes, Entry], known: Iterable[str]) -> dict[str, str]:
    """Digests of the same groups as in a description, and of the files that are in none."""
    files = _files(entries)
    directories = {name for name in known if name.endswith("/")}

    def group(name: str) -> str:
        above = (_cut(name, depth) for depth in range(name.count("/"), -1, -1))
        return next((directory for directory in above if directory in directories), name)

    return _digests(files, {name: group(name) for name in files})


def _digests(files: Mapping[str, Entry], groups: Mapping[str, str]) -> dict[str, str]:
    """The digest of each group of files."""
    members: defaultdict[str, list[tuple[str, str, bytes]]] = defaultdict(list)
    for name, entry in sorted(files.items()):
        members[groups[name]].append((name, entry.kind, entry.value))
    return {group: _digest(items) for group, items in members.items()}


def _cut(name: str, depth: int) -> str:
    """The directory with this many components that a file is below, or the file itself."""
    parts = name.split("/")
    return name if len(parts) <= depth else "/".join(parts[:depth]) + "/"


def _files(entries: Mapping[bytes, Entry]) -> dict[str, Entry]:
    """The entries without the directories that have any below them."""
    above = {name.rpartition(b"/")[0] for name in entries}
    return {
        _text(name): entry
        for name, entry in entries.items()
        if entry.kind != "d" or name not in above
    }


def _sources(step: Step) -> dict[str, tuple[str, Mapping[bytes, Entry]]]:
    found = {}
    for name, part in step.inputs.items():
        if isinstance(part.node, Source):
            content = part.node.content.part(part.path)
            found[name] = (str(content.digest), content.entries)
    return found


def _digest(value: object) -> str:
    return Digest.of(msgspec.msgpack.encode(value)).hex[:_SHORT]


def _check(name: str, value: str) -> str:
    return Digest.of(os.fsencode(f"cachefs variable 1\0{name}\0{value}")).hex[:_CHECK]


def _text(name: str | bytes) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")
