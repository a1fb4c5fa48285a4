"""``cachefs files``, ``cat`` and ``extract``: what a cache holds, as people and programs see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cachefs
from tests.inside.layered import archive, write
from tests.programs import run, run_for_bytes
from tests.trees import Link

LOWER = archive({"d": None, "d/a": b"12345", "gone": b"x", "link": Link("d/a")})
UPPER = archive({".wh.gone": b"", "d/.wh..wh..opq": b"", "b": b"\x00\xff\n"})


@pytest.fixture
def cache(tmp_path: Path) -> str:
    location = str(tmp_path / "cache")
    write(location, [[LOWER], [LOWER, UPPER]])
    return location


def test_files_lists_a_result(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    ((_, top),) = write(location, [[LOWER, UPPER]])
    ended = run("files", location)
    assert ended.err == ""
    assert ended.out.splitlines() == [
        f"main, result of 2 layers {top}: 1 file, 3 B",
        "",
        "mode        size  path",
        "-rw-r--r--   3 B  b",
        "drwxr-xr-x        d/",
        "lrwxrwxrwx        link -> d/a",
    ]
    document = json.loads(run("files", location, "--json").out)
    assert document["name"] == "main"
    assert document["result"] == top
    assert document["layers"][-1] == top
    assert [(one["path"], one["kind"]) for one in document["entries"]] == [
        ("b", "file"),
        ("d", "directory"),
        ("link", "link"),
    ]
    assert document["entries"][0] == {
        "path": "b",
        "kind": "file",
        "mode": 0o644,
        "size": 3,
        "target": "",
        "layer": top,
    }


def test_files_of_a_layer_alone_tell_what_it_removes(cache: str) -> None:
    (upper,) = (one.layer for one in _results(cache) if one.layers == 2)
    ended = run("files", cache, "--layer", upper)
    assert ended.out.splitlines()[3:] == [
        "-rw-r--r--   3 B  b",
        "removed           gone",
        "removed           d/*",
    ]
    document = json.loads(run("files", cache, "--layer", upper, "--json").out)
    assert document["layer"] == upper
    assert document["whiteouts"] == [
        {"path": "gone", "all_below": False},
        {"path": "d", "all_below": True},
    ]


def _results(location: str) -> list[cachefs.ResultDetails]:
    from cachefs.inside.results import results

    return results(cachefs.open(location))


def test_which_result_is_meant_has_to_be_said(cache: str, tmp_path: Path) -> None:
    new, old = _results(cache)
    for command in (("files", cache), ("cat", cache, "b"), ("extract", cache, str(tmp_path / "o"))):
        ended = run(*command)
        assert ended.status == 2
        assert "main has 2 results" in ended.err
        assert new.layer in ended.err
        assert old.layer in ended.err
        assert "--result" in ended.err
    listed = run("files", cache, "--results").out
    assert listed.startswith("main: 2 results\n")
    assert listed.index(new.layer) < listed.index(old.layer)
    found = json.loads(run("files", cache, "--results", "--json").out)["results"]
    assert [one["layer"] for one in found] == [new.layer, old.layer]
    assert run("cat", cache, "gone", "--result", old.layer).out == "x"
    assert run("cat", cache, "gone", "--result", "newest").status != 0


def test_cat_prints_bytes(cache: str) -> None:
    ended = run_for_bytes("cat", cache, "b", "--result", "newest")
    assert ended.stdout == b"\x00\xff\n"
    assert ended.stderr == b""
    ended = run_for_bytes("cat", cache, "nothing", "--result", "newest")
    assert ended.stdout == b""
    assert b"there is no nothing" in ended.stderr
    assert run("cat", cache, "d", "--result", "newest").err.endswith("not a file but a directory\n")


def test_extract_is_all_or_nothing(cache: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run("extract", cache, str(out), "--result", "newest")
    assert ended.status == 0
    assert ended.out.startswith("extracted main, result of 2 layers sha256:")
    assert sorted(path.name for path in out.iterdir()) == ["b", "d", "link"]
    again = run("extract", cache, str(out), "--result", "newest")
    assert again.status == 2
    assert "already exists" in again.err
    told = json.loads(
        run("extract", cache, str(tmp_path / "two"), "--result", "newest", "--json").out
    )
    assert told["directory"] == str(tmp_path / "two")
    assert len(told["layers"]) == 2
    missing = run("extract", cache, str(tmp_path / "no" / "out"), "--result", "newest")
    assert missing.status != 0
    assert "internal" not in missing.err


def test_the_default_cache_is_read_without_a_location(cache: str, tmp_path: Path) -> None:
    import os

    env = os.environ | {"CACHEFS_CACHE": cache}
    assert run("cat", "gone", "--result", _results(cache)[1].layer, env=env).out == "x"
    assert run("files", "--result", "newest", env=env).status == 0


def test_names_of_a_hostile_layer_do_nothing_on_a_terminal(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    evil = "a\x1b]0;owned\x07\n\u202eb"
    write(location, [[archive({evil: b"1", "l": Link("\x1b[2J")})]])
    for arguments in (("files", location), ("files", location, "--json")):
        out = run(*arguments).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\x07" not in out
    assert len(run("files", location).out.splitlines()) == 5
    entries = json.loads(run("files", location, "--json").out)["entries"]
    assert entries[0]["path"] == evil
    assert run("cat", location, evil).out == "1"


def test_a_result_that_leads_outside_is_refused(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    write(location, [[archive({"../../out": b"x"})]])
    for command in (("files", location), ("cat", location, "x"), ("extract", location, "o")):
        ended = run(*command, cwd=tmp_path)
        assert ended.status == 1, ended.err
        assert "would be written outside" in ended.err
    assert not (tmp_path / "o").exists()


def test_the_files_of_a_run(tmp_path: Path) -> None:
    location = str(tmp_path / "cache")
    for word in ("one", "two"):
        ran = run(
            "run", "--cache", location, "--output", "o", "--", "sh", "-c", f"echo {word} > o",
            cwd=tmp_path,
        )  # fmt: skip
        assert ran.status == 0, ran.err
    names = list(cachefs.open(location))
    found = [run("files", location, "--name", name, "--results").out for name in names]
    assert "echo one" in "".join(found)
    assert "echo two" in "".join(found)
    texts = {run("cat", location, "o", "--name", name, "--result", "newest").out for name in names}
    assert "two\n" in texts
