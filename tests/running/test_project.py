"""``cachefs.toml``: where it is looked for, and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachefs.errors import UsageError
from cachefs.running.project import find_project

STEP = '[steps.build]\ncommand = "make"\n'


def _write(directory: Path, text: str, name: str = "cachefs.toml") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


# --- finding --------------------------------------------------------------------------------------


def test_the_nearest_file_up_to_the_root_of_the_repository_counts(tmp_path: Path) -> None:
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    inside = tmp_path / "repository" / "a" / "b"
    inside.mkdir(parents=True)
    _write(tmp_path, STEP)  # outside of the repository
    assert find_project(inside) is None
    root = _write(tmp_path / "repository", STEP)
    found = find_project(inside)
    assert found is not None
    assert found.file == root
    near = _write(tmp_path / "repository" / "a", STEP)
    found = find_project(inside)
    assert found is not None
    assert (found.file, found.directory) == (near, near.parent)


def test_outside_of_a_repository_only_the_directory_itself_counts(tmp_path: Path) -> None:
    _write(tmp_path, STEP)
    (tmp_path / "below").mkdir()
    assert find_project(tmp_path) is not None
    assert find_project(tmp_path / "below") is None


def test_the_tables_may_be_in_pyproject_toml(tmp_path: Path) -> None:
    shared = _write(tmp_path, '[tool.cachefs]\ncache = "c"\n', "pyproject.toml")
    with shared.open("a") as file:
        file.write('[tool.cachefs.steps.build]\ncommand = ["make"]\n')
    found = find_project(tmp_path)
    assert found is not None
    assert found.settings.caches == (["c"], [], [])
    assert found.steps["build"].argv == ("make",)
    own = _write(tmp_path, STEP)
    found = find_project(tmp_path)
    assert found is not None
    assert found.file == own


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "not TOML at all", "# cachefs\n"])
def test_a_pyproject_toml_of_others_says_nothing(tmp_path: Path, text: str) -> None:
    _write(tmp_path, text, "pyproject.toml")
    assert find_project(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody")
def test_a_file_that_somebody_put_into_a_shared_directory_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, STEP)
    os.chown(path, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to user 12345"):
        find_project(tmp_path)
    os.chown(tmp_path, 12345, 12345)  # a checkout of that user
    assert find_project(tmp_path) is not None


# --- reading --------------------------------------------------------------------------------------


def test_a_string_is_a_script_that_ends_with_its_first_failure(tmp_path: Path) -> None:
    _write(tmp_path, '[steps.a]\ncommand = "x | y"\nenv = {A = "1", B = "2"}\n')
    found = find_project(tmp_path)
    assert found is not None
    assert found.steps["a"].argv == ("sh", "-e", "-c", "x | y")
    assert found.steps["a"].variables == ["A=1", "B=2"]


MISTAKES = {
    "comand = 'x'": r"\[steps.a\] has an unknown key 'comand'; did you mean 'command'\?",
    "command = 'x'\nzzz = 1": r"\[steps.a\] has an unknown key 'zzz'; there are: command, inputs",
    "": r"\[steps.a\] has no command",
    "command = ''": r"\[steps.a\] command is empty",
    "command = []": r"\[steps.a\] command is empty",
    "command = 3": r"\[steps.a\] command must be a string or a list, not an integer",
    "command = ['x', 3]": r"\[steps.a\] command\[1\] must be a string, not an integer",
    "command = 'x'\ninputs = 'src'": r"\[steps.a\] inputs must be a list, not a string",
    "command = 'x'\nenv = {A = 1}": r"\[steps.a\] env must be a string, not an integer",
    "command = 'x'\nignore = 'no'": r"\[steps.a\] ignore must be true or false, not a string",
    "command = 'x'\nneeds = ['b']": r"step 'a' needs 'b': there is no step 'b'",
    "command = 'x'\noutputs = ['../b']": r"output that is not below the file: '../b'",
    "command = 'x'\noutputs = ['/etc']": r"output that is not below the file",
    "command = 'x'\noutputs = ['b', './b']": r"make the same output 'b'",
    "command = 'x'\noutputs = ['b', 'b/c']": r"the output 'b/c' of step 'a' is inside",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_in_a_step_name_file_table_and_key(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, f"[steps.a]\n{text}\n")
    with pytest.raises(UsageError, match=MISTAKES[text]) as caught:
        find_project(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stps = 1", "unknown key 'stps'; did you mean 'steps'"),
        ("jobs = 0", "jobs must be an integer >= 1"),
        ("cache = 3", "cache must be a string or a list, not an integer"),
        ("steps = 3", r"steps must be tables, as in \[steps.build\]"),
        ("[steps]\na = 3", r"\[steps.a\] must be a table"),
        ("[steps.'a b']\ncommand = 'x'", "'a b' cannot be the name of a step"),
        ("[steps.-a]\ncommand = 'x'", "'-a' cannot be the name of a step"),
        ("x = [", "is not valid TOML"),
        ("x = '\x00'", "is not valid TOML"),
    ],
)
def test_other_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    _write(tmp_path, text)
    with pytest.raises(UsageError, match=message):
        find_project(tmp_path)


def test_mistakes_below_tool_cachefs_name_the_whole_table(tmp_path: Path) -> None:
    _write(tmp_path, "[tool.cachefs.steps.a]\ncommand = 1\n", "pyproject.toml")
    with pytest.raises(UsageError, match=r"pyproject.toml: \[tool.cachefs.steps.a\] command"):
        find_project(tmp_path)
    _write(tmp_path, "[tool]\ncachefs = 1\n", "pyproject.toml")
    with pytest.raises(UsageError, match=r"tool.cachefs must be a table"):
        find_project(tmp_path)


def test_values_are_not_shown_in_errors(tmp_path: Path) -> None:
    _write(tmp_path, "[steps.a]\ncommand = 'x'\nenv = [['hunter2']]\n")
    with pytest.raises(UsageError) as caught:
        find_project(tmp_path)
    assert "hunter2" not in str(caught.value)
