"""Steps on executors: threads, processes and Dask, over a shared cache; lost workers."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cachefs
from cachefs import Build, StepError, UsageError
from tests.servers.workers import dask_client, process_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.proxy import RecordingProxy
    from tests.servers.s3 import S3Server


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with process_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with dask_client(tmp_path_factory.mktemp("dask")) as client:
        yield client


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        yield request.getfixturevalue(request.param)


def _count(directory: Path, *, where: str, word: str) -> None:
    """Counts a word, and says which process it was."""
    text = (directory / "text").read_text()
    (directory / "deep").mkdir()
    (directory / "deep" / "number").write_text(f"{text.split().count(word)}\n")
    Path(where, f"ran-{os.getpid()}-{time.monotonic_ns()}").touch()


def _declare(build: Build, tmp_path: Path, *, large: bytes = b"a b a\n") -> Any:
    (tmp_path / "source").mkdir(exist_ok=True)
    (tmp_path / "source" / "in.txt").write_bytes(large)
    source = build.source(tmp_path / "source")
    upper = build.step(
        ["sh", "-c", "cat folder/in.txt > out; echo $MORE >> out"],
        inputs={"folder": source},
        env={"MORE": "a"},
        outputs=["out"],
        name="cat",
    )
    params = {"where": str(tmp_path), "word": "a"}
    return build.step(
        _count,
        params=params,
        inputs={"text": upper / "out"},
        outputs=["deep/number"],
        name="count",
    )


def _outcomes(build: Build) -> list[str]:
    return [step.outcome for step in build.report.steps]


def _processes(tmp_path: Path) -> set[str]:
    return {path.name.split("-")[1] for path in tmp_path.glob("ran-*")}


def test_steps_run_on_workers_and_the_rest_is_as_ever(executor: Any, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    with Build(cache_to=cache, mode="max", executor=executor) as build:
        step = _declare(build, tmp_path)
        assert step.files()["deep/number"].read_text() == "3\n"
    assert _outcomes(build) == ["ran", "ran"]
    here = str(os.getpid())
    assert (_processes(tmp_path) == {here}) == isinstance(executor, ThreadPoolExecutor)
    assert cachefs.open(cache).verify(read_data=1.0).faults == []
    for options in ({}, {"executor": executor}):  # keys do not depend on where a step runs
        with Build(cache_to=cache, mode="max", **options) as build:
            _declare(build, tmp_path)
        assert "ran" not in _outcomes(build)


def test_early_cutoff_needs_no_download(executor: Any, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    with Build(cache_to=cache, mode="max", executor=executor) as build:
        _declare(build, tmp_path, large=b"a b\n")
    with Build(cache_to=cache, mode="max", executor=executor) as build:
        source = build.source(b"a b\n")
        other = build.step(
            ["sh", "-c", "cat in > out; echo a >> out; echo new > extra"],
            inputs={"in": source},
            outputs=["out", "extra"],
        )
        params = {"where": str(tmp_path), "word": "a"}
        build.step(_count, params=params, inputs={"text": other / "out"}, outputs=["deep/number"])
    assert _outcomes(build) == ["ran", "hit"]
    assert [step.fetched for step in build.report.steps] == [0, 0]


def test_a_failure_says_what_it_says_here(executor: Any, tmp_path: Path) -> None:
    for action, match in (
        (["sh", "-c", "echo because >&2; exit 3"], r"step 'bad' failed with status 3; .*: because"),
        (["sh", "-c", "kill -9 $$"], "was killed by signal 9"),
        (["true"], "made no 'out', which is one of its outputs"),
        (["no-such-command-here"], "cannot run"),
    ):
        with (
            pytest.raises(StepError, match=match) as caught,
            Build(cache_to=str(tmp_path / "cache"), executor=executor) as build,
        ):
            build.step(action, outputs=["out"], name="bad")
        assert caught.value.step == "bad"
        assert caught.value.argv == tuple(action)


def test_large_sources_travel_through_the_cache(
    processes: Executor,
    moto_s3: S3Server,
    recording: Callable[[S3Server], RecordingProxy],
    tmp_path: Path,
) -> None:
    proxy = recording(moto_s3)
    cache = proxy.server.attributes(proxy.server.bucket())
    text = os.urandom(300_000).hex().encode()
    with Build(cache_to=cache, mode="max", executor=processes) as build:
        _declare(build, tmp_path, large=text)
    put = {one.path for one in proxy.requests if one.method == "PUT" and "/blobs/" in one.path}
    assert len(put) == 3  # the source, and a result for each step
    assert cachefs.open(cache).verify(read_data=1.0).faults == []
    assert [report.outcome for report in build.report.steps] == ["ran", "ran"]
    assert build.report.exports[0].uploaded.blobs == 0


def test_what_is_wrong_is_told(processes: Executor, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need cache_to, where workers write"):
        Build(executor=processes)
    build = Build(cache_to=str(tmp_path / "cache"), executor=object())
    with (
        pytest.raises(UsageError, match=r"is neither an executor of concurrent\.futures nor"),
        build,
    ):
        pass
    with (
        pytest.raises(StepError, match=r"cannot be sent to the executor: .*top of a module"),
        Build(cache_to=str(tmp_path / "cache"), executor=processes) as build,
    ):
        build.step(lambda directory: (directory / "out").touch(), outputs=["out"])


def test_a_result_that_workers_cannot_read_is_made_again(
    processes: Executor, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with Build(cache_to=str(cache), mode="max") as build:
        first = build.step(["sh", "-c", "echo one > out"], outputs=["out"], name="first")
    for blob in (cache / "blobs").iterdir():
        blob.write_bytes(b"damaged" + blob.read_bytes()[7:])
    with Build(cache_to=str(cache), mode="max", executor=processes) as build:
        first = build.step(["sh", "-c", "echo one > out"], outputs=["out"], name="first")
        second = build.step(
            ["sh", "-c", "cat in in > out"],
            inputs={"in": first / "out"},
            outputs=["out"],
            name="second",
        )
        build.obtain(second)
    assert _outcomes(build) == ["ran", "ran"]


def _die_once(directory: Path, *, where: str) -> None:
    """Kills its process in the middle of the step, unless it did so before."""
    (directory / "out").write_text("half")
    before = Path(where, "died")
    if not before.exists():
        before.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (directory / "out").write_text("whole")


def _always_die(directory: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_step_whose_worker_was_killed_runs_again_on_dask(
    dask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = str(tmp_path / "cache")
    with Build(cache_to=cache, executor=dask) as build:
        step = build.step(_die_once, params={"where": str(tmp_path)}, outputs=["out"], name="die")
        assert step.files()["out"].read_text() == "whole"
    assert _outcomes(build) == ["ran"]
    assert "step 'die' lost its worker; it was sent again" in caplog.text
    assert cachefs.open(cache).verify(read_data=1.0).faults == []


def test_a_step_whose_worker_was_killed_runs_here_if_the_pool_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        process_pool(1) as pool,
        Build(cache_to=str(tmp_path / "cache"), executor=pool) as build,
    ):
        first = build.step(["sh", "-c", "echo 1 > out"], outputs=["out"], name="first")
        step = build.step(
            _die_once,
            params={"where": str(tmp_path)},
            inputs={"first": first},
            outputs=["out"],
            name="die",
        )
        assert step.files()["out"].read_text() == "whole"
    assert _outcomes(build) == ["ran", "ran"]
    assert "step 'die' lost its worker; it is sent again" in caplog.text
    assert "the executor was lost, so steps run in this process" in caplog.text


@pytest.mark.slow
def test_a_step_that_kills_every_worker_fails(dask: Any, tmp_path: Path) -> None:
    with (
        pytest.raises(StepError, match="step 'die' lost its worker each time"),
        Build(cache_to=str(tmp_path / "cache"), executor=dask) as build,
    ):
        build.step(_always_die, outputs=["out"], name="die")
