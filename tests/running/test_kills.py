"""Killed at any moment: what lay at the outputs comes back, and the next run mends the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trees
from tests.running.in_place import run
from tests.trees import File

KILLER = """
import os, signal, sys
left = int(sys.argv.pop(1))
def dying(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
from cachefs.layers import beneath
exchanged = dying(beneath._exchanged) if sys.argv.pop(1) == "exchange" else lambda *_: False
beneath._exchanged = exchanged
os.rename = dying(os.rename)
from cachefs.cli.main import main
main()
"""
"""cachefs that is killed before or after one of the steps that move outputs."""

OUTPUTS = ("one", "two", "*.o")
BEFORE: trees.Tree = {"one": {"old": File(b"old")}, "two": File(b"old"), "a.o": File(b"old")}
AFTER: trees.Tree = {"one": File(b"new\n"), "two": {}, "b.o": File(b"new\n")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", BEFORE)


def _killed(place: Path, moment: int, how: str, script: str) -> bool:
    words = [word for output in OUTPUTS for word in ("--output", output)]
    words += ["--cache", "../cache", "--name", "run", "--", "sh", "-c", script]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(moment), how, "run", *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, 3, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL


def _again(place: Path) -> trees.Tree:
    """What is there before the command of the next run."""
    run(place, "true")
    return trees.read(place)


@pytest.mark.parametrize("moment", [1, 2, 4, 6, 7, 8, 9, 10, 12, 13, 14, 16, 18])
def test_a_run_that_is_killed_leaves_what_was_there(place: Path, moment: int) -> None:
    script = "echo partial > one; mkdir two; echo x > b.o; exit 3"
    assert _killed(place, moment, "exchange", script)
    assert _again(place) == BEFORE


@pytest.mark.parametrize("how", ["exchange", "rename"])
@pytest.mark.parametrize("moment", [1, 2, 4, 5, 7, 8, 10])
def test_a_killed_restore_is_mended_by_the_next(place: Path, moment: int, how: str) -> None:
    script = "echo new > one; mkdir two; echo new > b.o"
    other = trees.write(place.parent / "other", {})
    run(other, script, *OUTPUTS)
    assert _killed(place, moment, how, script)
    assert run(place, script, *OUTPUTS).outcome == "hit"
    assert trees.read(place) == AFTER
