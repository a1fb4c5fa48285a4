"""``cachefs run``: a hit differs from a run only in the time it takes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import cachefs
from tests.programs import run_for_bytes

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = [sys.executable, "-c", "from cachefs.cli.main import main; main()", "run"]


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return run_for_bytes("run", *words, cwd=folder)


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
    (tmp_path / "out").unlink()  # what is in place is not fetched, not even to write it elsewhere
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


# --- reports ------------------------------------------------------------------------------------


def test_the_report_goes_to_a_file(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    (tmp_path / "in").touch()
    made = []
    for _ in range(2):
        done = _run(
            tmp_path,
            *("--report", str(report), "--input=in", "--output=out"),
            *("--", "sh", "-c", "echo x >out"),
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        made.append(json.loads(report.read_text()))
        (tmp_path / "out").unlink()
    assert [one["outcome"] for one in made] == ["ran", "hit"]
    assert [one["status"] for one in made] == [0, 0]
    assert made[0]["packed"] > 0
    assert made[0]["why"]
    assert made[1]["fetched"] == made[0]["packed"]
    _run(tmp_path, "--report", str(report), "--", "sh", "-c", "exit 7")
    failed = json.loads(report.read_text())
    assert (failed["outcome"], failed["status"]) == ("failed", 7)


# --- killed and concurrent runs -----------------------------------------------------------------

# The real program, except that it kills itself at one point while it replaces a directory.
KILLED = """
import os, signal, sys
from cachefs.layers.beneath import Beneath
from cachefs.cli.main import main

moment = sys.argv.pop(1)
exchange, rename = Beneath.exchange, Beneath.rename

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def killing_exchange(self, path, target, new):
    if moment == "before":
        end()
    if moment == "between":
        return False
    exchange(self, path, target, new)
    end()

def killing_rename(self, path, target, new):
    rename(self, path, target, new)
    if moment == "between" and path == (b"out",):
        end()

Beneath.exchange = killing_exchange
Beneath.rename = killing_rename
main()
"""


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".cachefs-")]


WORDS = ("--input", ".", "--output", "out", "--", "sh", "-c", "mkdir out; date +%s%N > out/when")


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_restore_killed_at_the_swap_leaves_a_whole_output(tmp_path: Path, moment: str) -> None:
    assert _run(tmp_path, *WORDS).returncode == 0
    new = _tree(tmp_path / "out")
    (tmp_path / "out" / "old").write_text("old")
    old = _tree(tmp_path / "out")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, moment, "run", *WORDS],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    # If the disk cannot exchange, the output is briefly absent, but never incomplete.
    expected = {"before": old, "between": {}, "after": new}[moment]
    assert _tree(tmp_path / "out") == expected
    assert _left(tmp_path)
    healed = _run(tmp_path, "--explain", *WORDS)
    assert healed.stderr.startswith(b"cachefs: hit\n")
    assert _tree(tmp_path / "out") == new
    assert not _left(tmp_path)


@pytest.mark.parametrize("shape", ["file", "directory"])
def test_a_restore_killed_while_it_extracts_leaves_the_old_output(
    tmp_path: Path, shape: str
) -> None:
    target = "out" if shape == "file" else "out/large"
    script = f"test {shape} = file || mkdir out; yes | head -c 200000000 > {target}"
    words = ("--output", "out", "--", "sh", "-c", script)
    assert _run(tmp_path, *words).returncode == 0
    (tmp_path / target).write_text("old")
    with subprocess.Popen([*PROGRAM, *words], cwd=tmp_path) as running:
        while running.poll() is None and not any(
            path.stat().st_size for path in tmp_path.glob(f".cachefs-*/*/{target}")
        ):
            time.sleep(0.0005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert (tmp_path / target).read_text() == "old"
    assert _left(tmp_path)
    assert _run(tmp_path, "--explain", *words).stderr.startswith(b"cachefs: hit")
    assert (tmp_path / target).stat().st_size == 200_000_000
    assert not _left(tmp_path)


def test_many_runs_at_once_in_checkouts_that_share_a_cache(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    checkouts = [tmp_path / f"checkout-{index}" for index in range(8)]
    words = ("--cache", cache, "--input=.", "--output=out", "--", "sh", "-c")
    script = "mkdir -p out; cat in in > out/copy; echo said"
    for checkout in checkouts:
        checkout.mkdir()
        (checkout / "in").write_text("data")
    _all_at_once([(checkout, (*words, script)) for checkout in checkouts])
    for checkout in checkouts:
        assert _tree(checkout / "out") == {"copy": b"datadata"}
    # And all in one directory, overwriting each other's outputs.
    _all_at_once([(checkouts[0], (*words, script)) for _ in checkouts])
    assert _tree(checkouts[0] / "out") == {"copy": b"datadata"}
    assert not _left(checkouts[0])
    opened = cachefs.open(cache)
    assert opened.names()
    assert opened.verify(read_data=1.0).faults == []


def _all_at_once(calls: list[tuple[Path, tuple[str, ...]]]) -> None:
    running = [
        subprocess.Popen(
            [*PROGRAM, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for folder, words in calls
    ]
    for one in running:
        said, errors = one.communicate(timeout=120)
        told = [line for line in errors.splitlines() if b"waiting for another" not in line]
        assert (said, told, one.returncode) == (b"said\n", [], 0)


# --- what counts as an input --------------------------------------------------------------------


def _explained(folder: Path, *words: str) -> str:
    done = _run(folder, "--cache", "cache", "--explain", *words, "--output", "out", "--", "true")
    return done.stderr.decode()


COPY = ("--output", "made/deep/out", "--", "sh", "-c", "mkdir -p made/deep; cp in made/deep/out")


def test_own_files_and_outputs_below_an_input_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "in").write_text("1")
    words = ("--cache", "cache", "--report", "report.json", "--input", ".", "--explain", *COPY)
    assert b"miss" in _run(tmp_path, *words).stderr
    again = _run(tmp_path, *words).stderr.decode()
    assert again.startswith("cachefs: hit\n")
    assert "left out of the inputs" in again
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["left_out"] == {
        "a cache": 1,
        "files of cachefs": 1,
        "the report": 1,
        "an output": 1,
    }


def test_what_is_ignored_does_not_count_unless_it_is_named(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.c").write_text("a")
    (tmp_path / ".gitignore").write_text("*.o\n")
    words = ("--input", "src", "--output", "out", "--explain", "--", "sh", "-c", "date +%N > out")
    assert b"miss" in _run(tmp_path, *words).stderr
    (src / "a.o").write_text("o")
    (src / "__pycache__").mkdir()
    (src / "__pycache__" / "x.pyc").write_text("x")
    assert _run(tmp_path, *words).stderr == (
        b"cachefs: hit\ncachefs: left out of the inputs: 1 (.gitignore), 1 (default)\n"
    )
    assert b"miss" in _run(tmp_path, "--no-ignore", *words).stderr
    assert b"miss" in _run(tmp_path, "--input", "src/a.o", *words).stderr
    (src / "a.o").write_text("p")
    assert b"src/a.o changed" in _run(tmp_path, "--input", "src/a.o", *words).stderr
    (src / "b.c").write_text("b")
    assert b"hit" in _run(tmp_path, "--exclude", "/src/b.*", *words).stderr


def test_a_glob_is_one_input_whatever_matches(tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "a.c").write_text("a")
    (tmp_path / "src" / "deep" / "a.h").write_text("a")
    words = ("--cache", "cache", "--input", "src/**/*.c", "--explain", "--", "echo", "x")
    _run(tmp_path, *words)
    (tmp_path / "src" / "deep" / "a.h").write_text("b")
    assert b"hit" in _run(tmp_path, *words).stderr
    (tmp_path / "src" / "b.c").write_text("b")
    assert b"input src/**/*.c changed: b.c added" in _run(tmp_path, *words).stderr
    # One command: the names of its two results differ in the digest of the inputs only.
    assert len({name.rpartition("-")[0] for name in _names(tmp_path)}) == 1
    assert len(_names(tmp_path)) == 2


def test_changes_while_the_command_ran_are_named(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_text("a")
    done = _run(tmp_path, "--input", "src", "--", "sh", "-c", "echo b >> src/a; echo c > src/c")
    assert b"(a changed, c added)" in done.stderr


# --- names --------------------------------------------------------------------------------------


def _names(folder: Path) -> list[str]:
    return [one.name for one in cachefs.open(folder / "cache").names()]


def test_concurrent_runs_of_one_command_lose_no_results(tmp_path: Path) -> None:
    checkouts = [tmp_path / str(index) for index in range(4)]
    words = ("--cache", "../cache", "--input=in", "--output=out", "--", "sh", "-c")
    script = "sleep 0.5; cp in out; echo said"
    for checkout in checkouts:
        checkout.mkdir()
        (checkout / "in").write_text(checkout.name)
    _all_at_once([(checkout, (*words, script)) for checkout in checkouts])
    assert len(_names(tmp_path)) == len(checkouts)
    for checkout in checkouts:
        assert _run(checkout, "--explain", *words, script).stderr.startswith(b"cachefs: hit")


def test_a_name_that_is_given_gathers_results(tmp_path: Path) -> None:
    words = ("--cache", "cache", "--name", "mine", "--input", "in", "--explain", "--", "echo", "x")
    for content in ("a", "b"):
        (tmp_path / "in").write_text(content)
        assert b"miss" in _run(tmp_path, *words).stderr
    for content in ("a", "b"):
        (tmp_path / "in").write_text(content)
        assert _run(tmp_path, *words).stderr.startswith(b"cachefs: hit")
    assert _names(tmp_path) == ["mine"]


# --- turns --------------------------------------------------------------------------------------


def _start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PROGRAM, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


HELD = "mkdir -p out; date +%N > out/when; echo ready; while ! test -e go; do sleep 0.05; done"


def _ready(running: subprocess.Popen[bytes]) -> None:
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"


@pytest.mark.parametrize("output", ["out", "out/when"])
def test_a_run_waits_for_one_that_makes_the_same_outputs(tmp_path: Path, output: str) -> None:
    (tmp_path / "in").touch()
    with _start(tmp_path, "--input=in", "--output=out", "--", "sh", "-c", HELD) as first:
        _ready(first)
        words = ("--input=in", f"--output={output}", "--explain", "--", "sh", "-c", HELD)
        with _start(tmp_path, *words) as second:
            assert second.stderr is not None
            assert b"waiting for another cachefs run" in second.stderr.readline()
            assert (tmp_path / "out" / "when").exists()
            (tmp_path / "go").touch()
            said, errors = second.communicate(timeout=120)
        assert (first.wait(60), second.returncode) == (0, 0)
    assert said == b"ready\n"
    assert errors.startswith(b"cachefs: hit" if output == "out" else b"cachefs: miss")
    assert (tmp_path / "out" / "when").exists()
    assert not _left(tmp_path)


def test_runs_with_other_outputs_or_inside_of_a_run_wait_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    with _start(tmp_path, "--input=in", "--output=out", "--", "sh", "-c", HELD) as first:
        _ready(first)
        other = ("--input=in", "--output=other", "--", "touch", "other")
        assert _run(tmp_path, *other).returncode == 0
        (tmp_path / "go").touch()
        assert first.wait(60) == 0
    inner = [*PROGRAM, "--input=in", "--output=outer/a", "--", "cp", "in", "outer/a"]
    script = f"mkdir outer; {shlex.join(inner)}"
    done = _run(tmp_path, "--input=in", "--output=outer", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_run_that_waits_can_be_interrupted(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    words = ("--input=in", "--output=out", "--", "sh", "-c", HELD)
    with _start(tmp_path, *words) as first:
        _ready(first)
        with _start(tmp_path, *words) as second:
            assert second.stderr is not None
            second.stderr.readline()
            second.terminate()
            assert second.wait(60) == 128 + signal.SIGTERM
        (tmp_path / "go").touch()
        assert first.wait(60) == 0


# --- environment variables ----------------------------------------------------------------------


def test_variables_are_named_matched_or_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--explain", "--", "sh", "-c", "echo $A $CI_X")
    monkeypatch.setenv("CI_X", "1")
    first = _run(tmp_path, "--env", "CI_*", "--env", "A=a b", *words)
    assert first.stdout == b"a b 1\n"
    again = _run(tmp_path, "--env", "CI_*", "--env", "A=a b", *words)
    assert (again.stdout, again.stderr) == (b"a b 1\n", b"cachefs: hit\n")
    assert _run(tmp_path, "--env", "CI_*", "--env", "A=c", *words).stdout == b"c 1\n"
    monkeypatch.setenv("CI_Y", "2")
    assert b"CI_Y is new" in _run(tmp_path, "--env", "CI_*", "--env", "A=a b", *words).stderr
    assert _run(tmp_path, "--cache", "in/x", "--env", "A=d", *words).stdout == b"d 1\n"
    refused = _run(tmp_path, "--env", "=x", "--", "true")
    assert refused.returncode == 2


def test_a_command_without_inputs_says_that_it_hits_forever(tmp_path: Path) -> None:
    words = ("--cache", "cache", "--", "echo", "x")
    assert b"without --input" in _run(tmp_path, *words).stderr
    assert _run(tmp_path, *words).stderr == b""
