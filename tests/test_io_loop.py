"""The loop in which everything runs is one loop, whoever made it."""

from __future__ import annotations

import subprocess
import sys


def passes(program: str) -> None:
    """Run a program in a process of its own: this one has loaded fsspec."""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


BEGUN = """
import asyncio, os, sys
from cachefs.concurrency import run
from cachefs.io_loop import begin_without_fsspec, io_loop, loaded_fsspec

async def loop():
    return asyncio.get_running_loop()

begin_without_fsspec()
first = run(loop())
assert "fsspec" not in sys.modules
assert run(loop()) is first
"""


def test_fsspec_takes_the_loop_over() -> None:
    passes(
        BEGUN + "fsspec = loaded_fsspec()\n"
        "assert fsspec.asyn.get_loop() is first is io_loop()\n"
        "assert run(loop()) is first\n"
        "assert fsspec.filesystem('memory').pipe('/a', b'b') is None\n"
    )


def test_a_loop_that_fsspec_has_already_stays_its_loop() -> None:
    passes(
        "import fsspec.asyn\n"
        "theirs = fsspec.asyn.get_loop()\n"
        "from cachefs.io_loop import begin_without_fsspec, io_loop\n"
        "begin_without_fsspec()\n"
        "assert io_loop() is theirs\n"
    )


def test_a_library_begins_with_the_loop_of_fsspec() -> None:
    passes(
        "import fsspec.asyn\n"
        "from cachefs.io_loop import io_loop\n"
        "assert io_loop() is fsspec.asyn.get_loop()\n"
    )


FORKED = """
child = os.fork()
if child == 0:
    os._exit(run(loop()) is first)
assert os.waitpid(child, 0)[1] == 0
assert run(loop()) is first
"""


def test_a_forked_process_has_a_loop_of_its_own() -> None:
    passes(BEGUN + FORKED)


def test_a_forked_process_has_a_loop_of_its_own_when_fsspec_took_it_over() -> None:
    passes(BEGUN + "loaded_fsspec()" + FORKED)
