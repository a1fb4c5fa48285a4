"""JSON that is printed is valid everywhere and does nothing to a terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.cli.output import to_json
from tests.programs import run

HOSTILE = ["\x1b]0;x\x07", "\x9b31m", "\u202e", "\u2066", "\u2069", "\x7f", "\u2028", "\U000e0041"]


@given(st.dictionaries(st.text(), st.lists(st.text(st.characters(exclude_categories=["Cs"])))))
def test_it_says_the_same(value: dict[str, list[str]]) -> None:
    document = to_json(value)
    assert json.loads(document) == value
    assert all(character.isprintable() or character == "\n" for character in document)


def test_what_people_write_is_not_escaped() -> None:
    assert "支店-é-🙂" in to_json(["支店-é-🙂"])


def test_what_is_not_unicode_is_text() -> None:
    assert json.loads(to_json({"a\udcff": ("\ud800", 1)})) == {"a\\udcff": ["\\ud800", 1]}
    assert to_json([cachefs.NotFoundError("x").reason]) == '[\n  "x"\n]'


@pytest.mark.parametrize("verb", ["ls", "show", "verify", "du"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_no_command_prints_what_a_terminal_acts_on(
    verb: str, hostile: str, recorded: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(recorded / "s3" / "max", tmp_path / "cache")
    manifest = place / "manifests" / "app"
    spoiled = manifest.read_bytes().replace(
        b"tar+gzip", b"tar" + json.dumps(hostile)[1:-1].encode()
    )
    manifest.write_bytes(spoiled)
    for words in ([verb, str(place)], [verb, str(place), "--json"]):
        ended = run(*words)
        text = ended.out + ended.err
        assert all(character.isprintable() or character == "\n" for character in text)
    if verb == "show":
        assert any(hostile in layer["media_type"] for layer in json.loads(ended.out)[0]["layers"])


def test_a_path_that_is_not_unicode(tmp_path: Path) -> None:
    for words in (["ls", b"no\xff\x1b"], ["ls", b"no\xff\x1b", "--json"]):
        ended = subprocess.run(
            [sys.executable, "-m", "cachefs", *words],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )
        assert b"Traceback" not in ended.stderr
        assert b"\x1b" not in ended.stdout + ended.stderr
        assert b"\xff" not in ended.stdout + ended.stderr


def test_a_report_of_a_command_that_is_not_unicode(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cachefs", "run", "--cache", "c", "--input", "in"]
    command += ["--report", "r", "--"]
    (tmp_path / "in").touch()
    ended = subprocess.run(
        [*command, "sh", "-c", b'printf "\xff"'],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"\xff", b"")
    assert json.loads((tmp_path / "r").read_bytes())["name"] == 'sh -c printf "\\udcff"'
