"""What ``cachefs run`` and the Build API cost: ``python -m benchmarks.run``.

The no-op beside the bare interpreter (wall and CPU, for a machine is rarely quiet), and the first
and second look at a tree of many files.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 20_000
RUNS = 9


def main() -> None:
    """Measure, and print a line for each figure."""
    with tempfile.TemporaryDirectory(prefix="cachefs-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        # As an installed program runs: compiled once, not at every start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        _no_op(Path(folder))
        _tree(Path(folder, "tree"))


def _no_op(folder: Path) -> None:
    (folder / "in").write_text("x")
    program = [sys.executable, "-c", "from cachefs.cli.main import main; main()", "run"]
    command = [*program, "--input=in", "--output=out", "--", "cp", "in", "out"]
    _spent(command, folder)
    cached = [_spent(command, folder) for _ in range(RUNS)]
    bare = [_spent([sys.executable, "-c", "pass"], folder) for _ in range(RUNS)]
    for index, what in enumerate(("wall", "CPU")):
        ours, python = (statistics.median(run[index] for run in runs) for runs in (cached, bare))
        over = (ours - python) * 1000
        print(f"no-op run, {what}: {over:.0f} ms over the interpreter's {python * 1000:.0f} ms")


def _spent(command: list[str], folder: Path) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _tree(root: Path) -> None:
    from cachefs.building.sources import read_tree

    for index in range(FILES):
        if index % 100 == 0:
            folder = root / str(index // 100)
            folder.mkdir(parents=True)
        (folder / str(index)).write_bytes(os.urandom(2048))
    time.sleep(0.2)  # files that were written just now are not remembered
    for look in ("first", "second"):
        started = time.perf_counter()
        read_tree(root)
        print(f"{look} look at {FILES:,} files: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
