"""What an installed cachefs must do: ``python -I smoke.py`` in an empty directory.

``nox -s package`` runs this where only the built wheel or sdist is installed, without the tests'
libraries and without this repository.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import cachefs

PROGRAM = Path(sysconfig.get_path("scripts")) / "cachefs"
STEP = ["run", "--cache", "cache", "--input", "in", "--output", "out", "--report", "report.json"]


def program(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the installed command, which must end with this status."""
    done = subprocess.run([PROGRAM, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != status:
        sys.exit(f"cachefs {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done


def check(fact: bool, what: str) -> None:
    """End with an error unless the fact holds; -O would remove assertions."""
    if not fact:
        sys.exit(f"smoke test: {what}")


def main() -> None:
    """Cache a step, inspect it, copy it and verify the copy, from the shell and from Python."""
    installed = Path(cachefs.__file__).parent
    check(installed.is_relative_to(sys.prefix), f"cachefs is imported from {installed}")
    check((installed / "py.typed").exists(), "type checkers do not see the types: no py.typed")
    for name in cachefs.__all__:
        getattr(cachefs, name)
    check(program("--version").stdout == f"cachefs {cachefs.__version__}\n", "another version")

    Path("in").write_text("hello")
    for expected in ("ran", "hit"):
        program(*STEP, "--", "sh", "-c", "tr a-z A-Z < in > out")
        outcome = json.loads(Path("report.json").read_text())["outcome"]
        check(outcome == expected, f"the step {outcome}, not {expected}")
        check(Path("out").read_text() == "HELLO", "the output is not what the command wrote")
        Path("out").unlink()
    program("copy", "cache", "type=local,dest=oci")
    program("verify", "type=local,src=oci", "--read-data=100%")
    check(len(cachefs.open("cache").names()) == 1, "the name of the step is not in its cache")

    # Each engine is an extra; without it the error says what to install.
    refused = program("ls", "type=s3,bucket=builds,region=us-east-1", status=2)
    check("pip install 'buildcachefs[s3]'" in refused.stderr, f"no advice: {refused.stderr}")


if __name__ == "__main__":
    main()
