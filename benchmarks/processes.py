"""Running one operation of one contender in a separate process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.contenders import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.contenders import Contender

_HERE = Path(__file__).parent


class Figures(NamedTuple):
    """What a run took: wall and CPU seconds, and peak memory in MiB."""

    seconds: float
    cpu: float
    mib: float


def run(
    contender: Contender,
    operation: str,
    arguments: Mapping[str, Any],
    folder: Path,
    ready: Callable[[], object] = lambda: None,
) -> Figures:
    """Run an operation and measure it.

    Args:
        contender: what runs it.
        operation: the function in the contender's module.
        arguments: its keyword arguments.
        folder: directory for byte code and per-user caches, shared by all runs.
        ready: called right before the measured work; not measured itself.

    Raises:
        RuntimeError: the process failed; the message contains its standard error.
    """
    arguments = {**contender.options, **arguments}
    module = f"benchmarks.contenders.{contender.module}"
    if contender.program:
        command = getattr(importlib.import_module(module), operation)(**arguments)
    else:
        words = [sys.executable, "-m", "benchmarks.child", module, operation]
        command = Command(words, folder=str(_HERE.parent), first=json.dumps(arguments))
    if command.first is None:
        words = [sys.executable, "-I", "-S", str(_HERE / "launch.py"), *command.words]
        command = dataclasses.replace(command, words=words)
    figures = json.loads(_said(command, folder, ready))
    return Figures(*(figures[name] for name in Figures._fields))


def _said(command: Command, folder: Path, ready: Callable[[], object]) -> str:
    """Run the command and return the last line of its output."""
    if command.first is None:
        ready()  # the program does not wait after it has been started
    with (
        tempfile.TemporaryFile("w+", dir=folder) as errors,
        subprocess.Popen(
            command.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**_environment(folder), **command.environment},
            cwd=command.folder,
            start_new_session=True,
        ) as child,
    ):
        try:
            said = _talk(child, command.first, ready)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # including its children
            raise
        if child.returncode or not said:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command.words)}: {errors.read()[-2000:]}")
        return said.splitlines()[-1]


def _talk(child: subprocess.Popen[str], first: str | None, ready: Callable[[], object]) -> str:
    if first is not None:
        with contextlib.suppress(BrokenPipeError):
            print(first, file=child.stdin, flush=True)
            if child.stdout is not None and child.stdout.readline() == "ready\n":
                ready()
    said, _ = child.communicate(None if first is None else "go\n")
    return said


def _environment(folder: Path) -> dict[str, str]:
    """Without the user's configuration, and with byte code compiled once, as if installed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "RCLONE_", "CACHEFS_", "PYTHON", "S3_", "FSSPEC_"))
    }
    return kept | {
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(folder),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "XDG_CACHE_HOME": str(folder / "caches"),
    }
