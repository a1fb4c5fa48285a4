"""The default cache, the names and the order that every command takes in the same way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cachefs
from cachefs.cli.main import COMMANDS, program
from cachefs.location.keys import natural_order
from tests.programs import run

NAMED = sorted(set(COMMANDS) - {"doctor", "keygen", "prune", "stats"})
"""All commands but those that are about all names or a store, or about no cache."""


def call(*arguments: str, cache: str | None = None) -> Result:
    environment = {"CACHEFS_CACHE": cache}
    return CliRunner(env=environment).invoke(program, arguments, standalone_mode=False)


@pytest.fixture(autouse=True)
def place(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a cache of four names."""
    shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    for name in ("pr-10", "pr-9"):
        shutil.copy(tmp_path / "cache/manifests/app", tmp_path / "cache/manifests" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(result: Result) -> list[str]:
    assert result.exception is None, result.exception
    return [one["name"] for one in json.loads(result.stdout)]


# --- the default cache ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["show"],
        ["du"],
        ["graph", "--name", "app"],
        ["verify"],
        ["repair"],
        ["prune", "--keep-last", "1", "--dry-run"],
        ["diff", "--name", "app", "--name", "app-v2"],
        ["merge", "--name", "app", "--into", "all", "--dry-run"],
    ],
    ids=lambda words: words[0],
)
def test_without_a_location_the_variable_says_which_cache(words: list[str]) -> None:
    by_default = call(*words, "--json", cache="cache")
    named = call(words[0], "cache", *words[1:], "--json")
    assert by_default.exception is None, by_default.exception
    assert by_default.stdout
    if words[0] not in {"prune", "verify"}:  # which state times
        assert by_default.stdout == named.stdout


def test_without_the_variable_it_is_the_one_of_run(place: Path) -> None:
    assert call("run", "--output", "o", "--", "touch", "o").return_value == 0
    assert len(names(call("ls", "--json"))) == 1
    assert call("run", "--output", "p", "--", "touch", "p", cache="mine").return_value == 0
    assert len(cachefs.open("mine").names()) == 1
    assert len(names(call("ls", "--json", cache=""))) == 1, "empty is as good as unset"


def test_a_copy_to_one_location_is_of_the_variable_only(place: Path) -> None:
    assert call("copy", "there", "--name", "app", cache="cache,name=never").exception
    assert call("copy", "there", "--name", "app", cache="cache").exception is None
    assert cachefs.open("there").verify().names == ["app"]
    alone = call("copy", "there")
    assert isinstance(alone.exception, click.UsageError)
    assert "give SRC before it" in alone.exception.message
    assert isinstance(call("diff", "there").exception, click.UsageError)
    differing = json.loads(call("diff", "there", "--json", cache="cache").stdout)
    assert not differing["equal"]
    assert json.loads(call("diff", "there", "--name", "app", "--json", cache="cache").stdout)[
        "equal"
    ]


def test_a_mistake_in_the_variable_names_it() -> None:
    error = call("ls", cache="type=s3,bukket=x").exception
    assert isinstance(error, cachefs.LocationError)
    assert str(error).startswith("$CACHEFS_CACHE: unknown attribute 'bukket'")


def test_names_of_the_default_cache_are_completed() -> None:
    environment = {
        "_CACHEFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "cachefs show --name pr",
        "COMP_CWORD": "3",
        "CACHEFS_CACHE": "cache",
    }
    result = CliRunner(env=environment).invoke(program, prog_name="cachefs")
    assert result.stdout.split() == ["plain,pr-10", "plain,pr-9"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", NAMED)
def test_every_command_of_names_takes_name(command: str) -> None:
    found = program.get_command(click.Context(program), command)
    assert found is not None
    assert "--name" in {option for one in found.params for option in one.opts}


def test_only_these_names(place: Path) -> None:
    assert names(call("ls", "cache", "--name", "pr-9", "--name", "app", "--json")) == [
        "pr-9",
        "app",
    ]
    usage = json.loads(call("du", "cache", "--name", "pr-9", "--json").stdout)
    assert [one["name"] for one in usage["names"]] == ["pr-9"]
    (place / "cache/manifests/pr-10").write_text("damaged")
    assert call("repair", "cache", "--name", "app").return_value == 0
    assert call("repair", "cache", "--dry-run").return_value == 1
    assert call("copy", "cache", "copied", "--name", "app", "--name", "pr-9").return_value == 0
    assert [one.name for one in cachefs.open("copied").names()] == ["app", "pr-9"]


# --- order ----------------------------------------------------------------------------------------


def test_numbers_in_names_are_in_their_order() -> None:
    ordered = ["1" * 5000, "app", "App2", "app9", "app010", "app10", "b", "pr-9/x", "pr-10/a"]
    assert sorted(sorted(ordered), key=natural_order) == ordered


def test_the_order_of_ls_and_du(place: Path) -> None:
    os.utime(place / "cache/manifests/pr-9", (1, 1))
    for command in ("ls", "show"):
        assert names(call(command, "cache", "--json")) == ["app", "app-v2", "pr-9", "pr-10"]
    assert names(call("ls", "cache", "--sort", "age", "--json"))[-1] == "pr-9"
    by_size = json.loads(call("ls", "cache", "--sort", "size", "--json").stdout)
    assert [one["bytes"] for one in by_size] == sorted(
        (one["bytes"] for one in by_size), reverse=True
    )
    given = ("--name", "pr-10", "--name", "app")
    assert names(call("ls", "cache", *given, "--json")) == ["pr-10", "app"]
    assert names(call("ls", "cache", *given, "--sort", "name", "--json")) == ["app", "pr-10"]
    usage = json.loads(call("du", "cache", "--sort", "unique", "--json").stdout)
    assert [one["name"] for one in usage["names"]] == ["app-v2", "app", "pr-9", "pr-10"]


# --- patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["prune", "cache", "--keep", "pr-1", "pr-2"],
        ["ls", "cache", "--name", "pr-1", "pr-2"],
        ["copy", "cache", "pr-1", "pr-2"],
        ["diff", "cache", "pr-1", "pr-2"],
        ["run", "--input", "pr-1", "pr-2", "--output", "o", "--", "true"],
        ["run", "--input", "pr-1", "pr-2", "make"],
    ],
)
def test_a_pattern_that_the_shell_replaced_is_noticed(words: list[str], place: Path) -> None:
    (place / "pr-1").touch()
    (place / "pr-2").touch()
    ended = run(*words)
    assert ended.status == 2
    assert "if the shell replaced a pattern" in ended.err
    assert ended.err.count("\n") == 1
    assert not (place / "o").exists()
