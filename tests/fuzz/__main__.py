"""Fuzz the targets: ``python -m tests.fuzz --runs 100000 manifest``, or all without a name.

Coverage guides the inputs (atheris, which is libFuzzer for Python). Inputs that reach other code
are kept in ``tests/fuzz/corpus``. A crash ends it: the input is printed in base64; add it to the
target's file there, and its test fails until the fault is mended.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT_BYTES = 2048
"""Longer inputs are not kept."""

KEPT_INPUTS = 150


def main() -> int:
    """Fuzz each target in a process of its own, because libFuzzer ends the process."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    arguments = parser.parse_args()
    return max(_fuzzed(target, arguments.runs) for target in arguments.target or TARGETS)


def _fuzzed(target: str, runs: int) -> int:
    from tests.fuzz.corpus import keep, kept

    with tempfile.TemporaryDirectory(prefix="cachefs-fuzz-") as temporary:
        folder = Path(temporary, "inputs")
        folder.mkdir()
        for data in kept(target):
            (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
        began = time.monotonic()
        options = [f"-runs={runs}", "-max_len=4096", "-timeout=60", "-rss_limit_mb=2048"]
        result = _child(target, temporary, *options, folder)
        seconds = time.monotonic() - began
        crashes = [path.read_bytes() for path in Path(temporary).glob("*-*")]
        found = sorted((path.read_bytes() for path in folder.iterdir()), key=len)
        keep(target, [data for data in found if len(data) <= KEPT_BYTES][:KEPT_INPUTS])
    print(f"{target}: {runs} inputs in {seconds:.0f} s, {len(crashes)} crashes", flush=True)
    for crash in crashes:
        print(f"  {base64.b64encode(crash).decode()}")
    if result.returncode:
        print(result.stdout[-3000:], result.stderr[-1000:])
    return 1 if crashes or result.returncode else 0


def _child(target: str, folder: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.child", target, *map(str, arguments)]
    return subprocess.run(
        [*command, f"-artifact_prefix={folder}/"], check=False, capture_output=True, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
