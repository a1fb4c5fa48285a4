"""Work on other processes: the same results as here, and a lost worker's part is repeated."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from msgspec.structs import replace

import cachefs
from cachefs.concurrency import run
from cachefs.transfer.lookup import list_blobs
from cachefs.transfer.workers import Workers, list_spread, spread
from tests.damaging import MakePlace, damage_some
from tests.servers.workers import dask_client, process_pool


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with process_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    with dask_client(tmp_path_factory.mktemp("dask")) as client:
        yield client.get_executor()


@pytest.fixture(params=["threads", "processes", "dask"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        yield request.getfixturevalue(request.param)


@pytest.mark.parametrize("kind", ["keyed", "oci", "s3"])
def test_verify_finds_the_same(make_place: MakePlace, executor: Executor, kind: str) -> None:
    place = make_place(kind)
    damage_some(place, 1)
    here = place.cache.verify(read_data=1.0)
    there = place.cache.verify(read_data=1.0, executor=executor)
    assert here.faults
    assert replace(there, seconds=0.0) == replace(here, seconds=0.0)


@pytest.mark.parametrize("kind", ["keyed", "s3"])
def test_a_listing_is_the_same(make_place: MakePlace, executor: Executor, kind: str) -> None:
    cache = make_place(kind).cache
    found = run(list_spread(Workers(executor, cache.spec)))
    assert found == run(list_blobs(cache.layout))
    assert list(found) == sorted(found)


@pytest.mark.parametrize("kind", ["keyed", "s3"])
def test_a_prune_plans_the_same(make_place: MakePlace, executor: Executor, kind: str) -> None:
    cache = make_place(kind).cache
    name = next(name.name for name in cache.names())
    policy = cachefs.PrunePolicy(keep_last={"*": 0}, keep=(name,))
    here = cache.plan_prune(policy, grace=0.0)
    there = cache.plan_prune(policy, grace=0.0, executor=executor)
    assert here.frees.blobs
    assert [blob.digest for blob in there.delete] == [blob.digest for blob in here.delete]
    assert [gone.manifest for gone in there.remove] == [gone.manifest for gone in here.remove]


@pytest.mark.parametrize("kind", ["keyed", "s3"])
def test_copy_brings_the_same(
    make_place: MakePlace, executor: Executor, tmp_path: Path, kind: str
) -> None:
    place = make_place(kind)
    plain = cachefs.copy(place.cache, cachefs.open(tmp_path / "plain"))
    target = cachefs.open(tmp_path / "target")
    report = cachefs.copy(place.cache, target, executor=executor)
    assert replace(report, seconds=0.0) == replace(plain, seconds=0.0)
    assert target.verify(read_data=1.0).faults == []
    again = cachefs.copy(place.cache, target, executor=executor)
    assert (again.uploaded.blobs, again.kept) == (0, plain.uploaded)


def test_copy_refuses_what_is_damaged(
    make_place: MakePlace, executor: Executor, tmp_path: Path
) -> None:
    place = make_place("keyed")
    needs = place.needs()
    lost = next(iter(needs["app"]))
    del place.objects[place.blob_key(lost)]
    target = cachefs.open(tmp_path / "target")
    with pytest.raises(cachefs.CopyError):
        cachefs.copy(place.cache, target, executor=executor)
    assert {name.name for name in target.names()} == {n for n in needs if lost not in needs[n]}
    assert target.verify(read_data=1.0).faults == []


# --- workers that are lost -----------------------------------------------------------------------


def die_once(marker: str, number: int) -> tuple[int, int]:
    """Kills its process on the third task, the first time."""
    if number == 3:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    tasks = [(str(marker), number) for number in range(20)]
    with process_pool() as pool:
        done = run(spread(pool, die_once, tasks))
        with pytest.raises(BrokenProcessPool):
            pool.submit(os.getpid)
    assert marker.exists()
    assert [number for number, _ in done] == list(range(20))
    assert done[3][1] == os.getpid()


def test_a_killed_dask_worker_loses_nothing(dask: Executor, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    done = run(spread(dask, die_once, [(str(marker), number) for number in range(20)]))
    assert marker.exists()
    assert [number for number, _ in done] == list(range(20))
    # Dask itself gave it to another worker.
    assert os.getpid() not in {process for _, process in done}


def fail(number: int) -> int:
    if number == 2:
        raise cachefs.StoreError("no space", operation="write", key="k")
    return number


def test_an_error_of_the_store_comes_out_as_it_is(executor: Executor) -> None:
    with pytest.raises(cachefs.StoreError, match=r"write k: no space"):
        run(spread(executor, fail, [(number,) for number in range(5)]))


def test_an_error_of_the_store_is_not_done_again(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(cachefs.StoreError):
        run(spread(executor, counted_failure, [(str(tmp_path),)]))
    assert len(list(tmp_path.iterdir())) == 1


def counted_failure(folder: str) -> None:
    Path(folder, f"call-{random.SystemRandom().getrandbits(64)}").touch()
    raise cachefs.StoreError("no space")


def sleep_for_ever(marker: str) -> None:
    Path(marker).touch()
    asyncio.run(asyncio.sleep(0.2))


def test_cancelled_work_is_not_done_again_here(tmp_path: Path) -> None:
    async def cancelled(pool: Executor) -> None:
        work = asyncio.ensure_future(
            spread(pool, sleep_for_ever, [(str(tmp_path / str(n)),) for n in range(50)])
        )
        await asyncio.sleep(0.1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    with ThreadPoolExecutor(1) as pool:
        run(cancelled(pool))
    assert len(list(tmp_path.iterdir())) < 5
