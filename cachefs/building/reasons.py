"""Errors as parts of sentences."""

from __future__ import annotations

import os


def reason(error: Exception) -> str:
    """What went wrong, and with which file, without the number that OSError begins with."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    name = error.filename
    return error.strerror if name is None else f"{os.fsdecode(name)}: {error.strerror}"


def ended(status: int) -> str:
    """How a command failed, by its exit status, which is negative for a signal."""
    return f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
