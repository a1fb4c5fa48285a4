"""What steps do: commands and Python functions, and which parts of them belong to the key."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cachefs.building.processes import Process
from cachefs.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Sink = Callable[[int, bytes], None]
    """Takes a chunk of output: the stream's number (1 or 2) and the bytes."""


class Running(Protocol):
    """An action that is ready to run, or running."""

    def run(self) -> int:
        """Run to the end and return the exit status: 0 for success. Blocks."""

    def stop(self) -> None:
        """Make :meth:`run` return soon, if possible. May be called from any thread."""

    def objection(self) -> str:
        """After a success, why the outputs cannot be kept; empty if they can."""


class Action(Protocol):
    """What a step does."""

    @property
    def key(self) -> tuple[bytes, ...]:
        """What identifies the action."""

    @property
    def label(self) -> str:
        """The action's name in reports."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of a command, empty for a function."""

    @property
    def working_directory(self) -> Path | None:
        """The directory in which the action always runs; None for a scratch directory."""

    @property
    def logs(self) -> bool:
        """Whether the action's output is part of its result."""

    def begin(
        self, directory: Path, environment: Mapping[str, str | None], output: Sink
    ) -> Running:
        """The action, ready to run in this directory."""


@dataclass(frozen=True)
class Command:
    """A command that runs in a scratch directory, with a small environment."""

    argv: tuple[str, ...]
    working_directory: Path | None = None
    logs: bool = False

    @property
    def key(self) -> tuple[bytes, ...]:
        """The command's words."""
        return (b"command", *map(os.fsencode, self.argv))

    @property
    def label(self) -> str:
        """The command line."""
        return " ".join(self.argv)

    def begin(
        self, directory: Path, environment: Mapping[str, str | None], output: Sink
    ) -> Process:
        """The command, ready to run, with PATH and the variables that the step declares."""
        home = str(directory.parent)
        known = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "TMPDIR": home,
            "LC_ALL": "C.UTF-8",
        }
        declared = {name: value for name, value in environment.items() if value is not None}
        return Process(self.argv, directory, known | declared, output)


@dataclass(frozen=True)
class Function:
    """A Python function that is called with its scratch directory.

    Keyed by its qualified name, its source text and the version. Change the version when anything
    else that it depends on changes: what it imports and calls, and global variables.
    """

    function: Callable[[Path], object]
    version: str = ""
    working_directory: Path | None = None
    logs: bool = False
    argv: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The function's name."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def key(self) -> tuple[bytes, ...]:
        """The function's name, source and version.

        Raises UsageError for anything but a plain function, and for closures and default values
        without a version.
        """
        import inspect  # noqa: PLC0415 - slow to load, and only functions need it

        function = self.function
        if not inspect.isfunction(function):
            raise UsageError(f"{function!r} is neither a command nor a plain Python function")
        if (function.__closure__ or function.__defaults__) and not self.version:
            raise UsageError(
                f"{self.label} depends on values that are not in its source; give version="
            )
        try:
            source = textwrap.dedent(inspect.getsource(function)).encode()
        except OSError:
            source = function.__code__.co_code + repr(function.__code__.co_consts).encode()
        return (b"function", self.label.encode(), source, self.version.encode())

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],  # noqa: ARG002 - a function has this process's
        output: Sink,  # noqa: ARG002 - and its output
    ) -> _Call:
        """The call, ready to run."""
        return _Call(self.function, directory)


class _Call:
    def __init__(self, function: Callable[[Path], object], directory: Path) -> None:
        self._function = function
        self._directory = directory

    def run(self) -> int:
        self._function(self._directory)
        return 0

    def stop(self) -> None:
        """Do nothing: a Python function cannot be stopped."""

    def objection(self) -> str:
        """None: it ran in a directory of its own."""
        return ""
