"""The program on terminals: widths, colours, questions, Ctrl-C, the engine, and completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

import cachefs
from cachefs.cli.main import COMMANDS
from cachefs.cli.options import ENGINES
from cachefs.location.attributes import ATTRIBUTES
from cachefs.location.options import Engine
from tests.damaging import MakePlace
from tests.programs import COLOURS, ESCAPES, on_terminal, run
from tests.servers.proxy import RecordingProxy
from tests.servers.s3 import S3Server

LONG = "feature/a-name-that-somebody-thought-was-a-good-idea-at-the-time-of-writing/linux-arm64"
OLD = 3 * 86_400
SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


@pytest.fixture
def cache(recorded: Path, tmp_path: Path) -> Path:
    """A cache that is three days old, with one long name."""
    root = Path(shutil.copytree(recorded / "s3" / "max", tmp_path / "cache"))
    manifest = root / "manifests" / LONG
    manifest.parent.mkdir(parents=True)
    shutil.copy(root / "manifests" / "app", manifest)
    then = time.time() - OLD
    for path in root.rglob("*"):
        os.utime(path, (then, then))
    return root


def lines(shown: str) -> list[str]:
    return [ESCAPES.sub("", line) for line in shown.splitlines()]


# --- widths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize(
    "command",
    [["ls"], ["show"], ["du"], ["diff", "--name", "app", "--name", "app-v2"]],
    ids=lambda words: words[0],
)
def test_tables_fit_whatever_the_width(cache: Path, command: list[str], columns: int) -> None:
    shown = on_terminal(*command, str(cache), columns=columns, NO_COLOR="1")
    assert shown.status in (0, 1)
    drawn = [line for line in lines(shown.out) if "  " in line or "─" in line]
    assert drawn
    assert max(map(len, drawn)) <= columns
    assert "…" not in shown.out


def test_a_narrow_terminal_gets_rows_as_lines(cache: Path) -> None:
    shown = lines(on_terminal("ls", str(cache), columns=40, NO_COLOR="1").out)
    assert [line.rstrip() for line in shown[:7]] == [
        "name      app",
        "written   3 days ago",
        "manifest  5.2 KiB",
        "layers    9",
        "records   14",
        "blobs     1.7 KiB",
        "",
    ]
    folded = "".join(line.removeprefix("name").strip() for line in shown[14:19])
    assert folded.startswith(LONG)


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits(command: str, columns: int) -> None:
    shown = on_terminal(*command.split(), "--help", columns=columns)
    assert shown.status == 0
    prose = [line for line in lines(shown.out) if not re.match(r"    cachefs |  eval ", line)]
    assert max(map(len, prose)) <= columns
    if columns == 80:
        assert max(map(len, lines(shown.out))) <= columns


def test_what_is_no_terminal_gets_no_escapes_and_all_of_it(cache: Path) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "40"}
    for command in ("ls", "show", "du", "verify"):
        ended = run(command, str(cache), env=environment)
        assert (ended.status, ended.err) == (0, "")
        assert "\x1b" not in ended.out
    assert LONG in run("ls", str(cache), env=environment).out


# --- colours and progress -------------------------------------------------------------------------


def test_colours_are_for_terminals_that_want_them(cache: Path, tmp_path: Path) -> None:
    copied = on_terminal("copy", str(cache), str(tmp_path / "1"))
    assert COLOURS.search(copied.out)
    assert HIDE_CURSOR in copied.out
    assert copied.out.rindex(SHOW_CURSOR) > copied.out.rindex(HIDE_CURSOR)
    assert not COLOURS.search(
        on_terminal("copy", str(cache), str(tmp_path / "2"), NO_COLOR="1").out
    )
    dumb = on_terminal("copy", str(cache), str(tmp_path / "4"), TERM="dumb").out
    assert dumb.startswith("copied 3 names")
    assert "\x1b" not in dumb
    piped = run("copy", str(cache), str(tmp_path / "3"))
    assert piped.err == ""


Recording = Callable[[S3Server], RecordingProxy]


@pytest.mark.parametrize("columns", [40, 80])
def test_ctrl_c_leaves_one_line_and_the_cursor(
    cache: Path, recording: Recording, moto_s3: S3Server, columns: int
) -> None:
    proxy = recording(moto_s3)
    bucket = moto_s3.bucket()
    proxy.inject(times=100, when=lambda request: request.method == "PUT", delay=5)
    shown = on_terminal(
        *("copy", str(cache), proxy.server.attributes(bucket)),
        columns=columns,
        when="KiB",
        typed=b"\x03",
    )
    assert shown.status == 130
    assert shown.out.endswith("cachefs: interrupted\n")
    assert shown.out.rindex(SHOW_CURSOR) > shown.out.rindex(HIDE_CURSOR)
    after = shown.out[shown.out.rindex("\x1b[2K") :]
    assert lines(after) == ["cachefs: interrupted"], "the bar is wiped away"


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "status", "last"),
    [
        (b"y\n", 0, r"removed 3 names and deleted 11 blobs \(2\.0 KiB\) in \d\.\d s"),
        (b"n\n", 130, "cachefs: nothing was changed"),
        (b"\n", 130, "cachefs: nothing was changed"),
        (b"\x03", 130, "cachefs: interrupted"),
        (b"\x04", 130, "cachefs: interrupted"),
    ],
    ids=["yes", "no", "default", "ctrl-c", "ctrl-d"],
)
def test_the_answer_to_the_question(cache: Path, typed: bytes, status: int, last: str) -> None:
    shown = on_terminal(
        *("prune", str(cache), "--older-than", "1d"), when="[y/N]", typed=typed, NO_COLOR="1"
    )
    assert shown.status == status
    assert re.fullmatch(last, lines(shown.out)[-1])
    assert len(cachefs.open(cache).names()) == (0 if status == 0 else 3)


def test_every_change_shows_its_plan_and_prints_one_document(make_place: MakePlace) -> None:
    place = make_place("keyed")
    merge = ["merge", place.location, "--name", "app", "--name", "app-v2", "--into", "both"]
    assert "to send, manifest" in run(*merge, "--dry-run").out
    assert "to send, manifest" in run(*merge).out
    assert "both" in place.needs()


# --- the engine -----------------------------------------------------------------------------------


def test_the_engines_of_the_option_are_those_of_the_attribute() -> None:
    assert set(ENGINES) == set(get_args(Engine))
    (row,) = (row for row in ATTRIBUTES if row.name == "engine")
    assert [row.read(engine) for engine in ENGINES] == list(ENGINES)


@pytest.mark.parametrize(
    ("attribute", "before", "after", "environment", "engine"),
    [
        ("", "", "", "", "s3fs"),
        ("", "", "", "obstore", "obstore"),
        ("", "", "obstore", "", "obstore"),
        ("", "obstore", "", "", "obstore"),
        ("", "s3fs", "obstore", "", "obstore"),
        ("", "", "s3fs", "obstore", "s3fs"),
        ("obstore", "", "s3fs", "s3fs", "obstore"),
        ("s3fs", "obstore", "obstore", "obstore", "s3fs"),
    ],
)
def test_the_engine_is_of_the_attribute_the_option_the_environment(
    attribute: str,
    before: str,
    after: str,
    environment: str,
    engine: str,
    recording: Recording,
    moto_s3: S3Server,
) -> None:
    proxy = recording(moto_s3)
    more = {"engine": attribute} if attribute else {}
    place = proxy.server.attributes(moto_s3.bucket(), **more)
    arguments = [f"--engine={before}"] * bool(before) + ["ls", place]
    arguments += [f"--engine={after}"] * bool(after)
    ended = run(*arguments, env={**os.environ, "CACHEFS_ENGINE": environment})
    assert ended.status == 0, ended.err
    # Each of the two engines identifies itself.
    used = {"object_store" in request.headers["user-agent"] for request in proxy.requests}
    assert used == {engine == "obstore"}


def test_run_takes_the_engine_too_and_keeps_it_from_the_command(
    recording: Recording, moto_s3: S3Server, tmp_path: Path
) -> None:
    proxy = recording(moto_s3)
    place = proxy.server.attributes(moto_s3.bucket())
    (tmp_path / "in").touch()
    words = ["--engine", "obstore", "--cache", place, "--input", "in"]
    words += ["--", "sh", "-c", "echo $CACHEFS_ENGINE."]
    ended = run("run", *words, cwd=tmp_path)
    assert (ended.status, ended.out, ended.err) == (0, ".\n", "")
    assert any("object_store" in request.headers["user-agent"] for request in proxy.requests)


# --- completion -----------------------------------------------------------------------------------


def completed(*words: str, **options: object) -> list[str]:
    """The completions of the last of these words, by click's protocol for bash."""
    protocol = {
        "_CACHEFS_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("cachefs", *words)),
        "COMP_CWORD": str(len(words)),
    }
    ended = run(env={**os.environ, **protocol}, **options)
    assert (ended.status, ended.err) == (0, "")
    return ended.out.strip().splitlines()  # without completions click prints an empty line


def test_commands_options_and_engines_are_completed() -> None:
    assert completed("") == [f"plain,{name}" for name in sorted(COMMANDS)]
    assert completed("sh") == ["plain,show"]
    assert completed("--eng") == ["plain,--engine"]
    assert completed("ls", "--j") == ["plain,--json"]
    assert completed("ls", "--engine", "") == ["plain,s3fs", "plain,obstore"]
    assert completed("graph", "--format", "m") == ["plain,mermaid"]


def test_locations_are_completed_as_directories() -> None:
    assert completed("ls", "some") == ["dir,some"]
    assert completed("copy", "a", "") == ["dir,"]
    assert completed("prune", "a", "--also", "x") == ["dir,x"]


def test_names_of_local_caches_are_completed(cache: Path) -> None:
    assert completed("show", str(cache), "--name", "app") == ["plain,app", "plain,app-v2"]
    assert completed("graph", f"type=local,src={cache}", "--name", "") == []
    assert completed("diff", str(cache), str(cache), "--name", "feat") == [f"plain,{LONG}"]


def test_nobody_asks_a_server_for_completion(recording: Recording, moto_s3: S3Server) -> None:
    proxy = recording(moto_s3)
    place = proxy.server.attributes(moto_s3.bucket())
    assert completed("show", place, "--name", "") == []
    assert completed("ls", "s3://bucket/") == ["dir,s3://bucket/"]
    assert proxy.requests == []


def test_completing_a_command_loads_no_command() -> None:
    program = (
        "import json, os, sys, atexit\n"
        "os.environ['_CACHEFS_COMPLETE'] = 'bash_complete'\n"
        "os.environ.update(COMP_WORDS='cachefs l', COMP_CWORD='1')\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules))))\n"
        "from cachefs.cli.main import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.startswith("plain,ls\n")
    assert '"cachefs.cli.ls"' not in ended.stdout
    assert '"fsspec"' not in ended.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "cachefs").write_text(f'#!/bin/sh\nexec {sys.executable} -m cachefs "$@"\n')
    (tmp_path / "cachefs").chmod(0o755)
    script = (
        'eval "$(_CACHEFS_COMPLETE=bash_source cachefs)"\n'
        "COMP_WORDS=(cachefs ver) COMP_CWORD=1\n"
        "_cachefs_completion cachefs\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "--norc", "-c", script],  # noqa: S607 - wherever it is
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path},
    )
    if "not supported" in ended.stderr:
        pytest.skip("this bash is older than completion needs")
    assert (ended.stdout, ended.stderr) == ("verify\n", "")
