"""Patterns for names in a tree: ``*`` and ``?`` within a name, ``**`` across directories.

A pattern with no slash, except at its end, matches at any depth; others start at the root. A
pattern that matches a directory matches everything below it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Patterns:
    """A set of patterns. ``[abc]`` and ``[!abc]`` match one character."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._expressions = [re.compile(_translated(pattern), re.DOTALL) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._expressions)

    def match(self, name: str) -> bool:
        """Whether a pattern matches the name, or a directory that leads to it."""
        return any(expression.match(name) for expression in self._expressions)


def _translated(pattern: str) -> str:
    body = pattern.removeprefix("./").strip("/")
    anywhere = "/" not in body and not pattern.startswith(("/", "./"))
    return ("(?:.*/)?" if anywhere else "") + _body(body) + r"(?:/|\Z)"


def _body(pattern: str) -> str:
    made = []
    for chunk in re.findall(r"\*\*/|\*\*|\[!?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if chunk == "**/":
            made.append("(?:.*/)?")
        elif chunk == "**":
            made.append(".*")
        elif chunk == "*":
            made.append("[^/]*")
        elif chunk == "?":
            made.append("[^/]")
        elif len(chunk) > 1:
            made.append(_class(chunk))
        else:
            made.append(re.escape(chunk))
    return "".join(made)


def _class(chunk: str) -> str:
    inner = chunk[1:-1]
    negated = inner.startswith("!")
    inner = "".join(c if c == "-" else re.escape(c) for c in inner[negated:])
    return f"(?!/)[{'^' if negated else ''}{inner}]"
