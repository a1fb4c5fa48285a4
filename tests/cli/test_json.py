"""``--json`` prints what ``docs/reference/json.md`` documents."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cachefs
from cachefs.cli.main import COMMANDS
from tests.programs import run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
DOCUMENTS = dict(re.findall(r"^\| `cachefs (\w+).*?` \| (.+) \|$", PAGE.read_text(), re.MULTILINE))

WITH_JSON = sorted(set(COMMANDS) - {"cat"})

CALLS = {
    "extract": ["extract", "cache", "extracted", "--name", "app", "--json"],
    "files": ["files", "cache", "--name", "app", "--json"],
    "ls": ["ls", "cache", "--json"],
    "show": ["show", "cache", "--json"],
    "du": ["du", "cache", "--json"],
    "diff": ["diff", "cache", "--name", "app", "--name", "app-v2", "--json"],
    "graph": ["graph", "cache", "--name", "app", "--json"],
    "keygen": ["keygen", "another-key", "--json"],
    "sign": ["sign", "cache", "--key", "key", "--json"],
    "verify": ["verify", "cache", "--json"],
    "copy": ["copy", "cache", "copied", "--json"],
    "merge": ["merge", "cache", "--into", "all", "--json"],
    "promote": ["promote", "cache", "few", "--signed-by", "key.pub", "--key", "key", "--json"],
    "prune": ["prune", "cache", "--keep-last", "*=0", "--grace", "0s", "--yes", "--json"],
    "repair": ["repair", "broken", "--yes", "--json"],
    "doctor": ["doctor", "cache", "--json"],
    "stats": ["stats", "--json"],
    "run": ["run", "--cache", "new", "--output", "o", "--report", "r", "--", "touch", "o"],
}


@pytest.fixture
def place(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a cache and a damaged one."""
    for name in ("cache", "broken"):
        shutil.copytree(recorded / "s3" / "max", tmp_path / name)
    next((tmp_path / "broken" / "blobs").iterdir()).unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_every_command() -> None:
    assert sorted(DOCUMENTS) == WITH_JSON == sorted(CALLS)


@pytest.mark.parametrize("command", WITH_JSON)
def test_the_document_has_the_members_of_the_type(place: Path, command: str) -> None:
    document, shape = called(place, command), DOCUMENTS[command]
    named = [getattr(cachefs, name) for name in re.findall(r"`([A-Z]\w+)`", shape)]
    members = [
        name for found in re.findall(r"{([^}]*)}", shape) for name in re.findall(r"\w+", found)
    ]
    if '"plan"' in shape:
        assert list(document) == ["plan", "report"]
        for part, type_ in zip(document.values(), named[:2], strict=True):
            check(part, type_)
    elif command == "sign":
        assert sorted(document) == ["app", "app-v2"]
        assert all(cachefs.Digest(digest) for digest in document.values())
    elif command == "files":
        assert list(document) == members
        for one in document["entries"]:
            check(one, cachefs.Entry)
    elif shape.startswith("list of"):
        assert document
        for one in document:
            check(one, named[0])
    elif named:
        for added in re.findall(r", and `([a-z]+)`", shape):
            del document[added]
        check(document, named[0])
    else:
        assert list(document) == members


def called(place: Path, command: str) -> Any:
    if command == "stats":
        run(*CALLS["run"])
    if command in {"promote", "sign"}:
        run("keygen", "key")
    if command == "promote":
        run(*CALLS["sign"])
    ended = run(*CALLS[command])
    assert ended.status in (0, 1), ended.err
    return msgspec.json.decode((place / "r").read_bytes() if command == "run" else ended.out)


def check(document: Any, type_: type) -> None:
    """Assert that the document has exactly the members of the type."""
    assert msgspec.to_builtins(msgspec.convert(document, type_)) == document


def test_a_failure_as_a_whole_is_an_error_object(place: Path) -> None:
    ended = run("show", "cache", "--name", "nobody", "--json")
    document = msgspec.json.decode(ended.out)
    assert list(document) == ["error"]
    members = re.findall(r'{"error": {(.*?)}}', PAGE.read_text())[0]
    assert list(document["error"]) == re.findall(r"\w+", members)
    assert issubclass(getattr(cachefs, document["error"]["type"]), cachefs.CacheError)
    assert ended.err.startswith("cachefs: error: ")


def test_a_command_that_fails_leaves_a_report(place: Path) -> None:
    ended = run("run", "--cache", "new", "--output", "o", "--report", "r", "--", "false")
    assert ended.status == 1
    assert list(msgspec.json.decode((place / "r").read_bytes())) == ["outcome", "status", "message"]
