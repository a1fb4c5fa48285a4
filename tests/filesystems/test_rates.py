"""Rates: what may pass by a clock of the test's own, and that every byte is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachefs
from cachefs.filesystems.rates import Rate, Rates, shared_rates
from tests.servers.s3 import S3Server
from tests.whole.test_lean_requests import blobs_of, export


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 3)), max_size=30), st.integers(1, 10_000)
)
def test_no_more_passes_than_the_rate_allows(
    taken: list[tuple[int, float]], per_second: int
) -> None:
    clock = Clock()
    rate = Rate(per_second, clock, clock.sleep)
    passed = last = 0

    async def work() -> None:
        nonlocal passed, last
        for count, pause in taken:
            clock.now += pause
            await rate.take(count)
            passed, last = passed + count, count
            assert passed - last <= clock.now * per_second + 1e-6 * (1 + passed)

    asyncio.run(work())


def test_the_first_bytes_do_not_wait_and_later_ones_do() -> None:
    clock = Clock()
    rate = Rate(100, clock, clock.sleep)

    async def work() -> list[float]:
        found = []
        for count in (50, 200, 1):
            await rate.take(count)
            found.append(clock.now)
        clock.now += 100
        await rate.take(1)  # what was not used is not saved up
        await rate.take(1)
        return [*found, clock.now]

    assert asyncio.run(work()) == pytest.approx([0, 0.5, 2.5, 102.51])


def test_all_that_a_process_opens_with_one_location_share_it() -> None:
    one, other = (cachefs.open("memory://rates/a/", upload_rate="1MiB") for _ in range(2))
    rates = one.layout.store.filesystem.rates
    assert rates.up is not None
    assert rates.up is other.layout.store.filesystem.rates.up
    assert rates.down is None
    assert shared_rates("a", 1024, 1024).up is not shared_rates("a", 1024, 1024).down


class Counting(Rate):
    def __init__(self) -> None:
        super().__init__(1)
        self.bytes = 0

    async def take(self, count: int) -> None:
        self.bytes += count


@pytest.mark.parametrize("kind", ["memory", "local", "s3fs", "obstore"])
def test_every_byte_is_counted(kind: str, tmp_path: Path, moto_s3: S3Server) -> None:
    places = {"memory": "memory://rates/counted/", "local": str(tmp_path / "cache")}
    location = places.get(kind) or moto_s3.attributes(moto_s3.bucket(), engine=kind)
    cache = cachefs.open(location)
    up, down = Counting(), Counting()
    cache.layout.store.filesystem.rates = Rates(up, down)
    blobs = {**blobs_of(5), **blobs_of(1, size=3_000_000)}
    report = export(cache, blobs)
    (name,) = cache.names()
    assert report.uploaded.bytes == sum(map(len, blobs.values()))
    assert up.bytes == report.uploaded.bytes + name.size
    received = down.bytes
    cache.verify(read_data=1.0)
    assert down.bytes - received == report.uploaded.bytes + name.size


@pytest.mark.parametrize("value", ["", "fast", "-1", "10", True, 3.5, "10 MB/s"])
def test_what_is_no_rate_is_an_error(value: object) -> None:
    with pytest.raises(cachefs.LocationError, match="upload_rate"):
        cachefs.open("memory://rates/x/", upload_rate=value)  # type: ignore[arg-type]  # on purpose


def test_rates_are_in_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEFS_DOWNLOAD_RATE", "2MiB")
    assert cachefs.open("memory://rates/y/").location.download_rate == 2 * 1024 * 1024
