"""Azurite, Microsoft's server of the Azure blob protocol, if npm has installed it."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ACCOUNT = "devstoreaccount1"
# The well-known key of Azurite, for test servers only.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_QUIET = ("--skipApiVersionCheck", "--disableTelemetry")
_LISTENING = re.compile(r"listens on (http://\S+)")


def azurite_program() -> str | None:
    """The program, from the PATH or from an ``npm install azurite`` in this folder."""
    here = Path(__file__).parents[2] / "node_modules" / ".bin" / "azurite-blob"
    return str(here) if here.exists() else shutil.which("azurite-blob")


@contextlib.contextmanager
def azurite(program: str, folder: Path) -> Iterator[str]:
    """Run Azurite on a free port and give its account URL."""
    process = subprocess.Popen(
        [program, "--blobHost", "127.0.0.1", "--blobPort", "0", "--location", folder, *_QUIET],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := _LISTENING.search(line):
                yield f"{found[1]}/{ACCOUNT}"
                return
        raise RuntimeError("Azurite ended before it listened")
    finally:
        process.kill()  # asked to end, it would wait for connections that clients keep open
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
