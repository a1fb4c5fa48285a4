"""``cachefs run`` in place of a shell: terminal, signals, scripts, open files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import on_terminal, run

RUN = [sys.executable, "-m", "cachefs", "run"]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _start(*words: str) -> subprocess.Popen[bytes]:
    """Start ``cachefs run`` as a shell starts a job: in a process group of its own."""
    return subprocess.Popen([*RUN, *words], stdout=subprocess.PIPE, process_group=0)


def _state(pid: int) -> str:
    """R, S, D, T (stopped) or Z as in ``ps``; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def _until(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within 30 s")


def _first_line(running: subprocess.Popen[bytes]) -> bytes:
    assert running.stdout is not None
    return running.stdout.readline().strip()


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["USR1", "USR2", "HUP", "TERM", "INT", "QUIT", "WINCH"])
def test_a_signal_to_the_program_reaches_the_command(name: str) -> None:
    # Traps run after the program that the shell waits for, so that one ends soon.
    script = f"trap 'exit 9' {name}; echo ready; while :; do sleep 0.1; done"
    with _start("--", "sh", "-c", script) as running:
        assert _first_line(running) == b"ready"
        running.send_signal(signal.Signals[f"SIG{name}"])
        assert running.wait(60) == 9


def test_the_status_of_a_command_that_a_signal_ended_is_that_of_a_shell() -> None:
    with _start("--", "sh", "-c", "echo ready; exec sleep 60") as running:
        _first_line(running)
        running.send_signal(signal.SIGUSR1)
        assert running.wait(60) == 128 + signal.SIGUSR1


def test_stopping_and_continuing_reach_the_command() -> None:
    with _start("--", "sh", "-c", "echo $$; exec sleep 60") as running:
        command = int(_first_line(running))
        running.send_signal(signal.SIGTSTP)
        _until(lambda: _state(command) == _state(running.pid) == "T")
        running.send_signal(signal.SIGCONT)
        _until(lambda: _state(command) == _state(running.pid) == "S")
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM


def test_killing_the_process_group_kills_the_command_and_its_children() -> None:
    with _start("--", "sh", "-c", "sleep 60 & echo $!; wait") as running:
        grandchild = int(_first_line(running))
        os.killpg(running.pid, signal.SIGKILL)
        assert running.wait(60) == -signal.SIGKILL
        _until(lambda: _state(grandchild) in ("", "Z"))


def test_what_a_command_leaves_in_the_background_goes_on() -> None:
    with _start("--", "sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!") as running:
        left = int(_first_line(running))
        assert running.wait(60) == 0
        assert _state(left) == "S"
        os.kill(left, signal.SIGKILL)


# --- terminals ----------------------------------------------------------------------------------

DESCRIBE = r"""
import os
os.write(1, f"{[os.isatty(n) for n in range(3)]} {os.get_terminal_size(1)}\n".encode())
os.write(2, b"to stderr\n")
os.close(os.open("/dev/tty", os.O_RDWR))
"""


def test_on_a_terminal_the_command_has_one_and_its_bytes_are_those_of_a_pipe() -> None:
    Path("in").touch()
    words = ("--input", "in", "--", sys.executable, "-c", DESCRIBE)
    done = on_terminal("run", *words, columns=93)
    shown = "[True, True, True] os.terminal_size(columns=93, lines=40)\n"
    assert done.status == 0
    assert sorted(done.out.splitlines(keepends=True)) == [shown, "to stderr\n"]
    replayed = subprocess.run([*RUN, *words], capture_output=True, check=True)
    assert (replayed.stdout, replayed.stderr) == (shown.encode(), b"to stderr\n")


def test_without_a_terminal_the_command_has_none() -> None:
    code = "import os; print([os.isatty(n) for n in range(3)])"
    done = subprocess.run(
        [*RUN, "--", sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"[False, False, False]\n"


COUNT = """
import signal, time
count = 0
def note(*_):
    global count
    count += 1
    print("noted", flush=True)
signal.signal(signal.SIGINT, note)
print("ready", flush=True)
end = time.monotonic() + 30
while not count and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(0.5)
raise SystemExit(40 + count)
"""


def test_ctrl_c_reaches_the_command_once() -> None:
    done = on_terminal("run", "--", sys.executable, "-c", COUNT, when="ready", typed=b"\x03")
    assert done.status == 41


# --- what is started ----------------------------------------------------------------------------


def _script(text: str, mode: int = 0o755) -> str:
    Path("script").write_text(text)
    Path("script").chmod(mode)
    return "./script"


def _status(*command: str) -> int:
    return run("run", "--", *command).status


def test_a_script_without_an_interpreter_line_runs() -> None:
    done = subprocess.run(
        [*RUN, "--", _script("echo $0 $1\n"), "a b"], capture_output=True, check=True
    )
    assert done.stdout == b"./script a b\n" or done.stdout.endswith(b"/script a b\n")
    assert _status(_script("")) == 0


def test_a_command_that_is_not_there_is_127() -> None:
    assert _status("no-such-command-here") == 127
    assert _status("./no-such-file") == 127


def test_a_command_that_cannot_be_executed_is_126() -> None:
    assert _status(_script("echo\n", mode=0o644)) == 126
    assert _status(_script("#!/no/such/interpreter\n")) == 126
    assert _status(_script("\x7fELF\0\0not for this machine")) == 126
    Path("folder").mkdir()
    assert _status("./folder") == 126
    assert stat.S_ISDIR(Path("folder").stat().st_mode)


def test_the_command_has_the_open_files_of_its_caller() -> None:
    read, write = os.pipe()
    os.write(write, b"given")
    os.close(write)
    done = subprocess.run(
        [*RUN, "--", "cat", f"/dev/fd/{read}"], pass_fds=[read], capture_output=True, check=True
    )
    os.close(read)
    assert done.stdout == b"given"
