"""Glob patterns: which of them may lead to the same files."""

from __future__ import annotations

import re

import pathspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.keying.patterns import ignore_pattern, may_overlap

OVERLAPPING = [
    ("dist/*.js", "dist/app.*"),
    ("dist", "dist/*.js"),
    (".", "dist/*.js"),
    ("d*/app.js", "dist/*.js"),
    ("*/app.js", "dist"),
    ("src/**/*.c", "src/gen/*.c"),
    ("src/**", "src/a/*.so"),
    ("**/*.o", "build"),
    ("packages/*", "packages/*/x.js"),
    ("pkg.egg-info", "pkg.egg-info/*"),
    ("a[bc]", "a[cd]"),
    ("a[!b]", "ac"),
    ("a?", "ab*"),
    ("**", "x.js"),
    ("a/**/b", "a/b"),
    ("**/a.*", "x/**/*.js"),
    ("a*b", "aXXb"),
    ("**/**/x", "y/x"),
]

APART = [
    ("dist/*.js", "dist/*.css"),
    ("src/**/*.py", "src/*.so"),
    ("src/**/*.py", "src/*/x.so"),
    ("**/*.o", "bin/app.js"),
    ("a[bc]", "ad"),
    ("a[!b]", "ab"),
    ("a?", "a"),
    ("dist", "dist2/*"),
    ("a*b", "a*c"),
    ("lib/**", "src/**"),
    ("../x", "dist/*"),
]


@pytest.mark.parametrize("pair", [*OVERLAPPING, *APART])
def test_two_patterns_may_lead_to_the_same_or_not(pair: tuple[str, str]) -> None:
    assert may_overlap(*pair) == (pair in OVERLAPPING)
    assert may_overlap(*reversed(pair)) == (pair in OVERLAPPING)


SEGMENTS = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "?", "[ab]", "[!a]", "**", "a?b"])
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
PATHS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@given(PATTERNS, PATTERNS, PATHS)
def test_patterns_that_match_one_path_overlap(one: str, other: str, path: str) -> None:
    """What matches a directory matches all below it, so this covers one that leads into another."""
    if all(_matches(pattern, path) for pattern in (one, other)):
        assert may_overlap(one, other)


def _matches(pattern: str, path: str) -> bool:
    if not re.search(r"[*?\[]", pattern):
        return path == pattern or path.startswith(f"{pattern}/")
    return pathspec.GitIgnoreSpec.from_lines([ignore_pattern(pattern)]).match_file(path)
