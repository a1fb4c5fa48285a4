"""What ``cachefs run`` and the Build API cost: ``python -m benchmarks.run``.

The no-op beside the bare interpreter, the first and second look at a tree of many files, packing
and unpacking beside ``tar | zstd``, and the memory that a large output takes. Each case runs in a
process of its own; the runs of ours and of the peer take turns, and medians are shown. Wall time
and CPU time, for a machine is rarely quiet.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import Measured

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = 50_000
RUNS = 9
PACKINGS = 5
LARGE = 2 * 2**30
RESULTS = Path(__file__).parent / "results" / "local" / "run.json"
_MIB = 2**20


def main() -> None:
    """Measure, print a line for each figure, and write all of them as JSON."""
    with tempfile.TemporaryDirectory(prefix="cachefs-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        # As an installed program runs: compiled once, not at every start.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        results = [*_no_op(folder), *_looks(folder), *_packings(folder), *_large(folder)]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": platform.machine(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps({**found, "results": results}, indent=1) + "\n")
    print(f"written to {RESULTS}")


# --- the no-op -----------------------------------------------------------------------------------


def _no_op(folder: Path) -> Iterator[dict[str, Any]]:
    (folder / "in").write_text("x")
    program = [sys.executable, "-c", "from cachefs.cli.main import main; main()", "run"]
    command = [*program, "--input=in", "--output=out", "--", "cp", "in", "out"]
    _spent(command, folder)
    tools = {"cachefs": command, "bare interpreter": [sys.executable, "-c", "pass"]}
    spent: dict[str, list[tuple[float, float]]] = {tool: [] for tool in tools}
    for _ in range(RUNS):
        for tool, words in tools.items():
            spent[tool].append(_spent(words, folder))
    for index, what in enumerate(("wall", "CPU")):
        ours, python = (statistics.median(run[index] for run in spent[tool]) for tool in tools)
        over = (ours - python) * 1000
        print(f"no-op run, {what}: {over:.0f} ms over the interpreter's {python * 1000:.0f} ms")
    for tool, runs in spent.items():
        seconds, cpu = zip(*runs, strict=True)
        yield {"work": "no-op run", "tool": tool, "seconds": seconds, "cpu": cpu}


def _spent(command: list[str], folder: Path) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- trees ---------------------------------------------------------------------------------------


def _looks(folder: Path) -> Iterator[dict[str, Any]]:
    root = folder / "tree"
    for index in range(FILES):
        if index % 100 == 0:
            below = root / str(index // 100)
            below.mkdir(parents=True)
        (below / str(index)).write_bytes(os.urandom(2048))
    time.sleep(0.2)  # files that were written just now are not remembered
    for name in ("first", "second"):
        runs = 1 if name == "first" else 3
        work = f"{name} look at {FILES:,} files"
        look = Measured(work, "cachefs", 1, 0, "look", lambda: {"folder": str(root)})
        for _ in range(runs):
            look.run()
        print(_line(look))
        yield look.result()
    shutil.rmtree(root)


# --- layers --------------------------------------------------------------------------------------


def _packings(folder: Path) -> Iterator[dict[str, Any]]:
    if not (shutil.which("tar") and shutil.which("zstd") and shutil.which("bash")):
        print("packing and unpacking: skipped, for there is no tar, zstd or bash here")
        return
    tree = _package(folder)
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    count = sum(path.is_file() for path in tree.rglob("*"))
    what = f"{count:,} files, {size / _MIB:.0f} MiB"
    for work in ("pack", "unpack"):
        pair = [_layer_case(folder, tree, work, tool, size, what) for tool in ("cachefs", "tar")]
        for _ in range(PACKINGS):
            for case in pair:
                shutil.rmtree(folder / "into", ignore_errors=True)
                case.run()
        ours, peer = (statistics.median(case.seconds) for case in pair)
        for case in pair:
            print(_line(case))
        print(f"{work}: {ours / peer:.2f} times the time of tar | zstd")
        yield from (case.result() for case in pair)


def _package(folder: Path) -> Path:
    """A copy of an installed package of many files and folders."""
    found = importlib.util.find_spec("botocore")
    if found is None or found.origin is None:
        sys.exit("the benchmark packs botocore, which comes with cachefs[s3]")
    return Path(shutil.copytree(Path(found.origin).parent, folder / "package"))


def _layer_case(folder: Path, tree: Path, work: str, tool: str, size: int, what: str) -> Measured:
    blob = str(folder / f"{tool}.zst")
    arguments = {"folder": str(tree), "blob": blob}
    if work == "unpack":
        arguments = {"blob": blob, "into": str(folder / "into")}
    case = work if tool == "cachefs" else f"tar {work}"
    name = "tar | zstd" if tool == "tar" else tool
    return Measured(f"{work} {what}", name, 1, size, case, lambda: arguments)


def _large(folder: Path) -> Iterator[dict[str, Any]]:
    root = folder / "large"
    root.mkdir()
    with (root / "output").open("wb") as file:
        for _ in range(LARGE // _MIB):
            file.write(os.urandom(_MIB // 2) + bytes(_MIB // 2))
    for work in ("pack", "unpack"):
        case = _layer_case(folder, root, work, "cachefs", LARGE, "an output of 2 GiB")
        shutil.rmtree(folder / "into", ignore_errors=True)
        case.run()
        print(f"{_line(case)}, {case.mib[0]:.0f} MiB of memory")
        yield case.result()


def _line(case: Measured) -> str:
    seconds, cpu = statistics.median(case.seconds), statistics.median(case.cpu)
    speed = f", {case.bytes / _MIB / seconds:.0f} MiB/s" if case.bytes else ""
    return f"{case.work}, {case.tool}: {seconds:.2f} s, CPU {cpu:.2f} s{speed}"


if __name__ == "__main__":
    main()
