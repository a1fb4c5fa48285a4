"""Glob patterns of inputs and outputs."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Final

Parts = tuple[str, ...]

_TOKEN: Final = re.compile(r"\[!?\]?[^]]*\]|.", re.DOTALL)
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


def may_overlap(one: str, other: str) -> bool:
    """Whether two relative paths or patterns may lead to the same, or one into what the other is.

    True if in doubt. A pattern that ends with a suffix is taken for one of files, which have
    nothing inside, and so is a path with a suffix if only ``**`` could lead into it.
    """
    first, second = _segments(one), _segments(other)

    def overlap(left: Parts, right: Parts) -> bool:
        if not left or not right:
            whole, rest = (second, left) if left else (first, right)
            return not (whole and rest and _is_file(whole[-1], rest[0]))
        if left[0] == "**" and overlap(left[1:], right):
            return True
        if right[0] == "**" and overlap(left, right[1:]):
            return True
        # ``**`` matches one name, and perhaps more.
        left_rest = left if left[0] == "**" else left[1:]
        right_rest = right if right[0] == "**" else right[1:]
        if (left_rest, right_rest) == (left, right):
            return False  # the last two conditions have tried all that differs
        return _may_be_one(left[0], right[0]) and overlap(left_rest, right_rest)

    return overlap(first, second)


def _segments(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part != ".")


def _is_file(name: str, inside: str) -> bool:
    return bool(PurePath(name).suffix) and (is_pattern(name) or inside == "**")


def _may_be_one(one: str, other: str) -> bool:
    """Whether some name matches both patterns of names."""

    def meet(left: list[str], right: list[str]) -> bool:
        if not left or not right:
            return all(one == "*" for one in left or right)
        if "*" in (left[0], right[0]):
            if right[0] != "*":
                left, right = right, left
            return meet(left, right[1:]) or meet(left[1:], right)
        return _may_be_one_character(left[0], right[0]) and meet(left[1:], right[1:])

    return meet(_TOKEN.findall(one), _TOKEN.findall(other))


def _may_be_one_character(one: str, other: str) -> bool:
    if is_pattern(one):
        one, other = other, one
    return is_pattern(one) or other.startswith("[^") or fnmatchcase(one, other)
