"""Standard streams that are closed, full, slow or left by their reader: the work is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import cachefs

PROGRAM = [sys.executable, "-m", "cachefs"]
RUN = ["run", "--cache", "kept", "--input", "in", "--output", "o", "--"]
NUMBERS = "".join(f"{number}\n" for number in range(100_000)).encode()
HAS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@pytest.fixture(autouse=True)
def place(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a cache."""
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    (tmp_path / "in").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell in which ``$C`` is the program."""
    line = f"C='{sys.executable} -m cachefs'; {command}"
    return subprocess.run(
        ["sh", "-c", line],  # noqa: S607 - wherever it is
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_stop_the_work(place: Path, closed: str) -> None:
    copied = shell(f"$C copy cache copied {closed}")
    assert (copied.returncode, copied.stderr) == (0, "")
    assert cachefs.open("copied").verify(read_data=1.0).faults == []
    assert len(cachefs.open("copied").names()) == 2
    listed = shell(f"$C ls cache {closed}")
    assert (listed.returncode, listed.stderr) == (0, "")
    ran = shell(f"$C {' '.join(RUN)} sh -c 'echo said; echo said >&2; echo x > o' {closed}")
    assert ran.returncode == 0
    assert (place / "o").read_text() == "x\n", "nothing else was written to the file"
    assert len(cachefs.open("kept").names()) == 1


def test_a_question_that_nobody_can_answer_is_a_mistake() -> None:
    asked = shell("$C prune cache --keep-last 1 <&-")
    assert asked.returncode == 2
    assert "there is no terminal to ask on" in asked.stderr


@HAS_FULL
@pytest.mark.parametrize("verb", ["ls", "ls --json", "show", "du", "graph --name app", "verify"])
def test_output_that_cannot_be_written_is_one_error(verb: str) -> None:
    ended = shell(f"$C {verb} cache > /dev/full")
    assert ended.returncode == 1
    assert ended.stderr == (
        "cachefs: error: cannot write to standard output: No space left on device; "
        "what was printed is incomplete\n"
    )


@HAS_FULL
def test_what_changes_a_cache_is_done_although_its_report_is_lost(place: Path) -> None:
    pruned = shell("$C prune cache --keep-last '*=1' --grace 0s --yes > /dev/full")
    assert pruned.returncode == 1
    assert pruned.stderr.startswith("cachefs: error: cannot write to standard output")
    assert len(cachefs.open("cache").names()) == 1
    ran = shell(f"$C {' '.join(RUN)} sh -c 'echo said; echo x > o' > /dev/full")
    assert ran.returncode == 1
    assert ran.stderr.startswith("cachefs: error: cannot write to standard output")
    assert (place / "o").exists()
    (place / "o").unlink()
    hit = shell(f"$C {' '.join(RUN)} sh -c 'echo said; echo x > o'")
    assert (hit.returncode, hit.stdout) == (0, "said\n"), "the log was kept in full"


@HAS_FULL
def test_messages_that_cannot_be_written_stop_nothing(place: Path) -> None:
    ran = shell(f"$C {' '.join(RUN)} sh -c 'echo said >&2; echo x > o' 2> /dev/full")
    assert (ran.returncode, (place / "o").exists()) == (0, True)
    assert shell("$C ls nothing-here --json 2> /dev/full").stdout


def test_a_reader_that_leaves_stops_nothing(place: Path) -> None:
    pruned = shell("$C prune cache --keep-last '*=1' --grace 0s --yes | true")
    assert (pruned.returncode, pruned.stderr) == (0, "")
    assert len(cachefs.open("cache").names()) == 1
    script = "seq 100000; echo x > o"
    ran = shell(f"{{ $C {' '.join(RUN)} sh -c '{script}'; echo $? > status; }} | head -1")
    assert (ran.stdout, ran.stderr) == ("1\n", "")
    assert (place / "status").read_text() == "0\n"
    again = shell(f"$C {' '.join(RUN)} sh -c '{script}'")
    assert len(again.stdout.splitlines()) == 100_000, "the log was kept in full"


@pytest.mark.parametrize("descriptor", [1, 2])
@pytest.mark.parametrize("hit", [False, True])
def test_nothing_is_lost_in_a_pipe_that_does_not_block(descriptor: int, hit: bool) -> None:
    words = [*RUN, "sh", "-c", f"seq 0 99999 >&{descriptor}; echo x > o"]
    if hit:
        subprocess.run([*PROGRAM, *words], check=True, capture_output=True, timeout=120)
    ended, read = piped(words, descriptor)
    assert (ended, read) == (0, NUMBERS)


def test_a_whole_document_fits_through_a_pipe_that_does_not_block(place: Path) -> None:
    for number in range(40):
        shutil.copy(place / "cache/manifests/app", place / f"cache/manifests/{number}")
    ended, read = piped(["show", "cache", "--json"], 1)
    assert (ended, len(json.loads(read))) == (0, 42)


def piped(words: list[str], descriptor: int) -> tuple[int, bytes]:
    """Run the program with a pipe as this descriptor, non-blocking, whose reader is slow."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    streams = {1: "stdout", 2: "stderr"}
    begin = threading.Event()
    found = bytearray()

    def read() -> None:
        begin.wait(2.0)  # the pipe fills up first
        while data := os.read(reading, 4096):
            found.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    with subprocess.Popen([*PROGRAM, *words], **{streams[descriptor]: writing}) as process:  # type: ignore[call-overload]
        os.close(writing)
        process.wait(120)
    thread.join(60)
    os.close(reading)
    return process.returncode, bytes(found)
