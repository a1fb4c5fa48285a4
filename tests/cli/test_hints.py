"""Hints for what people type first: no location, one word for a command, commas in an option."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

import cachefs
from cachefs.amount import counted
from cachefs.cli import hints
from cachefs.cli.exits import Exit
from tests.programs import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "verb", ["ls", "du", "show", "verify", "prune --dry-run", "repair", "graph --name x"]
)
def test_without_a_location_before_any_run(verb: str) -> None:
    ended = run(*verb.split())
    assert ended.status == Exit.NO_CACHE
    assert "the default cache of 'cachefs run' is meant: name another as an argument" in ended.err
    assert ended.err.count("\n") == 1


def test_a_location_from_the_variable_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEFS_CACHE", str(tmp_path / "nothing"))
    assert "no location was given, so $CACHEFS_CACHE is meant" in run("ls").err
    monkeypatch.delenv("CACHEFS_CACHE")
    assert "no location was given" not in run("ls", str(tmp_path / "nothing")).err


def test_a_location_from_the_file_of_a_project_is_said(here: Path) -> None:
    Path("cachefs.toml").write_text('cache = ["nothing"]\n')
    assert f"so that of {here / 'cachefs.toml'} is meant" in run("ls").err


def test_a_command_in_one_word() -> None:
    said = run("run", "--", "true --quiet").err
    assert said == (
        "cachefs: error: command 'true --quiet' cannot run: there is no such command; the command "
        "is one word, so write its words one by one: -- true --quiet\n"
    )
    assert run("run", "--", "true --quiet").status == 127
    assert "one word" not in run("run", "--", "no-such-tool --quiet").err


@pytest.mark.parametrize("option", ["inputs", "outputs", "exclude"])
def test_paths_separated_by_commas(option: str, here: Path) -> None:
    del here
    with pytest.raises(click.UsageError, match=r"a,b: repeat the option for each: --\w+ a --\w+ b"):
        hints.check_repeated(**{option: ["a,b"]})


def test_a_comma_that_is_part_of_a_path(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a,b").touch()
    for option in ("inputs", "outputs", "exclude"):
        hints.check_repeated(**{option: ["a,b"]})
    hints.check_repeated(inputs=["a,c"], exclude=["a,c"], variables=["LIST=a,b"])
    assert capsys.readouterr().err == ""
    hints.check_repeated(outputs=["dist,docs"])
    assert "--output dist,docs is one path: repeat --output" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["CI,HOME", "CI_*, HOME"])
def test_variables_separated_by_commas(typed: str) -> None:
    with pytest.raises(click.UsageError, match=r"--env 'CI_[*]' --env HOME|--env CI --env HOME"):
        hints.check_repeated(variables=[typed])


def test_names_separated_by_commas(recorded: Path) -> None:
    cache = str(recorded / "s3" / "max")
    first, second = [name.name for name in cachefs.open(cache).names()][:2]
    said = run("show", cache, "--name", f"{first},{second}").err
    assert f"repeat the option for each: --name {first} --name {second}" in said
    said = run("prune", cache, "--keep", f"{first},{second}", "--dry-run").err
    assert "matches no name, so it keeps nothing; give several patterns one by one" in said


def test_an_output_outside_is_told_without_riddles(here: Path) -> None:
    said = run("run", "--output", "../out", "--", "true").err
    assert said == (
        f"cachefs: error: the output '../out' is outside of the working directory {here}; run the "
        "command in a directory above all of its outputs\n"
    )


def test_what_a_first_incremental_run_changes(here: Path) -> None:
    del here
    command = ["--output", "o", "--", "cp", "a", "o"]
    run("run", *command)
    said = run("run", "--explain", "--incremental", *command).err
    assert "cachefs: miss: the way it runs (--incremental) changed\n" in said
    assert "the command or function" not in said


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (2000, "2,000 files")]
)
def test_plural_forms(count: int, text: str) -> None:
    assert counted(count, "file") == text
