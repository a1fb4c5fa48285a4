"""``cachefs run`` in this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cachefs.building.report import StepReport
from cachefs.running.command import UserCommand, run_cached
from cachefs.running.policy import Policy


class Ran(NamedTuple):
    """What was reported, and what the command or its log said."""

    report: StepReport
    said: bytes

    @property
    def outcome(self) -> str:
        return self.report.outcome


def run(
    place: Path,
    script: str,
    *outputs: str,
    inputs: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    incremental: bool = False,
    follow: bool = False,
    cache: str | None = None,
    policy: Policy | None = None,
    variables: tuple[str, ...] = (),
) -> Ran:
    """Run a shell script in a directory, with the cache next to that by default."""
    said: list[bytes] = []

    def hear(_stream: int, data: bytes) -> None:
        said.append(data)

    action = UserCommand(["sh", "-c", script], place, hear, incremental=incremental)
    report = run_cached(
        action,
        policy=policy or Policy(cache=(cache or str(place.parent / "cache"),), name="run"),
        inputs=inputs,
        outputs=outputs,
        optional=optional,
        follow=follow,
        variables=variables,
        replay=hear,
    )
    return Ran(report, b"".join(said))


PROGRAM = [sys.executable, "-m", "cachefs", "run", "--cache", "../cache", "--explain"]

NOBODY = ["--user", "--map-user=12345", "--map-group=12345"]
"""Options for :func:`in_namespace`: a user who is not root, and owns the files of this one."""


def in_namespace(
    place: Path, options: list[str], script: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """A shell with rights that others do not have, or without those that root has.

    ``"$@"`` in the script are the words, by default the program.
    """
    inside = ["unshare", *options]
    try:
        allowed = subprocess.run([*inside, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        allowed = 1
    if allowed != 0:
        pytest.skip("namespaces are not allowed here")
    return subprocess.run(
        [*inside, "sh", "-c", script, "sh", *(words or PROGRAM)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
