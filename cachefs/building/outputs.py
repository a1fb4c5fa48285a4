"""The outputs of steps: paths and glob patterns, and where they are."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from cachefs.errors import UsageError
from cachefs.keying.patterns import fixed_part, is_pattern, split_pattern
from cachefs.keying.selection import Selection, Walk
from cachefs.layers.beneath import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachefs.layers.beneath import Beneath, Parts


class Outputs(tuple[str, ...]):  # noqa: SLOT001 - a tuple has no slots for attributes
    """The declared outputs of a step: relative paths and glob patterns.

    Attributes:
        optional: those that the step need not make.
    """

    optional: frozenset[str]

    def __new__(cls, required: Iterable[str], optional: Iterable[str] = ()) -> Self:
        """Required outputs, and optional ones."""
        optional = tuple(optional)
        outputs = super().__new__(cls, (*required, *optional))
        outputs.optional = frozenset(optional)
        return outputs

    @property
    def required(self) -> list[str]:
        """Those that the step must make."""
        return [output for output in self if output not in self.optional]

    def missing(self, tree: Beneath) -> list[str]:
        """The required ones that are not in a tree. Raises OSError."""
        return [output for output in self.required if not matches(tree, output)]

    def found(self, tree: Beneath) -> list[str]:
        """The paths of all outputs in a tree, none below another. Raises OSError."""
        every = {path for output in self for path in matches(tree, output)}
        return [
            os.fsdecode(b"/".join(path))
            for path in sorted(every)
            if not any(path[:depth] in every for depth in range(1, len(path)))
        ]


def matches(tree: Beneath, output: str) -> list[Parts]:
    """What is at an output: the path, or the topmost paths that a pattern matches.

    No link is followed. Raises OSError.
    """
    if not is_pattern(output):
        path = split(output)
        return [path] if tree.exists(path) else []
    above, rest = split_pattern(output)
    top = split(above)
    if not tree.is_directory(top):
        return []

    def scan(name: str) -> Iterator[tuple[str, os.stat_result]]:
        for entry in tree.entries((*top, *split(name))):
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)

    found: set[Parts] = set()
    # The root is only for messages and patterns of directories above it, of which there are none.
    for name, _ in Walk(Path("/"), Selection((rest,), ignore=False), scan):
        path = split(name)
        if not any(path[:depth] in found for depth in range(1, len(path))):
            found.add(path)
    return [(*top, *path) for path in sorted(found)]


def relative(directory: Path, typed: str) -> str:
    """An output as a path relative to the working directory. Raises UsageError if it is outside."""
    for base, path in (
        (directory, directory / typed),
        (
            Path(os.path.realpath(directory)),
            Path(os.path.realpath((directory / typed).parent), Path(typed).name),
        ),
    ):
        name = os.path.relpath(path, base)
        if name == ".":
            raise UsageError(
                f"the output {typed!r} is the working directory itself; name what the command "
                "makes in it"
            )
        if name != ".." and not name.startswith("../"):
            return name
    raise UsageError(
        f"the output {typed!r} is outside of the working directory {directory}; run the command "
        "in a directory above all of its outputs"
    )


class Placed(NamedTuple):
    """An output, and what it is relative to the place that it belongs to."""

    output: str
    within: str


class Place(NamedTuple):
    """A directory with outputs that can be moved within its filesystem.

    Attributes:
        top: its path below the working directory; empty for that itself.
        outputs: the outputs.
    """

    top: str
    outputs: list[Placed]


def by_filesystem(directory: Path, outputs: Iterable[str]) -> list[Place]:
    """The outputs, by the filesystems that they are on.

    Nothing can be moved from one to another, and no mount point can be moved: what is in it can.
    Nearly always there is one, that of the working directory.
    """
    places: dict[str, Place] = {}
    for output in outputs:
        parts = output.split("/")
        depth = _mounted(directory, list(filter(None, fixed_part(output).split("/"))))
        top, within = "/".join(parts[:depth]), "/".join(parts[depth:]) or "*"
        places.setdefault(top, Place(top, [])).outputs.append(Placed(output, within))
    return list(places.values())


def _mounted(directory: Path, parts: list[str]) -> int:
    """How many parts lead to the last mount point on a path; 0 if there is none."""
    mounted = 0
    try:
        above = _mount(directory)
        for depth in range(1, len(parts) + 1):
            path = directory.joinpath(*parts[:depth])
            if not stat.S_ISDIR(path.lstat().st_mode):
                break
            here = _mount(path)
            if here != above:
                mounted, above = depth, here
    except OSError:
        pass  # what does not exist is no mount point
    return mounted


def _mount(path: Path) -> tuple[int, bytes]:
    """Identifies the mounted filesystem of a directory: on Linux also where it is mounted."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        with suppress(OSError):
            info = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
            return device, next((line for line in info.split(b"\n") if line[:4] == b"mnt_"), b"")
        return device, b""
    finally:
        os.close(descriptor)
