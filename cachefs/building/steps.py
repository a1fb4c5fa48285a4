"""The graph of a build: sources, steps, and the parts of them that are inputs of other steps."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from cachefs.errors import CacheError, UsageError
from cachefs.keying.keys import Definition, selector
from cachefs.keying.selection import EVERYTHING, Selection
from cachefs.keying.sources import Content, bytes_content, lay_out, read_tree
from cachefs.layers.tarformat import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    from cachefs.building.actions import Action
    from cachefs.building.outputs import Outputs
    from cachefs.digest import Digest


logger = logging.getLogger("cachefs")

_SHOWN: Final = 5


class StepResults(Protocol):
    """What a step needs from the build that it belongs to."""

    def files(self, step: Step, /) -> dict[str, Path]:
        """A step's outputs on disk: :meth:`Step.files`."""

    def restore(self, step: Step, directory: Path, /) -> None:
        """Put a step's outputs into a directory: :meth:`Step.restore`."""


class StepError(CacheError):
    """A step failed. Its result is not kept, and the build is not exported.

    Attributes:
        step: the step's name.
        argv: its command, empty for a function.
        exit_code: its exit status, negative for a signal; None if it did not start.
        tail: the end of its output, standard output and error together.
    """

    def __init__(
        self,
        reason: str,
        *,
        step: str = "",
        argv: Sequence[str] = (),
        exit_code: int | None = None,
        tail: str = "",
    ) -> None:
        super().__init__(reason)
        self.step = step
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.tail = tail


class Named(Protocol):
    """A step, or what is known of it on a worker."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def action(self) -> Action:
        """What it does."""

    @property
    def outputs(self) -> Outputs:
        """What it makes."""


def failure(step: Named, reason: str, exit_code: int | None = None, tail: str = "") -> StepError:
    """The error for a step that failed."""
    what = "step" if step.action.working_directory is None else "command"
    last_output = f"; its last output: {tail.splitlines()[-1]}" if tail else ""
    return StepError(
        f"{what} {step.name!r} {reason}{last_output}",
        step=step.name,
        argv=step.action.argv,
        exit_code=exit_code,
        tail=tail,
    )


class Node:
    """An input of steps: all of it, or with ``/`` the part at a path in it."""

    def __truediv__(self, path: str) -> Part:
        return Part(self, checked_path(path))


class Source(Node):
    """A file, directory or bytes, addressed by content. Made by :meth:`Build.source`."""

    def __init__(
        self,
        origin: Path | bytes,
        selection: Selection = EVERYTHING,
    ) -> None:
        self._origin = origin
        self._selection = selection

    def __repr__(self) -> str:
        what = f"{len(self._origin)} bytes" if isinstance(self._origin, bytes) else self._origin
        return f"<Source {what}>"

    @cached_property
    def content(self) -> Content:
        """The source's content, read once; what it skips is told. Raises UsageError."""
        content = self.again()
        for what, names in (
            ("leaves out what no layer can hold or what cannot be read", content.skipped),
            ("has links to directories above them, which count as links", content.loops),
        ):
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                first = ", ".join(map(shown, names[:_SHOWN]))
                logger.warning("the input %s %s: %s%s", self._origin, what, first, more)
        return content

    def again(self) -> Content:
        """The source's content, read again. Raises UsageError."""
        if isinstance(self._origin, bytes):
            return bytes_content(self._origin)
        return read_tree(self._origin, self._selection)

    @property
    def digest(self) -> Digest:
        """The digest of the source's content. Raises UsageError."""
        return self.content.digest

    def lay_out(self, path: str, target: Path) -> None:
        """Copy the source, or the part at the path, to a new path. Raises UsageError."""
        if isinstance(self._origin, bytes):
            self.content.part(path)
            target.write_bytes(self._origin)
        else:
            lay_out(self._origin, self.content, path, target)


@dataclass(frozen=True)
class Part:
    """A source or step, and a path in it; the path is empty for all of it."""

    node: Node
    path: str = ""

    def __truediv__(self, path: str) -> Part:
        return Part(self.node, "/".join(filter(None, (self.path, checked_path(path)))))

    @property
    def selector(self) -> str:
        """The selector of links to this part."""
        return selector(self.path)


class Step(Node):
    """A step of a build, made by :meth:`Build.step`. It runs when its result is needed."""

    def __init__(
        self,
        build: StepResults,
        action: Action,
        inputs: Mapping[str, Part],
        outputs: Outputs,
        environment: Mapping[str, str | None],
        platform: str,
        name: str,
    ) -> None:
        self.name = name
        self.action = action
        self.inputs = dict(sorted(inputs.items()))
        self.outputs = outputs
        self.definition = Definition(
            action=action.key,
            inputs=tuple(self.inputs),
            outputs=tuple(outputs.required),
            optional=tuple(sorted(outputs.optional)),
            environment=environment,
            platform=platform,
        )
        self._build = build

    def __repr__(self) -> str:
        return f"<Step {self.name}>"

    @cached_property
    def vertex(self) -> Digest:
        """The digest of the definition."""
        return self.definition.digest()

    def files(self) -> dict[str, Path]:
        """The outputs on disk by their paths, readable until the build ends.

        Runs or pulls what is needed. Raises StepError, UsageError and OSError.
        """
        return self._build.files(self)

    def restore(self, directory: str | os.PathLike[str]) -> None:
        """Put the outputs into a directory; each replaces the old one when it is complete.

        Raises the same errors as :meth:`files`.
        """
        self._build.restore(self, Path(directory))


def as_part(value: Node | Part) -> Part:
    """Return an input as a part. Raises UsageError."""
    if isinstance(value, Part):
        return value
    if isinstance(value, Node):
        return Part(value)
    raise UsageError(f"{value!r} is not a source, a step or a part of one")


def checked_path(path: str) -> str:
    """A relative path without ``.`` and ``..``. Raises UsageError."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in path:
        raise UsageError(f"{path!r} is not a relative path inside the directory where it runs")
    return str(pure)


def check_apart(paths: Iterable[str], what: str) -> None:
    """Raise UsageError if a path occurs twice, or is below another."""
    seen: list[PurePosixPath] = []
    for path in sorted(map(PurePosixPath, paths)):
        if seen and (path == seen[-1] or seen[-1] in path.parents):
            raise UsageError(f"{what} {path} is inside {what} {seen[-1]}")
        seen.append(path)
