"""``cachefs run``: the second time costs nothing, and nobody can tell but by the clock."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = [sys.executable, "-c", "from cachefs.cli.main import main; main()", "run"]


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*PROGRAM, *words], check=False, cwd=folder, capture_output=True, timeout=120
    )


SCRIPT = (
    "echo one; echo two >&2; mkdir -p out; cat in > out/copy; date +%s%N > out/when; echo three"
)


def test_the_second_run_restores_and_replays(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\0data")
    words = ("--input", "in", "--output", "out", "--explain", "--", "sh", "-c", SCRIPT)
    first = _run(tmp_path, *words)
    when = (tmp_path / "out" / "when").read_bytes()
    (tmp_path / "out" / "extra").touch()
    second = _run(tmp_path, *words)
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout == b"one\nthree\n"
    assert first.stderr.startswith(b"two\ncachefs: miss")
    assert second.stderr == b"two\ncachefs: hit\n"
    assert (tmp_path / "out" / "when").read_bytes() == when
    assert (tmp_path / "out" / "copy").read_bytes() == b"\0data"
    assert not (tmp_path / "out" / "extra").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]

    (tmp_path / "in").write_bytes(b"other")
    third = _run(tmp_path, *words)
    assert b"input in changed" in third.stderr
    (tmp_path / "in").write_bytes(b"\0data")
    assert _run(tmp_path, *words).stderr.endswith(b"cachefs: hit\n")
    assert (tmp_path / "out" / "when").read_bytes() == when


def test_a_failing_command_is_not_kept(tmp_path: Path) -> None:
    for _ in range(2):
        done = _run(tmp_path, "--", "sh", "-c", "echo x >> log; echo no >&2; exit 7")
        assert (done.returncode, done.stderr) == (7, b"no\n")
    assert (tmp_path / "log").read_text() == "x\nx\n"
    assert _run(tmp_path, "--", "no-such-command-here").returncode == 127


def test_branch_first_then_main_and_one_is_written(tmp_path: Path) -> None:
    main, branch = str(tmp_path / "main"), str(tmp_path / "branch")
    command = ("--output", "out", "--explain", "--", "sh", "-c", "date +%N > out")
    assert b"miss" in _run(tmp_path, "--cache", main, *command).stderr
    assert b"hit" in _run(tmp_path, "--cache", branch, "--cache", main, *command).stderr
    assert b"hit" in _run(tmp_path, "--cache", branch, *command).stderr


def test_signals_reach_the_command(tmp_path: Path) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; sleep 60 & wait"
    with subprocess.Popen(
        [*PROGRAM, "--", "sh", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == b"caught\n"
        assert running.wait(60) == 9
    with subprocess.Popen(
        [*PROGRAM, "--", "sh", "-c", "echo ready; exec sleep 60"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 128 + signal.SIGINT


def test_an_unwritable_cache_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _run(tmp_path, "--cache", str(tmp_path / "file" / "below"), "--", "echo", "x")
    assert (done.returncode, done.stdout) == (0, b"x\n")
    assert b"warning" in done.stderr


def test_inputs_that_change_meanwhile_spoil_the_result(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a")
    words = ("--input", "in", "--explain", "--", "sh", "-c", "echo b >> in")
    assert b"not kept" in _run(tmp_path, *words).stderr
    (tmp_path / "in").write_text("a")
    assert b"miss" in _run(tmp_path, *words).stderr


def test_an_input_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    done = _run(tmp_path, "--input", "*.none", "--", "true")
    assert done.returncode == 2
    assert b"no file matches" in done.stderr
