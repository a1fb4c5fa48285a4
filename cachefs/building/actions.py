"""What steps do: commands and Python functions, and which parts of them belong to the key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachefs.building.processes import Process
from cachefs.errors import UsageError
from cachefs.keying.functions import check_call, function_key, is_deferred, label, unwrapped
from cachefs.keying.values import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    """A Python function that is called with its scratch directory, and with the parameters.

    Raises UsageError if it cannot be called so.

    Attributes:
        function: a function or a ``functools.partial`` of one. :func:`function_key` says what of
            it belongs to the key.
        version: part of the key; change it when code that the function calls changes.
        params: keyword arguments, part of the key.
    """

    function: Callable[..., object]
    version: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
    working_directory: Path | None = None
    logs: bool = False
    argv: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        inner = unwrapped(self.function)
        if is_deferred(inner):
            raise UsageError(
                f"{self.label} is an async function or a generator, which does not run when it is "
                "called: use a plain function"
            )
        check_call(self.function, Path(), **self.params)

    @property
    def label(self) -> str:
        """The function's name."""
        return label(self.function)

    @property
    def key(self) -> tuple[bytes, ...]:
        """What identifies the function, and the parameters. Raises UsageError."""
        key = function_key(self.function, self.version)
        if not self.params:
            return key
        params = {name: self.params[name] for name in sorted(self.params)}
        return (*key, b"params", canonical(params, f"params of {self.label}:"))

    def begin(
        self,
        directory: Path,
        environment: Mapping[str, str | None],  # noqa: ARG002 - a function has this process's
        output: Sink,  # noqa: ARG002 - and its output
    ) -> _Call:
        """The call, ready to run."""
        return _Call(partial(self.function, directory, **self.params))


class _Call:
    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def run(self) -> int:
        self._call()
        return 0

    def stop(self) -> None:
        """Do nothing: a Python function cannot be stopped."""

    def objection(self) -> str:
        """None: it ran in a directory of its own."""
        return ""
