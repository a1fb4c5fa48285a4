"""Standard input: part of the key, or noticed when the command reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trees

RUN = [sys.executable, "-m", "cachefs", "run", "--cache", "../cache", "--explain"]
NOTICED = "not kept: the command read its standard input"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trees.write(tmp_path / "place", {})


def _run(place: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A shell script, in which ``"$@"`` is cachefs with these words."""
    return subprocess.run(
        ["sh", "-c", script, "sh", *RUN, *words],  # noqa: S607
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_declared_input_is_part_of_the_key(place: Path) -> None:
    words = ("--stdin", "--output", "out", "--", "sh", "-c", "cat > out")
    big = "head -c 3000000 /dev/zero | tr '\\0' x"
    done = _run(
        place,
        f'echo 1 | "$@"; cat out; echo 2 > f; "$@" < f; cat out; "$@" < f; "$@" < /dev/null; '
        f'"$@" <&-; wc -c < out; {big} | "$@"; wc -c < out; {big} | "$@"',
        *words,
    )
    assert done.stdout.split() == ["1", "2", "0", "3000000"]
    told = [line.split(": ") for line in done.stderr.splitlines()]
    outcomes = [words[1] for words in told if not words[-1].startswith("compared")]
    assert outcomes == ["miss", "miss", "hit", "miss", "hit", "miss", "hit"], done.stderr


@pytest.mark.parametrize("stdin", ["echo some | ", "(sleep 1; echo some) | ", "echo some > f; <f "])
def test_what_is_read_undeclared_is_not_kept(place: Path, stdin: str) -> None:
    words = ("--output", "out", "--", "sh", "-c", "cat > out; cat out")
    done = _run(place, f'{stdin} "$@"; {stdin} "$@"', *words)
    assert done.stdout == "some\nsome\n"
    assert done.stderr.count(NOTICED) == 2
    assert "--stdin" in done.stderr


@pytest.mark.parametrize("stdin", [": | ", "echo unread | ", "echo unread > f; <f ", "<&- "])
def test_what_is_not_read_is_kept(place: Path, stdin: str) -> None:
    script = "true" if "unread" in stdin else "cat"
    words = ("--output", "out", "--", "sh", "-c", f"{script}; echo x > out")
    done = _run(place, f'{stdin} "$@"; {stdin} "$@"', *words)
    assert NOTICED not in done.stderr
    assert "cachefs: hit" in done.stderr


def test_what_the_command_does_not_read_is_left_to_others(place: Path) -> None:
    """Such as the loop of a shell that runs it for each line."""
    done = _run(
        place,
        'printf "1\\n2\\n3\\n" | while read n; do "$@" "echo got $n"; done; '
        'printf "1\\n2\\n3\\n4\\n" | { read n; "$@" "dd bs=1 count=2 2> /dev/null"; cat; }',
        "--",
        "sh",
        "-c",
    )
    assert done.stdout == "got 1\ngot 2\ngot 3\n2\n3\n4\n"
    assert done.stderr.count(NOTICED) == 1


def test_much_that_is_read_undeclared_arrives(place: Path) -> None:
    data = os.urandom(1_500_000)
    (place / "data").write_bytes(data)
    _run(place, 'cat data | "$@"', "--output", "out", "--", "sh", "-c", "cat > out")
    assert (place / "out").read_bytes() == data
