"""Builds: hits that pull nothing, early cutoff, failures, parallel steps, exports by reference."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import cachefs
from cachefs import Build, StepError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers.proxy import RecordingProxy
    from tests.servers.s3 import S3Server


def _sh(build: Build, script: str, name: str, **inputs: Any) -> Any:
    return build.step(["sh", "-c", script], inputs=inputs, outputs=["out"], name=name)


def _chain(build: Build, text: bytes, length: int = 5) -> Any:
    step: Any = build.source(text)
    for index in range(length):
        step = _sh(
            build,
            f"cat in* > out; echo {index} >> out",
            f"s{index}",
            **{"in": step / "out" if index else step},
        )
    return step


def _outcomes(build: Build) -> list[str]:
    return [step.outcome for step in build.report.steps]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_cached_build_pulls_what_is_asked_for(tmp_path: Path, mode: Any) -> None:
    cache = str(tmp_path / "cache")
    with Build(cache_to=cache, mode=mode) as build:
        _chain(build, b"x")
    assert _outcomes(build) == ["ran"] * 5
    with Build(cache_to=cache, mode=mode) as build:
        last = _chain(build, b"x")
        assert last.files()["out"].read_text() == "x0\n1\n2\n3\n4\n"
    assert "ran" not in _outcomes(build)
    assert [bool(step.fetched) for step in build.report.steps] == [False] * 4 + [True]
    (export,) = build.report.exports
    assert export.uploaded.blobs == 0
    assert cachefs.open(cache).verify().faults == []


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_cached_build_downloads_one_chain(
    moto_s3: S3Server, recording: Callable[[S3Server], RecordingProxy], mode: Any
) -> None:
    proxy = recording(moto_s3)
    cache = proxy.server.attributes(proxy.server.bucket())

    def blobs(method: str) -> int:
        return proxy.count(method, lambda request: "/blobs/" in request.path)

    with Build(cache_to=cache, mode=mode) as build:
        _chain(build, b"x", 6)
    assert blobs("PUT") == (6 if mode == "max" else 1)
    proxy.clear()
    with Build(cache_to=cache, mode=mode) as build:
        assert _chain(build, b"x", 6).files()["out"].read_text().endswith("5\n")
        assert blobs("GET") == 1
    assert "ran" not in _outcomes(build)
    assert blobs("GET") == 1
    assert blobs("PUT") == 0
    proxy.clear()
    with Build(cache_to=cache, mode=mode) as build:
        _chain(build, b"x", 6)
    assert "ran" not in _outcomes(build)
    assert blobs("GET") == 0


def test_with_min_a_later_miss_runs_what_has_no_result(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    with Build(cache_to=cache, mode="min") as build:
        _chain(build, b"x", 3)
    with Build(cache_to=cache, mode="min") as build:
        _chain(build, b"x", 4)
    assert _outcomes(build) == ["ran" if i == 3 else o for i, o in enumerate(_outcomes(build))]
    assert build.report.steps[0].outcome == "not needed"


def test_what_another_cache_has_is_exported_by_reference(tmp_path: Path) -> None:
    main, branch = str(tmp_path / "main"), str(tmp_path / "branch")
    with Build(cache_to=main, mode="max") as build:
        _chain(build, b"x")
    with Build([branch, main], branch, mode="max") as build:
        _chain(build, b"x")
    assert "ran" not in _outcomes(build)
    assert sum(step.fetched for step in build.report.steps) == 0
    with Build(cache_to=branch) as build:
        _chain(build, b"x").restore(tmp_path / "to")
    assert (tmp_path / "to" / "out").read_text().startswith("x0")


def test_a_blob_that_is_gone_is_a_miss(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with Build(cache_to=str(cache), mode="max") as build:
        _chain(build, b"x", 2)
    for blob in (cache / "blobs").iterdir():
        blob.unlink()
    with Build(cache_to=str(cache), mode="max") as build:
        assert _chain(build, b"x", 2).files()["out"].read_text() == "x0\n1\n"
    assert _outcomes(build) == ["ran", "ran"]
    assert "cannot be read" in build.report.steps[1].why[0]
    assert cachefs.open(str(cache)).verify().faults == []


def test_a_blob_that_is_damaged_is_replaced(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    outcomes = []
    for _ in range(3):
        with Build(cache_to=str(cache), mode="max") as build:
            assert _chain(build, b"x", 1).files()["out"].read_text() == "x0\n"
        outcomes += _outcomes(build)
        if len(outcomes) == 1:
            (blob,) = (cache / "blobs").iterdir()
            blob.write_bytes(b"damaged" + blob.read_bytes()[7:])
    assert outcomes == ["ran", "ran", "hit"]
    assert cachefs.open(str(cache)).verify(read_data=1.0).faults == []


def test_a_failure_reaches_the_caller_and_stops_the_others(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    started = time.monotonic()
    build = Build(cache_to=str(cache), jobs=2)
    _sh(build, "sleep 60 & wait; touch out", "slow")
    _sh(build, "sleep 0.2; echo because >&2; exit 3", "bad")
    with pytest.raises(StepError) as caught, build:
        pass
    assert caught.value.exit_code == 3
    assert caught.value.tail == "because"
    assert caught.value.argv[:2] == ("sh", "-c")
    assert time.monotonic() - started < 30
    assert not cache.exists()


def test_an_output_that_is_not_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="made no 'out'"), Build() as build:
        _sh(build, "true", "none")
    with pytest.raises(StepError, match="cannot run"), Build() as build:
        build.step(["no-such-command-here"], outputs=["out"])


def test_independent_steps_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def meet(directory: Path) -> None:
        meeting.wait()
        (directory / "out").touch()

    def meet_too(directory: Path) -> None:
        meeting.wait()
        (directory / "out").touch()

    with Build(jobs=2) as build:
        build.step(meet, outputs=["out"], version="1")
        build.step(meet_too, outputs=["out"], version="1")
    assert _outcomes(build) == ["ran", "ran"]


def _write_version(directory: Path) -> None:
    (directory / "out").write_text("made")


def test_a_function_is_keyed_by_source_and_version(tmp_path: Path) -> None:
    outcomes = []
    for version in ("1", "1", "2"):
        with Build(cache_to=str(tmp_path / "cache")) as build:
            build.step(_write_version, outputs=["out"], version=version)
        outcomes += _outcomes(build)
    assert outcomes == ["ran", "hit", "ran"]
    hidden = 1
    with pytest.raises(UsageError, match="give version="):
        Build().step(lambda directory: (directory / str(hidden)).touch(), outputs=["1"])


def test_variables_count_when_they_are_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for value in ("one", "one", "two"):
        monkeypatch.setenv("SETTING", value)
        with Build(cache_to=str(tmp_path / "cache")) as build:
            step = build.step(["sh", "-c", "echo $SETTING > out"], outputs=["out"], env=["SETTING"])
            said.append(step.files()["out"].read_text().strip())
    assert said == ["one", "one", "two"]
    assert build.report.steps[0].why == ["environment variable SETTING changed"]


def test_mistakes_are_told_before_anything_runs() -> None:
    build = Build()
    source = build.source(b"")
    for arguments in (
        {"outputs": ["../out"]},
        {"outputs": ["/out"]},
        {"outputs": ["a", "a/b"]},
        {"outputs": ["a"], "inputs": {"x": source, "x/y": source}},
        {"outputs": "a"},
    ):
        with pytest.raises(UsageError):
            build.step(["true"], **arguments)
    with pytest.raises(UsageError, match="list of words"):
        build.step("true", outputs=[])
    with pytest.raises(UsageError, match="only inside"):
        build.step(["true"], outputs=[]).files()
