"""Which named steps need which, and in what order they run.

A step needs those that it lists, and those whose outputs its inputs read.
"""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import replace
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from cachefs.errors import UsageError
from cachefs.keying.patterns import is_pattern
from cachefs.keying.selection import IGNORE_FILES, Selection, Walk
from cachefs.running.inputs import root_and_pattern
from cachefs.running.project import unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cachefs.running.project import NamedStep, Project

_DIRECTORY: Final = os.stat_result((stat.S_IFDIR | 0o755, *(0,) * 9))
_FILE: Final = os.stat_result((stat.S_IFREG | 0o644, *(0,) * 9))


class Placed(Struct, frozen=True, kw_only=True):
    """A named step among the others.

    Attributes:
        name: its name.
        step: its table.
        needs: the steps that it needs, each with the reason.
        inputs: its inputs, and the outputs of the steps that it lists as needed.
        whole: those of the inputs that other steps make: ignore files have no effect on them.
        perhaps: those of the inputs that another step need not make.
        outputs: its outputs, relative to the directory of the file.
        optional: those of the outputs that it need not make.
    """

    name: str
    step: NamedStep
    needs: dict[str, str]
    inputs: list[str]
    whole: frozenset[str]
    perhaps: frozenset[str]
    outputs: list[str]
    optional: list[str]

    def inputs_in(self, directory: Path) -> list[str]:
        """The inputs, without those that no step has made."""
        return [
            text for text in self.inputs if text not in self.perhaps or any(directory.glob(text))
        ]


def placed(project: Project, names: Sequence[str]) -> dict[str, Placed]:
    """The steps of these names and all that they need, in an order in which they can run.

    Raises UsageError for a name that is not that of a step, and for steps that need each other.
    """
    for name in names:
        if name not in project.steps:
            raise UsageError(f"{project.file}: {unknown(name, project.steps)}")
    found: dict[str, Placed] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _placed(project, name)
            waiting += found[name].needs
    # In the order of the file, as far as the needs allow.
    inside = {name: found[name].needs for name in project.steps if name in found}
    try:
        order = list(TopologicalSorter(inside).static_order())
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        raise UsageError(f"{project.file}: {_circle(found, circle)}") from None
    return {name: found[name] for name in order}


def _circle(found: dict[str, Placed], circle: Sequence[str]) -> str:
    whys = [
        f"{name} needs {needed} ({found[name].needs[needed]})"
        for name, needed in itertools.pairwise(circle)
    ]
    return f"steps need each other: {', and '.join(whys)}"


def _placed(project: Project, name: str) -> Placed:
    step = project.steps[name]
    needs = dict.fromkeys(step.needs, "listed in needs")
    inputs, whole, perhaps = list(step.inputs), set(), set()
    for other in project.steps:
        if other == name:
            continue
        for output in project.outputs(other):
            named = [text for text in step.inputs if _is_within(project.directory, text, output)]
            whole.update(named)
            reader = named[0] if named else _reader(project.directory, step, output)
            if reader is not None:
                needs.setdefault(other, f"its input {reader!r} reads the output {output!r}")
            if other in step.needs and not named:
                inputs.append(output)
                whole.add(output)
                if output in project.optional(other):
                    perhaps.add(output)
    return Placed(
        name=name,
        step=step,
        needs=needs,
        inputs=inputs,
        whole=frozenset(whole),
        perhaps=frozenset(perhaps),
        outputs=project.outputs(name),
        optional=project.optional(name),
    )


def _is_within(directory: Path, text: str, output: str) -> bool:
    """Whether an input is an output, or something in it."""
    name = os.path.relpath(directory / text, directory)
    if name == output:
        return True
    if is_pattern(output):
        expressions, parts = output.split("/"), name.split("/")
        return len(parts) >= len(expressions) and _begins(expressions, parts)
    root, _ = root_and_pattern(directory, text)
    return Path(os.path.normpath(root)).is_relative_to(directory / output)


def _reader(directory: Path, step: NamedStep, output: str) -> str | None:
    """The first input that an output counts as content of, if any does."""
    path = directory / output
    for text in step.inputs:
        root, pattern = root_and_pattern(directory, text)
        root = Path(os.path.normpath(root))
        if path != root and path.is_relative_to(root):
            selection = Selection((), step.exclude, step.ignore, {}, directory)
            parts = path.relative_to(root).parts
            if all(_counts(root, selection, parts, pattern, kind) for kind in _kinds(path)):
                return text
    return None


def _kinds(path: Path) -> Sequence[os.stat_result]:
    """What an output is; if it is not there, a directory, or perhaps a file if it has a suffix."""
    if os.path.lexists(path):
        return [_DIRECTORY if path.is_dir() else _FILE]
    return [_DIRECTORY, _FILE] if path.suffix else [_DIRECTORY]


def _counts(
    root: Path, selection: Selection, parts: Sequence[str], pattern: str, kind: os.stat_result
) -> bool:
    """Whether something of this kind, if it was below the root, would be content of an input."""

    def scan(above: str) -> Iterator[tuple[str, os.stat_result]]:
        for name in IGNORE_FILES:
            path = root / above / name
            if path.is_file() and not path.is_symlink():
                yield name, _FILE
        depth = len(PurePath(above).parts)
        if PurePath(above).parts == tuple(parts[:depth]) and depth < len(parts):
            yield parts[depth], kind if depth + 1 == len(parts) else _DIRECTORY

    if pattern and kind is _FILE:
        selection = replace(selection, include=(pattern,))
    elif pattern and not _begins(pattern.strip("/").split("/"), parts):
        return False
    return "/".join(parts) in (name for name, _ in Walk(root, selection, scan))


def _begins(pattern: Iterable[str], parts: Sequence[str]) -> bool:
    """Whether a glob pattern may match a directory of this name or something below it."""
    for expression, name in zip(pattern, parts, strict=False):
        if expression == "**":
            return True
        if not fnmatchcase(name, expression):
            return False
    return True
