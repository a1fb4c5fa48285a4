"""--signed-by and --key mean the same in every command, and win over what else says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cachefs
from tests.inside.layered import archive, write
from tests.programs import run
from tests.signing import keys, public


class Written:
    """A cache whose name "main" the first of two keys signed."""

    def __init__(self, folder: Path) -> None:
        self.key, self.other = keys(folder, "ci", "other")
        self.root = folder / "cache"
        write(str(self.root), [[archive({"tool": b"tool"})]])
        cachefs.open(self.root, signing_key=self.key).sign(["main"])


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


READING = {
    "verify": ("verify", "{cache}"),
    "copy": ("copy", "{cache}", "{new}"),
    "merge": ("merge", "{cache}", "{new}", "--into", "all", "--yes"),
    "files": ("files", "{cache}"),
    "results": ("files", "{cache}", "--results"),
    "cat": ("cat", "{cache}", "tool"),
    "extract": ("extract", "{cache}", "{new}"),
}


@pytest.mark.parametrize("command", READING)
def test_what_no_trusted_key_signed_is_refused(
    written: Written, tmp_path: Path, command: str
) -> None:
    new = tmp_path / "new"
    words = [word.format(cache=written.root, new=new) for word in READING[command]]
    refused = run(*words, "--signed-by", public(written.other))
    assert refused.status != 0
    assert "not trusted" in refused.out + refused.err
    assert not [path for path in new.rglob("*") if path.is_file()]
    # One of several is enough, and the option wins over the environment.
    both = ("--signed-by", public(written.other), "--signed-by", public(written.key))
    stranger = {"CACHEFS_TRUSTED_KEYS": public(written.other)}
    assert run(*words, *both, env=stranger).status == 0


@pytest.mark.parametrize("command", ["copy", "merge"])
def test_what_is_written_is_signed(written: Written, tmp_path: Path, command: str) -> None:
    new = tmp_path / "new"
    words = [word.format(cache=written.root, new=new) for word in READING[command]]
    assert run(*words, "--key", str(written.other)).status == 0
    name = "all" if command == "merge" else "main"
    assert cachefs.open(new, signed_by=public(written.other)).load(name).records
    assert not cachefs.open(new, signed_by=public(written.key)).load(name).records


def test_run_signs_and_takes_only_what_is_signed(written: Written, tmp_path: Path) -> None:
    step = ("--output", "out", "--report", "report", "--", "sh", "-c", "echo made > out")

    def outcome(*options: str) -> str:
        done = run("run", *options, *step, cwd=tmp_path)
        assert done.status == 0, done.err
        return str(json.loads((tmp_path / "report").read_text())["outcome"])

    cache = ("--cache", str(tmp_path / "results"))
    trusted = ("--signed-by", public(written.key))
    assert outcome(*cache) == "ran"
    assert outcome(*cache, *trusted, "--no-write") == "ran"
    assert outcome(*cache, *trusted, "--key", str(written.key), "--force") == "ran"
    assert outcome(*cache, *trusted, "--no-write") == "hit"
    assert outcome(*cache, "--signed-by", public(written.other), "--no-write") == "ran"


def test_a_project_says_whose_signatures_count(written: Written, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "cachefs.toml").write_text('cache = "../cache"\nsigned-by = ["../other.pub"]\n')
    refused = run("verify", cwd=project)
    assert (refused.status, "not trusted" in refused.out) == (1, True), refused.err
    trusted = {"CACHEFS_TRUSTED_KEYS": public(written.key)}
    assert run("verify", cwd=project, env=trusted).status == 0
    assert run("verify", "--signed-by", public(written.key), cwd=project).status == 0


def test_a_file_that_is_missing_is_named_with_the_option(written: Written) -> None:
    done = run("copy", str(written.root), "new", "--key", "no-such-key")
    assert done.status == 2
    assert "no-such-key" in done.err
