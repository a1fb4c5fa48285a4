"""What of a directory counts as an input, compared with what git itself ignores."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachefs import UsageError
from cachefs.keying.selection import Selection, Walk
from cachefs.keying.sources import read_tree


def _fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(name)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = _fill(tmp_path / "root", "a.c", "b.h", "sub/c.c", "sub/deep/d.o", "empty/")
    (root / "link").symlink_to("a.c")
    return root


def _names(root: Path, **selection: Any) -> set[str]:
    return {name.decode() for name in read_tree(root, Selection(**selection)).entries}


EVERYTHING = {"a.c", "b.h", "sub", "sub/c.c", "sub/deep", "sub/deep/d.o", "empty", "link"}


def test_patterns_say_what_counts(root: Path) -> None:
    assert _names(root) == EVERYTHING
    assert _names(root, exclude=["/empty", "*.c"]) == {
        "b.h",
        "sub",
        "sub/deep",
        "sub/deep/d.o",
        "link",
    }
    assert _names(root, include=["*.c"]) == {"a.c", "sub", "sub/c.c"}
    assert _names(root, include=["/*.c"]) == {"a.c"}
    assert _names(root, include=["sub/**/d.?"]) == {"sub", "sub/deep", "sub/deep/d.o"}
    assert _names(root, include=["/sub/deep"]) == {"sub", "sub/deep", "sub/deep/d.o"}
    assert _names(root, exclude=["sub/"]) == {"a.c", "b.h", "empty", "link"}


def test_a_directory_counts_unless_all_below_it_was_left_out(root: Path) -> None:
    assert _names(root, exclude=["*.o"]) == EVERYTHING - {"sub/deep", "sub/deep/d.o"}
    assert _names(root, exclude=["*.o", "*.c"]) == {"b.h", "empty", "link"}


def test_version_control_and_bytecode_do_not_count(root: Path) -> None:
    _fill(root, ".git/HEAD", "sub/__pycache__/x.pyc", "other/__pycache__/y.pyc", ".hg/store")
    assert _names(root) == EVERYTHING
    assert read_tree(root, Selection()).left_out == {"default": 4}
    assert ".git/HEAD" in _names(root, ignore=False)
    (root / ".gitignore").write_text("/*\n!/*/\n")  # as in projects that list what is theirs
    assert _names(root) == {"sub", "sub/c.c", "sub/deep", "sub/deep/d.o", "empty"}


def test_ignore_files_above_and_below_count(tmp_path: Path) -> None:
    repository = _fill(tmp_path / "repo", "x/a.o", "x/b.c", "x/y/a.o", "x/y/keep.o", ".git/HEAD")
    (tmp_path / ".gitignore").write_text("*\n")
    (repository / ".gitignore").write_text("*.o\n/x/b.c\n")
    (repository / "x" / "y" / ".gitignore").write_text("!keep.o\n")
    assert _names(repository / "x") == {"y", "y/.gitignore", "y/keep.o"}
    content = read_tree(repository / "x", Selection())
    assert content.left_out == {"../.gitignore": 3}
    assert _names(repository / "x", ignore=False) >= {"a.o", "b.c", "y/a.o"}


def test_without_a_repository_the_working_directory_is_the_top(tmp_path: Path) -> None:
    _fill(tmp_path, "project/src/a.o", "project/src/a.c")
    (tmp_path / ".gitignore").write_text("*\n")
    (tmp_path / "project" / ".gitignore").write_text("*.o\n")
    assert _names(tmp_path / "project/src", base=tmp_path / "project") == {"a.c"}
    assert _names(tmp_path / "project/src") == {"a.c", "a.o"}


def test_cachefsignore_has_the_last_word_and_exclude_overrides_both(root: Path) -> None:
    (root / ".gitignore").write_text("*.c\n.*ignore\n")
    (root / ".cachefsignore").write_text("!c.c\n")
    assert _names(root) == EVERYTHING - {"a.c"}
    assert _names(root, exclude=["*.c"]) == EVERYTHING - {"a.c", "sub/c.c"}
    assert _names(root, exclude=["!a.c"]) == EVERYTHING


def test_what_is_named_counts_even_if_it_is_ignored(tmp_path: Path) -> None:
    _fill(tmp_path / "repo", "build/a", "build/b.log", "build/build/c", ".git/HEAD")
    (tmp_path / "repo" / ".gitignore").write_text("build/\n*.log\n")
    # The pattern that named the input is not used below it; others are.
    assert _names(tmp_path / "repo" / "build") == {"a", "build", "build/c"}


def test_patterns_that_are_not_valid(root: Path) -> None:
    (root / ".cachefsignore").write_text("!\n*.c\n.cachefsignore\n")
    assert _names(root) == EVERYTHING - {"a.c", "sub/c.c"}
    with pytest.raises(UsageError, match="pattern"):
        _names(root, exclude=["!"])


def test_an_ignore_file_that_is_no_file_is_not_read(root: Path) -> None:
    (root / ".gitignore").symlink_to("/dev/zero")
    (root / "sub" / ".gitignore").mkdir()
    assert _names(root) == EVERYTHING | {".gitignore", "sub/.gitignore"}


def test_only_directories_that_can_match_are_scanned(root: Path) -> None:
    scanned: list[str] = []

    def scan(above: str) -> Iterator[tuple[str, os.stat_result]]:
        scanned.append(above)
        for path in (root / above).iterdir():
            yield path.name, path.lstat()

    assert [name for name, _ in Walk(root, Selection(include=["/*.c"]), scan)] == ["a.c"]
    assert scanned == [""]
    scanned.clear()
    assert [name for name, _ in Walk(root, Selection(include=["/sub/*.c"]), scan)] == ["sub/c.c"]
    assert sorted(scanned) == ["", "empty", "sub"]


LINES = st.lists(
    st.one_of(
        st.sampled_from(["*.o", "/a", "b/", "!a", "!b/", "a/b", "**/c", "a/**", "?", "[ab]", "/*"]),
        st.text(alphabet="ab*/?!# ", max_size=5),
    ),
    max_size=4,
)
TREES = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "x.o"]), min_size=1, max_size=3).map("/".join),
    min_size=1,
    max_size=6,
)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@settings(max_examples=25)
@given(top=LINES, below=LINES, tree=TREES)
def test_ignore_files_mean_what_they_mean_to_git(
    tmp_path_factory: pytest.TempPathFactory, top: list[str], below: list[str], tree: list[str]
) -> None:
    root = tmp_path_factory.mktemp("repository")
    for name in tree:
        path = root / name
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            _fill(root, name)
    (root / ".gitignore").write_text("\n".join(top) + "\n")
    if (root / "a").is_dir():
        (root / "a" / ".gitignore").write_text("\n".join(below) + "\n")
    git = ["git", "-c", "core.excludesFile=/dev/null"]
    subprocess.run([*git, "init", "-q", "."], cwd=root, check=True)
    listing = subprocess.run(
        [*git, "ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    files = {name for name in listing.stdout.decode().split("\0") if name}
    assert {name for name in _names(root) if (root / name).is_file()} == files
