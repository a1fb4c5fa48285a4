"""One operation of one contender, in a process of its own."""

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
    """What it took: wall and CPU seconds, and MiB at most."""

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
    """Run it.

    Args:
        contender: who.
        operation: the function of its module.
        arguments: its keywords.
        folder: where byte code and this machine's own caches go, shared by all runs.
        ready: called when it is about to begin; what it costs is not measured.

    Raises:
        RuntimeError: it failed; the message has what it said.
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
    """The last line that it prints."""
    if command.first is None:
        ready()  # it waits for nobody once it has been started
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
            os.killpg(child.pid, signal.SIGKILL)  # with what it has started
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
    """Nothing of the user's configuration; and compiled once, as an installed program is."""
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
