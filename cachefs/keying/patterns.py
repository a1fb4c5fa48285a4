"""Glob patterns of inputs and outputs."""

from __future__ import annotations

import re
from typing import Final

_MAGIC: Final = re.compile(r"[*?\[]")
_ESCAPED: Final = re.compile(r"\\| (?= *\Z)")
"""What ``.gitignore`` patterns do not take literally, but glob patterns do."""


def is_pattern(text: str) -> bool:
    """Whether this is a glob pattern: it has ``*``, ``?`` or ``[``."""
    return _MAGIC.search(text) is not None


def literal(path: str) -> str:
    """A pattern that matches this path and nothing else."""
    return _MAGIC.sub(r"[\g<0>]", path)


def split_pattern(pattern: str) -> tuple[str, str]:
    """The directory above all that a pattern matches, and the rest as an ignore pattern for it."""
    parts = pattern.split("/")
    magic = next(index for index, part in enumerate(parts) if is_pattern(part))
    return "/".join(parts[:magic]), ignore_pattern("/".join(parts[magic:]))


def fixed_part(path: str) -> str:
    """A path, or the directory above all that a pattern matches."""
    return split_pattern(path)[0] if is_pattern(path) else path


def ignore_pattern(pattern: str) -> str:
    """A glob pattern as one of ``.gitignore`` in the directory that it is relative to."""
    return "/" + _ESCAPED.sub(r"\\\g<0>", pattern)
