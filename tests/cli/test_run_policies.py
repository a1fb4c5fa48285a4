"""What ``cachefs run`` prints about caches, and what ``ls``, ``show`` and ``stats`` tell."""

from __future__ import annotations

from pathlib import Path

from tests.programs import run

MASKED = ("--output", "out", "--", "sh", "-c", "echo > out", "--token", "hunter2")


def test_a_miss_is_explained_in_ten_lines(tmp_path: Path) -> None:
    words = ["run", "--cache", "cache", "--explain", "--output", "out"]
    for number in range(20):
        (tmp_path / f"in{number}").touch()
    inputs = [word for number in range(20) for word in ("--input", f"in{number}")]
    command = ["--", "sh", "-c", "echo > out"]
    assert run(*words, *command, cwd=tmp_path).status == 0
    ended = run(*words, *inputs, *command, cwd=tmp_path)
    lines = ended.err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("cachefs: miss: compared with the result of ")
    assert lines[-1] == "cachefs: miss: and 12 more differences"


def test_a_dry_run_is_told_on_standard_error(tmp_path: Path) -> None:
    first = run("run", "--dry-run", *MASKED, cwd=tmp_path)
    assert (first.status, first.out) == (0, "")
    assert first.err.startswith("cachefs: would run")
    run("run", *MASKED, cwd=tmp_path)
    in_place = run("run", "--dry-run", *MASKED, cwd=tmp_path)
    assert in_place.err.endswith("its outputs are in place\n")
    (tmp_path / "out").unlink()
    second = run("run", "--dry-run", *MASKED, cwd=tmp_path)
    assert (second.status, second.out) == (0, "")
    assert "would hit: from " in second.err
    assert "which would restore out (" in second.err


def test_results_are_told_without_secrets(tmp_path: Path) -> None:
    run("run", "--cache", "cache", *MASKED, cwd=tmp_path)
    told = [run(*words, cwd=tmp_path) for words in (["ls", "cache"], ["show", "cache"], ["stats"])]
    for ended in told:
        assert ended.status == 0
        assert "echo > out" in ended.out
        assert "--token" in ended.out
        assert "hunter2" not in ended.out
    assert "made by" not in run("ls", "cache", "--no-details", cwd=tmp_path).out
    run("run", "--cache", "plain", "--no-describe", *MASKED, cwd=tmp_path)
    assert "echo > out" not in run("ls", "plain", cwd=tmp_path).out
    assert run("stats", "--reset", cwd=tmp_path).status == 0
    assert "nothing has been counted yet" in run("stats", cwd=tmp_path).err
