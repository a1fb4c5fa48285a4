"""Work in fsspec's IO loop: bounds, first errors, and synchronous callers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefs.concurrency import (
    BatchError,
    Interruption,
    closing,
    collected,
    for_each,
    map_concurrently,
    run,
    task_group,
)
from cachefs.errors import IntegrityError, UsageError


@given(st.lists(st.integers()), st.integers(1, 9))
def test_each_item_is_done_once_and_never_too_many_at_a_time(
    items: list[int], parallelism: int
) -> None:
    done: list[int] = []
    under_way: list[int] = []
    most = [0]

    async def work(item: int) -> None:
        under_way.append(item)
        most.append(len(under_way))
        await asyncio.sleep(0)
        under_way.remove(item)
        done.append(item)

    run(for_each(items, work, parallelism))
    assert sorted(done) == sorted(items)
    assert max(most) == min(parallelism, len(items))


def test_the_first_error_comes_out_as_itself_and_ends_the_others() -> None:
    ended: list[int] = []
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        try:
            if item == 2:
                raise IntegrityError("item 2")
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    with pytest.raises(IntegrityError, match="item 2"):
        run(for_each(range(100), work, 4))
    assert sorted(ended) == sorted(begun)
    assert len(begun) <= 4


def test_groups_within_groups_give_the_error_itself() -> None:
    async def fail() -> None:
        async with task_group() as inner:
            inner.create_task(asyncio.sleep(60))
            raise IntegrityError("deep inside")

    async def work() -> None:
        async with task_group() as outer:
            outer.create_task(fail())
            outer.create_task(asyncio.sleep(60))

    with pytest.raises(IntegrityError, match="deep inside"):
        run(work())


def test_results_come_in_order_and_an_error_has_its_index() -> None:
    async def work(item: int) -> int:
        await asyncio.sleep(0.001 * (item % 3))
        if item == 7:
            raise IntegrityError("item 7")
        return item * 2

    assert run(map_concurrently(range(7), work, 3)) == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(BatchError) as raised:
        run(map_concurrently(range(5, 9), work, 3))
    assert raised.value.index == 2
    assert isinstance(raised.value.error, IntegrityError)
    assert run(collected(range(7), work, 3)) == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(IntegrityError, match="item 7"):
        run(collected(range(5, 9), work, 3))


class Countdown:
    """An iterator without ``aclose``, which contextlib's aclosing does not take."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        if self.left == 0:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


def test_iterators_are_closed_if_they_can_be() -> None:
    closed: list[bool] = []

    async def generated() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def work() -> None:
        async with closing(generated()) as items:
            async for _ in items:
                break
        assert closed == [True]
        async with closing(Countdown(3)) as items:
            assert [item async for item in items] == [2, 1, 0]

    run(work())


def test_many_threads_wait_for_the_one_loop() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.001 * (number % 3))
        return number

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda number: run(work(number)), range(200))) == list(range(200))


def test_waiting_for_the_loop_inside_the_loop_is_refused() -> None:
    async def inner() -> None:
        raise AssertionError("never begun")

    async def outer() -> None:
        run(inner())

    with pytest.raises(UsageError, match="IO loop"):
        run(outer())


def test_another_loop_may_wait_in_a_thread() -> None:
    async def work() -> str:
        return "done"

    async def elsewhere() -> str:
        return await asyncio.to_thread(lambda: run(work()))

    assert asyncio.run(elsewhere()) == "done"


_INTERRUPTED = """
import asyncio
from cachefs.concurrency import run

async def work():
    try:
        print("begun", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleaned up", flush=True)

try:
    run(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_cleans_up_before_it_comes_out() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert output.read() == "cleaned up\ninterrupted\n"
    assert process.wait(timeout=30) == 0


def test_a_signal_that_another_thread_received_interrupts_the_wait() -> None:
    """As one that arrives just before the main thread begins to wait."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def later() -> None:
        begun.wait()
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    begun = threading.Event()
    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=later)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run(for_ever())
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_another_thread_is_interrupted_whether_its_work_has_begun_or_not() -> None:
    cleaned: list[str] = []

    async def for_ever(name: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(name)

    def work() -> None:
        interruption.begin()
        for name in ("first", "second"):
            try:
                run(for_ever(name))
            except CancelledError:
                ended.append(name)

    begun, interruption, ended = threading.Event(), Interruption(), list[str]()
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    interruption.interrupt()
    thread.join()
    assert ended == ["first", "second"]
    assert cleaned == ["first"]
