"""``cachefs run`` with the steps of a file: words, options, output, status, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cachefs.cli.main import program
from tests.programs import Ended, on_terminal, run, start

STEPS = """
cache = "../cache"

[steps.make]
command = "echo making; tr a-z A-Z < in > out"
inputs = ["in"]
outputs = ["out"]

[steps.use]
command = ["cat", "out"]
inputs = ["out"]

[steps.bad]
command = "echo oops >&2; exit 7"
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file."""
    directory = tmp_path / "project"
    (directory / "below").mkdir(parents=True)
    (directory / ".git").mkdir()
    (directory / "cachefs.toml").write_text(STEPS)
    (directory / "in").write_text("a\n")
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PWD", str(directory))  # so that it is restored
    return directory


def _call(*words: str) -> Result:
    return CliRunner().invoke(program, ["run", *words], standalone_mode=False)


def _run(*words: str) -> Ended:
    """``cachefs run`` in this process."""
    result = _call(*words)
    if result.exception is not None:
        raise result.exception
    return Ended(int(result.return_value or 0), result.stdout, result.stderr)


def _lines(ended: Ended) -> list[str]:
    """What it tells, without the seconds."""
    return [re.sub(r" (in|after) [0-9.]+ s$", "", line) for line in ended.err.splitlines()]


# --- which words are steps ------------------------------------------------------------------------


def test_all_words_are_names_and_options_may_follow() -> None:
    done = _run("use", "make", "--jobs", "1")
    assert (done.status, done.out) == (0, "making\nA\n")
    assert _lines(done) == [
        "cachefs: make: echo making; tr a-z A-Z < in > out",
        "cachefs: use: cat out",
        "cachefs: make: ran",
        "cachefs: use: ran",
        "cachefs: 2 steps: 2 ran",
    ]
    again = _run("use")
    assert (again.status, again.out) == (0, "making\nA\n")
    assert _lines(again)[-3:] == [
        "cachefs: make: hit",
        "cachefs: use: hit",
        "cachefs: 2 steps: 2 hit",
    ]


def test_after_two_dashes_the_words_are_a_command() -> None:
    done = _run("--", "echo", "use")
    assert (done.status, done.out) == (0, "use\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["maek"], "there is no step 'maek'; did you mean 'make'?"),
        (["make", "dist"], "there is no step 'dist'; there are: make, use, bad"),
        (["echo", "hi"], "a command is given after --, as in cachefs run -- echo hi"),
        (["make", "--", "x"], "there is no step 'x'"),
        (["make", "--input", "in"], "--input is for a command"),
        (["--no-ignore", "make"], "--no-ignore is for a command"),
        (["--incremental", "make"], "--incremental is for a command"),
        (["--follow", "make"], "--follow is for a command"),
        (["--name", "x", "make"], "--name is for a command"),
        (["--env", "X", "make"], "--env is for a command"),
        (["-j", "2", "--", "true"], "--jobs is for the steps of a file"),
        (["-k", "--", "true"], "--keep-going is for the steps of a file"),
    ],
)
def test_what_is_neither_is_refused(words: list[str], message: str) -> None:
    assert message in str(_call(*words).exception)


def test_a_command_with_its_options_needs_no_dashes() -> None:
    done = _run("--input", "in", "cat", "in")
    assert (done.status, done.out) == (0, "a\n")


def test_without_a_file_words_are_a_command(project: Path) -> None:
    (project / "cachefs.toml").unlink()
    assert _run("echo", "make").out == "make\n"
    assert "Missing argument" in str(_call().exception)
    assert "there is no cachefs.toml here" in str(_call("-j", "1", "make").exception)


def test_without_words_the_steps_are_listed_and_secrets_are_masked(project: Path) -> None:
    with (project / "cachefs.toml").open("a") as file:
        file.write('[steps.push]\ncommand = "push --token=hunter2"\nneeds = ["make"]\n')
    done = _call()
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("step", "make", "use", "bad", "push")
    ]
    assert "push --token=***" in done.stdout


def test_names_of_steps_are_completed() -> None:
    environment = {"COMP_WORDS": "cachefs run m", "COMP_CWORD": "2"}
    done = run(env=os.environ | environment | {"_CACHEFS_COMPLETE": "bash_complete"})
    assert done.out.split() == ["plain,make"]


def test_a_file_that_is_not_valid_stops_every_run(project: Path) -> None:
    (project / "cachefs.toml").write_text("cahce = 'x'\n")
    for words in (["make"], ["--", "true"], []):
        assert "did you mean 'cache'" in str(_call(*words).exception)


# --- defaults -------------------------------------------------------------------------------------


def test_paths_in_the_file_are_relative_to_it_wherever_it_is_used_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project / "below")
    done = _run("make", "--report", "report.json")
    assert done.status == 0
    assert (project / "out").read_text() == "A\n"
    report = json.loads((project / "below" / "report.json").read_text())
    assert report["status"] == 0
    (step,) = report["steps"]
    assert (step["name"], step["outcome"], step["status"]) == ("make", "ran", 0)
    listed = json.loads(run("ls", "--json").out)
    assert len(listed) == 1
    assert (project.parent / "cache").is_dir()


def test_option_then_variable_then_file_say_where_the_cache_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run("--", "true")
    assert (project.parent / "cache").is_dir()
    monkeypatch.setenv("CACHEFS_CACHE", str(project.parent / "variable"))
    _run("--", "true")
    assert (project.parent / "variable").is_dir()
    _run("--cache", "../option", "--", "true")
    assert (project.parent / "option").is_dir()


def test_one_location_is_enough_for_copy_where_the_file_names_another(project: Path) -> None:
    _run("make")
    assert run("copy", "../other").status == 0
    assert json.loads(run("ls", "../other", "--json").out) != []


def test_policies_of_the_file_are_defaults(project: Path) -> None:
    text = (project / "cachefs.toml").read_text()
    (project / "cachefs.toml").write_text("write = false\n" + text)
    _run("make")
    assert not (project.parent / "cache").exists()
    (project / "cachefs.toml").write_text('ttl = "0s"\n' + text)
    _run("make")
    assert _lines(_run("make"))[-1] == "cachefs: make: ran"
    assert _lines(_run("make", "--ttl", "1d"))[-1] == "cachefs: make: hit"
    (project / "cachefs.toml").write_text('ttl = "1 year"\n' + text)
    assert "ttl '1 year' is not a valid duration" in str(_call("make").exception)


def test_a_location_that_is_not_valid_is_told_with_the_file(project: Path) -> None:
    (project / "cachefs.toml").write_text('cache = "type=s3,bukket=x"\n')
    assert f"{project / 'cachefs.toml'}: " in str(_call("--", "true").exception)


# --- failures, dry runs ---------------------------------------------------------------------------


def test_the_status_is_that_of_the_first_step_that_failed() -> None:
    done = _run("bad", "use", "-j1", "--keep-going")
    assert done.status == 7
    assert "oops\n" in done.err
    assert _lines(done)[-3:] == [
        "cachefs: bad: failed with status 7",
        "cachefs: use: ran",
        "cachefs: 3 steps: 2 ran, 1 failed",
    ]


def test_a_dry_run_says_what_would_run_and_runs_nothing(project: Path) -> None:
    done = _run("use", "--dry-run")
    assert done.status == 0
    assert "cachefs: make: would run" in done.err
    assert _lines(done)[-2:] == [
        "cachefs: use: not known before make has ended",
        "cachefs: 2 steps: 1 would run, 1 not known",
    ]
    assert not (project / "out").exists()
    _run("use")
    done = _run("use", "--dry-run")
    assert "its outputs are in place" in done.err
    assert _lines(done)[-1] == "cachefs: 2 steps: 2 would hit"
    (project / "out").write_text("something else")
    done = _run("use", "--dry-run")
    assert "cachefs: make: would hit: from " in done.err
    assert _lines(done)[-2] == "cachefs: use: not known before make has ended"


# --- standard streams and signals -----------------------------------------------------------------


def test_steps_have_no_standard_input_and_the_terminal_for_their_output(project: Path) -> None:
    code = "import os; print([os.isatty(n) for n in range(3)], os.environ['PWD'] == os.getcwd())"
    step = f"[steps.see]\ncommand = [{json.dumps(sys.executable)}, '-c', {json.dumps(code)}]\n"
    (project / "cachefs.toml").write_text(step)
    assert "[False, True, True] True" in on_terminal("run", "see").out
    with subprocess.Popen(
        [sys.executable, "-m", "cachefs", "run", "--force", "see"],
        cwd=project / "below",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.communicate()[0] == b"[False, False, False] True\n"


def test_the_output_of_steps_side_by_side_is_not_mixed(project: Path) -> None:
    """The second one ends while the first, which writes as it goes, still runs."""
    (project / "cachefs.toml").write_text(
        "[steps.first]\n"
        'command = "echo 1; touch one; until [ -e two ]; do sleep 0.01; done; sleep 1; echo 3"\n'
        "[steps.second]\n"
        'command = "until [ -e one ]; do sleep 0.01; done; echo a; echo b; touch two"\n'
    )
    done = run("run", "-j2", "first", "second")
    assert done.out == "1\na\nb\n3\n"
    titles = [line.split()[1] for line in done.err.splitlines() if "sleep" in line]
    assert titles == ["first:", "second:", "first:"]


def test_a_signal_reaches_every_step_and_ends_the_run(project: Path) -> None:
    (project / "cachefs.toml").write_text(
        "".join(
            f"[steps.{name}]\ncommand = \"trap 'exit 9' TERM; sleep 0.3; touch {name}; "
            'while :; do sleep 0.05; done"\n'
            for name in "ab"
        )
        + '[steps.c]\ncommand = "touch c"\nneeds = ["a", "b"]\n'
    )
    with start("run", "c", "-j2") as process:
        while not ((project / "a").exists() and (project / "b").exists()):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 9
    assert "cachefs: 3 steps: 2 failed, 1 not run" in err
    assert not (project / "c").exists()
