"""The cost of starting: whole processes, with byte code compiled as if installed."""

from __future__ import annotations

import sys

from benchmarks.contenders import Command

PROGRAM = "import sys; from cachefs.cli.main import main; sys.exit(main())"


def nothing(folder: str) -> Command:
    return Command([sys.executable, "-c", "pass"], folder=folder)


def importing(folder: str) -> Command:
    return Command([sys.executable, "-c", "import cachefs"], folder=folder)


def help_(folder: str) -> Command:
    return Command([sys.executable, "-c", PROGRAM, "--help"], folder=folder)


def no_op(folder: str) -> Command:
    """A step whose result is cached and whose output is there."""
    step = ["run", "--input=in", "--output=out", "--", "cp", "in", "out"]
    return Command([sys.executable, "-c", PROGRAM, *step], folder=folder)
