"""Run one Python operation: ``python -m benchmarks.child MODULE OPERATION``.

Reads its arguments as a line of JSON, prepares, prints ``ready``, waits for a line, does the work,
and prints its figures as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Prepare the operation given on the command line, measure it, and print the figures."""
    module, operation = sys.argv[1:]
    arguments = json.loads(sys.stdin.readline())
    work = getattr(importlib.import_module(module), operation)(**arguments)
    print("ready", flush=True)
    sys.stdin.readline()
    _forget_peak()
    seconds, cpu = time.perf_counter(), _cpu()
    made = work()  # kept alive: freeing it is not part of the work
    figures = {"seconds": time.perf_counter() - seconds, "cpu": _cpu() - cpu, "mib": _peak()}
    del made
    print(json.dumps(figures), flush=True)
    # obstore's threads may still deliver results while Python shuts down, and abort it.
    os._exit(0)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _forget_peak() -> None:
    """Reset the peak: preparing is not part of the work. Only Linux can do this."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak memory in MiB. Not ``ru_maxrss``: on Linux a new process starts with its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # In bytes, outside Linux.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
