"""What is no regular file, where one of the user's or the project's is expected, stops nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cachefs.keying import selection
from tests.programs import run

KINDS: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on(tmp_path: Path, kind: str) -> None:
    """A pipe made it wait for ever, and a device took all memory."""
    project = tmp_path / "project"
    project.mkdir()
    home = tmp_path / "home"
    env = {**os.environ, "XDG_CACHE_HOME": str(home)}
    words = ["run", "--cache", str(tmp_path / "cache"), "--input", "in"]
    words += ["--output", "out", "--explain", "--", "sh", "-c", "cat in > out"]

    def outcome(text: str) -> str:
        (project / "in").write_text(text)
        ended = run(*words, cwd=project, env=env)
        assert ended.status == 0, ended.err
        return ended.err

    outcome("1")
    for path in [path for path in home.rglob("*") if path.is_file()]:
        path.unlink()
        KINDS[kind](path)
    assert "miss" in outcome("2")
    assert run("stats", env=env).status == 0
    shutil.rmtree(home)


@pytest.mark.parametrize("kind", KINDS)
def test_patterns_are_read_of_files_only(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / ".gitignore")
    assert not list(selection._read(tmp_path / ".gitignore"))
